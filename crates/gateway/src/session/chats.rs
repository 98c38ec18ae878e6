//! What a session remembers of its device's chats.

use std::collections::VecDeque;
use std::time::Duration;

use tern_types::{ChatId, IdMap, Timestamp};

use super::NEVER;
use super::catch_up::CatchUp;
use super::place::Place;
use super::settings::MAX_CHATS;

/// One chat as this session has seen it.
#[derive(Debug, Default)]
pub struct Chat {
    /// Where the device stands by what went to it on this stream.
    pub place: Place,
    /// The device's last acknowledgement on this stream; it may be nonsense, so nothing is withheld because of it alone.
    pub acked: u64,
    pub acked_at: Timestamp,
    /// The acknowledgement that is being written.
    pub writing: Option<u64>,
    /// When the store last confirmed one.
    pub written_at: Timestamp,
    /// A row came while one was being written: write once more.
    pub write_again: bool,
    pub read: u64,
    /// Read receipts were off when it was marked.
    pub read_off: bool,
    pub read_at: Timestamp,
    /// An acknowledgement or read mark found no way to the owner and is sent again then.
    pub resend_at: Option<Timestamp>,
    pub row: Option<Row>,
    pub catch_up: Option<CatchUp>,
    /// Seqs sent by catch-up and not acknowledged: they take up the window.
    pub unacked: VecDeque<u64>,
    /// What the device is owed is looked at again then.
    pub due: Option<Timestamp>,
    /// How often it was due in vain.
    pub tries: u32,
    /// It waited when the stream was opened, or announced anew: CaughtUp comes after it.
    pub initial: bool,
    used: u64,
}

/// The device's inbox row of the chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    pub from: u64,
    /// The last entry known to be under it.
    pub upto: u64,
}

impl Chat {
    /// Adds `from..=upto` to what the row is known to cover.
    pub fn has_row(&mut self, from: u64, upto: u64) {
        self.row = Some(match self.row {
            Some(row) => Row {
                from: row.from.min(from),
                upto: row.upto.max(upto),
            },
            None => Row { from, upto },
        });
        self.write_again |= self.writing.is_some();
    }

    /// Whether this row is being dealt with. One that begins before what is known, with entries that the device has not
    /// acknowledged, is another: an owner whose wake did not come here has settled them.
    pub fn knows_of(&self, from: u64) -> bool {
        match self.row {
            Some(known) => known.from <= from || self.acked >= from,
            None => self.catch_up.is_some(),
        }
    }

    /// Sees to it that the chat is looked at again, later with each try in vain.
    pub fn look_again(&mut self, timeout: Duration, now: Timestamp) {
        let owed = self.row.is_some() || !self.unacked.is_empty();
        self.due = owed.then(|| now + timeout * (1 << self.tries));
    }

    /// Whether a row from `from` on, read a moment ago, may have been ended by an acknowledgement since.
    pub fn may_have_ended(&self, from: u64, moment: Duration, now: Timestamp) -> bool {
        self.acked >= from && now < self.acked_at.max(self.written_at) + moment
    }

    fn may_be_forgotten(&self) -> bool {
        self.row.is_none() && self.catch_up.is_none() && self.unacked.is_empty() && self.writing.is_none()
    }

    fn timer(&self) -> Timestamp {
        let retry = self.catch_up.as_ref().and_then(CatchUp::retry_at);
        [self.due, self.resend_at, retry]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(NEVER)
    }
}

/// At most [`MAX_CHATS`] chats.
#[derive(Debug, Default)]
pub struct Chats {
    map: IdMap<ChatId, Chat>,
    uses: u64,
}

impl Chats {
    pub fn get(&self, id: ChatId) -> Option<&Chat> {
        self.map.get(&id)
    }

    pub fn get_mut(&mut self, id: ChatId) -> Option<&mut Chat> {
        self.map.get_mut(&id)
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (ChatId, &mut Chat)> {
        self.map.iter_mut().map(|(id, chat)| (*id, chat))
    }

    pub fn rows(&self) -> usize {
        self.map.values().filter(|chat| chat.row.is_some()).count()
    }

    /// The chat, new or known. `None` when no room is left and nothing may be forgotten.
    pub fn remember(&mut self, id: ChatId) -> Option<&mut Chat> {
        if !self.map.contains_key(&id) && self.map.len() >= MAX_CHATS {
            let oldest = self
                .map
                .iter()
                .filter(|(_, chat)| chat.may_be_forgotten())
                .min_by_key(|(_, chat)| chat.used);
            let oldest = *oldest?.0;
            self.map.remove(&oldest);
        }
        self.uses += 1;
        let chat = self.map.entry(id).or_default();
        chat.used = self.uses;
        Some(chat)
    }

    pub fn timer_of(&self, id: ChatId) -> Option<Timestamp> {
        self.map.get(&id).map(Chat::timer)
    }

    /// When the next chat's timer is due.
    pub fn due(&self) -> Timestamp {
        self.map.values().map(Chat::timer).min().unwrap_or(NEVER)
    }

    /// Chats whose timer is due.
    pub fn due_at(&self, now: Timestamp) -> Vec<ChatId> {
        self.map
            .iter()
            .filter(|(_, chat)| chat.timer() <= now)
            .map(|(id, _)| *id)
            .collect()
    }

    pub fn len(&self) -> usize {
        self.map.len()
    }

    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }
}
