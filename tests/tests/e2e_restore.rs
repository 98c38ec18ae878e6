//! The store is restored from a backup. Senders send again what it lacks, and no device skips anything.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use tern_client::{Client, ClientConfig, Credentials, Event, EventStream, StopReason, StoreLocation, Tls};
use tern_local::until;
use tern_tests::{Device, User, World};
use tern_types::{ChatId, Clock};
use tokio::process::Command;

/// The time that a test waits for anything: leases, reconnects and a sweep, on a busy machine.
const BOUND: Duration = Duration::from_secs(90);

struct App {
    client: Client,
    events: EventStream,
    device: Device,
    store: tempfile::TempDir,
}

impl App {
    async fn start(world: &World, device: Device) -> Self {
        let store = tempfile::tempdir().unwrap();
        let (client, events) = open(world, &device, store.path()).await;
        Self {
            client,
            events,
            device,
            store,
        }
    }

    async fn restart(self, world: &World) -> Self {
        let (client, events) = open(world, &self.device, self.store.path()).await;
        Self {
            client,
            events,
            ..self
        }
    }

    /// Returns the app's messages in the chat by seq. Those that the app does not have are read from the server.
    async fn log(&self, chat: ChatId) -> anyhow::Result<BTreeMap<u64, String>> {
        let history = self.client.load_history(chat, None, 100).await?;
        let text = |entry: &tern_client::Entry| Some((entry.seq.0, entry.text()?.into_owned()));
        Ok(history.iter().filter_map(text).collect())
    }

    /// Waits until the app has exactly these messages, in some order.
    async fn has(&self, chat: ChatId, texts: &[String]) -> BTreeMap<u64, String> {
        let mut wanted = texts.to_vec();
        wanted.sort();
        let what = format!("{:?} has {} messages", self.device.id, wanted.len());
        until::some(&what, BOUND, || async {
            let log = self.log(chat).await?;
            let mut have: Vec<String> = log.values().cloned().collect();
            have.sort();
            anyhow::ensure!(have == wanted, "it has {log:?}");
            Ok(log)
        })
        .await
        .unwrap()
    }

    /// Waits until the app's client has stopped, and returns why.
    async fn stops(&mut self) -> StopReason {
        let stopped = async {
            loop {
                if let Event::Stopped(reason) = self.events.next().await.expect("it says why") {
                    return reason;
                }
            }
        };
        tokio::time::timeout(BOUND, stopped).await.expect("the end")
    }

    /// Waits until the app was told to read everything anew.
    async fn is_reset(&mut self) {
        let reset = async { while !matches!(self.events.next().await.expect("it goes on"), Event::Reset) {} };
        tokio::time::timeout(BOUND, reset).await.expect("a reset");
    }
}

/// Links a device to each user, then starts their apps.
async fn start_apps(world: &World, users: [&User; 3]) -> [App; 3] {
    let [first, second, third] = users;
    let devices = [
        world.device(first).await,
        world.device(second).await,
        world.device(third).await,
    ];
    let [first, second, third] = devices;
    [
        App::start(world, first).await,
        App::start(world, second).await,
        App::start(world, third).await,
    ]
}

async fn open(world: &World, device: &Device, store: &Path) -> (Client, EventStream) {
    let credentials = Credentials {
        user: device.user,
        device: device.id,
        access_token: device.access_token.clone(),
        access_expires_at: Clock::wall() + Duration::from_secs(3000),
        refresh_token: device.refresh_token.clone(),
    };
    let file = StoreLocation::File(store.join("device.sqlite"));
    let config = ClientConfig::new(world.platform.gateway_urls(), file)
        .tls(Tls::Roots(world.platform.ca_pem().unwrap()))
        .credentials(credentials);
    Client::start(config).await.unwrap()
}

/// Copies the store while the rest of the platform goes on.
async fn back_up(world: &mut World, to: &Path) {
    let (postgres, _) = world.platform.private_servers().unwrap();
    postgres.shut_down().await.unwrap();
    postgres.copy_to(to).await.unwrap();
    postgres.restart().await.unwrap();
}

async fn restore(world: &mut World, from: &Path) {
    let (postgres, _) = world.platform.private_servers().unwrap();
    postgres.shut_down().await.unwrap();
    postgres.restore(from).await.unwrap();
    postgres.restart().await.unwrap();
}

async fn stored_epoch(world: &World) -> String {
    let store = world.store().await;
    let stored = sqlx::query_scalar("SELECT epoch::text FROM store")
        .fetch_one(&store)
        .await
        .unwrap();
    store.close().await;
    stored
}

async fn bump(world: &World) -> String {
    let output = Command::new(tern_tests::world::tern())
        .args(["admin", "epoch", "bump"])
        .env("TERN_DATABASE_URL", world.platform.database_url())
        .output()
        .await
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Links a device that the backup lacks, and has it write to the chat, which `other` sees. The chat has the messages
/// `before` until then.
async fn linked_after_the_backup(
    world: &World,
    user: &User,
    (other, chat): (&App, ChatId),
    before: &[String],
) -> App {
    let app = App::start(world, world.device(user).await).await;
    let text = "from a new device".to_owned();
    app.client.send(chat, text.clone()).await.unwrap();
    other.has(chat, &[before, &[text]].concat()).await;
    app
}

#[tokio::test]
async fn after_a_restore_clients_read_anew_and_offer_what_they_sent_again() {
    let mut world = World::with_own_servers(|builder| builder).await;
    let [alice, bob, carol] = world.users(["alice", "bob", "carol"]).await;
    let chat = world.group(&[&alice, &bob, &carol]).await;
    let [mut hers, mut his, carols] = start_apps(&world, [&alice, &bob, &carol]).await;
    let mut texts = Vec::new();
    let mut say = async |app: &App, text: String| {
        app.client.send(chat, text.clone()).await.unwrap();
        texts.push(text);
        texts.clone()
    };

    let mut all = Vec::new();
    for number in 0..5 {
        all = say(&hers, format!("kept {number}")).await;
    }
    for app in [&hers, &his, &carols] {
        app.has(chat, &all).await;
    }
    world.settled().await;

    let dir = tempfile::tempdir().unwrap();
    let backup = dir.path().join("backup");
    back_up(&mut world, &backup).await;

    // The backup lacks these messages. The three logs agree about them, and so do the nodes' memories.
    for number in 0..4 {
        all = say(&hers, format!("hers {number}")).await;
        his.has(chat, &all).await;
        all = say(&his, format!("his {number}")).await;
        hers.has(chat, &all).await;
    }
    let before = carols.has(chat, &all).await;
    let mut new = linked_after_the_backup(&world, &alice, (&hers, chat), &all).await;
    let head_before = *before.last_key_value().unwrap().0;
    carols.client.stop().await;
    world.settled().await;

    restore(&mut world, &backup).await;
    let epoch = bump(&world).await;

    // The new device has to be linked anew. It is not told to erase its data.
    assert_eq!(new.stops().await, StopReason::SignedOut);
    hers.is_reset().await;
    his.is_reset().await;
    let (on_hers, on_his) = (hers.has(chat, &all).await, his.has(chat, &all).await);
    assert_eq!(on_hers, on_his, "one log");
    // Her cursor was beyond the restored log, and she was away the whole time.
    let mut carols = carols.restart(&world).await;
    carols.is_reset().await;
    assert_eq!(carols.has(chat, &all).await, on_hers);
    assert_eq!(
        *on_hers.last_key_value().unwrap().0,
        head_before,
        "each once, without gaps"
    );

    // The chat goes on.
    all = say(&carols, "after it".to_owned()).await;
    for app in [&hers, &his, &carols] {
        app.has(chat, &all).await;
    }
    assert_eq!(stored_epoch(&world).await, epoch);
    for app in [hers, his, carols] {
        app.client.stop().await;
    }
    world.end().await;
}
