//! What a session remembers of the chats of its device: one [`Chat`] for each, at most [`MAX_CHATS`].

use std::collections::VecDeque;
use std::time::Duration;

use tern_types::{ChatId, IdMap, Timestamp};

use super::NEVER;
use super::place::Place;
use super::reading::CatchUp;
use super::settings::MAX_CHATS;

/// One chat as this session knows it.
#[derive(Debug, Default)]
pub struct Chat {
    /// The device's position in the chat's log, as far as what went out on this stream tells it.
    pub place: Place,
    /// The last seq that the device acknowledged on this stream; 0: none. It may be wrong, so no entry is withheld
    /// for this alone.
    pub acked: u64,
    /// When that acknowledgement came.
    pub acked_at: Timestamp,
    /// The seq of an acknowledgement that the store is asked to write and has not confirmed.
    pub writing: Option<u64>,
    /// When the store last confirmed an acknowledgement.
    pub written_at: Timestamp,
    /// A row was noted while an acknowledgement was being written: it is written once more after that.
    pub write_again: bool,
    /// The read mark that the device set last on this stream; 0: none.
    pub read: u64,
    /// Whether read receipts were off when `read` was set.
    pub read_off: bool,
    /// When `read` was set.
    pub read_at: Timestamp,
    /// When the acknowledgement and the read mark are sent again, because they may not have reached the owner.
    pub resend_at: Option<Timestamp>,
    /// The device's inbox row of the chat, as far as it is known; `None`: none is known.
    pub row: Option<Row>,
    /// The reading of the log that is under way. While it is, live pushes only move its target.
    pub catch_up: Option<CatchUp>,
    /// The seqs that catch-up has sent and the device has not acknowledged. They take up room of the window.
    pub unacked: VecDeque<u64>,
    /// When it is checked again whether the device has acknowledged what it was sent.
    pub due: Option<Timestamp>,
    /// How often that check found no progress, at most [`super::settings::MAX_BACK_OFF`].
    pub tries: u32,
    /// The chat had entries waiting when the stream was opened, or announced anew: CaughtUp waits for its catch-up.
    pub initial: bool,
    /// The value of [`Chats::uses`] when the chat was last looked up: the lowest one is forgotten first.
    used: u64,
}

/// The device's inbox row of the chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The first seq that the device is owed.
    pub from: u64,
    /// The last seq that is known to be under the row; there may be later ones.
    pub upto: u64,
}

impl Chat {
    /// Adds `from..=upto` to what the row is known to cover, and makes it known where there was none.
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

    /// Whether a row that begins at `from` is already being dealt with. It is not, where it begins below the known
    /// row with entries that the device has not acknowledged: then it is another owner's, whose wake did not come
    /// here.
    pub fn knows_of(&self, from: u64) -> bool {
        match self.row {
            Some(known) => known.from <= from || self.acked >= from,
            None => self.catch_up.is_some(),
        }
    }

    /// Sets the time of the next check: after `timeout`, doubled for each check that found no progress. No check is
    /// set where no row is known and everything was acknowledged.
    pub fn look_again(&mut self, timeout: Duration, now: Timestamp) {
        let owed = self.row.is_some() || !self.unacked.is_empty();
        self.due = owed.then(|| now + timeout * (1 << self.tries));
    }

    /// Whether a row that begins at `from` may have been ended since it was read, at most `moment` ago, by an
    /// acknowledgement of the device.
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

/// The chats of a session, at most [`MAX_CHATS`].
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

    /// How many chats have an inbox row.
    pub fn rows(&self) -> usize {
        self.map.values().filter(|chat| chat.row.is_some()).count()
    }

    /// Returns the chat, and adds it where it is not known; for that the chat that was not used for longest may be
    /// forgotten. `None` when there is no room and no chat may be forgotten.
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

    /// When the next timer of this chat is due; `None` for an unknown chat.
    pub fn timer_of(&self, id: ChatId) -> Option<Timestamp> {
        self.map.get(&id).map(Chat::timer)
    }

    /// When the first timer of any chat is due.
    pub fn due(&self) -> Timestamp {
        self.map.values().map(Chat::timer).min().unwrap_or(NEVER)
    }

    /// The chats of which a timer is due.
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
