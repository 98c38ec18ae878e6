//! The [`Engine`] is the client's side of the protocol as a pure function: `apply(inputs, now) -> effects`. It uses no
//! socket, no file and no clock. The driver carries the effects out in the order of the fields of [`Effects`].
//!
//! - [`cursor`]: one chat's place in its log
//! - [`chats`]: applying and acknowledging entries of all chats; [`chat_state`]: one chat with its unread count
//! - [`look_up`]: calls for chats that are not known and for entries that are missing
//! - [`outbox`]: messages that were written and have no result yet; [`sends`]: their way to a place in the log
//! - `presence`: the presence of this person, and of the people whom the screen shows
//! - [`receipts`]: the watermarks up to which other people have received and read
//! - [`typing`]: the people who are typing
//! - [`session`]: opening the stream, heartbeats, tokens, the time of the next attempt

pub mod chat_state;
pub mod chats;
pub mod cursor;
pub mod look_up;
pub mod outbox;
mod presence;
pub mod receipts;
pub mod sends;
pub mod session;
#[cfg(test)]
mod tests;
pub mod typing;

use std::collections::{BTreeSet, HashMap};

use tern_proto::v1;
use tern_types::{ChatId, RequestId, Seq, Timestamp, UserId};

use chat_state::ChatState;
use outbox::Outbox;
use presence::Presences;
use receipts::Receipts;
use session::Session;
use typing::Typing;

use crate::error::CallError;
use crate::model::{
    Chat, ChatList, Credentials, Entry, Event, ListedChat, Mark, Outgoing, QueuedMessage, SendState,
    StopReason, StoreEpoch,
};

/// Something that happened, of which the driver tells the engine.
#[derive(Debug)]
pub enum Input {
    /// The client starts.
    Start,
    /// A time that [`Engine::next_wake`] named has come.
    Tick,
    // These inputs come from the app.
    Send(Outgoing),
    /// The app sends this message in place of a refused one.
    SendAgain {
        refused: RequestId,
        message: Outgoing,
    },
    /// The app discards a refused message.
    Discard(RequestId),
    /// The person has read the chat up to `seq`.
    MarkRead {
        chat: ChatId,
        seq: Seq,
    },
    /// The person is at this device (true), or not.
    SetActive(bool),
    /// The screen shows these people, in place of those before.
    WatchPresence(Vec<UserId>),
    /// The person is typing, or stopped without sending.
    Typing {
        chat: ChatId,
        stopped: bool,
    },
    /// A unary call with this access token was answered TOKEN_EXPIRED.
    TokenRejected(String),
    /// The app has read these older entries from the server.
    History(Vec<Entry>),
    /// The app wants to know how far the other members have received and read the chat.
    ReceiptsWanted(ChatId),
    Stop,
    // These inputs come from the stream.
    Frame(v1::ServerFrame),
    /// The stream ended or could not be opened.
    StreamLost(CallError),
    /// The answer to a call about the content of the server's store, and the [`Engine::generation`] in which the call
    /// was made. It is ignored if the store was replaced since.
    Answered {
        generation: u64,
        answer: Box<Input>,
    },
    // These inputs are the answers to calls.
    Listed(Result<ChatList, CallError>),
    LookedUp {
        chat: ChatId,
        result: Result<ListedChat, CallError>,
    },
    Filled {
        chat: ChatId,
        result: Result<Vec<Entry>, CallError>,
    },
    ReceiptsRead {
        chat: ChatId,
        result: Result<Vec<v1::Receipt>, CallError>,
    },
    Refreshed(Result<v1::TokenPair, CallError>),
    /// The outbox was read from the store after [`Change::Reset`].
    Outbox(Vec<QueuedMessage>),
}

impl Input {
    /// Returns the message that the app sends by this input, or `None` if the input is another one.
    pub fn outgoing(&self) -> Option<&Outgoing> {
        match self {
            Self::Send(message) | Self::SendAgain { message, .. } => Some(message),
            _ => None,
        }
    }
}

/// A change of the local store. All changes of one [`Effects`] are committed in one transaction.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Stores the entry. If it is a send of this device, its message leaves the outbox.
    Entry(Entry),
    /// Stores the chat in place of what is stored of it.
    Chat(ChatRow),
    /// Adds a message to the outbox, in place of a refused one with the same request_id.
    Queue(QueuedMessage),
    /// Notes that the server has the message. Its entry is not applied here yet.
    Sent {
        request: RequestId,
        chat: ChatId,
        seq: Seq,
        sent_at: Timestamp,
    },
    /// Notes that the message was refused for good.
    Failed {
        request: RequestId,
        code: v1::SendErrorCode,
        message: String,
    },
    /// Removes a refused message from the outbox. Any other stays.
    Unqueue(RequestId),
    /// Stores how far a person has received and read the chat.
    Receipt {
        chat: ChatId,
        user: UserId,
        mark: Mark,
    },
    Credentials(Credentials),
    /// Stores the epoch of the server's store, to which all cursors belong.
    Epoch(StoreEpoch),
    /// Deletes all cursors, chats, entries and receipts. Own messages that were sent at `since` or later go
    /// back into the outbox; if there are very many, the newest of them.
    Reset {
        epoch: StoreEpoch,
        since: Timestamp,
    },
    /// Notes that all chats have been listed once.
    Listed,
}

/// A unary call to make. Its answer comes back as an [`Input`], inside an [`Input::Answered`] unless the call renews
/// the tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// List all chats, with all pages. The answer is [`Input::Listed`].
    ListChats,
    /// Read one chat. The answer is [`Input::LookedUp`].
    GetChat(ChatId),
    /// Read one page of the chat's entries, beginning with `from`. The answer is [`Input::Filled`].
    Fill { chat: ChatId, from: Seq },
    /// Read the watermarks of the chat's members. The answer is [`Input::ReceiptsRead`].
    Receipts(ChatId),
    /// Get new tokens. The answer is [`Input::Refreshed`].
    Refresh { refresh_token: String },
    /// Read the outbox from the store, which is no call to a server. The answer is [`Input::Outbox`].
    ReloadOutbox,
}

/// A change of the stream.
#[derive(Debug, Clone, PartialEq)]
pub enum StreamOrder {
    /// Opens a stream whose first item is this one. If there is a stream, it is dropped.
    Open(v1::Open),
    /// Drops the stream.
    Close,
}

/// The effects of inputs, to be carried out from top to bottom.
#[derive(Debug, Default)]
pub struct Effects {
    /// The changes of the local store, to be committed in one transaction before anything else is done.
    pub changes: Vec<Change>,
    /// A new access token for the unary calls.
    pub access_token: Option<String>,
    /// The change of the stream, if there is one.
    pub stream: Option<StreamOrder>,
    /// The items to send on the open stream.
    pub items: Vec<v1::client_item::Item>,
    /// The events to tell the app.
    pub events: Vec<Event>,
    /// The unary calls to make.
    pub calls: Vec<Call>,
    /// The reason for which the client has ended. `None`: it has not.
    pub stopped: Option<StopReason>,
}

/// A chat as the store keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatRow {
    pub chat: Chat,
    /// The seq up to which everything is stored. `None`: the place where this device begins is not known yet.
    pub cursor: Option<Seq>,
    /// True if kind, title and members are known. Otherwise they are placeholders, or from a membership before the
    /// present one, and the chat waits for a look-up.
    pub known: bool,
    /// The read mark that the server has confirmed.
    pub confirmed_read: Seq,
    /// The chat's head when the server last listed the chat or answered a look-up.
    pub listed_head: Seq,
    /// The number of entries up to `listed_head` that are unread. It becomes 0 when all of them are read.
    pub listed_unread: u32,
    /// The seq of the last message that this person wrote, on any device.
    pub own: Seq,
}

/// The content of the store when the client starts.
#[derive(Debug, Default)]
pub struct Stored {
    /// The epoch of the server's store to which the cursors belong. `None`: no stream was opened yet.
    pub epoch: Option<StoreEpoch>,
    /// True if all chats have been listed once.
    pub listed: bool,
    /// The chats, each with the ascending seqs of its unread entries above its read mark and the last listing.
    pub chats: Vec<(ChatRow, Vec<Seq>)>,
    /// The messages of the outbox, in the order of writing.
    pub outbox: Vec<QueuedMessage>,
    /// The watermarks of other people.
    pub receipts: Vec<(ChatId, UserId, Mark)>,
}

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
            acks: BTreeSet::new(),
            reads: BTreeSet::new(),
            dirty: BTreeSet::new(),
            caught_up: false,
            caught_up_before: false,
            effects: Effects::default(),
            me,
        };
        for (row, unread) in stored.chats {
            let (chat, state) = (row.chat.id, ChatState::new(row, unread));
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
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn apply_one(&mut self, input: Input, now: Timestamp) {
        match input {
            Input::Start => self.connect(now),
            Input::Tick => {
                self.tick_session(now);
                self.tick_presence(now);
                self.tick_chats(now);
                self.tick_receipts(now);
                self.tick_typing(now);
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
            Input::History(entries) => self
                .effects
                .changes
                .extend(entries.into_iter().map(Change::Entry)),
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
