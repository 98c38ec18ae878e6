//! Tells how certain this node can be that it is in the map that other nodes use.
//!
//! A node keeps its place in the map by a lease. While it does not reach etcd, the lease may end; then other nodes own
//! its slots, and nobody tells it. So it measures the lease's time with its own monotonic clock, from the moment before
//! it asked for the lease: until that time is over, etcd cannot have ended the lease. After that the node does not know
//! whether it still owns its slots, and must not conclude anything from the absence of something. For example, a
//! presence node that knows of no session of a user may be wrong, because the gateways may have told another node.
//!
//! When etcd is away for everybody, the map stands still, and every node goes on working by it. To tell this from being
//! cut off itself, a node asks other nodes for a newer map ([`crate::etcd`]). If most of them answer and none has one,
//! etcd is away for everybody.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::map::{ClusterMap, MapHandle};
use crate::membership::{Key, LEASE};

/// The time for which the other nodes' answer counts. It is several rounds of asking long.
const AGREED_FOR: Duration = Duration::from_secs(5);

/// The place of this node in the map, as far as the node can know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The lease is alive and the map shows this node.
    Held,
    /// The lease may be over, but so may everybody's, and most other nodes know of no newer map than this one's.
    Frozen,
    /// The newest map that this node knows does not show this process.
    Lost,
    /// The lease may be over, and most other nodes do not answer. They may have a newer map.
    CutOff,
}

impl Place {
    /// Returns the place's name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Frozen => "frozen",
            Self::Lost => "lost",
            Self::CutOff => "cut_off",
        }
    }

    /// All places, in the order of metrics.
    pub const ALL: [Self; 4] = [Self::Held, Self::Frozen, Self::Lost, Self::CutOff];
}

/// This node's place in the map. The registration, and the task that follows the map, report here what they learn. It
/// is cheap to clone.
#[derive(Debug, Clone)]
pub struct Standing(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    map: MapHandle,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    keys: Vec<Key>,
    incarnation: u64,
    /// The time until which etcd keeps the lease at least, or `None` if there is no lease.
    until: Option<Instant>,
    /// The version of the write that brought this node into the map under its lease.
    version: i64,
    /// The time at which most of the other nodes last answered that they know of no newer map.
    agreed: Option<Instant>,
}

impl Standing {
    /// Makes the state of a node that is not registered yet, with the map that it uses.
    pub fn new(map: MapHandle) -> Self {
        Self(Some(Arc::new(Inner {
            map,
            state: Mutex::default(),
        })))
    }

    /// Makes the state of a node without etcd, for tests. Such a node is always in the map.
    pub fn certain() -> Self {
        Self(None)
    }

    /// Returns whether the place is [`Place::Held`]: the lease is certainly alive, and this node's map shows it.
    pub fn is_held(&self) -> bool {
        self.place() == Place::Held
    }

    /// Returns the place as far as this node knows it now.
    pub fn place(&self) -> Place {
        match &self.0 {
            None => Place::Held,
            Some(inner) => inner.lock().place(&inner.map.current(), Instant::now()),
        }
    }

    /// Sets the keys and the incarnation under which this process is registered.
    pub(crate) fn is(&self, keys: Vec<Key>, incarnation: u64) {
        self.change(|state| (state.keys, state.incarnation) = (keys, incarnation));
    }

    /// Notes that etcd granted or renewed the lease when it was asked at `asked`.
    pub(crate) fn renewed(&self, asked: Instant) {
        self.change(|state| state.until = Some(asked + LEASE));
    }

    /// Notes that the node's records were written under a new lease, or written again, which gave the map this version.
    /// Earlier maps may lack the records, so they do not count as showing this node.
    pub(crate) fn registered(&self, version: i64) {
        self.change(|state| state.version = state.version.max(version));
    }

    /// Notes that the lease is over, or was given back.
    pub(crate) fn ended(&self) {
        self.change(|state| state.until = None);
    }

    /// Notes that most of the other nodes have no newer map.
    pub(crate) fn agreed(&self, now: Instant) {
        self.change(|state| state.agreed = Some(now));
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        if let Some(inner) = &self.0 {
            change(&mut inner.lock());
        }
    }
}

impl Inner {
    /// Locks the state, even after a panic, because it is plain data that every change leaves consistent.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn place(&self, map: &ClusterMap, now: Instant) -> Place {
        let shows = |(role, name): &Key| {
            map.node(*role, name)
                .is_some_and(|node| node.incarnation == self.incarnation)
        };
        let shown = !self.keys.is_empty() && self.keys.iter().all(shows);
        if shown && map.version() >= self.version && self.until.is_some_and(|until| now < until) {
            Place::Held
        } else if !shown {
            Place::Lost
        } else if self.agreed.is_some_and(|at| now.duration_since(at) < AGREED_FOR) {
            Place::Frozen
        } else {
            Place::CutOff
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::{Node, Role};

    fn map(version: i64, incarnations: &[u64]) -> Arc<ClusterMap> {
        let node = |incarnation: &u64| Node {
            name: "a".to_owned(),
            incarnation: *incarnation,
            ..Node::default()
        };
        let nodes = incarnations
            .iter()
            .map(|incarnation| (Role::Chat, node(incarnation)));
        Arc::new(ClusterMap::new(version, nodes))
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_is_certain_only_while_the_lease_is_and_the_map_shows_it() {
        let (tx, handle) = MapHandle::channel(ClusterMap::default());
        let standing = Standing::new(handle);
        assert_eq!(standing.place(), Place::Lost, "not registered yet");
        standing.is(vec![(Role::Chat, "a".to_owned())], 7);
        standing.renewed(Instant::now());
        standing.registered(5);
        assert_eq!(standing.place(), Place::Lost, "the map does not show it yet");
        tx.send_replace(map(5, &[7]));
        assert_eq!(standing.place(), Place::Held);

        tokio::time::advance(LEASE).await;
        assert_eq!(standing.place(), Place::CutOff, "nobody renewed the lease");
        standing.agreed(Instant::now());
        assert_eq!(standing.place(), Place::Frozen, "nor that of others");
        tokio::time::advance(AGREED_FOR).await;
        assert_eq!(standing.place(), Place::CutOff, "that was a while ago");
        tx.send_replace(map(9, &[]));
        assert_eq!(standing.place(), Place::Lost, "others have let go of it");
        tx.send_replace(map(9, &[8]));
        assert_eq!(standing.place(), Place::Lost, "another process has the name");
    }

    /// A process was suspended. Its old map still shows it, although other nodes have gone on without it.
    #[tokio::test(start_paused = true)]
    async fn after_a_lease_was_lost_the_map_of_before_counts_no_more() {
        let (tx, handle) = MapHandle::channel(ClusterMap::default());
        tx.send_replace(map(5, &[7]));
        let standing = Standing::new(handle);
        standing.is(vec![(Role::Chat, "a".to_owned())], 7);
        standing.renewed(Instant::now());
        standing.registered(5);
        assert!(standing.is_held());
        standing.ended();
        assert!(!standing.is_held());
        standing.renewed(Instant::now());
        standing.registered(8);
        assert!(!standing.is_held(), "its map is of before");
        tx.send_replace(map(8, &[7]));
        assert!(standing.is_held());
    }
}
