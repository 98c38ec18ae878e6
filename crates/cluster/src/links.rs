//! Keeps up links, which are long-lived streams to other nodes. A link is kept up while the other node is in the map,
//! and opened again when it breaks.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tokio::time::Instant;
use tonic::Status;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::transport::Channel;
use tracing::Instrument;

use crate::context::NodeContext;
use crate::map::{ClusterMap, Node, Role};
use crate::metrics;

pub use crate::gather::gather;
pub use crate::retry_waits::RetryWaits;

/// The largest message on a link, in bytes. Batches stay far below it, but a window of large entries has to fit.
pub const MAX_LINK_MESSAGE_BYTES: usize = 96 << 20;

const NODE: &str = "tern-node";
const INCARNATION: &str = "tern-incarnation";

/// Keeps up a link to each node of `role` in the map. Each node has one task, which runs `link(node, channel)` again
/// and again, with exponential back-off and jitter, until the node's incarnation leaves the map or the drain has ended.
/// `link` returns when the link broke. Aborting the returned task ends all links.
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

/// The running links. They end when this is dropped.
#[derive(Default)]
struct Links {
    running: HashMap<(String, u64), AbortHandle>,
    tasks: JoinSet<()>,
}

impl Links {
    /// Ends the links to nodes that have left, and starts links to nodes that have come.
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
    let mut waits = RetryWaits::default();
    loop {
        let began = Instant::now();
        let outcome = match ctx.channels.get(&node.address) {
            Ok(channel) => AssertUnwindSafe(link(node.clone(), channel)).catch_unwind().await,
            Err(error) => Ok(Err(error.into())),
        };
        let wait = waits.next(began.elapsed());
        metrics::link_broke(role);
        ctx.obituaries.suspect(role, &node);
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

/// The node at the other end of a link.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NodeIdentity {
    /// The node's name.
    pub name: String,
    /// The incarnation of the node's process.
    pub incarnation: u64,
}

/// Puts this node's name and incarnation into the request's metadata.
pub fn identify<T>(request: &mut tonic::Request<T>, ctx: &NodeContext) {
    let metadata = request.metadata_mut();
    if let Ok(name) = MetadataValue::try_from(&*ctx.name) {
        metadata.insert(NODE, name);
    }
    metadata.insert(INCARNATION, MetadataValue::from(ctx.incarnation));
}

/// Reads the calling node from the request's metadata. Returns `Err` with INVALID_ARGUMENT if it is not there.
pub fn identity<T>(request: &tonic::Request<T>) -> Result<NodeIdentity, Status> {
    read_identity(request.metadata())
        .ok_or_else(|| Status::invalid_argument("metadata tern-node and tern-incarnation are needed"))
}

fn read_identity(metadata: &MetadataMap) -> Option<NodeIdentity> {
    let name = metadata.get(NODE)?.to_str().ok()?.to_owned();
    let incarnation = metadata.get(INCARNATION)?.to_str().ok()?.parse().ok()?;
    Some(NodeIdentity { name, incarnation })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::mpsc;

    use super::*;
    use crate::map::MapHandle;
    use crate::retry_waits::{BASE, HEALTHY_AFTER, MAX};

    fn node(name: &str, incarnation: u64) -> Node {
        Node {
            name: name.to_owned(),
            address: "127.0.0.1:1".to_owned(),
            admin: String::new(),
            incarnation,
            ..Node::default()
        }
    }

    fn map(version: i64, nodes: &[Node]) -> Arc<ClusterMap> {
        Arc::new(ClusterMap::new(
            version,
            nodes.iter().map(|node| (Role::Chat, node.clone())),
        ))
    }

    /// Links that report when they begin and end, and break when the test says so.
    struct Harness {
        map: tokio::sync::watch::Sender<Arc<ClusterMap>>,
        ctx: NodeContext,
        events: mpsc::Receiver<(&'static str, Node)>,
        breaks: tokio::sync::broadcast::Sender<()>,
        task: JoinHandle<()>,
    }

    struct Ends(Node, mpsc::Sender<(&'static str, Node)>);

    impl Drop for Ends {
        fn drop(&mut self) {
            let _ = self.1.try_send(("ends", self.0.clone()));
        }
    }

    fn harness(nodes: &[Node]) -> Harness {
        let (tx, handle) = MapHandle::channel(ClusterMap::default());
        tx.send_replace(map(1, nodes));
        let ctx = NodeContext::alone("me", 1, handle);
        let (told, events) = mpsc::channel(64);
        let (breaks, _) = tokio::sync::broadcast::channel(1);
        let broken = breaks.clone();
        let task = maintain(&ctx, Role::Chat, move |node, _channel| {
            let (told, mut broken) = (told.clone(), broken.subscribe());
            async move {
                let _ends = Ends(node.clone(), told.clone());
                let _ = told.send(("begins", node)).await;
                let _ = broken.recv().await;
                Err(Status::unavailable("broken by the test"))
            }
        });
        Harness {
            map: tx,
            ctx,
            events,
            breaks,
            task,
        }
    }

    impl Harness {
        async fn next(&mut self) -> (&'static str, Node) {
            tokio::time::timeout(Duration::from_secs(60), self.events.recv())
                .await
                .unwrap()
                .unwrap()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_starts_for_each_node_and_ends_when_its_node_leaves() {
        let mut harness = harness(&[node("a", 1)]);
        assert_eq!(harness.next().await, ("begins", node("a", 1)));
        harness.map.send_replace(map(2, &[node("a", 1), node("b", 1)]));
        assert_eq!(harness.next().await, ("begins", node("b", 1)));
        harness.map.send_replace(map(3, &[node("b", 1)]));
        assert_eq!(harness.next().await, ("ends", node("a", 1)));
        // The link does not end because the node drains.
        harness.map.send_replace(map(
            4,
            &[Node {
                draining: true,
                ..node("b", 1)
            }],
        ));
        // A newer incarnation is another node: one link ends, one begins.
        harness.map.send_replace(map(5, &[node("b", 2)]));
        let mut both = [harness.next().await, harness.next().await];
        both.sort_by_key(|(what, _)| *what);
        assert_eq!(both, [("begins", node("b", 2)), ("ends", node("b", 1))]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_broken_link_starts_again_with_growing_waits() {
        let mut harness = harness(&[node("a", 1)]);
        harness.next().await;
        let mut waits = Vec::new();
        for _ in 0..9 {
            let broke = Instant::now();
            harness.breaks.send(()).unwrap();
            assert_eq!(harness.next().await.0, "ends");
            assert_eq!(harness.next().await.0, "begins");
            waits.push(broke.elapsed());
        }
        // The bounds have a millisecond to spare, because timers are accurate to a millisecond.
        assert!(waits[0] <= BASE + Duration::from_millis(1), "{waits:?}");
        assert!(
            waits[8] >= MAX / 2 && waits[8] <= MAX + Duration::from_millis(1),
            "{waits:?}"
        );

        // After a link was healthy for a while, the first wait is short again.
        tokio::time::advance(HEALTHY_AFTER).await;
        let broke = Instant::now();
        harness.breaks.send(()).unwrap();
        harness.next().await;
        harness.next().await;
        assert!(broke.elapsed() <= BASE + Duration::from_millis(1));
    }

    #[tokio::test(start_paused = true)]
    async fn links_outlive_the_start_of_a_drain_and_end_with_it() {
        let mut harness = harness(&[node("a", 1)]);
        harness.next().await;
        harness.ctx.drain.start();
        tokio::task::yield_now().await;
        assert!(harness.events.try_recv().is_err());
        harness.ctx.drain.end();
        assert_eq!(harness.next().await.0, "ends");
        harness.task.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn aborting_the_task_ends_every_link() {
        let mut harness = harness(&[node("a", 1), node("b", 1)]);
        harness.next().await;
        harness.next().await;
        harness.task.abort();
        assert_eq!((harness.next().await.0, harness.next().await.0), ("ends", "ends"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_that_panics_starts_again() {
        let (_tx, handle) = MapHandle::channel(ClusterMap::new(1, [(Role::Chat, node("a", 1))]));
        let ctx = NodeContext::alone("me", 1, handle);
        let (told, mut runs) = mpsc::channel(4);
        let _task = maintain(&ctx, Role::Chat, move |_, _| {
            let told = told.clone();
            async move {
                let _ = told.send(()).await;
                panic!("by the test");
            }
        });
        assert!(runs.recv().await.is_some());
        assert!(runs.recv().await.is_some());
    }

    #[test]
    fn a_node_is_known_at_the_other_end() {
        let ctx = NodeContext::alone("chat-0", 17, MapHandle::fixed(ClusterMap::default()));
        let mut request = tonic::Request::new(());
        assert_eq!(
            identity(&request).unwrap_err().code(),
            tonic::Code::InvalidArgument
        );
        identify(&mut request, &ctx);
        assert_eq!(
            identity(&request).unwrap(),
            NodeIdentity {
                name: "chat-0".to_owned(),
                incarnation: 17
            }
        );
    }
}
