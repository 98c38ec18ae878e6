//! A company whose app somebody else publishes sends its pushes through that publisher's relay, which has the keys and
//! can read nothing.

use sha2::{Digest as _, Sha256};
use tern_local::{Process, ports};
use tern_proto::v1::PushClass;
use tern_tests::World;
use tern_tests::world::tern;
use tokio::process::Command;

use crate::scene::{PUSH, Scene};
use crate::services::{Service, Services};

#[tokio::test]
async fn a_push_goes_through_the_relay_of_the_company_that_has_the_keys() {
    const KEY: &str = "a-key-that-the-operator-of-the-relay-gave-out";
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

    // The company's own node has nothing but the way to the relay.
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
    let scene = Scene::of(world, services, dir).await;

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
