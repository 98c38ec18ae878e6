//! This module reads chats' logs for a device that catches up. Each log is read in windows, one after the other. The
//! windows of all chats together are at most [`super::Settings::window`] entries ahead of the device's
//! acknowledgements.

use std::collections::VecDeque;

use tern_types::{ChatId, SessionId, Timestamp};

use super::chats::Chat;
use super::reading::{CatchUp, State, back_off};
use super::settings::{
    CAUGHT_UP_PAUSE, INBOX_PAUSE, LARGE_WINDOW_BYTES, MAX_CHATS, MAX_READING, MIN_WINDOW_STEP, PARTIAL_PAUSE,
    READ_BELOW_BYTES, SECOND_READING_AFTER, WINDOW_STEP,
};
use super::{Effect, NEVER, Session, Window};

/// A window that was asked for and has not been answered.
#[derive(Debug)]
struct Asked {
    reference: u64,
    chat: ChatId,
    from: u64,
    limit: u32,
}

/// The session's readings of the inbox and of the logs, and what CaughtUp waits for.
#[derive(Debug)]
pub(super) struct Reader {
    /// True if the inbox is to be read, or to be read again.
    wanted: bool,
    /// True while the inbox is being read. The answer may be older than the wish in `wanted`.
    reading: bool,
    /// The time before which the inbox is not read.
    not_before: Timestamp,
    /// The time at which the inbox is first read even if presence has not taken the announcement.
    first_at: Option<Timestamp>,
    /// The time at which the inbox is read once more, because presence had not taken the announcement when it was first
    /// read.
    second_at: Option<Timestamp>,
    /// The number of readings of the inbox in a row that failed, or that brought only a part of it.
    failures: u32,
    /// True if the inbox had rows for which there was no room among the chats, so that it is read again.
    more: bool,
    /// The chats whose next window is to be asked for, in order.
    queue: VecDeque<ChatId>,
    /// The windows under way, at most [`MAX_READING`] and at most one a chat.
    asked: Vec<Asked>,
    /// The number of entries that catch-up sent and that are not acknowledged, over all chats.
    unacked: u32,
    /// The number of entries to ask for in the next window. It adapts to the size of the entries.
    step: u32,
    /// True if the inbox was read since CaughtUp was last wanted.
    was_read: bool,
    /// The number of chats that CaughtUp waits for ([`Chat::initial`]).
    initial: usize,
    /// True if CaughtUp was sent and is not wanted again.
    caught_up: bool,
    /// True if CaughtUp was sent before on this stream.
    greeted: bool,
    /// The time at which CaughtUp is sent again because receipts were lost.
    says_again: Option<Timestamp>,
    /// The time before which CaughtUp is not sent again for lost receipts. Each makes the device ask for receipts.
    not_again_before: Timestamp,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            wanted: false,
            reading: false,
            not_before: Timestamp(0),
            first_at: None,
            second_at: None,
            failures: 0,
            more: false,
            queue: VecDeque::new(),
            asked: Vec::new(),
            unacked: 0,
            step: WINDOW_STEP,
            was_read: false,
            initial: 0,
            caught_up: false,
            greeted: false,
            says_again: None,
            not_again_before: Timestamp(0),
        }
    }
}

impl Reader {
    /// Sets the time at which the inbox is first read if presence has not taken the announcement by then.
    pub(super) fn read_inbox_at(&mut self, at: Timestamp) {
        self.first_at = Some(at);
    }

    /// Notes that the whole inbox was read.
    pub(super) fn inbox_was_read(&mut self) {
        // CaughtUp is due after this reading, unless another one is wanted already. The first CaughtUp does not wait
        // for another: presence may have taken the announcement meanwhile, which makes a second reading wanted.
        let newest = !self.wanted || !self.greeted;
        (self.reading, self.was_read, self.more) = (false, newest, false);
        self.failures = 0;
    }

    /// Notes that only a part of the inbox could be read. It is read again after a pause, and CaughtUp waits for that. A
    /// session adds a part of the pause, of up to a half, by its id: those that got a part together do not ask together
    /// again.
    pub(super) fn a_part_was_read(&mut self, session: SessionId, now: Timestamp) {
        (self.reading, self.wanted, self.more) = (false, true, false);
        let pause = PARTIAL_PAUSE * (1 << self.failures.min(2));
        // A gateway numbers its sessions, so their lowest bits are spread evenly.
        let spread = pause / 512 * (session.0 % 256) as u32;
        self.not_before = now + pause + spread;
        self.failures = self.failures.saturating_add(1);
    }

    /// Notes that presence has taken an announcement of the session, and has CaughtUp sent again after the next reading
    /// of the inbox. Presence may not have known the session for a while, so that receipts for it were dropped. CaughtUp
    /// makes the client ask for them.
    pub(super) fn announced(&mut self) {
        self.second_at = None;
        if self.caught_up {
            (self.caught_up, self.was_read) = (false, false);
        }
    }

    /// Returns the time at which CaughtUp is to be sent again for lost receipts.
    pub(super) fn says_again(&self) -> Timestamp {
        self.says_again.unwrap_or(NEVER)
    }

    /// Makes CaughtUp wanted again if the time to send it for lost receipts has come.
    pub(super) fn tick(&mut self, now: Timestamp) {
        if self.says_again.is_some_and(|at| at <= now) {
            self.says_again = None;
            // `was_read` stays as it is. If it is false, a reading of the inbox is due, and CaughtUp comes after it.
            self.caught_up = false;
            self.not_again_before = now + CAUGHT_UP_PAUSE;
        }
    }

    /// Returns whether the inbox is being read or still to be read, so that the session may learn of rows by itself.
    pub(super) fn inbox_is_pending(&self) -> bool {
        self.wanted || self.reading || self.more
    }

    /// Notes that a row was left in the store for want of room, so that the inbox is read once more.
    pub(super) fn more_rows(&mut self) {
        self.more = true;
    }

    /// Returns the time at which the inbox is to be read, provided that the device keeps up.
    pub(super) fn due(&self) -> Timestamp {
        let wanted = if self.wanted && !self.reading {
            self.not_before
        } else {
            NEVER
        };
        let [first, second] = [self.first_at, self.second_at].map(|at| at.unwrap_or(NEVER));
        first.min(second).min(wanted)
    }

    /// Puts the chat at the end of the queue of readings.
    pub(super) fn enqueue(&mut self, chat: ChatId) {
        self.queue.push_back(chat);
    }

    /// Queues the chat's next window now if its last one failed.
    pub(super) fn retry_now(&mut self, id: ChatId, catch_up: &mut CatchUp) {
        if catch_up.retry_at().is_some() {
            catch_up.state = State::Queued;
            self.enqueue(id);
        }
    }

    /// Frees the room in the window that those unacknowledged entries of the chat take up whose seq matches `which`.
    pub(super) fn release(&mut self, chat: &mut Chat, which: impl Fn(u64) -> bool) {
        let before = chat.unacked.len();
        chat.unacked.retain(|seq| !which(*seq));
        self.unacked -= (before - chat.unacked.len()) as u32;
    }

    /// Makes CaughtUp wait for the chat, if it is being read.
    pub(super) fn count_initial(&mut self, chat: &mut Chat) {
        if !self.caught_up && !chat.initial && chat.catch_up.is_some() {
            chat.initial = true;
            self.initial += 1;
        }
    }

    /// Returns whether CaughtUp is due now. It returns true once for each time that CaughtUp was wanted.
    pub(super) fn just_caught_up(&mut self) -> bool {
        let now = !self.caught_up && self.was_read && self.initial == 0 && !self.more;
        self.caught_up |= now;
        self.greeted |= now;
        now
    }

    /// Returns the number of entries that were sent or asked for and are not acknowledged. They take up the window.
    pub(super) fn outstanding(&self) -> u32 {
        self.unacked + self.asked.iter().map(|asked| asked.limit).sum::<u32>()
    }
}

impl Session {
    /// Has CaughtUp sent again, so that the device asks for receipts. Does nothing while a CaughtUp is still to come.
    pub(super) fn receipts_lost(&mut self, now: Timestamp) {
        if self.reader.caught_up && self.reader.says_again.is_none() {
            let at = self.reader.not_again_before.max(now);
            self.reader.says_again = Some(at);
            self.wake_at(at);
        }
    }

    /// Has the inbox read as soon as the device keeps up.
    pub(super) fn want_inbox(&mut self) {
        self.reader.wanted = true;
    }

    /// Notes that the inbox could not be read, and has it read again after a pause.
    pub(super) fn inbox_failed(&mut self, now: Timestamp) {
        self.reader.reading = false;
        self.reader.wanted = true;
        self.reader.not_before = now + back_off(self.reader.failures);
        self.reader.failures = self.reader.failures.saturating_add(1);
    }

    /// Returns whether entries that are read for the device would go out soon: the stream is opening, or few bytes wait
    /// for the transport.
    pub(super) fn keeps_up(&self) -> bool {
        self.life.is_opening() || (self.life.is_open() && self.unflushed < READ_BELOW_BYTES)
    }

    /// Asks for the inbox if that is wanted, the pause is over and the device keeps up.
    pub(super) fn pump_inbox(&mut self, now: Timestamp) {
        let reader = &mut self.reader;
        let opening = self.life.is_opening();
        if opening && reader.first_at.is_some_and(|at| at <= now) {
            (reader.wanted, reader.second_at) = (true, Some(now + SECOND_READING_AFTER));
        }
        if reader.second_at.is_some_and(|at| at <= now) {
            (reader.wanted, reader.second_at) = (true, None);
        }
        if reader.more && !reader.reading && self.chats.rows() < MAX_CHATS / 2 {
            reader.wanted = true;
        }
        if !reader.wanted || reader.reading || !self.keeps_up() {
            return;
        }
        let reader = &mut self.reader;
        if now < reader.not_before {
            let at = reader.not_before;
            return self.wake_at(at);
        }
        (reader.wanted, reader.reading, reader.first_at) = (false, true, None);
        reader.not_before = now + INBOX_PAUSE;
        self.effects.push(Effect::ReadInbox);
    }

    /// Asks for windows while the device keeps up and the window has room.
    pub(super) fn pump_windows(&mut self) {
        while self.unflushed < READ_BELOW_BYTES && self.reader.asked.len() < MAX_READING {
            let limit = self.reader.step.min(self.settings.window);
            if self.reader.outstanding() + limit > self.settings.window {
                return;
            }
            let Some(id) = self.reader.queue.pop_front() else {
                return;
            };
            let Some(chat) = self.chats.get_mut(id) else {
                continue;
            };
            let Some(catch_up) = chat
                .catch_up
                .as_mut()
                .filter(|catch_up| catch_up.state == State::Queued)
            else {
                continue;
            };
            debug_assert!(
                self.reader.asked.iter().all(|asked| asked.chat != id),
                "a chat has two windows under way"
            );
            (catch_up.state, catch_up.news) = (State::Reading, false);
            let from = catch_up.next;
            let reference = self.references.draw();
            self.reader.asked.push(Asked {
                reference,
                chat: id,
                from,
                limit,
            });
            self.effects.push(Effect::Window {
                reference,
                chat: id,
                from,
                limit,
            });
        }
    }

    /// Takes a window: puts its events, and goes on reading or ends the catch-up. A window that breaks the protocol
    /// between nodes counts as failed.
    pub(super) fn window(&mut self, window: Window, now: Timestamp) {
        let Some(asked) = self.answered(window.reference) else {
            return;
        };
        let Some(chat) = self.chats.get_mut(asked.chat) else {
            return;
        };
        let Some(catch_up) = chat.catch_up.as_mut() else {
            return;
        };
        let progress = !window.events.is_empty();
        if window.events.len() != window.seqs.len()
            || window.events.len() > asked.limit as usize
            || window.next < asked.from.max(1)
            || !(window.done || progress)
        {
            catch_up.failed(now);
            return self.watch(asked.chat);
        }
        let first = window.seqs.first().copied().unwrap_or(window.next);
        if catch_up.start == 0 {
            catch_up.start = first;
        }
        catch_up.failures = 0;
        catch_up.next = catch_up.back_to.take().unwrap_or(window.next);
        let wanted = catch_up.target >= window.next && (progress || catch_up.news);
        let more = catch_up.next < window.next || wanted;
        catch_up.state = State::Queued;
        chat.place.went_from(asked.from, first, window.next);
        chat.unacked.extend(&window.seqs);
        if let (Some(row), Some(last)) = (&mut chat.row, window.seqs.last()) {
            row.upto = row.upto.max(*last);
        }
        self.reader.unacked += window.seqs.len() as u32;
        debug_assert!(
            self.reader.outstanding() <= self.settings.window,
            "more entries are outstanding than the window allows"
        );
        if !window.done || more {
            if chat.due.is_none() {
                chat.look_again(self.settings.ack_timeout, now);
            }
            self.reader.queue.push_front(asked.chat);
        } else {
            self.finish(asked.chat, now);
        }
        let bytes = window.events.iter().map(bytes::Bytes::len).sum::<usize>();
        self.reader.step = match bytes {
            0..LARGE_WINDOW_BYTES => (self.reader.step * 2).min(WINDOW_STEP),
            _ => (self.reader.step / 4).max(MIN_WINDOW_STEP),
        };
        for event in window.events {
            self.put_bytes(event, now);
        }
        self.watch(asked.chat);
    }

    /// Notes that a window could not be read. It is asked for again after a pause.
    pub(super) fn window_failed(&mut self, reference: u64, id: ChatId, now: Timestamp) {
        if self.answered(reference).is_none() {
            return;
        }
        if let Some(catch_up) = self.chats.get_mut(id).and_then(|chat| chat.catch_up.as_mut()) {
            catch_up.failed(now);
        }
        self.watch(id);
    }

    /// Takes the window with this reference off the list of those under way. Returns `None` if it is not on the list.
    fn answered(&mut self, reference: u64) -> Option<Asked> {
        let at = self
            .reader
            .asked
            .iter()
            .position(|asked| asked.reference == reference)?;
        Some(self.reader.asked.swap_remove(at))
    }

    /// Ends the chat's catch-up: from now on live pushes pass.
    fn finish(&mut self, id: ChatId, now: Timestamp) {
        let Some(chat) = self.chats.get_mut(id) else {
            return;
        };
        chat.catch_up = None;
        if std::mem::take(&mut chat.initial) {
            self.reader.initial -= 1;
        }
        chat.look_again(self.settings.ack_timeout, now);
    }
}
