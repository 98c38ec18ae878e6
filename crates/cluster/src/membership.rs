//! Makes the map in use from the lists and changes that etcd sends. It is pure: callers pass in the time.
//!
//! A node that leaves is removed from the map at once if it was draining, if other nodes found it dead (its record is
//! marked `gone`), or if only a few nodes vanish. When over 30 % of a role vanish within one lease, a fault of etcd is
//! more likely than that many crashes. So the nodes above that share are held, which means that they are kept in the
//! map for one more lease, in which they can register again. For example, if all 10 nodes of a role vanish at once, 3
//! are removed and 7 are held. For one lease after a list was read from etcd again, every node that vanishes without a
//! drain is held, because an etcd that was away for a while ends everybody's lease when it is back.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::map::{ClusterMap, Node, Role};

/// The time that a registration lasts without a renewal. It is long enough for a pause of the process, for an election
/// among etcd's members, and for several attempts to renew it. It is short enough to wait for when a machine is lost
/// and nobody can prove that its process is dead.
pub const LEASE: Duration = Duration::from_secs(4);
/// The percentage of a role's nodes that may vanish within one lease. One node may always vanish, except in the lease
/// after a further list.
const VANISH_PERCENT: usize = 30;

/// The key of a registration: its role and the node's name.
pub type Key = (Role, String);

/// A change of one key in etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The record was written.
    Put(Role, Node),
    /// The record was deleted, or its lease ended.
    Delete(Key),
}

/// All records of etcd, as one list.
#[derive(Debug, Clone, Default)]
pub(crate) struct Listed {
    /// The base of the versions at that revision ([`crate::etcd`]).
    pub base: i64,
    /// The revision of etcd at which the list was read.
    pub revision: i64,
    /// The revision of the last write to a key that is in the list. 0: there is none.
    pub changed: i64,
    /// The nodes that are in the list, with the role of each.
    pub nodes: Vec<(Role, Node)>,
}

impl Listed {
    /// Returns the version that a map has which was read at the list's revision.
    pub fn version(&self) -> i64 {
        version(self.base, self.revision)
    }
}

/// Returns the version of a map whose last change is that of `revision`, where etcd has this base.
pub(crate) fn version(base: i64, revision: i64) -> i64 {
    base.saturating_add(revision)
}

/// The records of etcd as one node knows them, for nodes that cannot reach etcd.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recorded {
    /// The version of the last change of the records.
    pub version: i64,
    /// The nodes, each with the role in which it is registered.
    pub nodes: Vec<(Role, Node)>,
    /// The time until which every node that vanishes is held, because etcd was out of sight. `None`: etcd was
    /// in sight all the time.
    pub cautious_until: Option<Instant>,
}

/// The nodes that are in the map at present.
#[derive(Debug, Default)]
pub struct Membership {
    /// The version of the last change of the records. It never falls.
    version: i64,
    /// The base of the versions, as far as this node knows.
    base: i64,
    /// True if `version` may not be that of the last change: a list does not show when a record was deleted.
    guessed: bool,
    /// The records that etcd has, as far as this node knows them. Nodes that cannot reach etcd ask for them.
    records: BTreeMap<Key, Node>,
    /// The nodes in the map, including held ones.
    nodes: BTreeMap<Key, Node>,
    /// The nodes whose record has gone from etcd, each kept in the map until the given time.
    held: BTreeMap<Key, Instant>,
    /// The removals of nodes without a drain within the last lease, each with its time and the node's role.
    vanished: VecDeque<(Instant, Role)>,
    /// The time until which every node that vanishes is held.
    cautious_until: Option<Instant>,
}

impl Membership {
    /// Takes the whole list of a revision, which is read at the start and whenever changes may have been missed. Nodes
    /// that are not in the list were removed in the meantime. Every list but the first begins a time of caution of one
    /// lease, in which each node that vanishes is held. The list's version must not be below [`Self::version`].
    pub(crate) fn list(&mut self, listed: Listed, now: Instant) {
        let first = self.version == 0;
        if !first {
            self.cautious_until = Some(now + LEASE);
        }
        let (read_at, changed_at) = (listed.version(), version(listed.base, listed.changed));
        let nodes = by_key(listed.nodes);
        let deleted = self.records.keys().any(|key| !nodes.contains_key(key));
        let (before, guessed) = (self.version, self.guessed);
        self.base = listed.base;
        (self.version, self.guessed) = if first {
            // This node will write its own key, from whose version on all nodes have the same one.
            (read_at, false)
        } else if deleted {
            (read_at, true)
        } else {
            // If etcd is at a later revision, a key may have been written and deleted since the last list.
            let version = changed_at.max(before);
            let same = guessed && version == before;
            (version, same || read_at > version)
        };
        self.replace(nodes, now);
    }

    /// Takes the whole list from a node that sees etcd while this one does not. Returns `false`, and changes nothing,
    /// if the list is not newer than what this node knows. If the other node has seen etcd all along, the nodes that
    /// vanished there are really gone. If it is cautious, since etcd was away for it too, this node becomes cautious as
    /// well: otherwise it would take itself out of the map, and forget what it knows, while all others keep it.
    pub fn told(&mut self, version: i64, nodes: Vec<(Role, Node)>, cautious: bool, now: Instant) -> bool {
        let news = version > self.version;
        if news {
            if cautious {
                self.cautious_until = Some(now + LEASE);
            }
            (self.version, self.guessed) = (version, false);
            self.replace(by_key(nodes), now);
        }
        news
    }

    /// Replaces all records by those of a list.
    fn replace(&mut self, listed: BTreeMap<Key, Node>, now: Instant) {
        let gone: Vec<Key> = self
            .nodes
            .keys()
            .filter(|key| !listed.contains_key(key) && !self.held.contains_key(key))
            .cloned()
            .collect();
        self.records.clear();
        let puts = listed
            .into_iter()
            .map(|((role, _), node)| Change::Put(role, node));
        self.apply(puts.chain(gone.into_iter().map(Change::Delete)), now);
    }

    /// Applies changes in their order, of which the last is that of `revision`.
    pub fn change(&mut self, revision: i64, changes: impl IntoIterator<Item = Change>, now: Instant) {
        (self.version, self.guessed) = (version(self.base, revision), false);
        self.apply(changes, now);
    }

    /// Takes the base that etcd has since `revision`, or `None` if it has the same as before. Returns `false`, and
    /// changes nothing, if the version of that revision would be below the present one. Then the base has to be raised
    /// first.
    pub(crate) fn rebase(&mut self, base: Option<i64>, revision: i64) -> bool {
        let base = base.unwrap_or(self.base);
        let rises = version(base, revision) >= self.version;
        if rises {
            self.base = base;
        }
        rises
    }

    fn apply(&mut self, changes: impl IntoIterator<Item = Change>, now: Instant) {
        self.expire(now);
        for change in changes {
            match change {
                Change::Put(role, node) => {
                    let key = (role, node.name.clone());
                    self.records.insert(key.clone(), node.clone());
                    self.held.remove(&key);
                    if node.gone {
                        self.nodes.remove(&key);
                    } else {
                        self.nodes.insert(key, node);
                    }
                }
                Change::Delete(key) => {
                    self.records.remove(&key);
                    self.remove(key, now);
                }
            }
        }
    }

    /// Removes the nodes that were held for one lease. Call it at the time of [`Self::next_expiry`].
    pub fn expire(&mut self, now: Instant) {
        self.vanished.retain(|(at, _)| now.duration_since(*at) < LEASE);
        let nodes = &mut self.nodes;
        self.held.retain(|key, until| {
            if *until <= now {
                nodes.remove(key);
            }
            *until > now
        });
    }

    /// Returns the time at which [`Self::expire`] has something to do next. Returns `None` if no node is held.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.held.values().min().copied()
    }

    /// Returns how many nodes are kept in the map though their records are gone from etcd.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Returns the version of the map, or 0 if nothing was read yet.
    pub(crate) fn version(&self) -> i64 {
        self.version
    }

    /// Returns the records of etcd, without the nodes that are held.
    pub fn records(&self) -> Recorded {
        let records = self.records.iter();
        let records = records.map(|((role, _), node)| (*role, node.clone()));
        Recorded {
            version: self.version,
            nodes: records.collect(),
            cautious_until: self.cautious_until,
        }
    }

    /// Returns whether these are the records that [`Self::records`] would return now.
    pub(crate) fn are_known(&self, records: &Recorded) -> bool {
        (records.version, records.cautious_until) == (self.version, self.cautious_until)
    }

    /// Returns the map of the nodes that are in use at present.
    pub fn map(&self) -> ClusterMap {
        let nodes = self.nodes.iter().map(|((role, _), node)| (*role, node.clone()));
        let mut map = ClusterMap::new(self.version, nodes);
        if self.guessed {
            map.guess_version();
        }
        map
    }

    /// Removes a node whose record is gone, or holds it if too many have vanished.
    fn remove(&mut self, key: Key, now: Instant) {
        let Some(node) = self.nodes.get(&key) else { return };
        if node.draining {
            self.held.remove(&key);
            self.nodes.remove(&key);
            return;
        }
        let role = key.0;
        let vanished = self.vanished.iter().filter(|(_, of)| *of == role).count();
        let before = self.nodes.keys().filter(|(of, _)| *of == role).count() + vanished;
        let cautious = self.cautious_until.is_some_and(|until| now < until);
        let allowed = if cautious {
            0
        } else {
            (before * VANISH_PERCENT / 100).max(1)
        };
        if vanished < allowed {
            self.vanished.push_back((now, role));
            self.nodes.remove(&key);
        } else {
            self.held.entry(key).or_insert(now + LEASE);
        }
    }
}

fn by_key(nodes: Vec<(Role, Node)>) -> BTreeMap<Key, Node> {
    let keyed = nodes
        .into_iter()
        .map(|(role, node)| ((role, node.name.clone()), node));
    keyed.collect()
}

#[cfg(test)]
mod tests;
