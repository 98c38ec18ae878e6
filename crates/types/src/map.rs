//! Maps and sets whose keys are ids.
//!
//! The standard library's hash withstands an attacker who sees hashes and picks keys at will, and takes a third of what a
//! message costs its owner. Ids need less. Those of users, devices and sessions are made by the server, those of chats are
//! SHA-1 digests. A client picks its request ids, may name users who do not exist, and has digests tried until they suit; but
//! the hash is keyed, anew in each process from the system's random numbers and differently in each map, so nobody outside
//! knows which keys would meet. Hashes and the order of a map never leave the process. Where clients pick keys the maps are
//! small besides: a chat remembers 256 requests.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::SharedSeed;
use foldhash::quality::{FoldHasher, SeedableRandomState};
use uuid::Uuid;

/// A map by id, or by several.
pub type IdMap<K, V> = HashMap<K, V, IdState>;
/// A set of ids.
pub type IdSet<K> = HashSet<K, IdState>;

/// The process's key, and the first map's.
static SEED: LazyLock<(SharedSeed, AtomicU64)> = LazyLock::new(|| {
    let (shared, first) = Uuid::new_v4().as_u64_pair();
    // 60 and 62 bits of it are random.
    (SharedSeed::from_u64(shared), AtomicU64::new(first))
});
/// From one map's key to the next: odd, so that none comes again before all 2^64 were there; and far away.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// How ids are hashed: see the module.
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
            // The table takes its place from the low bits: 10,000 into 65,536 by chance are in 9,300 places.
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
