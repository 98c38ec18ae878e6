//! Tests of providers that are busy, away or slow.

use std::time::Duration;

use tern_local::push::Answer;
use tern_local::until;
use tern_tests::world::BOUND;
use tern_types::ChatId;

use crate::scene::{CLAIM_S, Scene};
use crate::services::{Service, too_many};

#[tokio::test]
async fn a_provider_that_names_a_time_is_given_it() {
    const WAIT: Duration = Duration::from_secs(3);
    let scene = Scene::start().await;
    let [alice, bob] = scene.world.users(["alice", "bob"]).await;
    let hers = scene.world.phone(&alice).await;
    let his = scene.away(&bob, Service::Apns).await;
    scene.services.answer(&his.address, too_many(WAIT));
    hers.say(bob.id, "hello").await;
    scene.refusals(&his, 1).await;
    scene.services.answer(&his.address, Answer::Ok);
    let (push, _) = scene.alert(&his, 1).await;
    let refused = scene.services.refused(&his.address);
    let last = refused.last().unwrap();
    assert!(push.at.duration_since(last.at) >= WAIT);
    scene.end().await;
}

#[tokio::test]
async fn a_push_that_a_provider_cannot_take_now_is_tried_again_until_it_is_taken_once() {
    let scene = Scene::start().await;
    let alice = scene.world.user("alice").await;
    let hers = scene.world.phone(&alice).await;
    for (service, answer) in [
        (Service::Apns, Answer::status(503, "ServiceUnavailable")),
        (Service::Fcm, Answer::status(503, "UNAVAILABLE")),
        (Service::WebPush, Answer::status(502, "Bad Gateway")),
        (Service::Apns, Answer::Reset),
        (Service::Fcm, Answer::Cut),
    ] {
        let what = format!("{service:?}, {answer:?}");
        let bob = scene.world.user("bob").await;
        let his = scene.away(&bob, service).await;
        scene.services.answer(&his.address, answer);
        let chat: ChatId = hers.say(bob.id, "hello").await.chat_id.parse().unwrap();
        scene.refusals(&his, 2).await;
        assert_eq!(scene.tokens(&his).await.unwrap(), 1, "{what}: the token stays");
        scene.services.answer(&his.address, Answer::Ok);
        scene.alert(&his, 1).await;
        scene.decided(&his, chat).await;
        assert_eq!(scene.taken(&his).len(), 1, "{what}: once");
    }
    scene.end().await;
}

#[tokio::test]
async fn a_connection_is_kept_until_the_provider_ends_it() {
    let scene = Scene::start().await;
    let alice = scene.world.user("alice").await;
    let hers = scene.world.phone(&alice).await;
    let before = scene.services.connections(Service::Apns);
    for round in 0..3 {
        for answer in [Answer::Ok, Answer::Ok, Answer::GoAway] {
            let bob = scene.world.user("bob").await;
            let his = scene.away(&bob, Service::Apns).await;
            scene.services.answer(&his.address, answer);
            let chat: ChatId = hers.say(bob.id, "hello").await.chat_id.parse().unwrap();
            scene.alert(&his, 1).await;
            scene.decided(&his, chat).await;
            assert_eq!(scene.taken(&his).len(), 1, "round {round}");
        }
    }
    let made = scene.services.connections(Service::Apns) - before;
    assert!((1..=5).contains(&made), "{made} connections for nine pushes");
    scene.end().await;
}

#[tokio::test]
async fn a_provider_that_does_not_answer_holds_up_no_other() {
    const NEVER: Duration = Duration::from_secs(3_600);
    /// The number of pushes to a service that hangs. An attempt is given up after 10 s, so these attempts one after the
    /// other would take longer than a test waits.
    const STUCK: usize = 12;
    let scene = Scene::start().await;
    let [alice, carol] = scene.world.users(["alice", "carol"]).await;
    let hers = scene.world.phone(&alice).await;
    let mut stuck = Vec::new();
    for _ in 0..STUCK {
        let bob = scene.world.user("bob").await;
        let his = scene.away(&bob, Service::Apns).await;
        scene.services.answer(&his.address, Answer::Slow(NEVER));
        stuck.push(his);
    }
    let carols = scene.away(&carol, Service::Fcm).await;
    for his in &stuck {
        hers.say(his.device.user, "hello").await;
    }
    let arrived = || async { Ok(stuck.iter().all(|his| !scene.taken(his).is_empty())) };
    until::holds("the provider has them all", BOUND, arrived)
        .await
        .unwrap();
    hers.say(carol.id, "hello").await;
    scene.alert(&carols, 1).await;
    scene.end().await;
}

#[tokio::test]
async fn what_no_key_is_set_up_for_ends_and_is_not_tried_again() {
    let scene = Scene::start().await;
    let [alice, bob] = scene.world.users(["alice", "bob"]).await;
    let hers = scene.world.phone(&alice).await;
    let mut his = scene.away(&bob, Service::Fcm).await;
    let other = tern_proto::v1::FcmToken {
        token: his.address.name.clone(),
        app: "com.example.another".to_owned(),
    };
    his.address.provider = tern_proto::v1::push_token::Provider::Fcm(other);
    scene.register(&his).await.unwrap();
    let chat: ChatId = hers.say(bob.id, "hello").await.chat_id.parse().unwrap();
    scene
        .until_due(&his, chat, "it is decided", |due| {
            due.in_s.is_none_or(|in_s| in_s > CLAIM_S)
        })
        .await;
    assert_eq!(scene.taken(&his).len(), 0);
    assert!(scene.services.refused(&his.address).is_empty());
    scene.end().await;
}
