//! The newest requests of a chat, so that a repetition is answered without asking the store.

use std::collections::VecDeque;

use tern_types::{IdMap, RequestId, Seq, Timestamp, UserId};

use super::entry::Fingerprint;

/// Requests remembered a chat: a client that lost its stream repeats at most its sends in flight (128), and a direct
/// chat has two of those. Older repetitions are found by the commit in the store.
const REMEMBERED: usize = 256;

/// A request that has its place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    pub seq: Seq,
    /// See `tern.v1.Entry.ordinal`.
    pub ordinal: u64,
    pub sent_at: Timestamp,
    pub fingerprint: Fingerprint,
}

/// What a request came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    Placed(Placed),
    /// Nothing had to change. Only remembered here: the log says nothing of it.
    Unchanged(Fingerprint),
}

impl Known {
    pub fn fingerprint(&self) -> Fingerprint {
        match self {
            Self::Placed(placed) => placed.fingerprint,
            Self::Unchanged(fingerprint) => *fingerprint,
        }
    }
}

/// Bounded by [`REMEMBERED`]; the oldest goes first.
#[derive(Debug, Default)]
pub struct Recent {
    known: IdMap<(UserId, RequestId), Known>,
    order: VecDeque<(UserId, RequestId)>,
}

impl Recent {
    pub fn get(&self, sender: UserId, request: RequestId) -> Option<&Known> {
        self.known.get(&(sender, request))
    }

    pub fn insert(&mut self, sender: UserId, request: RequestId, known: Known) {
        if self.known.insert((sender, request), known).is_none() {
            self.order.push_back((sender, request));
        }
        while self.order.len() > REMEMBERED {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }
}
