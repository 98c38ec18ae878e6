//! The types of everything that goes into the engine and comes out of it: inputs, which the driver tells it; effects,
//! which the driver carries out; and the content of the local store, with which it begins.

use tern_proto::v1;
use tern_types::{ChatId, RequestId, Seq, Timestamp, UserId};

use crate::error::CallError;
use crate::model::{
    Chat, ChatList, ChatSettings, Credentials, Entry, Event, ListedChat, Mark, Outgoing, QueuedMessage,
    StopReason, StoreEpoch,
};

/// Something that happened, of which the driver tells the engine.
#[derive(Debug)]
pub enum Input {
    /// The client starts.
    Start,
    /// A time that [`super::Engine::next_wake`] named has come.
    Tick,
    // These inputs come from the app.
    /// The app sends a message.
    Send(Outgoing),
    /// The app sends this message in place of a refused one.
    SendAgain {
        /// The id of the send that was refused.
        refused: RequestId,
        /// The message that takes its place.
        message: Outgoing,
    },
    /// The app discards a refused message.
    Discard(RequestId),
    /// The person has read the chat up to `seq`.
    MarkRead {
        /// The chat.
        chat: ChatId,
        /// The seq up to which the person has read everything.
        seq: Seq,
    },
    /// The person is at this device (true), or not.
    SetActive(bool),
    /// The screen shows these people, in place of those before.
    WatchPresence(Vec<UserId>),
    /// The person is typing, or stopped without sending.
    Typing {
        /// The chat in which the person is typing.
        chat: ChatId,
        /// True if the person stopped without sending.
        stopped: bool,
    },
    /// A unary call with this access token was answered TOKEN_EXPIRED.
    TokenRejected(String),
    /// The app, or the client itself, has read these older entries from the server.
    History(Vec<Entry>),
    /// The server has taken this device's change of the person's settings of a chat.
    SettingsSet {
        /// The chat.
        chat: ChatId,
        /// All settings, as they are now.
        settings: ChatSettings,
        /// The seq in the person's own log of the entry that records the change. Zero: nothing was to be changed.
        seq: Seq,
    },
    /// The server has deleted messages for this person alone, because this device asked for it.
    Hidden {
        /// The chat.
        chat: ChatId,
        /// The messages.
        seqs: Vec<Seq>,
    },
    /// The server has said how many people ask to join the group.
    JoinRequests {
        /// The group.
        chat: ChatId,
        /// The number of people.
        count: u32,
    },
    /// The app wants to know how far the other members have received and read the chat.
    ReceiptsWanted(ChatId),
    /// The app ends the client.
    Stop,
    // These inputs come from the stream.
    /// A frame of the server came.
    Frame(v1::ServerFrame),
    /// The stream ended or could not be opened.
    StreamLost(CallError),
    /// The answer to a call about the content of the server's store. It is ignored if the store was replaced since the
    /// call was made.
    Answered {
        /// The [`super::Engine::generation`] in which the call was made.
        generation: u64,
        /// The answer, one of the inputs below except [`Self::Refreshed`].
        answer: Box<Input>,
    },
    // These inputs are the answers to calls.
    /// The answer to [`Call::ListChats`].
    Listed(Result<ChatList, CallError>),
    /// The answer to [`Call::GetChat`].
    LookedUp {
        /// The chat that was looked up.
        chat: ChatId,
        /// The chat as the server has it, or the failure of the call.
        result: Result<ListedChat, CallError>,
    },
    /// The answer to [`Call::Fill`].
    Filled {
        /// The chat whose entries were read.
        chat: ChatId,
        /// The entries, ascending by seq, or the failure of the call.
        result: Result<Vec<Entry>, CallError>,
    },
    /// The answer to [`Call::Receipts`].
    ReceiptsRead {
        /// The chat whose watermarks were read.
        chat: ChatId,
        /// The watermarks of the members, or the failure of the call.
        result: Result<Vec<v1::Receipt>, CallError>,
    },
    /// The answer to [`Call::Refresh`]: the new tokens, or the failure of the call.
    Refreshed(Result<v1::TokenPair, CallError>),
    /// The outbox was read from the store after [`Change::Reset`].
    Outbox(Vec<QueuedMessage>),
    /// The store has carried [`Call::Expire`] out.
    Expired {
        /// The messages that have disappeared.
        gone: Vec<(ChatId, Seq)>,
        /// The time at which the next one does. It may have come already, because the store erases some at a time.
        next: Option<Timestamp>,
    },
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
    /// Stores the entry. If it is a send of this device, its message leaves the outbox. If it deletes a message, what
    /// the store has of that message's content is erased. Nothing is stored of what was erased already.
    Entry(Entry),
    /// Stores the chat in place of what is stored of it.
    Chat(ChatRow),
    /// Adds a message to the outbox, in place of a refused one with the same request_id.
    Queue(QueuedMessage),
    /// Notes that the server has the message. Its entry is not applied here yet.
    Sent {
        /// The id of the send.
        request: RequestId,
        /// The chat whose log has the message.
        chat: ChatId,
        /// The message's place in the log.
        seq: Seq,
        /// The time at which the server took the message, by the server's clock.
        sent_at: Timestamp,
    },
    /// Notes that the message was refused for good.
    Failed {
        /// The id of the send.
        request: RequestId,
        /// The reason, for the program.
        code: v1::SendErrorCode,
        /// The reason, for a developer to read.
        message: String,
        /// The time from which on the person may send it again, if the server named one.
        retry_at: Option<Timestamp>,
    },
    /// Removes a refused message from the outbox. Any other stays.
    Unqueue(RequestId),
    /// Stores how far a person has received and read the chat.
    Receipt {
        /// The chat.
        chat: ChatId,
        /// The person.
        user: UserId,
        /// The person's watermarks as they are now.
        mark: Mark,
    },
    /// Deletes how far a person has received and read the chat, because the person is no member any more.
    NoReceipt {
        /// The chat.
        chat: ChatId,
        /// The person.
        user: UserId,
    },
    /// Erases messages that the person has deleted for themselves, their edits and the reactions to them. What comes of
    /// them later is not stored.
    Hide {
        /// The chat.
        chat: ChatId,
        /// The messages.
        seqs: Vec<Seq>,
    },
    /// Stores the identity and the tokens of this device.
    Credentials(Credentials),
    /// Stores the epoch of the server's store, to which all cursors belong.
    Epoch(StoreEpoch),
    /// Deletes all cursors, chats, entries and receipts. Own messages that were sent at `since` or later go
    /// back into the outbox; if there are very many, the newest of them. What was to be done to earlier messages is not
    /// sent again, because in another store their seqs may stand for other messages: if it waits in the outbox, it has
    /// failed.
    Reset {
        /// The epoch of the server's present store.
        epoch: StoreEpoch,
        /// The time from which on own messages are sent again, by this device's clock.
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
    Fill {
        /// The chat.
        chat: ChatId,
        /// The first seq to read.
        from: Seq,
    },
    /// Read the watermarks of the chat's members. The answer is [`Input::ReceiptsRead`].
    Receipts(ChatId),
    /// Get new tokens. The answer is [`Input::Refreshed`].
    Refresh {
        /// The refresh token that the server is given.
        refresh_token: String,
    },
    /// Read the outbox from the store, which is no call to a server. The answer is [`Input::Outbox`].
    ReloadOutbox,
    /// Erase from the store what is due to disappear, which is no call to a server. The answer is [`Input::Expired`].
    Expire,
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
    /// The chat as the app sees it.
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
    /// The number of messages up to `listed_head` that are unread and mention this person.
    pub listed_mentions: u32,
    /// The seq of the first of these. Zero: it is not known.
    pub listed_first_mention: Seq,
    /// The seq in the person's own log of the entry that has the chat's settings. Zero: they are those of a listing.
    pub settings_seq: Seq,
}

/// A chat as the store has it when the client starts.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredChat {
    /// The chat.
    pub row: ChatRow,
    /// The seqs of its unread entries above its read mark and the last listing, ascending.
    pub unread: Vec<Seq>,
    /// Those of them that mention this person.
    pub mentions: Vec<Seq>,
}

/// The content of the store when the client starts.
#[derive(Debug, Default)]
pub struct Stored {
    /// The epoch of the server's store to which the cursors belong. `None`: no stream was opened yet.
    pub epoch: Option<StoreEpoch>,
    /// True if all chats have been listed once.
    pub listed: bool,
    /// The chats.
    pub chats: Vec<StoredChat>,
    /// The messages of the outbox, in the order of writing.
    pub outbox: Vec<QueuedMessage>,
    /// The watermarks of other people.
    pub receipts: Vec<(ChatId, UserId, Mark)>,
    /// The time at which the next message disappears. `None`: none does.
    pub next_expiry: Option<Timestamp>,
    /// The messages that the person has deleted for themselves and whose entries have not come yet.
    pub hidden_ahead: Vec<(ChatId, Seq)>,
}
