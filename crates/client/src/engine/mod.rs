//! The client's side of the protocol as a pure function: `apply(inputs, now) -> effects`. It names no socket, no file
//! and no clock; the driver carries the effects out in the order of the fields of [`Effects`].
//!
//! - [`cursor`]: one chat's place in its log
//! - [`chats`], [`chat_state`]: all chats and each: entries applied, acknowledgements, unread counts
//! - [`look_up`]: asking for chats that are not known and for entries that are missing
//! - [`outbox`], [`sends`]: what was written and has no result yet
//! - `presence`: the person here, and those whom the screen shows
//! - [`receipts`]: who got how far
//! - [`typing`]: who writes
//! - [`session`]: opening the stream, heartbeats, tokens, when to come back

pub mod chat_state;
pub mod chats;
pub mod cursor;
pub mod look_up;
pub mod outbox;
mod presence;
#[cfg(test)]
mod properties;
pub mod receipts;
pub mod sends;
pub mod session;
#[cfg(test)]
mod sim;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod typing;

use std::collections::{BTreeSet, HashMap};

use tern_proto::v1;
use tern_types::{ChatId, RequestId, Seq, Timestamp, UserId};

use crate::error::CallError;
use crate::model::{
    Chat, Credentials, Entry, Event, ListedChat, Mark, Outgoing, QueuedMessage, SendState, StopReason,
    StoreEpoch,
};
use chat_state::ChatState;
use outbox::Outbox;
use presence::Presences;
use receipts::Receipts;
use session::Session;
use typing::Typing;

/// Something that happened.
#[derive(Debug)]
pub enum Input {
    /// The client starts.
    Start,
    /// A moment named by [`Engine::next_wake`] came.
    Tick,
    // from the app
    Send(Outgoing),
    /// Forgets a refused message.
    Discard(RequestId),
    MarkRead {
        chat: ChatId,
        seq: Seq,
    },
    SetActive(bool),
    /// The people whom the screen shows.
    WatchPresence(Vec<UserId>),
    /// The person writes, or stopped without sending.
    Typing {
        chat: ChatId,
        stopped: bool,
    },
    /// A unary call was answered TOKEN_EXPIRED with this access token.
    TokenRejected(String),
    /// Older entries that the app asked for.
    History(Vec<Entry>),
    /// The app wants to know who got how far.
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
    /// The outbox as the store has it after [`Change::Reset`].
    Outbox(Vec<QueuedMessage>),
}

/// A change of the local store. All changes of one [`Effects`] are one transaction.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Stores the entry; if it is a send of this device, the outbox forgets it.
    Entry(Entry),
    Chat(ChatRow),
    Queue(QueuedMessage),
    /// The server has it, its entry is not applied yet.
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
    /// Forgets all cursors, chats, entries and receipts; own sends since then go back into the outbox.
    Reset {
        epoch: StoreEpoch,
        since: Timestamp,
    },
    /// All chats were listed once.
    Listed,
}

/// A unary call to make; its answer comes back as an [`Input`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// All pages.
    ListChats,
    GetChat(ChatId),
    /// Entries from `from` on: one page.
    Fill {
        chat: ChatId,
        from: Seq,
    },
    Receipts(ChatId),
    Refresh {
        refresh_token: String,
    },
    /// Not a call: the outbox, read from the store.
    ReloadOutbox,
}

/// What to do with the stream.
#[derive(Debug, Clone, PartialEq)]
pub enum StreamOrder {
    /// Open one with this first item, instead of the present one if there is one.
    Open(v1::Open),
    Close,
}

/// What follows from inputs, to be carried out from top to bottom.
#[derive(Debug, Default)]
pub struct Effects {
    /// In one transaction, before anything else.
    pub changes: Vec<Change>,
    /// A new access token for unary calls.
    pub access_token: Option<String>,
    pub stream: Option<StreamOrder>,
    /// For the stream that is open now.
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
    pub cursor: Option<Seq>,
    /// Kind, title and members are known, not guessed.
    pub known: bool,
    /// The read mark that the server has.
    pub confirmed_read: Seq,
    /// The head when the chat was last listed, and what was unread then.
    pub listed_head: Seq,
    pub listed_unread: u32,
    /// Last entry that this person wrote, from whichever device.
    pub own: Seq,
}

/// What the store holds when the client starts.
#[derive(Debug, Default)]
pub struct Stored {
    pub epoch: Option<StoreEpoch>,
    pub listed: bool,
    /// With the seqs of what is unread.
    pub chats: Vec<(ChatRow, Vec<Seq>)>,
    pub outbox: Vec<QueuedMessage>,
    pub receipts: Vec<(ChatId, UserId, Mark)>,
}

/// How the engine is set up.
#[derive(Debug, Clone)]
pub struct Settings {
    pub client_version: String,
    pub active: bool,
    pub sends_per_chat: usize,
    /// For jitter.
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
    /// Those that wait for a look-up or for missing entries.
    waiting: BTreeSet<ChatId>,
    outbox: Outbox,
    /// Sent, but their entries are not applied yet: something before them is missing.
    unapplied: HashMap<RequestId, Entry>,
    receipts: Receipts,
    typing: Typing,
    /// Chats to acknowledge, to mark as read and to store at the end of this `apply`.
    acks: BTreeSet<ChatId>,
    reads: BTreeSet<ChatId>,
    dirty: BTreeSet<ChatId>,
    /// The server said CaughtUp; told on as soon as no chat is being looked up.
    caught_up: bool,
    /// Not for the first time on this stream.
    caught_up_before: bool,
    effects: Effects,
}

impl Engine {
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

    pub fn credentials(&self) -> &Credentials {
        &self.me
    }

    /// Whether one more message fits into the outbox.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.outbox.has_room(bytes)
    }

    /// Inputs that came together, in their order. Acknowledgements and chats changed are gathered over all of them.
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

    /// When [`Input::Tick`] is due at the latest.
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
                // A kind that this client does not know is ignored, as the protocol says.
                None => {}
            }
        }
    }

    /// What is gathered over the inputs of one `apply`: rows, look-ups, acknowledgements, sends.
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

    /// The driver closes the stream after it has written what is acknowledged here.
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
