//! Catching up: windows of a chat's log, asked for one by one, at most a window of entries ahead of the device.

use std::collections::VecDeque;
use std::time::Duration;

use tern_types::{ChatId, Timestamp};

use super::chats::Chat;
use super::settings::{
    CAUGHT_UP_PAUSE, INBOX_PAUSE, LARGE_WINDOW_BYTES, MAX_CHATS, MAX_READING, MIN_WINDOW_STEP,
    READ_BELOW_BYTES, RETRY, RETRY_MAX, WINDOW_STEP,
};
use super::{Effect, NEVER, Session, Window};

/// How far one chat is caught up.
#[derive(Debug)]
pub struct CatchUp {
    /// Everything from here to `next` was sent. 0: where the store has the device.
    pub start: u64,
    /// Asked for next, or just now.
    pub next: u64,
    /// The highest seq that is known to be wanted.
    target: u64,
    /// More is wanted since the window under way was asked for, which may have been read before that was there.
    news: bool,
    pub state: State,
    /// After the window under way, go back to here.
    back_to: Option<u64>,
    failures: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Queued,
    Reading,
    Failed { retry_at: Timestamp },
}

impl CatchUp {
    pub fn new(from: u64, target: u64) -> Self {
        Self {
            start: from,
            next: from,
            target,
            news: false,
            state: State::Queued,
            back_to: None,
            failures: 0,
        }
    }

    /// Everything up to here is wanted.
    pub fn wants(&mut self, target: u64) {
        self.target = self.target.max(target);
        self.news |= self.state == State::Reading;
    }

    /// More is wanted. `from` 0: whatever lies below `target` and is not the device's yet.
    pub fn extend(&mut self, from: u64, target: u64) {
        self.wants(target);
        let reading = self.state == State::Reading;
        if from == 0 || (self.start == 0 && reading) {
            return;
        }
        if self.start == 0 || from < self.start {
            self.start = from;
            if reading {
                self.back_to = Some(from);
            } else {
                self.next = from;
            }
        }
    }

    /// The device has everything up to `seq`.
    pub fn has(&mut self, seq: u64) {
        if self.state != State::Reading {
            self.next = self.next.max(seq.saturating_add(1));
            if self.start == 0 {
                self.start = self.next;
            }
        }
    }

    /// What was sent is sent again from `from` on; not while a window is under way.
    pub fn go_back(&mut self, from: u64) {
        self.start = self.start.min(from);
        self.next = self.next.min(from);
    }

    pub fn retry_at(&self) -> Option<Timestamp> {
        match self.state {
            State::Failed { retry_at } => Some(retry_at),
            State::Queued | State::Reading => None,
        }
    }

    fn failed(&mut self, now: Timestamp) {
        self.state = State::Failed {
            retry_at: now + back_off(self.failures),
        };
        self.failures = self.failures.saturating_add(1);
        if let Some(from) = self.back_to.take() {
            self.next = from;
        }
    }
}

fn back_off(failures: u32) -> Duration {
    RETRY.saturating_mul(1 << failures.min(8)).min(RETRY_MAX)
}

/// A window asked for.
#[derive(Debug)]
struct Asked {
    reference: u64,
    chat: ChatId,
    from: u64,
    limit: u32,
}

/// What is read for the device, from the inbox and from the logs.
#[derive(Debug)]
pub(super) struct Reader {
    /// The inbox is to be read (again).
    wanted: bool,
    /// An answer is under way; it may be older than the wish.
    reading: bool,
    not_before: Timestamp,
    /// The first reading happens then without presence.
    first_at: Option<Timestamp>,
    failures: u32,
    /// Rows were left in the store for want of room.
    more: bool,
    /// Chats to be read.
    queue: VecDeque<ChatId>,
    asked: Vec<Asked>,
    unacked: u32,
    step: u32,
    was_read: bool,
    initial: usize,
    caught_up: bool,
    /// CaughtUp was said before.
    greeted: bool,
    /// When it is said again although nothing waits, for receipts that were lost.
    says_again: Option<Timestamp>,
    /// Not before then: a device asks for receipts each time.
    not_again_before: Timestamp,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            wanted: false,
            reading: false,
            not_before: Timestamp(0),
            first_at: None,
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
    pub(super) fn read_inbox_at(&mut self, at: Timestamp) {
        self.first_at = Some(at);
    }

    pub(super) fn inbox_was_read(&mut self) {
        // The first greeting does not wait for presence.
        let newest = !self.wanted || !self.greeted;
        (self.reading, self.was_read, self.more) = (false, newest, false);
        self.failures = 0;
    }

    /// Presence may not have known the session for a while: receipts went past it. After the next reading of the inbox
    /// CaughtUp is said again, for the client to ask for them.
    pub(super) fn catch_up_again(&mut self) {
        if self.caught_up {
            (self.caught_up, self.was_read) = (false, false);
        }
    }

    /// When CaughtUp is due for receipts that were lost.
    pub(super) fn says_again(&self) -> Timestamp {
        self.says_again.unwrap_or(NEVER)
    }

    pub(super) fn tick(&mut self, now: Timestamp) {
        if self.says_again.is_some_and(|at| at <= now) {
            self.says_again = None;
            // Where the inbox is being read anyway, it comes after that.
            self.caught_up = false;
            self.not_again_before = now + CAUGHT_UP_PAUSE;
        }
    }

    /// Whether rows may still be found by other ways than the sweep.
    pub(super) fn inbox_is_pending(&self) -> bool {
        self.wanted || self.reading || self.more
    }

    pub(super) fn more_rows(&mut self) {
        self.more = true;
    }

    /// When the inbox is read, for a device that keeps up.
    pub(super) fn due(&self) -> Timestamp {
        let wanted = if self.wanted && !self.reading {
            self.not_before
        } else {
            NEVER
        };
        self.first_at.unwrap_or(NEVER).min(wanted)
    }

    pub(super) fn enqueue(&mut self, chat: ChatId) {
        self.queue.push_back(chat);
    }

    pub(super) fn retry_now(&mut self, id: ChatId, catch_up: &mut CatchUp) {
        if catch_up.retry_at().is_some() {
            catch_up.state = State::Queued;
            self.enqueue(id);
        }
    }

    /// Gives the window back what entries of the chat took up.
    pub(super) fn release(&mut self, chat: &mut Chat, which: impl Fn(u64) -> bool) {
        let before = chat.unacked.len();
        chat.unacked.retain(|seq| !which(*seq));
        self.unacked -= (before - chat.unacked.len()) as u32;
    }

    /// CaughtUp waits for the chat.
    pub(super) fn count_initial(&mut self, chat: &mut Chat) {
        if !self.caught_up && !chat.initial && chat.catch_up.is_some() {
            chat.initial = true;
            self.initial += 1;
        }
    }

    /// True once after each time that it was wanted.
    pub(super) fn just_caught_up(&mut self) -> bool {
        let now = !self.caught_up && self.was_read && self.initial == 0 && !self.more;
        self.caught_up |= now;
        self.greeted |= now;
        now
    }

    /// Entries sent or asked for, not acknowledged.
    pub(super) fn outstanding(&self) -> u32 {
        self.unacked + self.asked.iter().map(|asked| asked.limit).sum::<u32>()
    }
}

impl Session {
    /// CaughtUp is said again, for the device to ask for receipts. While it is still to come, it does.
    pub(super) fn receipts_lost(&mut self, now: Timestamp) {
        if self.reader.caught_up && self.reader.says_again.is_none() {
            let at = self.reader.not_again_before.max(now);
            self.reader.says_again = Some(at);
            self.wake_at(at);
        }
    }

    pub(super) fn want_inbox(&mut self) {
        self.reader.wanted = true;
    }

    pub(super) fn inbox_failed(&mut self, now: Timestamp) {
        self.reader.reading = false;
        self.reader.wanted = true;
        self.reader.not_before = now + back_off(self.reader.failures);
        self.reader.failures = self.reader.failures.saturating_add(1);
    }

    /// Whether what is read for the device would go out soon.
    pub(super) fn keeps_up(&self) -> bool {
        self.life.is_opening() || (self.life.is_open() && self.unflushed < READ_BELOW_BYTES)
    }

    /// Reads the inbox when that is wanted and the device keeps up.
    pub(super) fn pump_inbox(&mut self, now: Timestamp) {
        let reader = &mut self.reader;
        let opening = self.life.is_opening();
        if opening && reader.first_at.is_some_and(|at| at <= now) {
            reader.wanted = true;
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

    /// Asks for windows while the device keeps up.
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
            (catch_up.state, catch_up.news) = (State::Reading, false);
            let from = catch_up.next;
            let reference = self.next_reference();
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

    pub(super) fn window_failed(&mut self, reference: u64, id: ChatId, now: Timestamp) {
        if self.answered(reference).is_none() {
            return;
        }
        if let Some(catch_up) = self.chats.get_mut(id).and_then(|chat| chat.catch_up.as_mut()) {
            catch_up.failed(now);
        }
        self.watch(id);
    }

    fn answered(&mut self, reference: u64) -> Option<Asked> {
        let at = self
            .reader
            .asked
            .iter()
            .position(|asked| asked.reference == reference)?;
        Some(self.reader.asked.swap_remove(at))
    }

    /// The chat is caught up: from now on live pushes pass.
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
