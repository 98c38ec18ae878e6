//! The client's side of the protocol as a pure function: `apply(inputs, now) -> effects`. It uses no socket, no file
//! and no clock; the driver carries the effects out in the order of the fields of [`Effects`].
//!
//! - [`cursor`]: one chat's place in its log
//! - [`chats`], [`chat_state`]: all chats, and each one: entries applied, acknowledgements, unread counts
//! - [`look_up`]: calls for chats that are not known and for entries that are missing
//! - [`outbox`], [`sends`]: messages that were written and have no result yet
//! - `presence`: the presence of this person, and of the people whom the screen shows
//! - [`receipts`]: how far other people have received and read
//! - [`typing`]: who is typing
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
    Chat, Credentials, Entry, Event, ListedChat, Mark, Outgoing, QueuedMessage, SendState, StopReason,
    StoreEpoch,
};

/// Something that happened: the driver feeds the engine with these.
#[derive(Debug)]
pub enum Input {
    /// The client starts.
    Start,
    /// A time that [`Engine::next_wake`] named has come.
    Tick,
    // from the app
    Send(Outgoing),
    /// The app discards a refused message.
    Discard(RequestId),
    MarkRead {
        chat: ChatId,
        seq: Seq,
    },
    SetActive(bool),
    /// The people whom the screen shows, in place of those before.
    WatchPresence(Vec<UserId>),
    /// The person is typing, or stopped without sending.
    Typing {
        chat: ChatId,
        stopped: bool,
    },
    /// A unary call with this access token was answered TOKEN_EXPIRED.
    TokenRejected(String),
    /// Older entries, which the app has read from the server.
    History(Vec<Entry>),
    /// The app wants to know how far the other members have received and read the chat.
    ReceiptsWanted(ChatId),
    Stop,
    // from the stream
    Frame(v1::ServerFrame),
    /// The stream ended or could not be opened.
    StreamLost(CallError),
    // answers to calls
    Listed(Result<Vec<ListedChat>, CallError>),
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
    /// The outbox, read from the store after [`Change::Reset`].
    Outbox(Vec<QueuedMessage>),
}

/// A change of the local store. All changes of one [`Effects`] are committed in one transaction.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Stores the entry. If it is a send of this device, its message leaves the outbox.
    Entry(Entry),
    Chat(ChatRow),
    Queue(QueuedMessage),
    /// The server has the message; its entry is not applied here yet.
    Sent {
        request: RequestId,
        chat: ChatId,
        seq: Seq,
        sent_at: Timestamp,
    },
    Failed {
        request: RequestId,
        code: v1::SendErrorCode,
        message: String,
    },
    Unqueue(RequestId),
    Receipt {
        chat: ChatId,
        user: UserId,
        mark: Mark,
    },
    Credentials(Credentials),
    Epoch(StoreEpoch),
    /// Deletes all cursors, chats, entries and receipts. Own messages sent after `since` go back into the outbox.
    Reset {
        epoch: StoreEpoch,
        since: Timestamp,
    },
    /// Notes that all chats have been listed once.
    Listed,
}

/// A unary call to make; its answer comes back as an [`Input`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// All pages of it.
    ListChats,
    GetChat(ChatId),
    /// One page of the chat's entries, beginning with `from`.
    Fill {
        chat: ChatId,
        from: Seq,
    },
    Receipts(ChatId),
    Refresh {
        refresh_token: String,
    },
    /// Not a call: the driver reads the outbox from the store.
    ReloadOutbox,
}

/// A change of the stream.
#[derive(Debug, Clone, PartialEq)]
pub enum StreamOrder {
    /// Opens a stream, whose first item is this one. A present stream is dropped.
    Open(v1::Open),
    Close,
}

/// The effects of inputs, to be carried out from top to bottom.
#[derive(Debug, Default)]
pub struct Effects {
    /// To be committed in one transaction, before anything else.
    pub changes: Vec<Change>,
    /// A new access token for the unary calls.
    pub access_token: Option<String>,
    pub stream: Option<StreamOrder>,
    /// Items for the open stream.
    pub items: Vec<v1::client_item::Item>,
    pub events: Vec<Event>,
    pub calls: Vec<Call>,
    /// The client has ended.
    pub stopped: Option<StopReason>,
}

/// A chat as the store keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatRow {
    pub chat: Chat,
    /// Everything up to here is stored. `None`: the place where this device begins is not known yet.
    pub cursor: Option<Seq>,
    /// Whether kind, title and members are known. Otherwise they are placeholders, and the chat waits for a look-up.
    pub known: bool,
    /// The read mark that the server has confirmed.
    pub confirmed_read: Seq,
    /// The chat's head when it was last listed.
    pub listed_head: Seq,
    /// Entries that were unread when it was last listed.
    pub listed_unread: u32,
    /// The last message that this person wrote, on any device.
    pub own: Seq,
}

/// The content of the store when the client starts.
#[derive(Debug, Default)]
pub struct Stored {
    pub epoch: Option<StoreEpoch>,
    /// Whether all chats have been listed once.
    pub listed: bool,
    /// The chats, each with the seqs of its unread entries.
    pub chats: Vec<(ChatRow, Vec<Seq>)>,
    pub outbox: Vec<QueuedMessage>,
    pub receipts: Vec<(ChatId, UserId, Mark)>,
}

/// The settings of the engine.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name and version, for the operators' statistics.
    pub client_version: String,
    /// Whether a person looks at the app from the start.
    pub active: bool,
    /// How many sends of one chat may be without a result at a time.
    pub sends_per_chat: usize,
    /// Feeds the jitter of the delays between attempts.
    pub seed: u64,
}

/// The state of one device.
#[derive(Debug)]
pub struct Engine {
    me: Credentials,
    epoch: Option<StoreEpoch>,
    session: Session,
    presences: Presences,
    chats: HashMap<ChatId, ChatState>,
    listing: look_up::Listing,
    /// Chats that wait for a look-up or for missing entries.
    waiting: BTreeSet<ChatId>,
    outbox: Outbox,
    /// Own messages that have a place in the log but are not applied, because an entry before them is missing.
    unapplied: HashMap<RequestId, Entry>,
    receipts: Receipts,
    typing: Typing,
    /// Chats to acknowledge at the end of this `apply`; below, those to mark as read and those to store.
    acks: BTreeSet<ChatId>,
    reads: BTreeSet<ChatId>,
    dirty: BTreeSet<ChatId>,
    /// The server said CaughtUp. The app is told when no chat is being looked up any more.
    caught_up: bool,
    /// The app was told on this stream already.
    caught_up_before: bool,
    effects: Effects,
}

impl Engine {
    /// Continues with what the store holds.
    pub fn new(me: Credentials, stored: Stored, settings: Settings) -> Self {
        let mut engine = Self {
            session: Session::new(&settings),
            presences: Presences::new(settings.active),
            epoch: stored.epoch,
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

    /// The device's identity and present tokens.
    pub fn credentials(&self) -> &Credentials {
        &self.me
    }

    /// Whether so many more messages fit into the outbox, whose bodies have so many bytes in all.
    pub fn has_room(&self, messages: usize, bytes: usize) -> bool {
        self.outbox.has_room(messages, bytes)
    }

    /// Applies inputs in their order, and returns what follows from them. Each chat that changed is acknowledged and
    /// stored once for all of them. After the client has ended, inputs are ignored.
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

    /// The time at which [`Input::Tick`] has to be applied. `None`: only another input can change anything.
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
                Some(E::CaughtUp(_)) => self.caught_up = true,
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

    /// Produces the effects that are gathered over all inputs of one `apply`: look-ups, rows, acknowledgements,
    /// sends.
    fn finish(&mut self, now: Timestamp) {
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

    /// Ends the client. The driver writes the acknowledgements made here, then closes the stream.
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
