//! [`Stored`] is a client that takes rules 4 and 5 of messaging.proto literally.

use std::collections::BTreeSet;

use super::log::Log;

/// The way in which a client treats an entry above its cursor + 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// The client holds the entry until those below it have come.
    Holds,
    /// The client drops the entry and says nothing.
    Drops,
    /// The client drops the entry and acknowledges its cursor again.
    DropsAndAcknowledges,
}

/// One chat as the device has stored it.
#[derive(Debug, Default)]
pub struct Stored {
    pub cursor: u64,
    /// The cursor that the device acknowledged last. It is set to 0 to have the cursor acknowledged again.
    pub acked: u64,
    /// The entries that are held because earlier ones are missing.
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

    /// Takes an entry that arrives.
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
