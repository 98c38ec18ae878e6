//! Defines the cluster map: which nodes exist, and which of them owns a slot. The map is pure data that never changes;
//! a new map takes its place.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use rand::seq::IteratorRandom;
use serde::{Deserialize, Serialize};
use tern_types::slot::rendezvous;
use tern_types::{SLOTS, Slot};
use tokio::sync::watch;

/// The role of a node. One process may have several roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Holds the clients' streams.
    Gateway,
    /// Owns chats and commits their messages.
    Chat,
    /// Knows which sessions and users are online.
    Presence,
    /// Keeps users, devices and tokens.
    Accounts,
    /// Signs uploads and downloads of media.
    Media,
    /// Sends push notifications to devices without a stream.
    Push,
}

impl Role {
    /// All roles, in the order in which they are listed.
    pub const ALL: [Self; 6] = [
        Self::Gateway,
        Self::Chat,
        Self::Presence,
        Self::Accounts,
        Self::Media,
        Self::Push,
    ];

    /// Returns the role's name in flags, in etcd and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Chat => "chat",
            Self::Presence => "presence",
            Self::Accounts => "accounts",
            Self::Media => "media",
            Self::Push => "push",
        }
    }

    /// Returns whether the slots are divided among the nodes of the role.
    pub fn owns_slots(self) -> bool {
        matches!(self, Self::Chat | Self::Presence)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The error for a word that is not the name of a role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no such role: {0} (gateway, chat, presence, accounts, media, push)")]
pub struct UnknownRole(String);

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| UnknownRole(text.to_owned()))
    }
}

/// One process in one of its roles.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// The node's name. It is unique within a role, and stays the same when the process starts again.
    #[serde(skip)]
    pub name: String,
    /// The node's address for internal gRPC, host:port.
    pub address: String,
    /// The node's address for metrics and probes, host:port, or an empty string if it is not known, as for nodes of
    /// older versions.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub admin: String,
    /// The number of this start of the process, which rises with each start.
    pub incarnation: u64,
    /// True if the node is stopping: it owns no slots and takes no new work.
    #[serde(default)]
    pub draining: bool,
    /// True if the node is alive, but cut off from what its work needs, while others of its role are not
    /// ([`crate::wellness`]). It owns no slots while a node that is well can own them.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unwell: bool,
    /// True if another node found that this node's process is dead ([`crate::etcd::Obituaries`]). Then it is
    /// no longer in the map. If the process is alive after all, it writes the record again, without this
    /// mark.
    #[serde(default, skip_serializing_if = "is_false")]
    pub gone: bool,
    /// True if the node was marked as gone although it was alive. Then nobody may mark this incarnation
    /// again.
    #[serde(default, skip_serializing_if = "is_false")]
    pub insists: bool,
    /// True if the node's version knows users' own logs. Nodes make none while a chat node does not.
    #[serde(default, skip_serializing_if = "is_false")]
    pub knows_own_logs: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

/// The nodes of every role at one version of the map, with the owner of each slot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClusterMap {
    version: i64,
    /// See [`Self::has_guessed_version`].
    guessed: bool,
    roles: [RoleMap; Role::ALL.len()],
}

/// The nodes of one role.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct RoleMap {
    /// The nodes, ascending by name.
    nodes: Vec<Node>,
    /// The index in `nodes` of each slot's owner. It is empty if the role owns no slots or no node may own any.
    owners: Vec<u16>,
}

impl ClusterMap {
    /// Makes the map of `nodes` at `version`. If two nodes of a role have the same name, the newer incarnation
    /// counts.
    pub fn new(version: i64, nodes: impl IntoIterator<Item = (Role, Node)>) -> Self {
        let mut sorted: [BTreeMap<String, Node>; Role::ALL.len()] = Default::default();
        for (role, node) in nodes {
            let known = &mut sorted[role as usize];
            if known
                .get(&node.name)
                .is_none_or(|old| old.incarnation <= node.incarnation)
            {
                known.insert(node.name.clone(), node);
            }
        }
        let roles = Role::ALL.map(|role| {
            let nodes = std::mem::take(&mut sorted[role as usize]);
            RoleMap::new(role, nodes.into_values().collect())
        });
        Self {
            version,
            guessed: false,
            roles,
        }
    }

    /// Returns the map's version, which is that of its last change and rises with each ([`crate::etcd`]).
    pub fn version(&self) -> i64 {
        self.version
    }

    /// Notes that the version may not be that of the last change. Other nodes may have the same map under
    /// another version.
    pub(crate) fn guess_version(&mut self) {
        self.guessed = true;
    }

    /// Returns whether the version may not be that of the last change.
    pub(crate) fn has_guessed_version(&self) -> bool {
        self.guessed
    }

    /// Returns all nodes of the role, including draining ones, ascending by name.
    pub fn nodes(&self, role: Role) -> &[Node] {
        &self.roles[role as usize].nodes
    }

    /// Returns the node of the role with this name, or `None` if there is none.
    pub fn node(&self, role: Role, name: &str) -> Option<&Node> {
        let nodes = self.nodes(role);
        nodes
            .binary_search_by(|node| node.name.as_str().cmp(name))
            .ok()
            .map(|index| &nodes[index])
    }

    /// Returns the owner of the slot, or `None` if all nodes of the role are draining or gone, or the role owns no slots.
    /// Unwell nodes own slots only if all nodes are unwell, because then the cause affects everybody.
    pub fn owner(&self, role: Role, slot: Slot) -> Option<&Node> {
        let map = &self.roles[role as usize];
        map.owners
            .get(slot.index())
            .map(|index| &map.nodes[usize::from(*index)])
    }

    /// Returns whether the node with this name owns the slot.
    pub fn owns(&self, role: Role, node: &str, slot: Slot) -> bool {
        self.owner(role, slot).is_some_and(|owner| owner.name == node)
    }

    /// Returns the slots of the role that have another owner than in an `older` map, each with the owner before and now. A
    /// node that was started again is another owner.
    pub fn moved_since<'a>(
        &'a self,
        older: &'a Self,
        role: Role,
    ) -> impl Iterator<Item = (Slot, Option<&'a Node>, Option<&'a Node>)> {
        let owners = move |slot| (slot, older.owner(role, slot), self.owner(role, slot));
        let run = |node: Option<&'a Node>| node.map(|node| (&node.name, node.incarnation));
        Slot::all()
            .map(owners)
            .filter(move |(_, before, now)| run(*before) != run(*now))
    }

    /// Returns a random node of the role that takes work: one that is not draining, and that is well if any node is
    /// well. Returns `None` if there is none.
    pub fn any(&self, role: Role) -> Option<&Node> {
        able(self.nodes(role)).choose(&mut rand::rng())
    }
}

/// Returns the nodes that take work: those that are not draining and are well, or all that are not draining if none
/// of them is well.
fn able(nodes: &[Node]) -> impl Iterator<Item = &Node> {
    let any_well = nodes.iter().any(|node| !node.draining && !node.unwell);
    nodes
        .iter()
        .filter(move |node| !node.draining && (!any_well || !node.unwell))
}

impl RoleMap {
    fn new(role: Role, nodes: Vec<Node>) -> Self {
        let able = || able(&nodes).map(|node| node.name.as_str());
        let mut owners = Vec::new();
        // Every node looks for the owners after every change, so not for those of thousands of gateways, which nobody asks
        // for.
        if role.owns_slots() && able().next().is_some() {
            owners.reserve_exact(usize::from(SLOTS));
            for slot in Slot::all() {
                let owner = rendezvous(slot, able());
                let index = owner.and_then(|name| nodes.iter().position(|node| node.name == name));
                owners.extend(index.and_then(|index| u16::try_from(index).ok()));
            }
        }
        Self { nodes, owners }
    }
}

/// A handle that has the present map, and can wait for the next one.
#[derive(Debug, Clone)]
pub struct MapHandle(watch::Receiver<Arc<ClusterMap>>);

impl MapHandle {
    /// Returns the present map.
    pub fn current(&self) -> Arc<ClusterMap> {
        self.0.borrow().clone()
    }

    /// Waits for a map that is newer than the last one that this method of this handle returned, and returns it. A
    /// clone starts where its original was. It waits for ever if nobody updates the map any more.
    pub async fn changed(&mut self) -> Arc<ClusterMap> {
        match self.0.changed().await {
            Ok(()) => self.0.borrow_and_update().clone(),
            Err(_) => std::future::pending().await,
        }
    }

    /// Makes a handle of a map that never changes.
    pub fn fixed(map: ClusterMap) -> Self {
        Self::channel(map).1
    }

    /// Makes a handle of `map`, and the sender that replaces the map.
    pub fn channel(map: ClusterMap) -> (watch::Sender<Arc<ClusterMap>>, Self) {
        let (tx, rx) = watch::channel(Arc::new(map));
        (tx, Self(rx))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use tern_types::ChatId;

    use super::*;

    fn node(name: &str) -> Node {
        Node {
            name: name.to_owned(),
            address: "127.0.0.1:1".to_owned(),
            admin: String::new(),
            incarnation: 1,
            ..Node::default()
        }
    }

    fn map<'a>(names: impl IntoIterator<Item = &'a String>) -> ClusterMap {
        ClusterMap::new(1, names.into_iter().map(|name| (Role::Chat, node(name))))
    }

    fn owner(map: &ClusterMap, slot: Slot) -> Option<&str> {
        map.owner(Role::Chat, slot).map(|node| node.name.as_str())
    }

    #[test]
    fn a_slot_moves_with_its_owner_and_when_the_owner_is_started_again() {
        let [a, b] = ["a", "b"].map(str::to_owned);
        let (one, both) = (map([&a]), map([&a, &b]));
        let moved: Vec<_> = both.moved_since(&one, Role::Chat).collect();
        assert!(!moved.is_empty() && moved.len() < usize::from(SLOTS));
        for (slot, before, now) in moved {
            assert_eq!(before.map(|node| &node.name), Some(&a));
            assert!(now.is_some_and(|node| node.name == b) && both.owns(Role::Chat, "b", slot));
        }
        assert_eq!(both.moved_since(&both, Role::Chat).count(), 0);
        let again = Node {
            incarnation: 2,
            ..node("a")
        };
        let again = ClusterMap::new(2, [(Role::Chat, again)]);
        assert_eq!(again.moved_since(&one, Role::Chat).count(), usize::from(SLOTS));
    }

    #[test]
    fn roles_do_not_mix() {
        let map = ClusterMap::new(7, [(Role::Chat, node("a")), (Role::Presence, node("b"))]);
        let slot = Slot::of_chat(ChatId(uuid::Uuid::nil()));
        assert_eq!(map.version(), 7);
        assert_eq!(owner(&map, slot), Some("a"));
        assert_eq!(map.owner(Role::Presence, slot).map(|node| &*node.name), Some("b"));
        assert_eq!(map.owner(Role::Gateway, slot), None);
        assert_eq!(map.any(Role::Accounts), None);
        assert!(map.node(Role::Presence, "a").is_none());
    }

    #[test]
    fn slots_are_divided_among_the_nodes_of_the_roles_that_own_some() {
        let map = ClusterMap::new(1, Role::ALL.map(|role| (role, node("a"))));
        for role in Role::ALL {
            let owned = Slot::all().filter(|slot| map.owns(role, "a", *slot)).count();
            let all = matches!(role, Role::Chat | Role::Presence);
            assert_eq!(owned, if all { usize::from(SLOTS) } else { 0 }, "{role}");
            assert!(map.any(role).is_some(), "{role}");
        }
    }

    #[test]
    fn a_draining_node_is_known_but_owns_nothing() {
        let draining = Node {
            draining: true,
            ..node("b")
        };
        let map = ClusterMap::new(1, [(Role::Chat, node("a")), (Role::Chat, draining.clone())]);
        assert_eq!(map.node(Role::Chat, "b"), Some(&draining));
        assert!(Slot::all().all(|slot| owner(&map, slot) == Some("a")));
        assert!((0..64).all(|_| map.any(Role::Chat).is_some_and(|node| node.name == "a")));

        let alone = ClusterMap::new(2, [(Role::Chat, draining)]);
        assert!(Slot::all().all(|slot| owner(&alone, slot).is_none()));
        assert_eq!(alone.any(Role::Chat), None);
    }

    #[test]
    fn an_unwell_node_owns_nothing_unless_all_are_unwell() {
        let unwell = |name| Node {
            unwell: true,
            ..node(name)
        };
        let one = ClusterMap::new(1, [(Role::Chat, node("a")), (Role::Chat, unwell("b"))]);
        assert!(Slot::all().all(|slot| owner(&one, slot) == Some("a")));
        assert!((0..64).all(|_| one.any(Role::Chat).is_some_and(|node| node.name == "a")));

        let well = ClusterMap::new(1, ["a", "b"].map(|name| (Role::Chat, node(name))));
        let both = ClusterMap::new(1, ["a", "b"].map(|name| (Role::Chat, unwell(name))));
        assert!(Slot::all().all(|slot| owner(&both, slot) == owner(&well, slot)));
        assert!(both.any(Role::Chat).is_some());

        // When the last node that is well leaves, an unwell owner is better than none.
        let leaving = Node {
            draining: true,
            ..node("a")
        };
        let left = ClusterMap::new(2, [(Role::Chat, leaving), (Role::Chat, unwell("b"))]);
        assert!(Slot::all().all(|slot| owner(&left, slot) == Some("b")));
    }

    #[test]
    fn a_record_says_only_what_is_so_and_flags_of_later_versions_are_passed_over() {
        let written = serde_json::to_string(&node("a")).unwrap();
        assert!(
            !written.contains("unwell") && !written.contains("gone"),
            "{written}"
        );
        let read: Node = serde_json::from_str(r#"{"address":"h:1","incarnation":3,"zone":"eu"}"#).unwrap();
        assert!(!read.unwell && !read.gone && !read.insists);
    }

    #[test]
    fn of_one_name_the_newer_incarnation_counts() {
        let newer = Node {
            incarnation: 2,
            address: "127.0.0.1:2".to_owned(),
            ..node("a")
        };
        for nodes in [[node("a"), newer.clone()], [newer.clone(), node("a")]] {
            let map = ClusterMap::new(1, nodes.map(|node| (Role::Chat, node)));
            assert_eq!(map.nodes(Role::Chat), std::slice::from_ref(&newer));
        }
    }

    #[test]
    fn role_names_read_as_they_are_written() {
        for role in Role::ALL {
            assert_eq!(role.as_str().parse(), Ok(role));
        }
        assert!("router".parse::<Role>().is_err());
    }

    #[tokio::test]
    async fn a_handle_tells_of_the_next_map() {
        let (tx, mut handle) = MapHandle::channel(ClusterMap::default());
        tx.send_replace(Arc::new(map(&["a".to_owned()])));
        assert_eq!(handle.changed().await.version(), 1);
        assert_eq!(handle.current().nodes(Role::Chat).len(), 1);
        drop(tx);
        assert!(futures::FutureExt::now_or_never(handle.changed()).is_none());
    }

    fn names() -> impl Strategy<Value = BTreeSet<String>> {
        proptest::collection::btree_set("[a-z]{1,8}-[0-9]", 1..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn every_slot_has_one_owner_whatever_the_order(names in names()) {
            let (forth, back) = (map(&names), map(names.iter().rev()));
            for slot in Slot::all() {
                prop_assert!(owner(&forth, slot).is_some_and(|name| names.contains(name)));
                prop_assert_eq!(owner(&forth, slot), owner(&back, slot));
            }
        }

        #[test]
        fn a_node_that_leaves_or_drains_moves_only_its_own_slots(names in names(), pick: prop::sample::Index) {
            let before = map(&names);
            let leaver = names.iter().nth(pick.index(names.len())).cloned().unwrap_or_default();
            let left = map(names.iter().filter(|name| **name != leaver));
            let drained = ClusterMap::new(1, names.iter().map(|name| {
                (Role::Chat, Node { draining: *name == leaver, ..node(name) })
            }));
            for slot in Slot::all() {
                let was = owner(&before, slot);
                prop_assert!(was == Some(leaver.as_str()) || was == owner(&left, slot));
                prop_assert_eq!(owner(&left, slot), owner(&drained, slot));
            }
        }
    }
}
