//! This module does what the server owes the device: it sends live entries and the entries under its inbox rows, and
//! has the acknowledgements written that end those rows.
//!
//! Invariant: a session that knows of an inbox row deals with it until the store has ended the row. Either a catch-up
//! runs for the row's chat, or [`super::chats::Chat::due`] says when the chat is checked again.

use bytes::Bytes;
use tern_proto::ApiError;
use tern_proto::v1::{CloseCode, ErrorReason};
use tern_types::{ChatId, Timestamp};

use super::chats::Row;
use super::place::Turn;
use super::reading::{CatchUp, State};
use super::settings::{LIVE_BELOW_BYTES, MAX_BACK_OFF, RESEND_WITHIN, RETRY};
use super::{CloseRequest, Effect, Inbox, Op, Session};

impl Session {
    /// Passes a live push on if its entry is the next one. If entries below it did not go out, the log is
    /// read from the first of them on instead. While the log is being read, a push only says how far the log
    /// goes. While the device is slow, the push is dropped and the inbox is read again. A push for a chat
    /// that finds no room in the session's memory is passed on in any case.
    pub(super) fn live(&mut self, id: ChatId, seq: u64, event: Bytes, now: Timestamp) {
        if !self.life.is_open() {
            // The device gets Opened first. Entries that are pushed before that are read from the log afterwards.
            return self.added(id, seq, now);
        }
        let own = &self.sends;
        let Some(chat) = self.chats.remember(id) else {
            return self.put_bytes(event, now);
        };
        if let Some(catch_up) = &mut chat.catch_up {
            return catch_up.wants(seq);
        }
        match chat.place.turn(seq) {
            Turn::Again => return,
            // The results of own sends come by another way than live pushes. If there are no more missing entries than
            // sends without a result, this push may have overtaken those results, so it goes out and nothing is read.
            Turn::Hole(missing) if missing > own.in_flight_to(id) => {
                let start = chat.place.start();
                return self.read_from(id, start, seq, now);
            }
            Turn::Next | Turn::Past | Turn::Hole(_) => {}
        }
        if self.unflushed >= LIVE_BELOW_BYTES {
            return self.want_inbox();
        }
        chat.place.went(seq);
        self.put_bytes(event, now);
    }

    /// Reads the log up to `seq`, which the device is owed. Reading brings the Skipped for entries below `seq` that the
    /// device is not owed.
    pub(super) fn added(&mut self, id: ChatId, seq: u64, now: Timestamp) {
        if !self.life.is_open() && !self.life.is_opening() {
            return;
        }
        let Some(chat) = self.chats.remember(id) else {
            return;
        };
        if chat.catch_up.is_some() || chat.place.turn(seq) != Turn::Again {
            let start = chat.place.start();
            self.read_from(id, start, seq, now);
        }
    }

    /// Takes on an inbox row that the owner wrote for `from..=to`. From now on this session is responsible for it.
    pub(super) fn woken(&mut self, id: ChatId, from: u64, to: u64, now: Timestamp) {
        self.owe(id, from, Some(to), now);
    }

    /// Takes the inbox that was read: opens the stream if it is not open yet, and takes on every row. Ends the stream
    /// instead if the device may not have one, or if the store was restored. If rows are missing, the inbox is read
    /// again after a pause, and CaughtUp waits for that.
    pub(super) fn inbox_read(&mut self, inbox: Inbox, now: Timestamp) {
        if inbox.partial {
            self.reader.a_part_was_read(self.id, now);
        } else {
            self.reader.inbox_was_read();
        }
        if self.turned_away(&inbox) {
            return;
        }
        self.life.read_receipts_off_read(inbox.read_receipts_off, now);
        if self.life.is_opening() {
            self.opened(&inbox, now);
        } else if self.store_changed(&inbox.store_epoch) {
            return;
        }
        for row in inbox.rows {
            self.owe(row.chat, row.from, None, now);
            if let Some(chat) = self.chats.get_mut(row.chat) {
                self.reader.count_initial(chat);
            }
        }
    }

    /// Ends the stream if the device is unknown or was revoked, if its user is suspended, or if the device is another
    /// user's. Returns whether it ended the stream.
    fn turned_away(&mut self, inbox: &Inbox) -> bool {
        let mine = self.life.user();
        if inbox.unknown {
            // Its data may be all that is left of what the store has lost, so it is not told to erase them.
            let error = ApiError::new(ErrorReason::TokenInvalid, "the device is not known");
            self.close(CloseCode::Unauthenticated, error);
        } else if !inbox.active {
            self.close_on_request(CloseRequest::Revoked);
        } else if inbox.suspended {
            self.close_on_request(CloseRequest::Suspended);
        } else if inbox.user.is_some() && inbox.user != mine {
            let error = ApiError::new(ErrorReason::TokenInvalid, "the device is another user's");
            self.close(CloseCode::Unauthenticated, error);
        } else {
            return false;
        }
        true
    }

    /// Takes the inbox that the sweep read, which should bring nothing new. A row that is older than the grace and not
    /// known here shows a defect somewhere: it is reported, and then dealt with like any other row.
    pub(super) fn swept(&mut self, inbox: Inbox, now: Timestamp) {
        if !self.life.is_open() {
            return;
        }
        if self.turned_away(&inbox) {
            return;
        }
        if self.store_changed(&inbox.store_epoch) {
            return;
        }
        self.life.read_receipts_off_read(inbox.read_receipts_off, now);
        let others_look = self.reader.inbox_is_pending();
        let grace = self.settings.sweep_grace;
        for row in inbox.rows.into_iter().filter(|row| row.age >= grace) {
            let chat = self.chats.get(row.chat);
            if chat.is_some_and(|chat| chat.knows_of(row.from)) {
                continue;
            }
            let ended = chat.is_some_and(|chat| chat.may_have_ended(row.from, grace, now));
            if !ended && !others_look {
                self.effects.push(Effect::SweepFound {
                    chat: row.chat,
                    from: row.from,
                    age: row.age,
                    acked: chat.map_or(0, |chat| chat.acked),
                });
            }
            self.owe(row.chat, row.from, None, now);
        }
    }

    /// Takes on the device's row of the chat, which covers `from..=to`. If `to` is `None`, the row was read from the
    /// store: it covers everything from `from` on, and begins at the device's place. With `to` it comes from a wake and
    /// may begin above the device's place, since another owner may have written a lower row.
    fn owe(&mut self, id: ChatId, from: u64, to: Option<u64>, now: Timestamp) {
        let timeout = self.settings.ack_timeout;
        let Some(chat) = self.chats.remember(id) else {
            // There is no room for the chat. The row stays in the store and is read when other rows are dealt with.
            return self.reader.more_rows();
        };
        chat.has_row(from, to.unwrap_or(from));
        let acked = chat.acked;
        let all_sent =
            to.is_some_and(|to| acked >= to || chat.place.covers(from.max(acked.saturating_add(1)), to));
        if all_sent && chat.catch_up.is_none() {
            if chat.due.is_none() {
                chat.look_again(timeout, now);
            }
        } else {
            let start = match (chat.place.start(), to) {
                (0, None) => from,
                (start, _) => start,
            };
            self.read_from(id, start, to.unwrap_or(start), now);
        }
        if acked >= from {
            self.send_ack(id);
        }
        debug_assert!(
            self.chats
                .get(id)
                .is_some_and(|chat| chat.row.is_some() && (chat.catch_up.is_some() || chat.due.is_some())),
            "a known row has neither a catch-up nor a time of its check"
        );
        self.watch(id);
    }

    /// Notes that the device has everything of the chat up to `seq`. Only progress puts off what is to be sent again,
    /// because a device that repeats an acknowledgement waits for something.
    pub(super) fn acknowledged(&mut self, id: ChatId, seq: u64, now: Timestamp) {
        if seq == 0 {
            return;
        }
        let timeout = self.settings.ack_timeout;
        let Some(chat) = self.chats.remember(id) else {
            self.effects.push(Effect::Up(Op::Ack {
                reference: self.references.draw(),
                chat: id,
                seq,
                write: false,
            }));
            return;
        };
        let before = chat.acked;
        (chat.acked, chat.acked_at) = (seq, now);
        let last = chat.place.last();
        let dropped = chat.place.acknowledged(seq, before);
        self.reader.release(chat, |unacked| unacked <= seq);
        let progress = seq > before;
        if progress {
            chat.tries = 0;
        }
        if progress || chat.due.is_none() {
            chat.look_again(timeout, now);
        }
        match &mut chat.catch_up {
            Some(catch_up) => catch_up.has(seq),
            None => {
                if let Some(from) = dropped {
                    self.read_from(id, from, last, now);
                }
            }
        }
        self.send_ack(id);
        self.watch(id);
    }

    /// Remembers the device's read mark and tells the owner of it.
    pub(super) fn mark_read(&mut self, id: ChatId, seq: u64, now: Timestamp) {
        let off = self.life.read_receipts_off();
        if let Some(chat) = self.chats.remember(id) {
            (chat.read, chat.read_off, chat.read_at) = (seq, off, now);
        }
        self.effects.push(Effect::Up(Op::Read { chat: id, seq, off }));
    }

    /// Notes that the store has written the acknowledgement of `seq`. The device's row now begins at `row_from`, or is
    /// gone if `row_from` is 0.
    pub(super) fn ack_written(&mut self, id: ChatId, seq: u64, row_from: u64, now: Timestamp) {
        let timeout = self.settings.ack_timeout;
        let Some(chat) = self.chats.get_mut(id) else {
            return;
        };
        if chat.writing != Some(seq) {
            return;
        }
        (chat.writing, chat.written_at) = (None, now);
        let again = std::mem::take(&mut chat.write_again);
        let upto = chat.row.map_or(0, |row| row.upto);
        if row_from > 0 && row_from <= seq {
            // The device acknowledged entries that do not exist: the row still begins at or below `seq`.
            chat.row = Some(Row {
                from: row_from,
                upto: upto.max(row_from),
            });
            if chat.acked == seq {
                chat.acked = row_from - 1;
                chat.place.back_to(row_from);
            }
            self.owe(id, row_from, None, now);
            return;
        }
        chat.row = match row_from {
            // A wake that came while the acknowledgement was being written may be about a newer row.
            0 if !again => None,
            0 => Some(Row {
                from: seq.saturating_add(1),
                upto,
            }),
            from => Some(Row {
                from,
                upto: upto.max(from),
            }),
        };
        // A client may repeat an acknowledgement again and again, and each one is written. Progress has set the time of
        // the check already.
        chat.keep_looking(timeout, now);
        if chat.acked > seq || again {
            self.send_ack(id);
        }
        self.watch(id);
    }

    /// Sends the chat's acknowledgement and read mark again shortly, because it is not known whether they arrived.
    pub(super) fn ack_lost(&mut self, id: ChatId, now: Timestamp) {
        if let Some(chat) = self.chats.get_mut(id) {
            chat.writing = None;
            chat.resend_at = Some(now + RETRY * 2);
            self.watch(id);
        }
    }

    /// Sends again what may be lost because the owners of some chats, or the links to them, have changed: the last
    /// acknowledgements and read marks of these chats. Their failed readings are repeated at once. `moved` returns
    /// whether a chat is one of them.
    pub(super) fn moved(&mut self, moved: &dyn Fn(ChatId) -> bool, now: Timestamp) {
        let recent = |at: Timestamp| now < at + RESEND_WITHIN;
        for (id, chat) in self.chats.iter_mut().filter(|(id, _)| moved(*id)) {
            let unsent = chat.resend_at.take().is_some() || chat.writing.is_some();
            if chat.acked > 0 && (unsent || recent(chat.acked_at)) {
                let write = chat.row.is_some();
                chat.writing = write.then_some(chat.acked);
                self.effects.push(Effect::Up(Op::Ack {
                    reference: self.references.draw(),
                    chat: id,
                    seq: chat.acked,
                    write,
                }));
            }
            if chat.read > 0 && (unsent || recent(chat.read_at)) {
                self.effects.push(Effect::Up(Op::Read {
                    chat: id,
                    seq: chat.read,
                    off: chat.read_off,
                }));
            }
            if let Some(catch_up) = &mut chat.catch_up {
                self.reader.retry_now(id, catch_up);
            }
        }
    }

    /// Runs the timers of all chats that are due.
    pub(super) fn tick_chats(&mut self, now: Timestamp) {
        for id in self.chats.due_at(now) {
            let Some(chat) = self.chats.get_mut(id) else {
                continue;
            };
            if let Some(catch_up) = &mut chat.catch_up
                && catch_up.retry_at().is_some_and(|at| at <= now)
            {
                self.reader.retry_now(id, catch_up);
            }
            if chat.resend_at.is_some_and(|at| at <= now) {
                chat.resend_at = None;
                self.send_ack(id);
                self.send_read(id);
            }
            if self
                .chats
                .get(id)
                .is_some_and(|chat| chat.due.is_some_and(|due| due <= now))
            {
                self.overdue(id, now);
            }
        }
    }

    /// Sends again what the device did not acknowledge in time.
    fn overdue(&mut self, id: ChatId, now: Timestamp) {
        let timeout = self.settings.ack_timeout;
        let slow = self.unflushed > 0;
        let Some(chat) = self.chats.get_mut(id) else {
            return;
        };
        if slow
            || chat
                .catch_up
                .as_ref()
                .is_some_and(|catch_up| catch_up.state == State::Reading)
        {
            // The entries may not have reached the device yet.
            return chat.look_again(timeout, now);
        }
        let in_vain = chat.tries;
        // The acknowledgements may be wrong. After one try in vain the reading begins at the row if that is lower.
        let from = match chat.row {
            Some(row) if in_vain > 0 => row.from.min(chat.place.base()),
            _ => chat.place.base(),
        };
        if let Some(catch_up) = &mut chat.catch_up {
            // The catch-up waits for room in the window, which entries of this same chat may take up.
            if !chat.unacked.is_empty() {
                catch_up.go_back(from);
                chat.place.back_to(from);
                chat.tries = (chat.tries + 1).min(MAX_BACK_OFF);
                self.reader.release(chat, |_| true);
            }
            return chat.look_again(timeout, now);
        }
        chat.tries = (chat.tries + 1).min(MAX_BACK_OFF);
        self.reader.release(chat, |_| true);
        chat.look_again(timeout, now);
        let Some(row) = chat.row else { return };
        // The confirmation of an acknowledgement that has been under way for this long is lost.
        chat.writing = None;
        let acked = chat.acked;
        if acked < row.upto || in_vain > 0 {
            chat.place.back_to(from);
            self.read_from(id, from, row.upto, now);
        }
        if acked >= row.from {
            self.send_ack(id);
        }
    }

    /// Sends the last acknowledgement to the owner. If there is a row, the store writes the acknowledgement, one at a
    /// time: while one is being written, a later one waits.
    fn send_ack(&mut self, id: ChatId) {
        let Some(chat) = self.chats.get_mut(id).filter(|chat| chat.acked > 0) else {
            return;
        };
        let write = chat.row.is_some();
        debug_assert!(
            write || chat.writing.is_none(),
            "an acknowledgement is being written without a row"
        );
        if write {
            if chat.writing.is_some() {
                return;
            }
            chat.writing = Some(chat.acked);
        } else if chat.writing.is_some() {
            return;
        }
        self.effects.push(Effect::Up(Op::Ack {
            reference: self.references.draw(),
            chat: id,
            seq: chat.acked,
            write,
        }));
    }

    /// Sends the read mark to the owner again.
    fn send_read(&mut self, id: ChatId) {
        if let Some(chat) = self.chats.get(id).filter(|chat| chat.read > 0) {
            self.effects.push(Effect::Up(Op::Read {
                chat: id,
                seq: chat.read,
                off: chat.read_off,
            }));
        }
    }

    /// Begins to read the chat's log from `from` up to `target`, or widens the catch-up that is under way. With `from`
    /// 0 the reading begins at the device's place as the store knows it.
    pub(super) fn read_from(&mut self, id: ChatId, from: u64, target: u64, now: Timestamp) {
        let timeout = self.settings.ack_timeout;
        let Some(chat) = self.chats.remember(id) else {
            return self.reader.more_rows();
        };
        match &mut chat.catch_up {
            Some(catch_up) => catch_up.extend(from, target),
            None => {
                self.reader.release(chat, |unacked| unacked >= from);
                chat.catch_up = Some(CatchUp::new(from, target));
                chat.look_again(timeout, now);
                self.reader.enqueue(id);
            }
        }
        self.watch(id);
    }

    /// Makes the session's timer due no later than the chat's.
    pub(super) fn watch(&mut self, id: ChatId) {
        if let Some(at) = self.chats.timer_of(id) {
            self.wake_at(at);
        }
    }
}
