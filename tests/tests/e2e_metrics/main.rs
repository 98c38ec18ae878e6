//! The metrics that a running platform exports. Alerts, dashboards and autoscalers use no others, and docs/metrics.md
//! lists them all.
//!
//! `TERN_WRITE_DOCS=1 cargo nextest run -p tern-tests -E 'binary(e2e_metrics)'` writes that list anew.

#![allow(clippy::expect_used, reason = "what is not there fails the test")]

mod page;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tern_local::push::PushServers;
use tern_local::{Process, http, ports, until};
use tern_proto::v1;
use tern_tests::socket::Socket;
use tern_tests::{Phone, World, world};
use tern_types::ChatId;
use tokio::process::Command;

use page::Metrics;

/// The time within which all metrics appear. Events that are counted afterwards, such as the end of a stream, usually
/// appear within milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);
const DOCS: &str = "docs/metrics.md";
/// The line after which the list begins in [`DOCS`].
const BEGIN: &str = "<!-- written by the test e2e_metrics -->\n";
/// The number of roles.
const EVERY_NODE: usize = 6;
/// The labels that Prometheus adds when it scrapes a pod.
const OF_THE_SCRAPE: [&str; 3] = ["namespace", "pod", "component"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Makes everything happen that happens on an ordinary day: conversations, a person who was away and got a push, a web
/// page, a revoked device.
async fn day(world: &World, push: &PushServers) {
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let laptop = world.device(&bob).await;
    let (hers, his) = (world.phone(&alice).await, Phone::new(world, &laptop));
    his.connect().await;
    let chat = ChatId::direct(alice.id, bob.id);
    let first = hers.say(bob.id, "hello").await;
    his.has(chat, first.seq).await;
    his.read(chat, first.seq).await;
    hers.receipt(chat, bob.id, first.seq, first.seq).await;
    hers.create_group(&[&bob]).await;
    push_to(&his).await;
    his.disconnect().await;
    let second = hers.say(chat, "are you there?").await;
    world.settled().await;
    until::holds("the push arrives", PATIENCE, || async {
        Ok(!push.fcm.received().is_empty())
    })
    .await
    .expect("a push");
    his.connect().await;
    his.has(chat, second.seq).await;
    let page = world.device(&bob).await;
    drop(Socket::open(world, 0, &page).await);
    world.revoke(&page).await;
}

/// Says where the phone gets its pushes.
async fn push_to(phone: &Phone) {
    let token = v1::FcmToken {
        token: "his phone".to_owned(),
        app: "com.example.chat".to_owned(),
    };
    let token = v1::PushToken {
        provider: Some(v1::push_token::Provider::Fcm(token)),
        ..Default::default()
    };
    let set = v1::SetPushTokenRequest { token: Some(token) };
    phone.api().devices().set_push_token(set).await.expect("a token");
}

/// Starts the canary beside the platform. Returns it and the address of its metrics.
fn canary(world: &World, dir: &Path) -> (Process, std::net::SocketAddr) {
    let admin = std::net::SocketAddr::from(([127, 0, 0, 1], ports::free().expect("a port")));
    let mut command = Command::new(world::tern());
    command
        .args([
            "canary",
            "--interval",
            "1",
            "--gateway",
            &world.platform.gateway_url(0),
        ])
        .arg(format!("--admin-listen={admin}"))
        .arg("--ca-file")
        .arg(&world.platform.secrets().ca)
        .env("TERN_API_KEY", world.platform.api_key());
    let process = Process::spawn("canary", command, &dir.join("canary.log")).expect("the canary starts");
    (process, admin)
}

/// Starts a push relay beside the platform. Returns it and the address of its metrics.
fn relay(push: &PushServers, dir: &Path) -> (Process, std::net::SocketAddr) {
    let [listen, admin] =
        [(); 2].map(|()| std::net::SocketAddr::from(([127, 0, 0, 1], ports::free().expect("a port"))));
    let keys = dir.join("relay-keys");
    std::fs::write(&keys, format!("acme {}\n", "0".repeat(64))).expect("a file");
    let mut command = Command::new(world::tern());
    command
        .args(["push", "relay"])
        .arg(format!("--listen={listen}"))
        .arg(format!("--admin-listen={admin}"))
        .arg("--push-apps")
        .arg(push.apps_file())
        .arg("--keys")
        .arg(&keys);
    let process = Process::spawn("relay", command, &dir.join("relay.log")).expect("the relay starts");
    (process, admin)
}

/// Reads the metrics of all nodes, and those of other programs, each with its name.
async fn scrape(world: &World, others: &[(&str, std::net::SocketAddr)]) -> anyhow::Result<Metrics> {
    let mut metrics = Metrics::new();
    for node in world.platform.nodes() {
        page::add(
            &mut metrics,
            node.role.as_str(),
            &world.platform.metrics(&node.name).await?,
        );
    }
    for (name, admin) in others {
        page::add(
            &mut metrics,
            name,
            &http::get_patiently(*admin, "/metrics").await?.1,
        );
    }
    Ok(metrics)
}

fn table(metrics: &Metrics) -> String {
    let row = |(name, metric): (&String, &page::Metric)| {
        let list = |names: &std::collections::BTreeSet<String>| {
            names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
        };
        let of = if metric.of.len() >= EVERY_NODE {
            "every node".to_owned()
        } else {
            list(&metric.of)
        };
        let (kind, labels, help) = (&metric.kind, list(&metric.labels), &metric.help);
        format!("| `{name}` | {kind} | {labels} | {of} | {help} |\n")
    };
    let head = "| metric | type | labels | of | what it is |\n|---|---|---|---|---|\n".to_owned();
    head + &metrics.iter().map(row).collect::<String>()
}

/// Returns the queries in a file that ask for metrics or labels which nobody exports.
fn faults(metrics: &Metrics, file: &str) -> Vec<String> {
    let asked = page::asked_for(&read(file));
    assert!(!asked.is_empty(), "{file} asks for nothing");
    let fault = |(series, labels): &(String, std::collections::BTreeSet<String>)| {
        let Some(metric) = metrics.get(&page::base(metrics, series)) else {
            return Some(format!("{file}: nobody exports {series}"));
        };
        let known = |label: &String| metric.labels.contains(label) || OF_THE_SCRAPE.contains(&label.as_str());
        let unknown = labels.iter().find(|label| !known(label))?;
        Some(format!("{file}: {series} has no label {unknown}"))
    };
    asked.iter().filter_map(fault).collect()
}

fn files_with_queries() -> Vec<String> {
    let dashboards = std::fs::read_dir(root().join("helm/tern/dashboards")).expect("dashboards");
    let names = dashboards.map(|entry| entry.expect("a file").file_name().into_string().expect("a name"));
    let mut files: Vec<String> = names.map(|name| format!("helm/tern/dashboards/{name}")).collect();
    files.extend(["helm/tern/alerts.yaml".to_owned()]);
    files
}

#[tokio::test]
async fn what_is_watched_is_exported_and_what_is_exported_is_written_down() {
    let dir = tempfile::tempdir().expect("a directory");
    let push = PushServers::start(dir.path()).await.expect("push services");
    let world = World::with(|builder| {
        builder
            .media(1)
            .push(&push)
            .env("TERN_GATEWAY_ALLOWED_ORIGINS", "*")
            // A node that does not shed exports no metric about it. One gateway does not, so that every device is let
            // in.
            .env("TERN_SHEDDING", "on")
            .node_env("gateway-0", "TERN_SHEDDING", "off")
    })
    .await;
    let (canary, its_admin) = canary(&world, dir.path());
    let (relay, relays_admin) = relay(&push, dir.path());
    let others = [("canary", its_admin), ("relay", relays_admin)];
    day(&world, &push).await;
    let documented = read(DOCS).split_once(BEGIN).map(|(_, table)| table.to_owned());
    let same = until::holds("the metrics are those of docs/metrics.md", PATIENCE, || async {
        let seen = table(&scrape(&world, &others).await?);
        anyhow::ensure!(Some(&seen) == documented.as_ref(), "they are");
        Ok(true)
    })
    .await;
    let metrics = scrape(&world, &others).await.expect("metrics");
    if same.is_err() {
        differs(&table(&metrics), documented.as_deref().unwrap_or_default());
    }
    let undescribed: Vec<_> = metrics
        .iter()
        .filter(|(_, metric)| metric.help.is_empty())
        .collect();
    assert!(undescribed.is_empty(), "without a description: {undescribed:#?}");
    let faults: Vec<String> = files_with_queries()
        .iter()
        .flat_map(|file| faults(&metrics, file))
        .collect();
    assert!(faults.is_empty(), "{faults:#?}");
    drop((canary, relay));
    world.end().await;
}

/// Writes the list if that was asked for, otherwise fails with the lines that differ.
fn differs(seen: &str, documented: &str) {
    if std::env::var_os("TERN_WRITE_DOCS").is_some() {
        let text = read(DOCS);
        let head = text.split_once(BEGIN).map_or(text.as_str(), |(head, _)| head);
        std::fs::write(root().join(DOCS), format!("{head}{BEGIN}{seen}")).expect("written");
        return;
    }
    let only = |one: &str, other: &str| {
        let lines = one
            .lines()
            .filter(|line| !other.lines().any(|known| known == *line));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    panic!(
        "{DOCS} is not what the platform exports (to write it anew: TERN_WRITE_DOCS=1)\nonly exported: {:#?}\nonly \
         documented: {:#?}",
        only(seen, documented),
        only(documented, seen)
    );
}
