//! The Rust SDK against the platform.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::path::Path;
use std::time::Duration;

use tern_client::{Client, ClientConfig, Credentials, Event, EventStream, StoreLocation, Tls};
use tern_tests::world::BOUND;
use tern_tests::{Device, World};
use tern_types::{ChatId, Clock};

async fn start(world: &World, device: &Device, store: &Path) -> (Client, EventStream) {
    let credentials = Credentials {
        user: device.user,
        device: device.id,
        access_token: device.access_token.clone(),
        access_expires_at: Clock::wall() + Duration::from_secs(3000),
        refresh_token: device.refresh_token.clone(),
    };
    let config = ClientConfig::new(
        world.platform.gateway_urls(),
        StoreLocation::File(store.join("device.sqlite")),
    )
    .tls(Tls::Roots(world.platform.ca_pem().unwrap()))
    .credentials(credentials);
    Client::start(config).await.unwrap()
}

/// Takes events until `wanted` accepts one. The texts of all entries on the way are added to `texts`.
async fn until(events: &mut EventStream, texts: &mut Vec<String>, mut wanted: impl FnMut(&Event) -> bool) {
    let found = tokio::time::timeout(BOUND, async {
        loop {
            let event = events.next().await.expect("the client goes on");
            if let Event::Entry(entry) = &event {
                texts.extend(entry.text().map(std::borrow::Cow::into_owned));
            }
            if wanted(&event) {
                break;
            }
        }
    });
    found
        .await
        .unwrap_or_else(|_| panic!("nothing like that within {BOUND:?}; so far: {texts:?}"));
}

#[tokio::test]
async fn an_app_keeps_its_outbox_and_its_place_over_restarts() {
    let mut world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (device, his) = (world.device(&alice).await, world.phone(&bob).await);
    let store = tempfile::tempdir().unwrap();
    let chat = ChatId::direct(alice.id, bob.id);
    let (mut seen, mut expected) = (Vec::new(), Vec::new());

    let (hers, mut events) = start(&world, &device, store.path()).await;
    for number in 0..10 {
        let text = format!("hers {number}");
        hers.send(bob.id, text.clone()).await.unwrap();
        expected.push(text);
    }
    let last = expected[9].clone();
    his.has_text(chat, &last).await;
    until(
        &mut events,
        &mut seen,
        |event| matches!(event, Event::Receipt { mark, .. } if mark.delivered.0 == 10),
    )
    .await;

    // Messages written while there is no gateway are kept, even when the app itself ends.
    world.platform.kill("gateway-0").await.unwrap();
    world.platform.kill("gateway-1").await.unwrap();
    for number in 0..5 {
        let text = format!("offline {number}");
        hers.send(chat, text.clone()).await.unwrap();
        expected.push(text);
    }
    assert_eq!(hers.outbox().await.unwrap().len(), 5);
    hers.stop().await;
    world.platform.restart("gateway-0").await.unwrap();
    world.platform.restart("gateway-1").await.unwrap();
    let (hers, mut events) = start(&world, &device, store.path()).await;
    until(
        &mut events,
        &mut seen,
        |event| matches!(event, Event::Entry(entry) if entry.seq.0 == 15),
    )
    .await;
    assert!(hers.outbox().await.unwrap().is_empty());
    his.has_text(chat, "offline 4").await;
    assert_eq!(his.texts(chat), expected, "in the order of writing");

    // Messages that came while the app was not running come once.
    hers.stop().await;
    for number in 0..10 {
        let text = format!("his {number}");
        his.say(chat, text.as_bytes()).await;
        expected.push(text);
    }
    let (hers, mut events) = start(&world, &device, store.path()).await;
    until(
        &mut events,
        &mut seen,
        |event| matches!(event, Event::Entry(entry) if entry.seq.0 == 25),
    )
    .await;
    assert_eq!(seen, expected, "each entry once and in order");
    let history = hers.history(chat, None, 100).await.unwrap();
    let history: Vec<String> = history
        .iter()
        .filter_map(|entry| Some(entry.text()?.into_owned()))
        .collect();
    assert_eq!(history, expected);
    hers.stop().await;
    world.end().await;
}
