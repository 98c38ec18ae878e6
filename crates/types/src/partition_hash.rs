//! The hash by which Postgres finds the hash partition of a uuid. The slot of a chat is derived from it, so that the
//! tables of a cell can be a hash partition of a table of all chats.
//!
//! It is `hash_bytes_extended` of Postgres (Bob Jenkins' lookup3 with a 64-bit seed), combined as for a partition key of
//! one column (`compute_partition_hash_value`). Postgres keeps both as they are, since its indexes and partitions depend
//! on them.

/// The seed of Postgres' hash partitions, `HASH_PARTITION_SEED`.
const SEED: u64 = 0x7A5B_2236_7996_DCFD;
/// The number that `hash_combine64` adds to the hash of the first column of a partition key.
const COMBINE: u64 = 0x49A0_F4DD_15E5_A8E3;
/// The initial value of the state: the golden ratio, the number of bytes, and a constant of Postgres.
const START: u32 = 0x9E37_79B9_u32.wrapping_add(16).wrapping_add(3_923_095);

/// Returns the partition hash of a uuid. Its remainder by a partitioned table's modulus is that of the partition.
pub(crate) fn of_uuid(id: uuid::Uuid) -> u64 {
    let bytes = id.into_bytes();
    let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let mut state = State {
        a: START.wrapping_add((SEED >> 32) as u32),
        b: START.wrapping_add(SEED as u32),
        c: START,
    };
    state.mix();
    state.add(word(0), word(4), word(8));
    state.mix();
    state.add(word(12), 0, 0);
    state.finish();
    (u64::from(state.b) << 32 | u64::from(state.c)).wrapping_add(COMBINE)
}

/// The state of lookup3.
struct State {
    a: u32,
    b: u32,
    c: u32,
}

impl State {
    fn add(&mut self, a: u32, b: u32, c: u32) {
        self.a = self.a.wrapping_add(a);
        self.b = self.b.wrapping_add(b);
        self.c = self.c.wrapping_add(c);
    }

    /// Mixes the state reversibly after twelve bytes.
    fn mix(&mut self) {
        for rotations in [[4, 6, 8], [16, 19, 4]] {
            let Self { a, b, c } = self;
            *a = a.wrapping_sub(*c) ^ c.rotate_left(rotations[0]);
            *c = c.wrapping_add(*b);
            *b = b.wrapping_sub(*a) ^ a.rotate_left(rotations[1]);
            *a = a.wrapping_add(*c);
            *c = c.wrapping_sub(*b) ^ b.rotate_left(rotations[2]);
            *b = b.wrapping_add(*a);
        }
    }

    /// Mixes the state so that `b` and `c` depend on all of it.
    fn finish(&mut self) {
        let Self { a, b, c } = self;
        let step =
            |of: &mut u32, by: u32, rotation: u32| *of = (*of ^ by).wrapping_sub(by.rotate_left(rotation));
        step(c, *b, 14);
        step(a, *c, 11);
        step(b, *a, 25);
        step(c, *b, 16);
        step(a, *c, 4);
        step(b, *a, 14);
        step(c, *b, 24);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The remainders are those for which Postgres 15 returns true:
    /// `SELECT satisfies_hash_partition('t'::regclass, 4096, remainder, id)`. More are compared in the tests of `store`.
    #[test]
    fn the_hash_is_that_of_postgres() {
        let cases = [
            (0, 2981),
            (0x0190_0000_0000_7000_8000_0000_0000_002a, 1027),
            (u128::MAX, 3457),
            (0x0011_2233_4455_6677_8899_aabb_ccdd_eeff, 2438),
        ];
        for (id, remainder) in cases {
            assert_eq!(of_uuid(uuid::Uuid::from_u128(id)) % 4096, remainder, "{id:x}");
        }
    }
}
