//! The types of everything that goes into the engine and comes out of it: inputs, which the driver tells it; effects,
//! which the driver carries out; and the content of the local store, with which it begins.

use tern_proto::v1;
use tern_types::{ChatId, RequestId, Seq, Timestamp, UserId};

use crate::error::CallError;
use crate::model::{
    Chat, ChatList, Credentials, Entry, Event, ListedChat, Mark, Outgoing, QueuedMessage, StopReason,
    StoreEpoch,
};

/// Something that happened, of which the driver tells the engine.
#[derive(Debug)]
pub enum Input {
    /// The client starts.
    Start,
    /// A time that [`super::Engine::next_wake`] named has come.
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
    /// The answer to a call about the content of the server's store, and the [`super::Engine::generation`] in which the call
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
