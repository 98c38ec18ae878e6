//! A client that takes rules 4 and 5 of messaging.proto literally.

use std::collections::BTreeSet;

use super::log::Log;

/// What a client does with an entry above its cursor + 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    Holds,
    Drops,
    /// It drops the entry and acknowledges its cursor again.
    DropsAndAcknowledges,
}

/// One chat as the device has stored it.
#[derive(Debug, Default)]
pub struct Stored {
    pub cursor: u64,
    /// The cursor that it acknowledged last; 0: it is to acknowledge it again.
    pub acked: u64,
    held: BTreeSet<u64>,
    /// The entries stored since the stream was opened.
    pub entries: BTreeSet<u64>,
}

impl Stored {
    pub fn new(cursor: u64) -> Self {
        Self {
            cursor,
            acked: cursor,
            ..Self::default()
        }
    }

    pub fn entry(&mut self, seq: u64, manner: Manner) {
        if seq <= self.cursor {
            // A repetition is acknowledged again.
            self.acked = 0;
        } else if seq == self.cursor + 1 {
            self.store(seq);
        } else if manner == Manner::Holds {
            self.held.insert(seq);
        } else if manner == Manner::DropsAndAcknowledges {
            self.acked = 0;
        }
    }

    /// Raises the cursor over a Skipped, which must not span an entry that the device may have.
    pub fn skipped(&mut self, to: u64, log: &Log) {
        for seq in self.cursor + 1..=to {
            assert!(
                !log.is_theirs(seq),
                "skipped up to {to} at {}: {seq} is the device's",
                self.cursor
            );
        }
        self.cursor = self.cursor.max(to);
        self.held = self.held.split_off(&(self.cursor + 1));
        self.advance();
    }

    fn store(&mut self, seq: u64) {
        self.cursor = seq;
        self.entries.insert(seq);
        self.advance();
    }

    fn advance(&mut self) {
        if self.held.remove(&(self.cursor + 1)) {
            self.store(self.cursor + 1);
        }
    }
}
