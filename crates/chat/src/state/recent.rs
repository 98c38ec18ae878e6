//! The newest requests of a chat, so that a repetition is answered without asking the store.

use std::collections::{HashMap, VecDeque};

use tern_types::{RequestId, Seq, Timestamp, UserId};

use super::entry::Fingerprint;

/// Requests remembered a chat: a client that lost its stream repeats at most its sends in flight (128), and a direct
/// chat has two of those. Older repetitions are found by the commit in the store.
const REMEMBERED: usize = 256;

/// A request that has its place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    pub seq: Seq,
    pub sent_at: Timestamp,
    pub fingerprint: Fingerprint,
}

/// Bounded by [`REMEMBERED`]; the oldest goes first.
#[derive(Debug, Default)]
pub struct Recent {
    placed: HashMap<(UserId, RequestId), Placed>,
    order: VecDeque<(UserId, RequestId)>,
}

impl Recent {
    pub fn get(&self, sender: UserId, request: RequestId) -> Option<&Placed> {
        self.placed.get(&(sender, request))
    }

    pub fn insert(&mut self, sender: UserId, request: RequestId, placed: Placed) {
        if self.placed.insert((sender, request), placed).is_none() {
            self.order.push_back((sender, request));
        }
        while self.order.len() > REMEMBERED {
            if let Some(oldest) = self.order.pop_front() {
                self.placed.remove(&oldest);
            }
        }
    }
}
