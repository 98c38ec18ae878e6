//! The links to the presence nodes over which users are watched.
//!
//! A new link asks the node anew to watch all watched users of its slots, and so does a change of the map that gives
//! the node slots. What a node says of a user counts only while it owns the user by this gateway's map, since an old
//! owner may be late.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tern_cluster::{ClusterMap, NodeContext, Role};
use tern_proto::internal::presence_client::PresenceClient;
use tern_proto::internal::{PresenceChanges, WatchRequests};
use tern_types::{Clock, Slot, Timestamp, UserId};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use tern_gateway_core::watches::State;

use super::Watches;
use crate::presence_links::dialogue::{Dialogue, Frames};
use crate::presence_links::queues::{Item, Queue, Queues};

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
}

impl Dialogue for Watches {
    type Said = Said;
    type Anew = Vec<UserId>;
    type Frame = WatchRequests;
    type Reply = PresenceChanges;

    const NAME: &'static str = "presence_watch";
    const GATHER: usize = GATHER;

    fn ctx(&self) -> &NodeContext {
        &self.ctx
    }

    fn queues(&self) -> &Queues<Said> {
        &self.queues
    }

    fn open(
        mut node: PresenceClient<Channel>,
        frames: Request<Frames<WatchRequests>>,
    ) -> BoxFuture<'static, Result<Response<Streaming<PresenceChanges>>, Status>> {
        Box::pin(async move { node.watch(frames).await })
    }

    fn everything(&self, map: &ClusterMap, node: &str) -> Vec<UserId> {
        self.table()
            .people()
            .filter(|user| map.owns(Role::Presence, node, Slot::of_user(*user)))
            .collect()
    }

    fn frame(&self, map: &ClusterMap, said: Vec<Said>, anew: &mut Vec<UserId>) -> Option<WatchRequests> {
        let (mut watch, mut unwatch) = (Vec::new(), Vec::new());
        for said in said {
            match said {
                Said::Watch(user) => watch.push(user),
                Said::Unwatch(user) => unwatch.push(user),
            }
        }
        while watch.len() < GATHER
            && let Some(user) = anew.pop()
        {
            watch.push(user);
        }
        if watch.is_empty() && unwatch.is_empty() {
            return None;
        }
        // A frame may have both for a user. Only what the table says now is sent.
        watch.retain(|user| self.table().is_watched(*user));
        unwatch.retain(|user| !self.table().is_watched(*user));
        let ids = |users: Vec<UserId>| users.into_iter().map(|user| user.to_vec().into()).collect();
        Some(WatchRequests {
            map_version: map.version(),
            watch: ids(watch),
            unwatch: ids(unwatch),
        })
    }

    fn hear(self: &Arc<Self>, node: &str, reply: PresenceChanges) {
        let map = self.ctx.map.current();
        let (slow, now) = (self.slow(), Clock::monotonic());
        for change in reply.changes {
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
        let refused = reply
            .not_owner
            .iter()
            .filter_map(|user| UserId::from_slice(user).ok());
        let refused: Vec<UserId> = refused
            .filter(|user| map.owns(Role::Presence, node, Slot::of_user(*user)))
            .collect();
        if !refused.is_empty() {
            tokio::spawn(again(self.clone(), self.queues.of(node), refused));
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
