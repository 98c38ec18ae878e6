//! The [`Engine`] is the client's side of the protocol as a pure function: `apply(inputs, now) -> effects`. It uses no
//! socket, no file and no clock. The driver carries the effects out in the order of the fields of [`Effects`].
//!
//! - `inputs`: what the driver tells the engine, and what the engine asks the driver for
//! - [`cursor`]: one chat's place in its log
//! - [`chats`]: applying and acknowledging entries of all chats; [`chat_state`]: one chat with its unread count
//! - `mentions`: the unread messages that mention this person; `group`: what entries change of a group
//! - `own_log`: what the person's devices tell each other; `expiry`: messages that disappear
//! - [`look_up`]: calls for chats that are not known and for entries that are missing
//! - [`outbox`]: messages that were written and have no result yet; [`sends`]: their way to a place in the log
//! - `presence`: the presence of this person, and of the people whom the screen shows
//! - [`receipts`]: the watermarks up to which other people have received and read
//! - [`typing`]: the people who are typing
//! - [`session`]: opening the stream, heartbeats, tokens, the time of the next attempt

pub mod chat_state;
pub mod chats;
pub mod cursor;
mod expiry;
mod group;
mod inputs;
pub mod look_up;
mod mentions;
pub mod outbox;
mod own_log;
mod presence;
pub mod receipts;
pub mod sends;
pub mod session;
#[cfg(test)]
mod tests;
pub mod typing;

use std::collections::{BTreeSet, HashMap};

use tern_proto::v1;
use tern_types::{ChatId, RequestId, Seq, Timestamp};

use chat_state::ChatState;
use outbox::Outbox;
use presence::Presences;
use receipts::Receipts;
use session::Session;
use typing::Typing;

use crate::model::{Credentials, Entry, Event, SendState, StopReason, StoreEpoch};

pub use inputs::{Call, Change, ChatRow, Effects, Input, Stored, StoredChat, StreamOrder};

/// The settings of the engine.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The name and version of the client, for the operators' statistics.
    pub client_version: String,
    /// True if a person looks at the app from the start.
    pub active: bool,
    /// The number of sends of one chat that may be without a result at a time. 0 counts as 1.
    pub sends_per_chat: usize,
    /// The seed of the jitter in the delays between attempts.
    pub seed: u64,
}

/// The state of one device.
#[derive(Debug)]
pub struct Engine {
    me: Credentials,
    /// The person's own log, see own.proto. It is no chat to show.
    own_log: ChatId,
    epoch: Option<StoreEpoch>,
    /// The number of times that the server's store was replaced while this engine ran.
    generation: u64,
    session: Session,
    presences: Presences,
    chats: HashMap<ChatId, ChatState>,
    listing: look_up::Listing,
    /// The chats that wait for a look-up or for missing entries.
    waiting: BTreeSet<ChatId>,
    outbox: Outbox,
    /// The own messages that have a place in the log but are not applied, because an entry before them is missing.
    unapplied: HashMap<RequestId, Entry>,
    receipts: Receipts,
    typing: Typing,
    /// The time at which the next message disappears that this device has. `None`: none does.
    next_expiry: Option<Timestamp>,
    /// The messages above the cursors of their chats that the person has deleted for themselves: the own log may tell of
    /// a message before its entry comes.
    hidden_ahead: BTreeSet<(ChatId, Seq)>,
    /// The chats to acknowledge at the end of this `apply`.
    acks: BTreeSet<ChatId>,
    /// The chats whose read marks are sent at the end of this `apply`.
    reads: BTreeSet<ChatId>,
    /// The chats to store and to tell the app at the end of this `apply`.
    dirty: BTreeSet<ChatId>,
    /// True if the server said CaughtUp and the app was not told yet. It is told when no chat is being looked up.
    caught_up: bool,
    /// True if the app was told CaughtUp on the present stream.
    caught_up_before: bool,
    effects: Effects,
}

impl Engine {
    /// Makes an engine that continues with the content of the store. It does nothing before [`Input::Start`].
    pub fn new(me: Credentials, stored: Stored, settings: Settings) -> Self {
        let mut engine = Self {
            session: Session::new(&settings),
            presences: Presences::new(settings.active),
            epoch: stored.epoch,
            generation: 0,
            chats: HashMap::new(),
            waiting: BTreeSet::new(),
            listing: look_up::Listing::new(stored.listed),
            outbox: Outbox::new(settings.sends_per_chat),
            unapplied: HashMap::new(),
            receipts: Receipts::new(stored.receipts),
            typing: Typing::default(),
            next_expiry: stored.next_expiry,
            hidden_ahead: stored.hidden_ahead.into_iter().collect(),
            acks: BTreeSet::new(),
            reads: BTreeSet::new(),
            dirty: BTreeSet::new(),
            caught_up: false,
            caught_up_before: false,
            effects: Effects::default(),
            own_log: ChatId::own(me.user),
            me,
        };
        for stored in stored.chats {
            let (chat, state) = (stored.row.chat.id, ChatState::new(stored));
            if state.waits() {
                engine.waiting.insert(chat);
            }
            engine.chats.insert(chat, state);
        }
        engine.load_outbox(stored.outbox);
        engine
    }

    /// Returns the device's identity and present tokens.
    pub fn credentials(&self) -> &Credentials {
        &self.me
    }

    /// Returns the number of times that the server's store was replaced while this engine ran. The driver keeps it
    /// beside each call, and hands both back in [`Input::Answered`].
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Returns whether `messages` more messages fit into the outbox, whose bodies have `bytes` bytes in all.
    pub fn has_room(&self, messages: usize, bytes: usize) -> bool {
        self.outbox.has_room(messages, bytes)
    }

    /// Applies inputs in their order, and returns their effects. Each chat that changed is acknowledged and stored once
    /// for all inputs. After the client has ended, inputs are ignored.
    pub fn apply(&mut self, inputs: impl IntoIterator<Item = Input>, now: Timestamp) -> Effects {
        for input in inputs {
            if self.session.stopped() {
                break;
            }
            self.apply_one(input, now);
        }
        self.finish(now);
        std::mem::take(&mut self.effects)
    }

    /// Returns the time at which [`Input::Tick`] has to be applied, or `None` if there is nothing to do before another
    /// input comes.
    pub fn next_wake(&self) -> Option<Timestamp> {
        if self.session.stopped() {
            return None;
        }
        let sends = if self.session.open() {
            self.outbox.next_wake()
        } else {
            None
        };
        [
            self.session.next_wake(),
            self.presences.next_wake(),
            sends,
            self.chats_wake(),
            self.receipts_wake(),
            self.typing.next_wake(),
            self.next_expiry,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn apply_one(&mut self, input: Input, now: Timestamp) {
        match input {
            Input::Start => {
                self.connect(now);
                self.tick_expiry(now);
            }
            Input::Tick => {
                self.tick_session(now);
                self.tick_presence(now);
                self.tick_chats(now);
                self.tick_receipts(now);
                self.tick_typing(now);
                self.tick_expiry(now);
            }
            Input::Send(message) => self.queue(message, now),
            // Both changes are committed together, so one of the two messages is always in the store.
            Input::SendAgain { refused, message } => {
                self.effects.changes.push(Change::Unqueue(refused));
                self.queue(message, now);
            }
            Input::Discard(request) => self.effects.changes.push(Change::Unqueue(request)),
            Input::MarkRead { chat, seq } => self.mark_read(chat, seq),
            Input::SetActive(active) => self.set_active(active, now),
            Input::WatchPresence(users) => self.watch_presence(users),
            Input::Typing { chat, stopped } => self.own_typing(chat, stopped, now),
            Input::TokenRejected(token) => self.token_rejected(&token),
            Input::History(entries) => self.history(entries),
            Input::SettingsSet { chat, settings, seq } => self.settings_changed(chat, settings, seq),
            Input::Hidden { chat, seqs } => self.hidden(chat, seqs),
            Input::JoinRequests { chat, count } => self.join_requests(chat, count),
            Input::Expired { gone, next } => self.expired(gone, next),
            Input::ReceiptsWanted(chat) => self.effects.calls.push(Call::Receipts(chat)),
            Input::Stop => self.stop(StopReason::ByApp),
            Input::Frame(frame) => self.frame(frame, now),
            Input::StreamLost(error) => self.stream_lost(&error, now),
            Input::Answered { generation, answer } if generation == self.generation => {
                self.apply_one(*answer, now);
            }
            // The answer tells of a store that was replaced, to which other cursors belonged.
            Input::Answered { .. } => {}
            Input::Listed(result) => self.listed(result, now),
            Input::LookedUp { chat, result } => self.looked_up(chat, result, now),
            Input::Filled { chat, result } => self.filled(chat, result, now),
            Input::ReceiptsRead { chat, result } => self.receipts_read(chat, result, now),
            Input::Refreshed(result) => self.refreshed(result, now),
            Input::Outbox(messages) => self.load_outbox(messages),
        }
    }

    fn frame(&mut self, frame: v1::ServerFrame, now: Timestamp) {
        use v1::server_event::Event as E;
        self.session.heard(now);
        for event in frame.events {
            match event.event {
                Some(E::Opened(opened)) => self.opened(opened, now),
                Some(E::Entry(entry)) => self.entry_came(entry, now),
                Some(E::SendResult(result)) => self.send_result(result, now),
                Some(E::Receipt(receipt)) => self.receipt_came(receipt),
                Some(E::Skipped(skipped)) => self.skipped(&skipped, now),
                // A frame of the stream before may still come while the next one is opened. It does not count for that.
                Some(E::CaughtUp(_)) => self.caught_up = self.session.open(),
                Some(E::TokenExpiring(_)) => self.refresh(),
                Some(E::HeartbeatAck(ack)) => self.session.heartbeat_interval(ack.heartbeat_interval_ms),
                Some(E::Draining(draining)) => self.session.draining(draining.reconnect_after_ms, now),
                Some(E::Closing(closing)) => self.session.closing(closing),
                Some(E::Reauthenticated(_)) => self.session.reauthenticated(),
                Some(E::Presence(presence)) => self.presence_came(&presence),
                Some(E::WatchResult(result)) => self.watch_result_came(result),
                Some(E::UserTyping(typing)) => self.typing_came(&typing, now),
                // The protocol says that an event of an unknown kind is ignored.
                None => {}
            }
        }
    }

    /// Produces the effects that are gathered over all inputs of one `apply`: look-ups, chats to store,
    /// acknowledgements, read marks, sends.
    fn finish(&mut self, now: Timestamp) {
        debug_assert!(
            self.waiting.iter().all(|chat| self.chats.contains_key(chat)),
            "only chats that are there wait"
        );
        if self.session.stopped() {
            self.flush_dirty();
            return;
        }
        self.look_up_unknown(now);
        self.flush_dirty();
        if self.session.open() {
            self.flush_acks();
            self.flush_reads();
            self.flush_sends(now);
            self.session.spoke(!self.effects.items.is_empty(), now);
            if self.caught_up && self.nothing_looked_up() {
                self.caught_up = false;
                let again = std::mem::replace(&mut self.caught_up_before, true);
                if !again {
                    self.effects.events.push(Event::CaughtUp);
                }
                self.ask_for_receipts(again);
            }
        }
    }

    /// Ends the client. The acknowledgements and read marks made here go out before the driver closes the stream.
    fn stop(&mut self, reason: StopReason) {
        if self.session.open() {
            self.flush_acks();
            self.flush_reads();
        }
        self.session.stop();
        self.effects.stopped = Some(reason);
    }

    fn send_event(&mut self, request: RequestId, chat: ChatId, state: SendState) {
        self.effects.events.push(Event::Send { request, chat, state });
    }
}
