//! Tests what arrives at each provider, and that only the device can read it.

use tern_local::push::tag;
use tern_proto::v1::{Notification, NotificationReason, PushClass};
use tern_tests::World;
use tern_types::ChatId;

use crate::scene::{CLAIM_S, PUSH, Scene};
use crate::services::{Arrived, SERVICES, Service, Services};

#[tokio::test]
async fn a_device_without_a_stream_gets_one_alert_that_only_it_can_read() {
    let scene = Scene::start().await;
    let alice = scene.world.user("Alice Adams").await;
    let hers = scene.world.phone(&alice).await;
    for service in SERVICES {
        let bob = scene.world.user("Bob Brown").await;
        let his = scene.away(&bob, service).await;
        let sent = hers.say(bob.id, "dinner at eight").await;
        let chat: ChatId = sent.chat_id.parse().unwrap();
        let expected = Notification {
            chat_id: sent.chat_id.clone(),
            group: false,
            chat_title: String::new(),
            sender_user_id: alice.id.to_string(),
            sender_name: "Alice Adams".to_owned(),
            seq: sent.seq,
            reason: NotificationReason::Message.into(),
            sent_at_ms: sent.sent_at_ms,
        };
        let (push, says) = scene.alert(&his, 1).await;
        assert_eq!(says, expected);
        assert_eq!((push.badge, &*push.tag), (1, &*tag(his.device.id, chat)));
        looks_right(&push, service);
        // No other push comes.
        scene.decided(&his, chat).await;
        assert_eq!(scene.taken(&his).len(), 1);

        let readable = scene.services.readable();
        let secrets = [
            "dinner at eight".to_owned(),
            "Alice".to_owned(),
            "Bob".to_owned(),
            sent.chat_id,
            alice.id.to_string(),
            bob.id.to_string(),
            his.device.id.to_string(),
        ];
        for secret in secrets {
            assert!(!readable.contains(&secret), "{secret:?} is in {readable}");
        }
        assert!(readable.contains(&his.address.name), "the search works");
    }
    scene.end().await;
}

/// Checks what a provider and an app need to find in an alert.
fn looks_right(push: &Arrived, service: Service) {
    let payload = &push.received.payload;
    match service {
        Service::Apns => {
            assert_eq!(push.header("apns-push-type"), "alert");
            assert_eq!(push.header("apns-priority"), "10");
            assert_eq!(push.header("apns-collapse-id"), push.tag);
            assert_eq!(payload["aps"]["mutable-content"], 1);
            assert_eq!(payload["aps"]["sound"], "default");
            assert_eq!(payload["aps"]["thread-id"], *push.tag);
        }
        Service::Fcm => {
            assert_eq!(payload["android"]["priority"], "HIGH");
            assert!(
                payload.get("notification").is_none(),
                "the app shows it: {payload}"
            );
        }
        Service::WebPush => {
            assert_eq!(push.header("topic"), push.tag);
            assert_eq!(push.header("urgency"), "high");
        }
    }
}

#[tokio::test]
async fn later_messages_change_only_the_badge_until_the_device_has_connected() {
    let scene = Scene::start().await;
    let [alice, bob, carol] = scene.world.users(["alice", "bob", "carol"]).await;
    let (hers, carols) = (scene.world.phone(&alice).await, scene.world.phone(&carol).await);
    let his = scene.away(&bob, Service::Apns).await;
    let first = hers.say(bob.id, "one").await;
    let chat: ChatId = first.chat_id.parse().unwrap();
    let (one, _) = scene.alert(&his, 1).await;
    assert_eq!(one.badge, 1);
    // It is another chat, so it is announced too.
    carols.say(bob.id, "hello").await;
    let (two, says) = scene.alert(&his, 2).await;
    assert_eq!((two.badge, &*says.sender_name), (2, "carol"));
    assert_ne!(two.tag, one.tag);

    scene.a_minute_later(&his, chat).await;
    hers.say(chat, "two").await;
    let third = scene.pushes(&his, 3).await.remove(2);
    assert_eq!((third.class, third.badge), (PushClass::Badge, 2));
    assert_eq!((&*third.tag, third.sealed), (&*one.tag, None));

    // Once it has connected, the next message is announced again.
    let phone = scene.world.phone_of(&his.device).await;
    phone.has_text(chat, "two").await;
    hers.receipt(chat, bob.id, first.seq + 1, 0).await;
    phone.disconnect().await;
    drop(phone);
    let last = hers.say(chat, "three").await;
    let (again, says) = scene.alert(&his, 4).await;
    assert_eq!((says.seq, &*again.tag), (last.seq, &*one.tag));
    scene.end().await;
}

/// A push that comes within a minute after another one of the same chat waits for the minute to end.
#[tokio::test]
async fn a_chat_wakes_a_device_at_most_once_a_minute() {
    let scene = Scene::start().await;
    let [alice, bob] = scene.world.users(["alice", "bob"]).await;
    let hers = scene.world.phone(&alice).await;
    let his = scene.away(&bob, Service::Fcm).await;
    let chat: ChatId = hers.say(bob.id, "one").await.chat_id.parse().unwrap();
    scene.alert(&his, 1).await;
    scene.decided(&his, chat).await;
    hers.say(chat, "two").await;
    let waits = "the next push waits for longer than a claim lasts";
    scene
        .until_due(&his, chat, waits, |due| {
            due.in_s.is_some_and(|in_s| in_s > CLAIM_S)
        })
        .await;
    assert_eq!(scene.taken(&his).len(), 1);
    scene.end().await;
}

#[tokio::test]
async fn an_iphone_shows_who_wrote_only_where_the_operator_wants_it() {
    for templates in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let services = Services::start(dir.path()).await;
        let text = std::fs::read_to_string(services.apps_file()).unwrap();
        let mut settings: serde_json::Value = serde_json::from_str(&text).unwrap();
        settings["templates"] = templates.into();
        // It is beside the keys that it names.
        let file = services.apps_file().with_file_name("templates.json");
        std::fs::write(&file, settings.to_string()).unwrap();
        let world = World::with(|builder| {
            let file = file.to_string_lossy();
            services.of(builder).node_env(PUSH, "TERN_PUSH_APPS", &file)
        })
        .await;
        let scene = Scene::of(world, services, dir).await;
        let [alice, bob] = scene.world.users(["Alice Adams", "Bob Brown"]).await;
        let hers = scene.world.phone(&alice).await;
        let group = scene.world.group(&[&alice, &bob]).await;
        scene.world.settled().await;
        let his = scene.away(&bob, Service::Apns).await;
        let body = |push: &Arrived| push.received.payload["aps"]["alert"]["body"].clone();

        hers.say(bob.id, "dinner at eight").await;
        let (direct, _) = scene.alert(&his, 1).await;
        hers.say(group, "dinner for all").await;
        let (in_group, says) = scene.alert(&his, 2).await;
        let expected = if templates {
            ["Alice Adams", "Alice Adams in a group"]
        } else {
            ["New message", "New message"]
        };
        assert_eq!([body(&direct), body(&in_group)], expected);
        // The sealed notification is the same with both settings, and no text of a message is in clear.
        assert_eq!(
            (&*says.sender_name, &*says.chat_title),
            ("Alice Adams", "a group")
        );
        assert!(!scene.services.readable().contains("dinner"));
        scene.end().await;
    }
}
