//! Slots: chats and users are spread over nodes by slot, and a node owns whole slots.

use std::fmt;

use uuid::Uuid;

use crate::{ChatId, UserId, partition_hash};

/// The number of slots. It never changes: a slot is the smallest unit of work that moves between nodes, and 4,096 is
/// plenty for hundreds of nodes.
pub const SLOTS: u16 = 4096;

/// The slot of a chat or user: the remainder by 4096 of the hash by which Postgres finds the id's hash partition.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(u16);

impl Slot {
    /// Returns the slot whose owner orders and commits the chat's entries.
    pub fn of_chat(chat: ChatId) -> Self {
        Self::of(chat.0)
    }

    /// Returns the slot whose owner knows the user's live sessions.
    pub fn of_user(user: UserId) -> Self {
        Self::of(user.0)
    }

    /// Returns the slot with this number; `None` if `number` is 4,096 or more.
    pub fn new(number: u16) -> Option<Self> {
        (number < SLOTS).then_some(Self(number))
    }

    /// Returns all slots, in ascending order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..SLOTS).map(Self)
    }

    /// Returns the slot's number, from 0 to 4,095.
    pub fn number(self) -> u16 {
        self.0
    }

    /// Returns the slot's number as an index into a table of [`SLOTS`] places.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    fn of(id: Uuid) -> Self {
        Self((partition_hash::of_uuid(id) % u64::from(SLOTS)) as u16)
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {}", self.0)
    }
}

/// Returns which of `nodes` owns `slot`, by rendezvous hashing (Thaler and Ravishankar, 1998): when a node joins or
/// leaves, only its own share of the slots moves. `None` if `nodes` is empty.
pub fn rendezvous<'a>(slot: Slot, nodes: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    nodes
        .into_iter()
        .max_by_key(|name| (mix(name_hash(name) ^ mix(u64::from(slot.0) + 1)), *name))
}

/// Returns the 64-bit FNV-1a hash of a node's name (Fowler, Noll, Vo).
fn name_hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Mixes the bits of a number, as the finaliser of splitmix64 does (Steele, Lea, Flood, 2014).
fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owners(nodes: &[&'static str]) -> Vec<&'static str> {
        Slot::all()
            .filter_map(|slot| rendezvous(slot, nodes.iter().copied()))
            .collect()
    }

    #[test]
    fn slots_are_shared_evenly() {
        let nodes = ["chat-0", "chat-1", "chat-2", "chat-3"];
        let owners = owners(&nodes);
        for node in nodes {
            let share = owners.iter().filter(|owner| **owner == node).count();
            assert!((820..1230).contains(&share), "{node} has {share} of 4096");
        }
    }

    #[test]
    fn a_leaving_node_moves_only_its_own_slots() {
        let before = owners(&["chat-0", "chat-1", "chat-2"]);
        let after = owners(&["chat-0", "chat-2"]);
        for (old, new) in before.iter().zip(&after) {
            assert!(*old == "chat-1" || old == new);
        }
    }

    #[test]
    fn the_slot_of_an_id_never_changes() {
        let id = ChatId(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_002a));
        assert_eq!(Slot::of_chat(id).number(), 1027);
        assert_eq!(Slot::new(SLOTS), None);
    }

    #[test]
    fn no_nodes_no_owner() {
        assert_eq!(rendezvous(Slot(0), []), None);
    }
}
