//! Maps and sets whose keys are ids.
//!
//! The standard library's hash function withstands an attacker who sees hashes and chooses keys at will, but it takes
//! a third of what a message costs its owner. Ids need less protection, for two reasons.
//!
//! - The hash has a secret key, drawn from the system's random numbers in each process and different in each
//!   map. Hashes and the order of a map never leave the process. So nobody outside can know which keys
//!   collide, though a client chooses its request ids, may name users and chats that do not exist, and may
//!   try inputs until a chat's digest (SHA-1) suits it. The ids of users, devices and sessions are made by
//!   the server.
//! - Few keys at a time are chosen by clients: a chat remembers 256 requests, and a chat that does not exist
//!   leaves memory as soon as the store has said so.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::SharedSeed;
use foldhash::quality::{FoldHasher, SeedableRandomState};
use uuid::Uuid;

/// A map by id, or by a tuple of ids.
pub type IdMap<K, V> = HashMap<K, V, IdState>;
/// A set of ids.
pub type IdSet<K> = HashSet<K, IdState>;

/// The secret key of this process, and the key that the next map gets.
static SEED: LazyLock<(SharedSeed, AtomicU64)> = LazyLock::new(|| {
    let (shared, first) = Uuid::new_v4().as_u64_pair();
    // A version 4 UUID has 60 random bits in one half and 62 in the other.
    (SharedSeed::from_u64(shared), AtomicU64::new(first))
});
/// The distance from one map's key to the next. It is odd, so that no key repeats before all 2^64 were used, and
/// large, so that neighbouring keys differ in many bits.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The state with which one map hashes ids: the process's secret key, and a key of its own.
#[derive(Debug, Clone)]
pub struct IdState(SeedableRandomState);

impl Default for IdState {
    fn default() -> Self {
        let (shared, next) = &*SEED;
        let own = next.fetch_add(STEP, Ordering::Relaxed);
        Self(SeedableRandomState::with_seed(own, shared))
    }
}

impl BuildHasher for IdState {
    type Hasher = FoldHasher<'static>;

    #[inline]
    fn build_hasher(&self) -> Self::Hasher {
        self.0.build_hasher()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ChatId, RequestId, UserId};

    #[test]
    fn every_map_has_a_key_of_its_own() {
        let id = ChatId(Uuid::nil());
        let hashes: HashSet<u64> = (0..1000).map(|_| IdState::default().hash_one(id)).collect();
        assert_eq!(hashes.len(), 1000);
    }

    #[test]
    fn ids_that_differ_little_do_not_meet() {
        let state = IdState::default();
        for shift in [0, 32, 64, 112] {
            let ids = (0..10_000).map(|number: u128| UserId(Uuid::from_u128(number << shift)));
            let hashes: IdSet<u64> = ids.clone().map(|id| state.hash_one(id)).collect();
            assert_eq!(hashes.len(), 10_000, "shifted by {shift}");
            // The table takes a key's place from the low bits: 10,000 random hashes fall into about 9,300 of 65,536
            // places.
            let places: IdSet<u64> = ids.map(|id| state.hash_one(id) & 0xffff).collect();
            assert!(places.len() > 9_000, "shifted by {shift}: {}", places.len());
        }
    }

    #[test]
    fn a_map_by_two_ids_tells_them_apart() {
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let mut map = IdMap::default();
        map.insert((UserId(one), RequestId(other)), "this way");
        map.insert((UserId(other), RequestId(one)), "that way");
        assert_eq!(map[&(UserId(one), RequestId(other))], "this way");
        assert_eq!(map.len(), 2);
    }
}
