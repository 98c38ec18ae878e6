//! One stream of one device, as a pure state machine: `apply(event, now) -> effects`. It names no tonic and no tokio;
//! [`crate::stream`] feeds it and does what it says.
//!
//! - [`event`]: what happens to it, what it wants done
//! - [`lifecycle`]: Open, tokens, heartbeats, draining, the end
//! - [`sends`]: messages on their way up; [`typing`]: that one is being written
//! - [`chats`]: what went to the device and what it acknowledged, chat by chat; [`place`]: where it stands by that
//! - [`duty`]: inbox rows, wakes, acknowledgements: what the device is still owed
//! - [`catch_up`]: windows of a chat's log, paced by acknowledgements
//! - [`watching`]: whom the device watches
//! - [`gcra`], [`ranges`], [`settings`]: its tools

pub mod catch_up;
pub mod chats;
pub mod duty;
pub mod event;
pub mod gcra;
pub mod lifecycle;
pub mod place;
pub mod ranges;
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

pub use event::{CloseRequest, Effect, Event, Identity, Inbox, InboxRow, Item, Mail, Send, Window};
pub use settings::Settings;

use catch_up::Reader;
use chats::Chats;
use gcra::Gcra;
use lifecycle::Life;
use sends::Sends;
use typing::Typing;

/// See the module.
#[derive(Debug)]
pub struct Session {
    id: SessionId,
    settings: Settings,
    life: Life,
    sends: Sends,
    typing: Typing,
    chats: Chats,
    reader: Reader,
    watching: Gcra,
    /// Names of sends and windows: unique within the gateway's incarnation.
    last_reference: u32,
    /// Bytes put that the transport has not taken.
    unflushed: usize,
    /// No timer is due before it.
    due: Timestamp,
    effects: Vec<Effect>,
}

impl Session {
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
            last_reference: 0,
            unflushed: 0,
            effects: Vec::new(),
        }
    }

    /// The wall clock shows this now. It is what devices are told, and what the ends of tokens are given in; all that
    /// waits goes by the times of [`Self::apply`].
    pub fn wall_is(&mut self, wall: Timestamp, now: Timestamp) {
        self.life.wall_is(wall, now);
    }

    /// Takes one event. The effects are to be carried out in their order; after [`Effect::End`] there are none.
    pub fn apply(&mut self, event: Event<'_>, now: Timestamp) -> Vec<Effect> {
        if self.life.has_ended() {
            return Vec::new();
        }
        self.dispatch(event, now);
        if now >= self.due {
            self.tick(now);
        }
        if !self.life.has_ended() {
            self.pump(now);
        }
        std::mem::take(&mut self.effects)
    }

    /// When [`Event::Tick`] is due.
    pub fn due(&self) -> Timestamp {
        self.due
    }

    /// Whether client items may be given to it now: not while Open is being answered.
    pub fn takes_items(&self) -> bool {
        !self.life.is_opening()
    }

    pub fn has_ended(&self) -> bool {
        self.life.has_ended()
    }

    /// Whether the device was greeted.
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
                self.reader.catch_up_again();
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
            // An item about a chat that has no answer: where its id is none, it is about no chat, and ignored as for a
            // chat that the user is not in.
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
            Item::Typing(typing) => {
                if let Ok(chat) = typing.chat_id.parse() {
                    self.typing(chat, typing.stopped, now);
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

    /// Does what is due, then finds out when that is next.
    fn tick(&mut self, now: Timestamp) {
        self.tick_life(now);
        if self.life.has_ended() {
            return;
        }
        self.tick_chats(now);
        self.reader.tick(now);
        // While the device is slow, Flushed is what the reader waits for.
        let reader = if self.keeps_up() {
            self.reader.due().max(now + TICK)
        } else {
            NEVER
        };
        self.due = self
            .life
            .due(&self.settings)
            .min(reader)
            .min(self.chats.due())
            .min(self.reader.says_again());
    }

    /// Goes on with whatever the last event made room for.
    fn pump(&mut self, now: Timestamp) {
        self.pump_inbox(now);
        if self.life.is_open() {
            self.pump_windows();
            self.greet_if_caught_up();
        }
        self.wake_at(self.life.due(&self.settings));
    }

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

    fn next_reference(&mut self) -> u64 {
        self.last_reference = (self.last_reference + 1) & OWN_REFERENCES;
        (self.id.0 << 32) | u64::from(self.last_reference)
    }

    /// Receipts, typing and presence before Opened say nothing: the device asks for them after CaughtUp.
    fn seen(&mut self, event: Bytes, now: Timestamp) {
        if self.life.is_open() {
            self.put_bytes(event, now);
        }
    }

    /// Puts CaughtUp once all is sent that waited when the stream was opened, or announced anew.
    fn greet_if_caught_up(&mut self) {
        if self.reader.just_caught_up() {
            let event = raw::event(server_event::Event::CaughtUp(v1::CaughtUp {}));
            self.unflushed += event.len();
            self.effects.push(Effect::Put(event));
        }
    }
}

/// Timers that are due at once run within the event at hand; the next look is at least this much later.
const TICK: Duration = Duration::from_millis(1);
/// The lower half of a session's references; the upper half is its adapter's.
pub const OWN_REFERENCES: u32 = u32::MAX >> 1;
/// Far enough away never to come.
const NEVER: Timestamp = Timestamp(i64::MAX);

/// Only for the tests' invariants.
#[cfg(test)]
impl Session {
    fn chat(&self, id: ChatId) -> Option<&chats::Chat> {
        self.chats.get(id)
    }
}
