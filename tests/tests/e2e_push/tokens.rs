//! Tests that tokens end when their providers say so, and move from one device to another.

use tern_local::push::Answer;
use tern_local::until;
use tern_proto::v1;
use tern_tests::world::BOUND;
use tern_types::{ChatId, Clock, Timestamp};

use crate::scene::{Away, Scene};
use crate::services::{Service, unregistered};

const AN_HOUR_MS: i64 = 3_600_000;

#[tokio::test]
async fn a_token_ends_when_its_provider_says_so() {
    let scene = Scene::start().await;
    let alice = scene.world.user("alice").await;
    let hers = scene.world.phone(&alice).await;
    let later = Timestamp(Clock::wall().0 + AN_HOUR_MS);
    for (service, answer) in [
        (Service::Apns, unregistered(later)),
        (Service::Apns, Answer::status(400, "BadDeviceToken")),
        (Service::Fcm, Answer::status(404, "UNREGISTERED")),
        (Service::WebPush, Answer::status(410, "Gone")),
        (Service::WebPush, Answer::status(404, "Not Found")),
    ] {
        let what = format!("{service:?}, {answer:?}");
        let bob = scene.world.user("bob").await;
        let his = scene.away(&bob, service).await;
        scene.services.answer(&his.address, answer);
        let chat: ChatId = hers.say(bob.id, "hello").await.chat_id.parse().unwrap();
        scene.token_ends(&his, &what).await;
        scene.decided(&his, chat).await;
        assert_eq!(scene.services.refused(&his.address).len(), 1, "{what}: once");
        // The device has got a new one.
        let again = Away {
            address: scene.services.address(service),
            ..his
        };
        scene.register(&again).await.unwrap();
        scene.a_minute_later(&again, chat).await;
        hers.say(bob.id, "hello again").await;
        scene.alert(&again, 1).await;
    }
    scene.end().await;
}

/// A provider may speak of an earlier life of the same token: the app was deleted, and installed again.
#[tokio::test]
async fn a_token_outlives_what_its_provider_says_of_the_time_before_it() {
    let scene = Scene::start().await;
    let [alice, bob] = scene.world.users(["alice", "bob"]).await;
    let hers = scene.world.phone(&alice).await;
    let his = scene.away(&bob, Service::Apns).await;
    let before = Timestamp(Clock::wall().0 - AN_HOUR_MS);
    scene.services.answer(&his.address, unregistered(before));
    let chat: ChatId = hers.say(bob.id, "hello").await.chat_id.parse().unwrap();
    scene.refusals(&his, 1).await;
    // The claim of the push has ended, so what became of it is written.
    scene
        .until_due(&his, chat, "it is decided", |due| {
            due.in_s.is_none() || due.tries > 0
        })
        .await;
    assert_eq!(scene.tokens(&his).await.unwrap(), 1);
    // The next push reaches the device.
    scene.services.answer(&his.address, Answer::Ok);
    let carols = scene.world.phone(&scene.world.user("carol").await).await;
    carols.say(bob.id, "hello").await;
    let reached = || async { Ok(!scene.taken(&his).is_empty()) };
    until::holds("a push reaches the device", BOUND, reached)
        .await
        .unwrap();
    scene.end().await;
}

#[tokio::test]
async fn a_token_belongs_to_the_device_that_named_it_last() {
    let scene = Scene::start().await;
    let [alice, bob, carol] = scene.world.users(["alice", "bob", "carol"]).await;
    let hers = scene.world.phone(&alice).await;
    for service in [Service::Apns, Service::Fcm, Service::WebPush] {
        let his = scene.away(&bob, service).await;
        // Carol has signed in on Bob's phone.
        let carols = Away {
            device: scene.world.device(&carol).await,
            ..his.clone()
        };
        scene.register(&carols).await.unwrap();
        assert_eq!(scene.tokens(&his).await.unwrap(), 0, "{service:?}");
        assert_eq!(scene.tokens(&carols).await.unwrap(), 1, "{service:?}");
        let for_bob: ChatId = hers.say(bob.id, "for bob").await.chat_id.parse().unwrap();
        scene.decided(&his, for_bob).await;
        assert_eq!(scene.taken(&his).len(), 0, "{service:?}");
        hers.say(carol.id, "for carol").await;
        let (_, says) = scene.alert(&carols, 1).await;
        assert_eq!(says.chat_id, ChatId::direct(alice.id, carol.id).to_string());
        // The next round begins anew.
        scene.world.revoke(&his.device).await;
        scene.world.revoke(&carols.device).await;
        scene.token_ends(&carols, "a revoked device has no token").await;
    }
    scene.end().await;
}

#[tokio::test]
async fn a_device_that_was_revoked_or_wants_no_pushes_gets_none() {
    let scene = Scene::start().await;
    let alice = scene.world.user("alice").await;
    let hers = scene.world.phone(&alice).await;
    let [bob, carol, dave] = scene.world.users(["bob", "carol", "dave"]).await;
    let revoked = scene.away(&bob, Service::Apns).await;
    let unwilling = scene.away(&carol, Service::Apns).await;
    let willing = scene.away(&dave, Service::Apns).await;
    scene.world.revoke(&revoked.device).await;
    scene.token_ends(&revoked, "a revoked device has no token").await;
    let none = v1::SetPushTokenRequest::default();
    scene
        .api(&unwilling)
        .devices()
        .set_push_token(none)
        .await
        .unwrap();
    assert_eq!(scene.tokens(&unwilling).await.unwrap(), 0);
    let group = hers.create_group(&[&bob, &carol, &dave]).await;
    hers.say(group, "hello").await;
    scene.reached(&willing, group, 2).await;
    scene.world.settled().await;
    scene.decided(&unwilling, group).await;
    assert_eq!(scene.taken(&revoked).len(), 0);
    assert_eq!(scene.taken(&unwilling).len(), 0);
    scene.end().await;
}

/// An app names its token at each start.
#[tokio::test]
async fn a_token_that_is_named_again_stays_as_old_as_it_is() {
    let scene = Scene::start().await;
    let bob = scene.world.user("bob").await;
    let his = scene.away(&bob, Service::Apns).await;
    let registered = "SELECT extract(epoch FROM registered_at)::float8 FROM push_tokens WHERE device_id = $1";
    let registered = || async {
        let read = sqlx::query_scalar::<_, f64>(registered).bind(his.device.id.0);
        read.fetch_one(&scene.store).await.unwrap()
    };
    let first = registered().await;
    scene.register(&his).await.unwrap();
    assert!((registered().await - first).abs() < f64::EPSILON);
    let other = Away {
        address: scene.services.address(Service::Apns),
        ..his.clone()
    };
    scene.register(&other).await.unwrap();
    assert!(registered().await > first, "another token is new");
    scene.end().await;
}
