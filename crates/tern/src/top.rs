//! `tern top`: shows the state of the cluster to an on-call engineer, live or once.
//!
//! ```text
//!   Admin service (map, queues) ─┐
//!   /metrics of each node ───────┴─▶ Moment ─┬─▶ view (pure) ─▶ screen, or text
//!                          the Moment before ─┘
//! ```
//!
//! - [`page`]: parses a page of metrics
//! - [`view`]: computes what is shown from two moments
//! - [`screen`]: draws it on the terminal

mod page;
mod screen;
mod view;

use std::collections::HashMap;
use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use crossterm::event::{Event, EventStream, KeyCode, KeyEventKind, KeyModifiers};
use futures::StreamExt as _;
use futures::future::join_all;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tern_client::api::Api;
use tern_cluster::config::seconds;
use tern_proto::v1;
use tern_types::Clock;

use page::Page;
use screen::Screen;
use view::{Moment, View};

use crate::admin::remote::Remote;

/// The time limit of a call to the platform. A slower call is shown as unanswered; the next one may succeed.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest page of metrics that is read, in bytes. A node's page has some 100 kB.
const MAX_PAGE: usize = 16 << 20;

/// Watch the cluster: nodes, rates, latencies, queues, and in red what is wrong
///
/// Asks the Admin service through a gateway, and reads the metrics of each node at the address that the node gives.
/// Run it where both can be reached. q ends it.
#[derive(clap::Args, Clone, Debug)]
pub struct TopArgs {
    /// Print one snapshot and end; fails if an alarm is red
    #[arg(long)]
    once: bool,
    /// Seconds between two snapshots; rates are averages over this time
    #[arg(long, default_value = "2", value_parser = interval)]
    interval: Duration,
    /// Address of a node's metrics, `NAME=host:port`, instead of the one that it gives (for a forwarded port)
    #[arg(long = "metrics", value_delimiter = ',', value_parser = override_of)]
    overrides: Vec<(String, String)>,
    #[command(flatten)]
    remote: Remote,
}

/// Runs until the user quits, or prints one snapshot with `--once`.
///
/// # Errors
///
/// Returns an error if the flags are not valid or the terminal cannot be used. With `--once` also if an alarm is red.
pub async fn run(args: TopArgs) -> anyhow::Result<()> {
    anyhow::ensure!(
        !args.remote.json,
        "top prints no JSON: `tern admin nodes` and `tern admin queues` do"
    );
    let eyes = Eyes {
        api: args.remote.api()?,
        overrides: args.overrides.iter().cloned().collect(),
    };
    if args.once {
        return once(&eyes, args.interval).await;
    }
    watch(&Screen::open()?, &eyes, args.interval).await
}

/// Takes two snapshots and prints the view of the time between them. Fails if an alarm is red.
async fn once(eyes: &Eyes, interval: Duration) -> anyhow::Result<()> {
    let before = eyes.look().await;
    tokio::time::sleep(interval).await;
    let view = View::of(&before, &eyes.look().await);
    std::io::stdout().lock().write_all(view.text().as_bytes())?;
    let bad = view
        .alarms
        .iter()
        .filter(|alarm| alarm.mood == view::Mood::Bad)
        .count();
    anyhow::ensure!(bad == 0, "{bad} things are badly wrong");
    Ok(())
}

/// Takes a snapshot in each interval and draws it, until the user quits.
async fn watch(screen: &Screen, eyes: &Eyes, interval: Duration) -> anyhow::Result<()> {
    let mut keys = EventStream::new();
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut before, mut view) = (None, View::default());
    loop {
        let look = async {
            ticks.tick().await;
            eyes.look().await
        };
        tokio::pin!(look);
        let moment = loop {
            screen.draw(&view)?;
            tokio::select! {
                moment = &mut look => break moment,
                key = keys.next() => match key {
                    Some(Ok(event)) if !leaves(&event) => {}
                    _ => return Ok(()),
                },
            }
        };
        view = View::of(before.as_ref().unwrap_or(&moment), &moment);
        before = Some(moment);
    }
}

/// The client that takes snapshots of the platform.
struct Eyes {
    api: Api,
    /// The addresses of metrics that the user gave, by node name.
    overrides: HashMap<String, String>,
}

impl Eyes {
    /// Takes a snapshot.
    async fn look(&self) -> Moment {
        let map = answered(self.api.get_cluster_map(v1::GetClusterMapRequest {}));
        let queues = answered(self.api.get_queues(v1::GetQueuesRequest {}));
        let (map, queues) = tokio::join!(map, queues);
        let pages = match &map {
            Ok(map) => self.pages(map).await,
            Err(_) => HashMap::new(),
        };
        Moment {
            at_ms: Clock::wall().0,
            map,
            queues,
            pages,
        }
    }

    /// Reads the metrics of each node, once even if the node has several roles. Returns the pages by node name. Nodes
    /// whose page cannot be read are left out.
    async fn pages(&self, map: &v1::GetClusterMapResponse) -> HashMap<String, Page> {
        let mut addresses: HashMap<&str, &str> = HashMap::new();
        for node in &map.nodes {
            let other = self.overrides.get(&node.name);
            let address = other.map_or(node.admin_address.as_str(), String::as_str);
            if !address.is_empty() {
                addresses.insert(&node.name, address);
            }
        }
        let asked = addresses.into_iter().map(|(name, address)| async move {
            let page = tokio::time::timeout(PATIENCE, metrics(address)).await;
            Some((name.to_owned(), Page::read(&page.ok()?.ok()?)))
        });
        join_all(asked).await.into_iter().flatten().collect()
    }
}

/// Waits for a call for at most [`PATIENCE`]. Returns its result, with the error as text.
async fn answered<T>(call: impl Future<Output = Result<T, tern_client::CallError>>) -> Result<T, String> {
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("not within {PATIENCE:?}")),
    }
}

/// Reads the page of metrics at `address` (`host:port`).
async fn metrics(address: &str) -> anyhow::Result<String> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let answer = client.get(format!("http://{address}/metrics").parse()?).await?;
    anyhow::ensure!(answer.status().is_success(), "{}", answer.status());
    let body = Limited::new(answer.into_body(), MAX_PAGE).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
    Ok(String::from_utf8(body.into())?)
}

/// Returns whether a key that ends the program was pressed: q, Esc or Ctrl-C.
fn leaves(event: &Event) -> bool {
    let Event::Key(key) = event else { return false };
    let interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press && (interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc))
}

/// Parses the flag `--interval`.
fn interval(text: &str) -> Result<Duration, String> {
    let interval = seconds(text)?;
    if interval < Duration::from_millis(500) {
        return Err("must be half a second at least: every look reads each node's metrics".to_owned());
    }
    Ok(interval)
}

/// Parses a value of the flag `--metrics` into the node's name and the address.
fn override_of(text: &str) -> Result<(String, String), String> {
    let (name, address) = text.split_once('=').ok_or("must be NAME=host:port")?;
    Ok((name.to_owned(), address.to_owned()))
}
