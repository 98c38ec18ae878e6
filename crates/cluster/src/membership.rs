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
    /// The revision of etcd at which the list was read.
    pub revision: i64,
    /// The revision of the last write to a key that is in the list. 0: there is none.
    pub changed: i64,
    pub nodes: Vec<(Role, Node)>,
}

/// The records of etcd as one node knows them, for nodes that cannot reach etcd.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recorded {
    /// The revision of the last change of the records.
    pub revision: i64,
    pub nodes: Vec<(Role, Node)>,
    /// The time until which every node that vanishes is held, because etcd was out of sight. `None`: etcd was
    /// in sight all the time.
    pub cautious_until: Option<Instant>,
}

/// The nodes that are in the map at present.
#[derive(Debug, Default)]
pub struct Membership {
    /// The revision of the last change of the records.
    revision: i64,
    /// True if `revision` may not be that of the last change: a list does not show when a record was deleted.
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
    /// lease, in which each node that vanishes is held.
    pub(crate) fn list(&mut self, listed: Listed, now: Instant) {
        let first = self.revision == 0;
        if !first {
            self.cautious_until = Some(now + LEASE);
        }
        let nodes = by_key(listed.nodes);
        let deleted = self.records.keys().any(|key| !nodes.contains_key(key));
        let (before, guessed) = (self.revision, self.guessed);
        // etcd counts from a lower revision again if it was restored from a backup.
        let restored = listed.revision < before;
        (self.revision, self.guessed) = if first {
            // This node will write its own key, from whose revision on all nodes have the same version.
            (listed.revision, false)
        } else if deleted || restored {
            (listed.revision, true)
        } else {
            // If etcd is at a later revision, a key may have been written and deleted since the last list.
            let version = listed.changed.max(before);
            let same = guessed && version == before;
            (version, same || listed.revision > version)
        };
        self.replace(nodes, now);
    }

    /// Takes the whole list from a node that sees etcd while this one does not. Returns `false`, and changes nothing,
    /// if the list is not newer than what this node knows. If the other node has seen etcd all along, the nodes that
    /// vanished there are really gone. If it is cautious, since etcd was away for it too, this node becomes cautious as
    /// well: otherwise it would take itself out of the map, and forget what it knows, while all others keep it.
    pub fn told(&mut self, revision: i64, nodes: Vec<(Role, Node)>, cautious: bool, now: Instant) -> bool {
        let news = revision > self.revision;
        if news {
            if cautious {
                self.cautious_until = Some(now + LEASE);
            }
            (self.revision, self.guessed) = (revision, false);
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
        (self.revision, self.guessed) = (revision, false);
        self.apply(changes, now);
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

    /// Returns the records of etcd, without the nodes that are held.
    pub fn records(&self) -> Recorded {
        let records = self.records.iter();
        let records = records.map(|((role, _), node)| (*role, node.clone()));
        Recorded {
            revision: self.revision,
            nodes: records.collect(),
            cautious_until: self.cautious_until,
        }
    }

    /// Returns whether these are the records that [`Self::records`] would return now.
    pub(crate) fn are_known(&self, records: &Recorded) -> bool {
        (records.revision, records.cautious_until) == (self.revision, self.cautious_until)
    }

    /// Returns the map of the nodes that are in use at present.
    pub fn map(&self) -> ClusterMap {
        let nodes = self.nodes.iter().map(|((role, _), node)| (*role, node.clone()));
        let mut map = ClusterMap::new(self.revision, nodes);
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
mod tests {
    use super::*;

    fn node(name: &str) -> Node {
        Node {
            name: name.to_owned(),
            address: format!("{name}:1"),
            admin: String::new(),
            incarnation: 1,
            ..Node::default()
        }
    }

    fn members(count: usize, now: Instant) -> Membership {
        let mut membership = Membership::default();
        let names: Vec<String> = (0..count).map(|index| format!("chat-{index}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        membership.list(listed(1, 1, &names), now);
        membership
    }

    fn listed(revision: i64, changed: i64, names: &[&str]) -> Listed {
        let nodes = names.iter().map(|name| (Role::Chat, node(name)));
        Listed {
            revision,
            changed,
            nodes: nodes.collect(),
        }
    }

    fn delete(name: &str) -> Change {
        Change::Delete((Role::Chat, name.to_owned()))
    }

    fn names(membership: &Membership) -> Vec<String> {
        membership
            .map()
            .nodes(Role::Chat)
            .iter()
            .map(|node| node.name.clone())
            .collect()
    }

    #[test]
    fn one_of_two_that_crashes_goes_at_once() {
        let now = Instant::now();
        let mut membership = members(2, now);
        membership.change(2, [delete("chat-0")], now);
        assert_eq!(names(&membership), ["chat-1"]);
        assert_eq!(membership.map().version(), 2);
    }

    #[test]
    fn of_ten_that_vanish_seven_stay_for_one_lease() {
        let now = Instant::now();
        let mut membership = members(10, now);
        for index in 0..10 {
            membership.change(2 + index, [delete(&format!("chat-{index}"))], now);
        }
        assert_eq!((names(&membership).len(), membership.held()), (7, 7));
        assert_eq!(membership.next_expiry(), Some(now + LEASE));
        membership.expire(now + LEASE - Duration::from_millis(1));
        assert_eq!(names(&membership).len(), 7);
        membership.expire(now + LEASE);
        assert_eq!((names(&membership).len(), membership.held()), (0, 0));
    }

    #[test]
    fn what_vanishes_one_by_one_over_leases_is_not_held() {
        let mut now = Instant::now();
        let mut membership = members(4, now);
        for index in 0..4 {
            membership.change(2 + index, [delete(&format!("chat-{index}"))], now);
            now += LEASE;
        }
        assert!(names(&membership).is_empty());
    }

    #[test]
    fn a_drained_node_goes_at_once_however_many_go() {
        let now = Instant::now();
        let mut membership = members(3, now);
        let drain = |name| {
            Change::Put(
                Role::Chat,
                Node {
                    draining: true,
                    ..node(name)
                },
            )
        };
        let all = ["chat-0", "chat-1", "chat-2"];
        membership.change(2, all.map(drain), now);
        membership.change(3, all.map(delete), now);
        assert!(names(&membership).is_empty());
    }

    /// Two of three chat nodes are killed. If nobody had found them dead, one of the two would be held, and its chats
    /// would stand still for one more lease.
    #[test]
    fn nodes_that_were_found_dead_go_at_once_however_many_they_are() {
        let now = Instant::now();
        let mut membership = members(3, now);
        let gone = |name| {
            Change::Put(
                Role::Chat,
                Node {
                    gone: true,
                    ..node(name)
                },
            )
        };
        membership.change(2, ["chat-0", "chat-1"].map(gone), now);
        assert_eq!(
            (names(&membership), membership.held()),
            (vec!["chat-2".to_owned()], 0)
        );
        assert_eq!(membership.map().version(), 2);
        // Their leases end later, which does not count towards the nodes that may vanish.
        membership.change(3, ["chat-0", "chat-1"].map(delete), now + LEASE);
        membership.change(4, [delete("chat-2")], now + LEASE);
        assert!(names(&membership).is_empty());
        // One of the two is alive after all, and writes its record again.
        membership.change(5, [Change::Put(Role::Chat, node("chat-0"))], now + LEASE);
        assert_eq!(names(&membership), ["chat-0"]);
    }

    #[test]
    fn who_does_not_see_etcd_believes_newer_news_of_others_and_older_news_never() {
        let now = Instant::now();
        let mut membership = members(2, now);
        membership.list(listed(5, 5, &["chat-0", "chat-1"]), now);
        assert!(!membership.told(5, vec![], false, now) && !membership.told(4, vec![], false, now));
        let later = now + LEASE;
        assert!(membership.told(9, vec![(Role::Chat, node("chat-1"))], false, later));
        assert_eq!(
            (names(&membership), membership.held()),
            (vec!["chat-1".to_owned()], 0)
        );
        let records = membership.records();
        assert_eq!(
            (records.revision, records.nodes),
            (9, vec![(Role::Chat, node("chat-1"))])
        );
        assert_eq!(membership.map().version(), 9);
    }

    #[test]
    fn what_is_held_back_here_is_not_told_to_others() {
        let now = Instant::now();
        let mut membership = members(2, now);
        membership.change(2, [delete("chat-0"), delete("chat-1")], now);
        assert_eq!(membership.held(), 1);
        let records = membership.records();
        assert_eq!((records.revision, records.nodes), (2, vec![]));
    }

    /// etcd was away for all, and ended all leases. One node read it again, and tells another what it found before that
    /// one has registered again.
    #[test]
    fn who_hears_from_a_cautious_node_holds_what_that_node_holds() {
        let now = Instant::now();
        let mut reads = members(2, now);
        reads.list(listed(5, 4, &["chat-0"]), now);
        assert_eq!(names(&reads), ["chat-0", "chat-1"]);
        let told = reads.records();
        assert_eq!(told.cautious_until, Some(now + LEASE));
        let mut hears = members(2, now);
        assert!(hears.told(told.revision, told.nodes.clone(), true, now));
        assert_eq!(names(&hears), ["chat-0", "chat-1"]);
        // Whoever asks this node hears that too.
        assert_eq!(hears.records(), told);
        hears.expire(now + LEASE);
        assert_eq!(names(&hears), ["chat-0"]);
    }

    #[test]
    fn a_held_node_that_registers_again_stays() {
        let now = Instant::now();
        let mut membership = members(2, now);
        membership.change(2, [delete("chat-0"), delete("chat-1")], now);
        assert_eq!(names(&membership), ["chat-1"]);
        membership.change(
            3,
            [Change::Put(
                Role::Chat,
                Node {
                    incarnation: 2,
                    ..node("chat-1")
                },
            )],
            now,
        );
        membership.expire(now + 2 * LEASE);
        assert_eq!(names(&membership), ["chat-1"]);
        assert_eq!(membership.map().nodes(Role::Chat)[0].incarnation, 2);
    }

    #[test]
    fn after_a_further_list_whoever_vanishes_is_held_for_one_lease() {
        let now = Instant::now();
        let mut membership = members(4, now);
        membership.list(listed(9, 1, &["chat-0", "chat-1"]), now);
        membership.change(10, [delete("chat-1")], now);
        assert_eq!((names(&membership).len(), membership.held()), (4, 3));
        // Another list does not prolong their stay.
        membership.list(listed(10, 1, &["chat-0"]), now + LEASE / 2);
        membership.expire(now + LEASE);
        assert_eq!(names(&membership), ["chat-0"]);
        // The caution ends after one lease.
        membership.change(11, [delete("chat-0")], now + 2 * LEASE);
        assert!(names(&membership).is_empty());
    }

    /// Others may write to the same etcd, which raises its revision but not the map's version.
    #[test]
    fn a_further_list_raises_the_version_only_by_changes_of_the_records() {
        let now = Instant::now();
        let mut membership = Membership::default();
        membership.list(listed(5, 3, &["chat-0"]), now);
        membership.change(7, [Change::Put(Role::Chat, node("chat-1"))], now);
        let cases = [
            // (revision, changed, names, version, guessed)
            (7, 7, vec!["chat-0", "chat-1"], 7, false),
            // A key may have come and gone, or others wrote.
            (90, 7, vec!["chat-0", "chat-1"], 7, true),
            (100, 100, vec!["chat-0", "chat-1"], 100, false),
            // When chat-1 was deleted is not known.
            (110, 100, vec!["chat-0"], 110, true),
            (110, 100, vec!["chat-0"], 110, true),
            (125, 125, vec!["chat-0"], 125, false),
            // etcd was restored from a backup.
            (20, 3, vec!["chat-0"], 20, true),
        ];
        for (revision, changed, names, version, guessed) in cases {
            membership.list(listed(revision, changed, &names), now);
            let map = membership.map();
            assert_eq!(
                (map.version(), map.has_guessed_version()),
                (version, guessed),
                "at {revision}"
            );
        }
        membership.change(140, [Change::Put(Role::Chat, node("chat-0"))], now);
        let map = membership.map();
        assert_eq!((map.version(), map.has_guessed_version()), (140, false));
    }
}
