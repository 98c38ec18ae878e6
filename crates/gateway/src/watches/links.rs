//! The links to the presence nodes over which users are watched.
//!
//! A new link asks the node anew to watch all watched users of its slots, and so does a change of the map that gives
//! the node slots. What a node says of a user counts only while it owns the user by this gateway's map, since an old
//! owner may be late.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use tern_cluster::links::{self, identify};
use tern_cluster::{Node, Role};
use tern_proto::internal::presence_client::PresenceClient;
use tern_proto::internal::{PresenceChanges, WatchRequests};
use tern_types::{Clock, Slot, Timestamp, UserId};
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use tern_gateway_core::watches::State;

use super::Watches;
use crate::metrics;
use crate::presence_links::queues::{Item, Queue};

/// The most users that one frame asks to watch, and the most that it asks to watch no longer.
const GATHER: usize = 1024;
/// The pause before a node is asked again to watch a user whom it refused, because it does not own the user by its map.
/// A change of the map ends the pause.
const REFUSED_PAUSE: Duration = Duration::from_millis(200);

/// One thing that a node is told.
pub enum Said {
    /// The user is watched here.
    Watch(UserId),
    /// The user is watched here no longer.
    Unwatch(UserId),
}

impl Item for Said {
    fn ends(&self) -> bool {
        matches!(self, Self::Unwatch(_))
    }
}

impl Watches {
    /// Keeps links to all presence nodes up.
    pub(super) fn maintain(self: Arc<Self>) {
        let ctx = self.ctx.clone();
        links::maintain(&ctx, Role::Presence, move |node, channel| {
            self.clone().run(node, channel)
        });
    }

    /// Tells the user's presence node that the user is watched here, or no longer watched. The caller holds the table's
    /// lock, so that the node is told in order.
    pub(super) fn tell_owner(&self, user: UserId, watch: bool) {
        if let Some(node) = self.ctx.map.current().owner(Role::Presence, Slot::of_user(user)) {
            let said = if watch {
                Said::Watch(user)
            } else {
                Said::Unwatch(user)
            };
            self.queues.of(&node.name).push_if_linked(said);
        }
    }

    async fn run(self: Arc<Self>, node: Node, channel: Channel) -> Result<(), Status> {
        let taker = self.queues.begin(&node.name);
        let frames = self
            .clone()
            .frames(taker.queue.clone(), taker.link, node.name.clone());
        let mut request = Request::new(frames);
        identify(&mut request, &self.ctx);
        let changes = PresenceClient::new(channel).watch(request).await?.into_inner();
        let _up = metrics::LinkUp::new("presence_watch", &node.name);
        self.read(&node.name, &taker.queue, changes).await
    }

    /// Returns the frames for the node, until the link is to end or there is a newer one: the changes that wait in its
    /// queue, and all watched users of its slots if that is due.
    fn frames(
        self: Arc<Self>,
        queue: Arc<Queue<Said>>,
        link: u64,
        node: String,
    ) -> impl Stream<Item = WatchRequests> {
        async_stream::stream! {
            let mut rest: Vec<UserId> = Vec::new();
            loop {
                let Some((said, all)) = queue.take(link, GATHER) else { return };
                // The map is read after `all`, so it is at least as new as the one that gave the node its
                // slots.
                let map = self.ctx.map.current();
                if all {
                    rest = self.table().people().filter(|user| map.owns(Role::Presence, &node, Slot::of_user(*user))).collect();
                }
                let (mut watch, mut unwatch) = (Vec::new(), Vec::new());
                for said in said {
                    match said {
                        Said::Watch(user) => watch.push(user),
                        Said::Unwatch(user) => unwatch.push(user),
                    }
                }
                while watch.len() < GATHER && let Some(user) = rest.pop() {
                    watch.push(user);
                }
                if watch.is_empty() && unwatch.is_empty() {
                    queue.news.notified().await;
                    continue;
                }
                // A frame may have both for a user. Only what the table says now is sent.
                let now: Vec<UserId> = watch.into_iter().filter(|user| self.table().is_watched(*user)).collect();
                unwatch.retain(|user| !self.table().is_watched(*user));
                let ids = |users: Vec<UserId>| users.into_iter().map(|user| user.to_vec().into()).collect();
                yield WatchRequests { map_version: map.version(), watch: ids(now), unwatch: ids(unwatch) };
            }
        }
    }

    async fn read(
        self: &Arc<Self>,
        node: &str,
        queue: &Arc<Queue<Said>>,
        mut changes: Streaming<PresenceChanges>,
    ) -> Result<(), Status> {
        while let Some(frame) = changes.message().await? {
            let map = self.ctx.map.current();
            let (slow, now) = (self.slow(), Clock::monotonic());
            for change in frame.changes {
                let Ok(user) = UserId::from_slice(&change.user_id) else {
                    tracing::error!(node, "a presence node told of somebody without an id");
                    continue;
                };
                if !map.owns(Role::Presence, node, Slot::of_user(user)) {
                    continue;
                }
                let state = if change.online {
                    State::Online
                } else {
                    State::Offline(Timestamp(change.last_seen_ms))
                };
                let mut table = self.table();
                let effects = table.says(user, state, slow, now);
                if effects.is_empty() && slow.is_some() {
                    self.ctx.shedding.gave_up(tern_cluster::shedding::Level::Presence);
                }
                self.perform(&mut table, effects);
            }
            let refused = frame
                .not_owner
                .iter()
                .filter_map(|user| UserId::from_slice(user).ok());
            let refused: Vec<UserId> = refused
                .filter(|user| map.owns(Role::Presence, node, Slot::of_user(*user)))
                .collect();
            if !refused.is_empty() {
                tokio::spawn(again(self.clone(), queue.clone(), refused));
            }
        }
        Ok(())
    }

    /// Follows the map until the drain has ended: asks nodes that were given slots to watch the users of their slots.
    pub(super) async fn follow(self: Arc<Self>) {
        let mut map = self.ctx.map.clone();
        let mut old = map.current();
        loop {
            let new = tokio::select! {
                new = map.changed() => new,
                () = self.ctx.drain.ended() => return,
            };
            let moved = new.moved_since(&old, Role::Presence);
            let gained: HashSet<&str> = moved
                .filter_map(|(_, _, now)| now.map(|node| node.name.as_str()))
                .collect();
            for node in gained {
                self.queues.of(node).say_all();
            }
            self.queues.keep(|node| new.node(Role::Presence, node).is_some());
            old = new;
        }
    }
}

/// Asks the node again to watch users whom it refused. Its map or this gateway's is behind, and catches up soon.
async fn again(watches: Arc<Watches>, queue: Arc<Queue<Said>>, users: Vec<UserId>) {
    let mut map = watches.ctx.map.clone();
    tokio::select! {
        () = tokio::time::sleep(REFUSED_PAUSE) => {}
        _ = map.changed() => {}
    }
    for user in users {
        queue.push_if_linked(Said::Watch(user));
    }
}
