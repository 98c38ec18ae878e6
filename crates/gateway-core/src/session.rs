//! A session is one stream of one device, as a pure state machine: `apply(event, now) -> effects`. The gateway's task
//! for the stream feeds it events and carries out its effects.
//!
//! - [`event`]: the events that a session takes and the effects that it returns
//! - [`lifecycle`]: Open, tokens, heartbeats, draining, the end
//! - [`sends`]: messages from the device; [`notices`]: what it tells the others of a chat at once, such as [`typing`]
//! - [`chats`]: for each chat, the entries that were sent to the device and those that it acknowledged; [`place`]: the
//!   position in the log that follows from that
//! - [`duty`]: what the server still owes the device: live entries, inbox rows, wakes, acknowledgements
//! - [`catch_up`]: reads windows of a chat's log at the pace of the device's acknowledgements; [`reading`]: how far the
//!   reading of one chat has come
//! - [`watching`]: the users whose presence the device watches
//! - [`ranges`]: a set of seqs; [`settings`]: constants and settings

pub mod catch_up;
pub mod chats;
pub mod duty;
pub mod event;
pub mod lifecycle;
pub mod notices;
pub mod place;
pub mod ranges;
pub mod reading;
pub mod sends;
pub mod settings;
pub mod typing;
pub mod watching;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;
use tern_proto::v1::server_event;
use tern_proto::{raw, v1};
#[cfg(test)]
use tern_types::ChatId;
use tern_types::{SessionId, Timestamp};

pub use event::{CloseRequest, Effect, Event, Identity, Inbox, InboxRow, Item, Mail, Op, Send, Window};
pub use settings::Settings;

use catch_up::Reader;
use chats::Chats;
use lifecycle::Life;
use sends::Sends;
use typing::Typing;

use crate::gcra::Gcra;

/// The state of one stream of one device. [`Session::apply`] takes an event and returns the effects of it.
#[derive(Debug)]
pub struct Session {
    id: SessionId,
    settings: Settings,
    life: Life,
    sends: Sends,
    typing: Typing,
    chats: Chats,
    reader: Reader,
    /// The limiter for the device's WatchPresence.
    watching: Gcra,
    references: References,
    /// The number of bytes that were put since the transport had last taken everything. It may have taken
    /// some of them since.
    unflushed: usize,
    /// No timer is due before this time. It may be earlier than the next timer, never later.
    due: Timestamp,
    effects: Vec<Effect>,
}

impl Session {
    /// Makes a session whose stream has just begun and which waits for Open.
    pub fn new(id: SessionId, settings: Settings, now: Timestamp) -> Self {
        let life = Life::new(&settings, now);
        Self {
            id,
            settings,
            due: life.due(&settings),
            life,
            sends: Sends::new(&settings),
            typing: Typing::default(),
            chats: Chats::default(),
            reader: Reader::default(),
            watching: watching::rate(),
            references: References { of: id, last: 0 },
            unflushed: 0,
            effects: Vec::new(),
        }
    }

    /// Sets what the wall clock shows at `now`. Devices are told wall clock times, and tokens expire by the wall
    /// clock; every timer uses the monotonic time that is given to [`Self::apply`].
    pub fn wall_is(&mut self, wall: Timestamp, now: Timestamp) {
        self.life.wall_is(wall, now);
    }

    /// Takes one event and returns its effects, which the caller carries out in their order. A session that has ended
    /// ignores the event and returns none.
    pub fn apply(&mut self, event: Event<'_>, now: Timestamp) -> Vec<Effect> {
        debug_assert!(
            self.effects.is_empty(),
            "each event's effects are returned at once"
        );
        if self.life.has_ended() {
            return Vec::new();
        }
        self.dispatch(event, now);
        if !self.life.has_ended() && now >= self.due {
            self.tick(now);
        }
        if !self.life.has_ended() {
            self.pump(now);
        }
        std::mem::take(&mut self.effects)
    }

    /// Returns the time at which the session needs [`Event::Tick`] at the latest.
    pub fn due(&self) -> Timestamp {
        self.due
    }

    /// Returns whether the session takes items of the client now. It takes none between Open and Opened.
    pub fn takes_items(&self) -> bool {
        !self.life.is_opening()
    }

    /// Returns whether the stream has ended. From then on the session ignores every event.
    pub fn has_ended(&self) -> bool {
        self.life.has_ended()
    }

    /// Returns whether Opened was sent and the stream has not ended.
    pub fn is_open(&self) -> bool {
        self.life.is_open()
    }

    fn dispatch(&mut self, event: Event<'_>, now: Timestamp) {
        match event {
            Event::Item(item) => self.item(item, now),
            Event::Frame => self.life.sign_of_life(now),
            Event::BadFrame(why) => self.protocol_error(why),
            Event::FrameTooLarge(why) => self.frame_too_large(why),
            Event::HalfClosed => self.leave(now),
            Event::Announced => {
                self.reader.announced();
                self.want_inbox();
            }
            Event::Redrain => self.want_inbox(),
            Event::ReceiptsLost => self.receipts_lost(now),
            Event::Mail(mail) => self.mail(mail, now),
            Event::ReadReceipts { off } => self.life.told_read_receipts_off(off, now),
            Event::Moved(moved) => self.moved(moved, now),
            Event::Drain {
                reconnect_after,
                close_after,
            } => self.drain(reconnect_after, close_after, now),
            Event::Close(request) => self.close_on_request(request),
            Event::Flushed => self.unflushed = 0,
            Event::Tick => {}
        }
    }

    fn item(&mut self, item: Item, now: Timestamp) {
        if !self.allow_item(now) {
            return;
        }
        match item {
            Item::Open {
                token,
                client_version,
                active,
            } => self.open(token, &client_version, active, now),
            _ if !self.life.is_open() => self.protocol_error("the first item of a stream must be Open"),
            Item::Send(send) => self.send(send, now),
            // Ack, MarkRead and notices have no answer. One with a malformed chat id is ignored here. One
            // about a chat that the user is not in is ignored by the chat's owner.
            Item::Ack(ack) => {
                if let Ok(chat) = ack.chat_id.parse() {
                    self.acknowledged(chat, ack.seq, now);
                }
            }
            Item::MarkRead(mark) => {
                if let Ok(chat) = mark.chat_id.parse() {
                    self.mark_read(chat, mark.seq, now);
                }
            }
            Item::Reauthenticate(token) => self.reauthenticate(token, now),
            Item::Heartbeat { token } => self.heartbeat(token, now),
            Item::SetActive { active } => self.set_active(active, now),
            Item::WatchPresence(users) => self.watch_presence(&users, now),
            Item::Notice(chat_id, notice) => {
                if let Ok(chat) = chat_id.parse() {
                    self.notice(chat, notice, now);
                }
            }
            Item::Unknown => {}
        }
    }

    fn mail(&mut self, mail: Mail, now: Timestamp) {
        match mail {
            Mail::Live { chat, seq, event } => self.live(chat, seq, event, now),
            Mail::Added { chat, seq } => self.added(chat, seq, now),
            Mail::Wake { chat, from, to } => self.woken(chat, from, to, now),
            Mail::Result {
                reference,
                event,
                placed,
            } => self.send_result(reference, event, placed, now),
            Mail::SendFailed { reference } => self.send_failed(reference),
            Mail::AckWritten { chat, seq, row_from } => self.ack_written(chat, seq, row_from, now),
            Mail::AckLost { chat } => self.ack_lost(chat, now),
            Mail::Window(window) => self.window(window, now),
            Mail::WindowFailed { reference, chat } => self.window_failed(reference, chat, now),
            Mail::Inbox(inbox) => self.inbox_read(inbox, now),
            Mail::InboxFailed => self.inbox_failed(now),
            Mail::Swept(inbox) => self.swept(inbox, now),
            Mail::Seen(event) => self.seen(event, now),
        }
    }

    /// Runs the timers that are due and works out when the next one is.
    fn tick(&mut self, now: Timestamp) {
        self.tick_life(now);
        if self.life.has_ended() {
            return;
        }
        self.tick_sends(now);
        if self.life.has_ended() {
            return;
        }
        self.tick_chats(now);
        self.reader.tick(now);
        // While the device is slow the reader has no timer: Flushed makes it go on.
        let reader = if self.keeps_up() {
            self.reader.due().max(now + TICK)
        } else {
            NEVER
        };
        self.due = self
            .life
            .due(&self.settings)
            .min(reader)
            .min(self.sends.due())
            .min(self.chats.due())
            .min(self.reader.says_again());
    }

    /// Asks for the inbox and for windows of the logs, as far as the last event made room for them.
    fn pump(&mut self, now: Timestamp) {
        self.pump_inbox(now);
        if self.life.is_open() {
            self.pump_windows();
            self.greet_if_caught_up();
        }
        self.wake_at(self.life.due(&self.settings));
    }

    /// Makes the session's timer due at `at` or earlier.
    fn wake_at(&mut self, at: Timestamp) {
        self.due = self.due.min(at);
    }

    fn put(&mut self, event: server_event::Event, now: Timestamp) {
        self.put_bytes(raw::event(event), now);
    }

    fn put_bytes(&mut self, event: Bytes, now: Timestamp) {
        self.unflushed += event.len();
        self.life.spoke(now);
        self.effects.push(Effect::Put(event));
    }

    /// Puts an event that is no entry. Before Opened it is dropped: the device asks for receipts after CaughtUp, it
    /// watches nobody yet, and a notice is soon out of date.
    fn seen(&mut self, event: Bytes, now: Timestamp) {
        if self.life.is_open() {
            self.put_bytes(event, now);
        }
    }

    /// Puts CaughtUp once everything was sent that waited when the stream was opened or the session was announced
    /// anew.
    fn greet_if_caught_up(&mut self) {
        if self.reader.just_caught_up() {
            let event = raw::event(server_event::Event::CaughtUp(v1::CaughtUp {}));
            self.unflushed += event.len();
            self.effects.push(Effect::Put(event));
        }
    }
}

/// The references by which a session's sends, acknowledgements and windows are answered. A reference has the lower half
/// of the session id in its upper 32 bits, and a number in the lower.
#[derive(Debug)]
struct References {
    of: SessionId,
    /// The number that was drawn last.
    last: u32,
}

impl References {
    /// Draws the next reference.
    fn draw(&mut self) -> u64 {
        self.last = self.last.wrapping_add(1);
        (self.of.0 << 32) | u64::from(self.last)
    }
}

/// The reader's timer is set at least this far ahead. What is due sooner runs at the end of the current `apply`.
const TICK: Duration = Duration::from_millis(1);
/// A time that never comes.
const NEVER: Timestamp = Timestamp(i64::MAX);

/// The access that tests need to check invariants.
#[cfg(test)]
impl Session {
    fn chat(&self, id: ChatId) -> Option<&chats::Chat> {
        self.chats.get(id)
    }
}
