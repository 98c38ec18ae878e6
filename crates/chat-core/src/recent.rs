//! The newest requests of a chat, so that a repeated request is answered without asking the store.

use std::collections::VecDeque;

use tern_types::{IdMap, RequestId, Seq, Timestamp, UserId};

use super::entry::Fingerprint;
use super::target::Target;

/// The number of requests that are remembered for each chat. A client that lost its stream repeats at most its sends in
/// flight (128), and a direct chat has two such clients. The commit finds an older repetition in the store.
const REMEMBERED: usize = 256;

/// A request that became an entry of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// The seq of the entry.
    pub seq: Seq,
    /// The number of entries up to and with this one that count as unread: `tern.v1.Entry.ordinal`.
    pub ordinal: u64,
    /// The time of the entry, by the wall clock.
    pub sent_at: Timestamp,
    /// The fingerprint of the request or, of an entry that was loaded, what the store keeps of it:
    /// [`stored_fingerprint`](crate::content::stored_fingerprint).
    pub fingerprint: Fingerprint,
    /// True if the entry is a message ([`EntryKind::Message`](crate::EntryKind::Message)).
    pub is_message: bool,
    /// True if the entry was deleted, or had disappeared, when it was read. It is not kept up to date.
    pub erased: bool,
    /// The seconds after which the message disappears; 0: it stays.
    pub expires_after_s: u32,
}

impl Placed {
    /// Returns the facts about the entry, which this user sent, that decide what may be done to it.
    pub fn target(&self, sender: UserId) -> Target {
        Target {
            sender,
            sent_at: self.sent_at,
            is_message: self.is_message,
            erased: self.erased,
            expires_after_s: self.expires_after_s,
        }
    }
}

/// The result of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// The request became this entry.
    Placed(Placed),
    /// The request changed nothing. Such a request leaves no entry in the log, so only this memory knows of it.
    Unchanged(Fingerprint),
}

/// The results of a chat's newest requests, at most [`REMEMBERED`]. The oldest is forgotten first.
#[derive(Debug, Default)]
pub struct Recent {
    known: IdMap<(UserId, RequestId), Known>,
    /// The keys of `known`, each once, the oldest first.
    order: VecDeque<(UserId, RequestId)>,
}

impl Recent {
    /// Returns the result of a request, or `None` if it is not remembered.
    pub fn get(&self, sender: UserId, request: RequestId) -> Option<&Known> {
        self.known.get(&(sender, request))
    }

    /// Remembers the result of a request.
    pub fn insert(&mut self, sender: UserId, request: RequestId, known: Known) {
        if self.known.insert((sender, request), known).is_none() {
            self.order.push_back((sender, request));
        }
        while self.order.len() > REMEMBERED {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
        debug_assert_eq!(self.known.len(), self.order.len(), "both have the same requests");
    }
}
