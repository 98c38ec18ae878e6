//! A [`Log`] is a chat as its owners and the store have it, with one member who comes and goes.

use tern_types::ChatId;
use uuid::Uuid;

/// Returns the id of the chat with this number.
pub fn chat_id(n: usize) -> ChatId {
    ChatId(Uuid::from_u128(n as u128 + 1))
}

/// Returns the number of the chat with this id.
pub fn index(chat: ChatId) -> usize {
    chat.0.as_u128() as usize - 1
}

/// The state of a chat when the stream is opened: the device has the first `stored` entries, and `missed` more are in
/// its inbox. With `away`, and more than two missed, the first of those removed the user and the last added them again.
#[derive(Debug, Clone, Copy, Default)]
pub struct History {
    pub stored: u64,
    pub missed: u64,
    pub away: bool,
}

/// One event of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Entry(u64),
    Skipped(u64),
}

impl Place {
    pub fn seq(self) -> u64 {
        match self {
            Self::Entry(seq) | Self::Skipped(seq) => seq,
        }
    }
}

/// One chat: its log, the times at which its one member was a member, and the member's inbox row.
#[derive(Debug, Default)]
pub struct Log {
    pub head: u64,
    /// The times of membership, each with the seqs of the entry that added the user and of the one that removed them.
    times: Vec<(u64, Option<u64>)>,
    /// The seq of the lowest entry that is not settled.
    pub unsettled: Option<u64>,
    /// The seq of the acknowledgement that the owner has in memory.
    pub remembered_ack: u64,
    /// The seq at which the device's inbox row begins.
    pub row: Option<u64>,
}

impl Log {
    pub fn new(history: History) -> Self {
        let head = history.stored + history.missed;
        let away = history.away && history.missed > 2;
        Self {
            head,
            times: match away {
                true => vec![(1, Some(history.stored + 1)), (head, None)],
                false => vec![(1, None)],
            },
            unsettled: None,
            remembered_ack: history.stored,
            row: (history.missed > 0).then_some(history.stored + 1),
        }
    }

    pub fn is_member(&self) -> bool {
        self.times.last().is_some_and(|(_, left)| left.is_none())
    }

    /// Returns whether the entry is the user's: they were a member, or it is the one that removed them.
    pub fn is_theirs(&self, seq: u64) -> bool {
        let covers =
            |(joined, left): &(u64, Option<u64>)| (*joined..=left.unwrap_or(self.head)).contains(&seq);
        self.times.iter().any(covers)
    }

    /// Returns the seq of the last entry that the user may have.
    pub fn last(&self) -> u64 {
        let newest = self.times.last();
        newest.map_or(0, |(_, left)| left.unwrap_or(self.head).min(self.head))
    }

    /// Adds an entry and returns its seq.
    pub fn commit(&mut self) -> u64 {
        self.head += 1;
        self.unsettled.get_or_insert(self.head);
        self.head
    }

    /// Adds the user, and returns the seq of the entry that does it. Returns `None` if they are a member already.
    pub fn add(&mut self) -> Option<u64> {
        (!self.is_member()).then(|| {
            let seq = self.commit();
            self.times.push((seq, None));
            seq
        })
    }

    /// Removes the user, and returns the seq of the entry that does it. Returns `None` if they are no member.
    pub fn remove(&mut self) -> Option<u64> {
        self.is_member().then(|| {
            let seq = self.commit();
            if let Some(newest) = self.times.last_mut() {
                newest.1 = Some(seq);
            }
            seq
        })
    }

    /// Returns the seq of the first unsettled entry that the user may have and that lies above `acked`.
    fn owed(&self, acked: u64) -> Option<u64> {
        let low = self.unsettled?;
        let reach = |(joined, left): &(u64, Option<u64>)| {
            let to = left.unwrap_or(self.head);
            (to >= low && acked < to).then_some(low.max(*joined).max(acked + 1))
        };
        self.times.iter().filter_map(reach).min()
    }

    /// Settles the chat and returns the range of the wake, or `None` if nothing is owed. The range may begin above the
    /// row, since the owner knows nothing of a lower row that another owner wrote.
    pub fn settle(&mut self) -> Option<(u64, u64)> {
        let missing = self.owed(self.remembered_ack);
        self.unsettled = None;
        self.end_or_move(self.remembered_ack);
        let from = missing?;
        self.row.get_or_insert(from);
        Some((from, self.head))
    }

    /// Takes an acknowledgement that reaches the owner. Returns the seq at which the row begins then, 0 for no row.
    pub fn acknowledge(&mut self, seq: u64, write: bool) -> u64 {
        if seq <= self.head {
            self.remembered_ack = self.remembered_ack.max(seq);
            if write {
                self.end_or_move(seq);
            }
        }
        self.row.unwrap_or(0)
    }

    /// Ends the row if everything that the user may have is acknowledged, and else moves its begin.
    fn end_or_move(&mut self, acked: u64) {
        if self.row.is_some_and(|from| from <= acked) {
            self.row = (acked < self.last()).then_some(acked + 1);
        }
    }

    /// Returns the device's place as the store knows it.
    fn place(&self) -> u64 {
        let owed = self.owed(0);
        self.row.into_iter().chain(owed).min().unwrap_or(self.head + 1)
    }

    /// Returns at most `limit` events from `from` on (two if `limit` is 1), and the seq to go on from. `from` 0 stands
    /// for the device's place as the store knows it.
    pub fn window(&self, from: u64, limit: usize) -> (Vec<Place>, u64) {
        let mut next = if from == 0 { self.place() } else { from };
        let mut places = Vec::new();
        for seq in (next..=self.head).filter(|seq| self.is_theirs(*seq)) {
            let joins = seq > 1 && self.times.iter().any(|(joined, _)| *joined == seq);
            let skips = seq > next || joins;
            if !places.is_empty() && places.len() + usize::from(skips) >= limit {
                break;
            }
            if skips {
                places.push(Place::Skipped(seq - 1));
            }
            places.push(Place::Entry(seq));
            next = seq + 1;
        }
        (places, next)
    }
}
