//! [`Chats`] is a session's memory of its device's chats: one [`Chat`] for each, at most [`MAX_CHATS`].

use std::collections::VecDeque;
use std::time::Duration;

use tern_types::{ChatId, IdMap, Timestamp};

use super::NEVER;
use super::place::Place;
use super::reading::CatchUp;
use super::settings::{MAX_BACK_OFF, MAX_CHATS};

/// One chat as this session knows it.
#[derive(Debug, Default)]
pub struct Chat {
    /// The device's position in the chat's log, as far as it follows from the entries that went out on this stream.
    pub place: Place,
    /// The seq that the device acknowledged last on this stream, 0 for none. It may be wrong, so no entry is withheld
    /// for this alone.
    pub acked: u64,
    /// The time at which that acknowledgement came.
    pub acked_at: Timestamp,
    /// The seq of an acknowledgement that the store is asked to write and has not confirmed. There is none without a
    /// row.
    pub writing: Option<u64>,
    /// The time at which the store last confirmed an acknowledgement.
    pub written_at: Timestamp,
    /// True if a row was noted while an acknowledgement was being written. One more is written after that.
    pub write_again: bool,
    /// The seq of the read mark that the device set last on this stream, 0 for none.
    pub read: u64,
    /// True if read receipts were off when `read` was set.
    pub read_off: bool,
    /// The time at which `read` was set.
    pub read_at: Timestamp,
    /// The time at which the acknowledgement and the read mark are sent again, because the owner may not have got them.
    pub resend_at: Option<Timestamp>,
    /// The device's inbox row of the chat, as far as it is known. `None`: no row is known.
    pub row: Option<Row>,
    /// The reading of the log that is under way. During it, live pushes only raise its target.
    pub catch_up: Option<CatchUp>,
    /// The seqs that catch-up has sent and the device has not acknowledged. They take up room in the window.
    pub unacked: VecDeque<u64>,
    /// The time of the next check whether the device has acknowledged what it was sent.
    pub due: Option<Timestamp>,
    /// The number of such checks in a row that found no progress, at most [`MAX_BACK_OFF`].
    pub tries: u32,
    /// True if entries of the chat were waiting when the stream was opened or announced anew. CaughtUp waits until its
    /// catch-up has ended.
    pub initial: bool,
    /// The value of [`Chats::uses`] when the chat was last used. The chat with the lowest value is forgotten first.
    used: u64,
}

/// The device's inbox row of the chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The first seq that the device is owed.
    pub from: u64,
    /// The last seq that is known to belong to the row; there may be later ones.
    pub upto: u64,
}

impl Chat {
    /// Adds `from..=upto` to the range that the row is known to cover. If no row was known, one is now.
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

    /// Returns whether a row that begins at `from` is already being dealt with. It is not if it begins below the known
    /// row and above what the device has acknowledged: then another owner wrote it, whose wake did not come here.
    pub(crate) fn knows_of(&self, from: u64) -> bool {
        match self.row {
            Some(known) => known.from <= from || self.acked >= from,
            None => self.catch_up.is_some(),
        }
    }

    /// Sets the time of the next check: `timeout` from now, doubled for each check that found no progress. No time is
    /// set if no row is known and everything that catch-up sent was acknowledged.
    pub fn look_again(&mut self, timeout: Duration, now: Timestamp) {
        debug_assert!(self.tries <= MAX_BACK_OFF, "the timeout is doubled too often");
        self.due = self.is_owed().then(|| now + timeout * (1 << self.tries));
    }

    /// Sets the time of the next check as [`Self::look_again`] does, but leaves a time that is set and still needed. It
    /// is for what happens without any progress of the device.
    pub(crate) fn keep_looking(&mut self, timeout: Duration, now: Timestamp) {
        if self.due.is_none() || !self.is_owed() {
            self.look_again(timeout, now);
        }
    }

    /// Returns whether a row is known, or something that catch-up sent was not acknowledged.
    fn is_owed(&self) -> bool {
        self.row.is_some() || !self.unacked.is_empty()
    }

    /// Returns whether an acknowledgement of the device may have ended a row that begins at `from` since the row was
    /// read, which was at most `moment` ago.
    pub(crate) fn may_have_ended(&self, from: u64, moment: Duration, now: Timestamp) -> bool {
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
    /// The number of times that a chat was used until now.
    uses: u64,
}

impl Chats {
    /// Returns the chat, or `None` if it is not remembered.
    pub fn get(&self, id: ChatId) -> Option<&Chat> {
        self.map.get(&id)
    }

    /// Returns the chat, or `None` if it is not remembered. The chat does not count as used.
    pub fn get_mut(&mut self, id: ChatId) -> Option<&mut Chat> {
        self.map.get_mut(&id)
    }

    /// Iterates over all chats, in no particular order.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (ChatId, &mut Chat)> {
        self.map.iter_mut().map(|(id, chat)| (*id, chat))
    }

    /// Returns the number of chats that have a known inbox row.
    pub fn rows(&self) -> usize {
        self.map.values().filter(|chat| chat.row.is_some()).count()
    }

    /// Returns the chat, and adds it if it is not remembered. If there is no room, the chat that was not used for the
    /// longest time is forgotten. Returns `None` if there is no room and no chat may be forgotten.
    pub(crate) fn remember(&mut self, id: ChatId) -> Option<&mut Chat> {
        if !self.map.contains_key(&id) && self.map.len() >= MAX_CHATS {
            let oldest = self
                .map
                .iter()
                .filter(|(_, chat)| chat.may_be_forgotten())
                .min_by_key(|(_, chat)| chat.used);
            let oldest = *oldest?.0;
            self.map.remove(&oldest);
        }
        debug_assert!(
            self.map.len() < MAX_CHATS || self.map.contains_key(&id),
            "there are too many chats"
        );
        self.uses += 1;
        let chat = self.map.entry(id).or_default();
        chat.used = self.uses;
        Some(chat)
    }

    /// Returns the time at which the next timer of this chat is due, or `None` if the chat is not remembered.
    pub(crate) fn timer_of(&self, id: ChatId) -> Option<Timestamp> {
        self.map.get(&id).map(Chat::timer)
    }

    /// Returns the time at which the first timer of any chat is due.
    pub fn due(&self) -> Timestamp {
        self.map.values().map(Chat::timer).min().unwrap_or(NEVER)
    }

    /// Returns the chats that have a timer which is due.
    pub(crate) fn due_at(&self, now: Timestamp) -> Vec<ChatId> {
        self.map
            .iter()
            .filter(|(_, chat)| chat.timer() <= now)
            .map(|(id, _)| *id)
            .collect()
    }

    /// Returns the number of chats that are remembered.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Returns whether no chat is remembered.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }
}
