//! A client that takes rules 4 and 5 of messaging.proto literally.

use std::collections::BTreeSet;

use super::log::Log;

/// What a client does with an entry above its cursor + 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    Holds,
    Drops,
    /// And says where it stands.
    DropsAndAcknowledges,
}

/// A chat as the device has it.
#[derive(Debug, Default)]
pub struct Stored {
    pub cursor: u64,
    /// What it said of it; 0: it is to say it (again).
    pub acked: u64,
    held: BTreeSet<u64>,
    /// Since the stream was opened.
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

    /// Nothing of what lies below is to be held: the server says it before what comes after.
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
