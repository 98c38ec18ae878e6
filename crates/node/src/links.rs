//! Long-lived streams between nodes: kept up while the other node is in the map, made again when they break.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use rand::Rng;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tokio::time::Instant;
use tonic::Status;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::transport::Channel;
use tracing::Instrument;

use crate::context::NodeContext;
use crate::map::{ClusterMap, Node, Role};
use crate::metrics;

/// First wait before a link is made again; a restarted process listens again in about this time.
pub const BACK_OFF_BASE: Duration = Duration::from_millis(50);
/// Longest wait: well below a lease, so that a node that is back is found before it is given up.
pub const BACK_OFF_MAX: Duration = Duration::from_secs(2);
/// A link that lived this long was healthy: the next wait is the first again.
const HEALTHY_AFTER: Duration = Duration::from_secs(10);

/// Largest message on a link. Batches stay far below; one window of large entries must fit.
pub const MAX_LINK_MESSAGE_BYTES: usize = 96 << 20;

const NODE: &str = "tern-node";
const INCARNATION: &str = "tern-incarnation";

/// For each node of `role` in the map: runs `link(node, channel)` again and again, with exponential back-off and
/// jitter, until the node's incarnation leaves the map or the drain has ended. One task a node. `link` returns when
/// the link broke. Aborting the returned task ends all of them.
pub fn maintain<F, Fut>(ctx: &NodeContext, role: Role, link: F) -> JoinHandle<()>
where
    F: Fn(Node, Channel) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), Status>> + Send + 'static,
{
    let (ctx, link) = (ctx.clone(), Arc::new(link));
    let span = tracing::info_span!("links", %role);
    tokio::spawn(
        async move {
            let mut links = Links::default();
            let mut map = ctx.map.clone();
            let mut present = map.current();
            loop {
                links.follow(&present, role, |node| {
                    keep_up(ctx.clone(), role, node, link.clone())
                });
                tokio::select! {
                    next = map.changed() => present = next,
                    () = ctx.drain.ended() => return,
                    Some(_) = links.tasks.join_next() => {}
                }
            }
        }
        .instrument(span),
    )
}

/// The running links: dropped, they end.
#[derive(Default)]
struct Links {
    running: HashMap<(String, u64), AbortHandle>,
    tasks: JoinSet<()>,
}

impl Links {
    /// Ends the links of nodes that left, starts those of nodes that came.
    fn follow<T>(&mut self, map: &ClusterMap, role: Role, start: impl Fn(Node) -> T)
    where
        T: Future<Output = ()> + Send + 'static,
    {
        let nodes = map.nodes(role);
        self.running.retain(|(name, incarnation), task| {
            let stays = nodes
                .iter()
                .any(|node| node.name == *name && node.incarnation == *incarnation);
            if !stays {
                task.abort();
            }
            stays
        });
        for node in nodes {
            let key = (node.name.clone(), node.incarnation);
            if !self.running.contains_key(&key) {
                let span = tracing::info_span!("link", node = node.name, incarnation = node.incarnation);
                self.running
                    .insert(key, self.tasks.spawn(start(node.clone()).instrument(span)));
            }
        }
    }
}

async fn keep_up<F, Fut>(ctx: NodeContext, role: Role, node: Node, link: Arc<F>)
where
    F: Fn(Node, Channel) -> Fut,
    Fut: Future<Output = Result<(), Status>>,
{
    let mut back_off = BackOff::default();
    loop {
        let began = Instant::now();
        let outcome = match ctx.channels.get(&node.address) {
            Ok(channel) => AssertUnwindSafe(link(node.clone(), channel)).catch_unwind().await,
            Err(error) => Ok(Err(error.into())),
        };
        let wait = back_off.next(began.elapsed());
        metrics::link_broke(role);
        match outcome {
            Ok(Ok(())) => tracing::debug!(?wait, "link ended"),
            Ok(Err(status)) => {
                tracing::info!(code = ?status.code(), message = status.message(), ?wait, "link broke")
            }
            Err(_) => tracing::error!(?wait, "link panicked"),
        }
        tokio::time::sleep(wait).await;
    }
}

/// Exponential back-off with jitter between half and the whole of each step. For whatever is tried again and again.
#[derive(Debug, Default)]
pub struct BackOff {
    failures: u32,
}

impl BackOff {
    /// The wait after an attempt that held for `lived`.
    pub fn next(&mut self, lived: Duration) -> Duration {
        self.failures = if lived >= HEALTHY_AFTER { 0 } else { self.failures };
        let step = BACK_OFF_BASE
            .saturating_mul(1 << self.failures.min(16))
            .min(BACK_OFF_MAX);
        self.failures = self.failures.saturating_add(1);
        step.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    /// The next wait is the first again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Takes all that waits, at least one, at most `max`: how frames are coalesced without timers. `None`: closed.
pub async fn gather<T>(rx: &mut mpsc::Receiver<T>, max: usize) -> Option<Vec<T>> {
    let mut items = Vec::new();
    (rx.recv_many(&mut items, max).await > 0).then_some(items)
}

/// The node at the other end of a link.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Peer {
    pub name: String,
    pub incarnation: u64,
}

/// Says in the request's metadata who this node is.
pub fn identify<T>(request: &mut tonic::Request<T>, ctx: &NodeContext) {
    let metadata = request.metadata_mut();
    if let Ok(name) = MetadataValue::try_from(&*ctx.name) {
        metadata.insert(NODE, name);
    }
    metadata.insert(INCARNATION, MetadataValue::from(ctx.incarnation));
}

/// Who the calling node is.
pub fn identity<T>(request: &tonic::Request<T>) -> Result<Peer, Status> {
    peer(request.metadata())
        .ok_or_else(|| Status::invalid_argument("metadata tern-node and tern-incarnation are needed"))
}

fn peer(metadata: &MetadataMap) -> Option<Peer> {
    let name = metadata.get(NODE)?.to_str().ok()?.to_owned();
    let incarnation = metadata.get(INCARNATION)?.to_str().ok()?.parse().ok()?;
    Some(Peer { name, incarnation })
}
