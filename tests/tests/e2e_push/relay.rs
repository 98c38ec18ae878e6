//! A company whose app somebody else publishes sends its pushes through that publisher's relay, which has the keys and
//! can read nothing.

use sha2::{Digest as _, Sha256};
use tern_local::push::Answer;
use tern_local::{Process, ports};
use tern_proto::v1::PushClass;
use tern_tests::World;
use tern_tests::world::tern;
use tern_types::{ChatId, Clock, Timestamp};
use tokio::process::Command;

use crate::scene::{PUSH, Scene};
use crate::services::{Service, Services, unregistered};

/// The key that the operator of the relay gave out.
const KEY: &str = "a-key-that-the-operator-of-the-relay-gave-out";
const AN_HOUR_MS: i64 = 3_600_000;

/// Starts a relay that has the keys, and a platform that has nothing but the way to it.
async fn begin() -> (Scene, Process) {
    let dir = tempfile::tempdir().unwrap();
    let services = Services::start(dir.path()).await;
    let keys = dir.path().join("keys");
    let digest: String = Sha256::digest(KEY)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    std::fs::write(&keys, format!("acme {digest}\n")).unwrap();
    let address = format!("127.0.0.1:{}", ports::free().unwrap());
    let mut command = Command::new(tern());
    command
        .args(["push", "relay", "--listen", &address])
        .arg("--push-apps")
        .arg(services.apps_file())
        .arg("--keys")
        .arg(&keys);
    let relay = Process::spawn("relay", command, &dir.path().join("relay.log")).unwrap();

    let apps = dir.path().join("company.json");
    std::fs::write(dir.path().join("relay.key"), KEY).unwrap();
    let settings = serde_json::json!({
        "relay": { "url": format!("http://{address}"), "key_file": "relay.key" },
    });
    std::fs::write(&apps, settings.to_string()).unwrap();
    let world = World::with(|builder| {
        let apps = apps.to_string_lossy();
        services.of(builder).node_env(PUSH, "TERN_PUSH_APPS", &apps)
    })
    .await;
    (Scene::of(world, services, dir).await, relay)
}

#[tokio::test]
async fn a_push_goes_through_the_relay_of_the_company_that_has_the_keys() {
    let (scene, relay) = begin().await;
    let alice = scene.world.user("Alice Adams").await;
    let hers = scene.world.phone(&alice).await;
    for service in [Service::Apns, Service::Fcm] {
        let bob = scene.world.user("Bob Brown").await;
        let his = scene.away(&bob, service).await;
        let sent = hers.say(bob.id, "dinner at eight").await;
        let (push, says) = scene.alert(&his, 1).await;
        assert_eq!((says.seq, &*says.sender_name), (sent.seq, "Alice Adams"));
        assert_eq!((push.class, push.badge), (PushClass::Alert, 1));
        let mut readable = scene.services.readable();
        readable += &String::from_utf8_lossy(&std::fs::read(relay.log()).unwrap());
        for secret in ["dinner", "Alice", &sent.chat_id, &his.device.id.to_string(), KEY] {
            assert!(!readable.contains(secret), "{secret:?} is in {readable}");
        }
        let log = String::from_utf8_lossy(&std::fs::read(relay.log()).unwrap()).into_owned();
        assert!(!log.contains(&his.address.name), "a token is in {log}");
    }
    scene.end().await;
    relay.kill().await.unwrap();
}

/// The relay passes on since when a token is not valid, so that one outlives what its provider says of the time before
/// it.
#[tokio::test]
async fn a_token_ends_by_what_its_provider_says_through_the_relay() {
    let (scene, relay) = begin().await;
    let alice = scene.world.user("alice").await;
    let hers = scene.world.phone(&alice).await;
    let [before, later] = [-AN_HOUR_MS, AN_HOUR_MS].map(|ms| Timestamp(Clock::wall().0 + ms));
    for (service, answer, ends) in [
        (Service::Apns, unregistered(later), true),
        (Service::Apns, Answer::status(400, "BadDeviceToken"), true),
        (Service::Fcm, Answer::status(404, "UNREGISTERED"), true),
        (Service::Apns, unregistered(before), false),
    ] {
        let what = format!("{service:?}, {answer:?}");
        let bob = scene.world.user("bob").await;
        let his = scene.away(&bob, service).await;
        scene.services.answer(&his.address, answer);
        let chat: ChatId = hers.say(bob.id, "hello").await.chat_id.parse().unwrap();
        scene.refusals(&his, 1).await;
        if ends {
            scene.token_ends(&his, &what).await;
            continue;
        }
        // The push is tried again, with the same token.
        scene
            .until_due(&his, chat, "it is tried again", |due| due.tries > 0)
            .await;
        assert_eq!(scene.tokens(&his).await.unwrap(), 1, "{what}");
        scene.services.answer(&his.address, Answer::Ok);
        scene.alert(&his, 1).await;
    }
    scene.end().await;
    relay.kill().await.unwrap();
}
