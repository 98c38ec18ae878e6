//! Tests that entries which were acknowledged or read are not announced, or are withdrawn, and that a device that
//! somebody uses is not woken.

use tern_proto::v1::client_item::Item;
use tern_proto::v1::server_event::Event;
use tern_proto::v1::{self, PushClass};
use tern_tests::{Phone, Wire};
use tern_types::ChatId;

use crate::scene::{Away, PUSH, Scene};
use crate::services::Service;

#[tokio::test]
async fn what_a_device_has_acknowledged_is_not_announced() {
    let scene = Scene::start().await;
    let [alice, bob] = scene.world.users(["alice", "bob"]).await;
    let hers = scene.world.phone(&alice).await;
    let his = scene.away(&bob, Service::Apns).await;
    let phone = scene.world.phone_of(&his.device).await;
    let chat = ChatId::direct(alice.id, bob.id);
    for number in 0..20 {
        let sent = hers.say(bob.id, format!("message {number}")).await;
        hers.receipt(chat, bob.id, sent.seq, 0).await;
    }
    // Every message is settled, and nothing waits for the device.
    scene.world.settled().await;
    assert_eq!(scene.due(&his, chat).await.unwrap(), None);
    phone.disconnect().await;
    let last = hers.say(bob.id, "the first that he lacks").await;
    let (_, says) = scene.alert(&his, 1).await;
    assert_eq!(says.seq, last.seq);
    scene.end().await;
}

/// Two devices of Bob: a laptop with a stream, and a phone without one.
struct Desk {
    hers: Phone,
    laptop: Phone,
    his: Away,
}

impl Desk {
    async fn begin(scene: &Scene, service: Service) -> Self {
        let [alice, bob] = scene.world.users(["alice", "bob"]).await;
        let hers = scene.world.phone(&alice).await;
        // The laptop is linked first, so that the phone is not told of it.
        let laptop = scene.world.phone(&bob).await;
        let his = scene.away(&bob, service).await;
        Self { hers, laptop, his }
    }
}

#[tokio::test]
async fn what_was_read_on_the_laptop_is_not_announced_on_the_phone() {
    let mut scene = Scene::start().await;
    let Desk { hers, laptop, his } = Desk::begin(&scene, Service::Apns).await;
    // No push node is there while he reads, so he has always read before a worker looks.
    scene.world.platform.kill(PUSH).await.unwrap();
    let sent = hers.say(his.device.user, "look at your laptop").await;
    let chat: ChatId = sent.chat_id.parse().unwrap();
    laptop.has(chat, sent.seq).await;
    laptop.read(chat, sent.seq).await;
    hers.receipt(chat, his.device.user, sent.seq, sent.seq).await;
    scene.world.settled().await;
    scene.world.platform.restart(PUSH).await.unwrap();
    scene.decided(&his, chat).await;
    assert_eq!(scene.taken(&his).len(), 0);
    // The next message is announced.
    scene.a_minute_later(&his, chat).await;
    let next = hers.say(chat, "and now?").await;
    let (_, says) = scene.alert(&his, 1).await;
    assert_eq!(says.seq, next.seq);
    scene.end().await;
}

#[tokio::test]
async fn what_is_read_later_is_withdrawn() {
    let scene = Scene::start().await;
    for service in [Service::Apns, Service::Fcm, Service::WebPush] {
        let Desk { hers, laptop, his } = Desk::begin(&scene, service).await;
        let sent = hers.say(his.device.user, "look at your phone").await;
        let chat: ChatId = sent.chat_id.parse().unwrap();
        let (alert, _) = scene.alert(&his, 1).await;
        assert_eq!(alert.badge, 1);
        scene.decided(&his, chat).await;
        laptop.has(chat, sent.seq).await;
        laptop.read(chat, sent.seq).await;
        let withdrawn = scene.pushes(&his, 2).await.remove(1);
        assert_eq!((withdrawn.class, withdrawn.badge), (PushClass::Withdraw, 0));
        assert_eq!(withdrawn.tag, alert.tag);
        assert_eq!((withdrawn.sealed, withdrawn.notification), (None, None));
        scene.decided(&his, chat).await;
        assert_eq!(scene.taken(&his).len(), 2, "it is withdrawn once");
    }
    scene.end().await;
}

#[tokio::test]
async fn a_device_that_somebody_uses_is_not_woken() {
    let scene = Scene::start().await;
    let [alice, bob] = scene.world.users(["alice", "bob"]).await;
    let hers = scene.world.phone(&alice).await;
    let his = scene.away(&bob, Service::Apns).await;
    let phone = scene.world.phone_of(&his.device).await;
    phone.acknowledge(false).await;
    let sent = hers.say(bob.id, "he looks at it already").await;
    let chat: ChatId = sent.chat_id.parse().unwrap();
    phone.has(chat, sent.seq).await;
    // The first look waits for 5 s, and a claim lasts for 30 s. A wait between the two is that of a second look.
    let again = "a second look has put the push off";
    scene
        .until_due(&his, chat, again, |due| {
            due.waits_s.is_some_and(|waits| (7.0..28.0).contains(&waits))
        })
        .await;
    assert_eq!(scene.taken(&his).len(), 0);
    phone.acknowledge(true).await;
    hers.receipt(chat, bob.id, sent.seq, 0).await;
    phone.disconnect().await;
    hers.say(bob.id, "he lacks this one").await;
    scene.alert(&his, 1).await;
    assert_eq!(scene.taken(&his).len(), 1);
    scene.end().await;
}

#[tokio::test]
async fn a_stream_that_nobody_uses_and_that_says_nothing_is_not_waited_for() {
    let scene = Scene::start().await;
    let [alice, bob] = scene.world.users(["alice", "bob"]).await;
    let hers = scene.world.phone(&alice).await;
    let his = scene.away(&bob, Service::Apns).await;
    let mut silent = Wire::silent(scene.world.new_channel(0)).await.unwrap();
    let open = v1::Open {
        access_token: his.device.access_token.clone(),
        client_version: "tern-tests/1".to_owned(),
        active: false,
    };
    silent.say(Item::Open(open)).await;
    silent
        .until(|event| matches!(event, Event::CaughtUp(_)).then_some(()))
        .await;
    let sent = hers.say(bob.id, "are you there?").await;
    silent
        .until(|event| match event {
            Event::Entry(entry) => (entry.seq == sent.seq).then_some(()),
            _ => None,
        })
        .await;
    let (_, says) = scene.alert(&his, 1).await;
    assert_eq!(says.seq, sent.seq);
    drop(silent);
    scene.end().await;
}
