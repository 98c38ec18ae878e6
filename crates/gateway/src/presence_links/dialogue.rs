//! The part that all links to the presence nodes have in common, whatever is said over them.
//!
//! Each link sends what waits in the queue of its node ([`super::queues`]), and says everything about the node's slots
//! anew when it is made and when the map gives the node slots. A [`Dialogue`] says what is sent and what becomes of the
//! replies.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tern_cluster::links::identify;
use tern_cluster::{ClusterMap, Node, NodeContext, Role, links};
use tern_proto::internal::presence_client::PresenceClient;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use super::queues::{Item, Queue, Queues};
use crate::metrics;

/// One subject on which this gateway and the presence nodes talk, over a stream of its own to each node.
pub trait Dialogue: Send + Sync + 'static {
    /// One thing that a node is told.
    type Said: Item + Send + 'static;
    /// The rest that is still to be said anew to a node. The default value has nothing.
    type Anew: Default + Send + 'static;
    /// A frame to a node.
    type Frame: Send + 'static;
    /// A frame from a node.
    type Reply: Send + 'static;

    /// The name of the links in the metrics.
    const NAME: &'static str;
    /// The most items of the queue that one frame has.
    const GATHER: usize;

    /// Returns the context of this gateway.
    fn ctx(&self) -> &NodeContext;

    /// Returns the queues to the nodes.
    fn queues(&self) -> &Queues<Self::Said>;

    /// Opens the stream to a node, which is sent these frames.
    fn open(
        node: PresenceClient<Channel>,
        frames: Request<Frames<Self::Frame>>,
    ) -> BoxFuture<'static, Result<Response<Streaming<Self::Reply>>, Status>>;

    /// Returns all that is to be said of the slots which the node has by this map.
    fn everything(&self, map: &ClusterMap, node: &str) -> Self::Anew;

    /// Makes the next frame of what was taken from the queue and, as far as there is room, of what is to be said anew.
    /// Returns `None` if there is nothing to say.
    fn frame(&self, map: &ClusterMap, said: Vec<Self::Said>, anew: &mut Self::Anew) -> Option<Self::Frame>;

    /// Takes a frame from the node.
    fn hear(self: &Arc<Self>, node: &str, reply: Self::Reply);

    /// Is called after each change of the map, when the nodes that gained slots are being told everything anew.
    fn moved(&self, _old: &ClusterMap, _new: &ClusterMap) {}
}

/// The frames to a node.
pub struct Frames<F>(BoxStream<'static, F>);

impl<F> Stream for Frames<F> {
    type Item = F;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<F>> {
        self.0.as_mut().poll_next(cx)
    }
}

/// Keeps links to all presence nodes up.
pub fn maintain<D: Dialogue>(dialogue: &Arc<D>) {
    let these = dialogue.clone();
    links::maintain(dialogue.ctx(), Role::Presence, move |node, channel| {
        run(these.clone(), node, channel)
    });
}

/// Follows the map until the drain has ended: tells everything anew to nodes that were given slots, and forgets the
/// queues of nodes that are gone.
pub async fn follow<D: Dialogue>(dialogue: Arc<D>) {
    let mut map = dialogue.ctx().map.clone();
    let mut old = map.current();
    loop {
        let new = tokio::select! {
            new = map.changed() => new,
            () = dialogue.ctx().drain.ended() => return,
        };
        let moved = new.moved_since(&old, Role::Presence);
        let gained: HashSet<&str> = moved
            .filter_map(|(_, _, now)| now.map(|node| node.name.as_str()))
            .collect();
        for node in gained {
            dialogue.queues().of(node).say_all();
        }
        dialogue.moved(&old, &new);
        dialogue
            .queues()
            .keep(|node| new.node(Role::Presence, node).is_some());
        old = new;
    }
}

async fn run<D: Dialogue>(dialogue: Arc<D>, node: Node, channel: Channel) -> Result<(), Status> {
    let taker = dialogue.queues().begin(&node.name);
    let frames = frames(
        dialogue.clone(),
        taker.queue.clone(),
        taker.link,
        node.name.clone(),
    );
    let mut request = Request::new(frames);
    identify(&mut request, dialogue.ctx());
    let mut replies = D::open(PresenceClient::new(channel), request).await?.into_inner();
    let _up = metrics::LinkUp::new(D::NAME, &node.name);
    while let Some(reply) = replies.message().await? {
        dialogue.hear(&node.name, reply);
    }
    Ok(())
}

/// Returns the frames for the node, until the link is to end or there is a newer one: what waits in its queue first,
/// then everything about its slots if that is due.
fn frames<D: Dialogue>(
    dialogue: Arc<D>,
    queue: Arc<Queue<D::Said>>,
    link: u64,
    node: String,
) -> Frames<D::Frame> {
    let frames = async_stream::stream! {
        let mut anew = D::Anew::default();
        loop {
            let Some((said, all)) = queue.take(link, D::GATHER) else { return };
            // The map is read after `all`, so it is at least as new as the one that gave the node its slots.
            let map = dialogue.ctx().map.current();
            if all {
                anew = dialogue.everything(&map, &node);
            }
            if let Some(frame) = dialogue.frame(&map, said, &mut anew) {
                yield frame;
            } else {
                queue.news.notified().await;
            }
        }
    };
    Frames(Box::pin(frames))
}
