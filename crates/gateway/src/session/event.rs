//! What happens to a session, and what it wants done.

use std::time::Duration;

use bytes::Bytes;
use tern_proto::{ApiError, raw, v1};
use tern_types::{ChatId, DeviceId, RequestId, Timestamp, TraceContext, UserId};

/// Whose token it is and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    pub user: UserId,
    pub device: DeviceId,
    pub expires_at: Timestamp,
}

/// One thing that a client says, decoded; tokens already verified.
#[derive(Debug, Clone)]
pub enum Item {
    Open {
        token: Result<Identity, ApiError>,
        client_version: String,
        active: bool,
    },
    Send(raw::SendMessage),
    Ack(v1::Ack),
    MarkRead(v1::MarkRead),
    Reauthenticate(Result<Identity, ApiError>),
    Heartbeat {
        token: u64,
    },
    SetActive {
        active: bool,
    },
    WatchPresence(Vec<String>),
    Typing(v1::Typing),
    /// A kind that this version does not know.
    Unknown,
}

/// What other parts of the gateway leave for a session.
#[derive(Debug, Clone)]
pub enum Mail {
    /// An entry just committed.
    Live {
        chat: ChatId,
        seq: u64,
        event: Bytes,
    },
    /// The user is a member since this entry, just committed: what lies below it may not be theirs, so it is read.
    Added {
        chat: ChatId,
        seq: u64,
    },
    /// The device has an inbox row for `from..=to` of the chat.
    Wake {
        chat: ChatId,
        from: u64,
        to: u64,
    },
    /// The outcome of a send; `placed` names the entry that it stands for.
    Result {
        reference: u64,
        event: Bytes,
        placed: Option<(ChatId, u64)>,
    },
    /// The send did not reach a chat node, or its answer will not come.
    SendFailed {
        reference: u64,
    },
    /// An acknowledgement is in the store; `row_from` is where the row begins now (0: gone).
    AckWritten {
        chat: ChatId,
        seq: u64,
        row_from: u64,
    },
    /// Whether it is written is not known.
    AckLost {
        chat: ChatId,
    },
    Window(Window),
    WindowFailed {
        reference: u64,
        chat: ChatId,
    },
    Inbox(Inbox),
    InboxFailed,
    /// As Inbox, read by the sweep.
    Swept(Inbox),
    /// What a watched person shows, or the answer to a WatchPresence; a receipt, or that somebody writes.
    Seen(Bytes),
}

/// Entries of a chat from where they were asked for.
#[derive(Debug, Clone)]
pub struct Window {
    pub reference: u64,
    pub chat: ChatId,
    pub events: Vec<Bytes>,
    pub seqs: Vec<u64>,
    pub next: u64,
    pub done: bool,
}

/// What waits for the device.
#[derive(Debug, Clone, Default)]
pub struct Inbox {
    /// False: unknown or revoked.
    pub active: bool,
    /// Whose device it is; `None`: not said.
    pub user: Option<UserId>,
    /// The user is kept out for now.
    pub suspended: bool,
    pub rows: Vec<InboxRow>,
    pub store_epoch: String,
    /// The user's setting.
    pub read_receipts_off: bool,
}

#[derive(Debug, Clone, Copy)]
pub struct InboxRow {
    pub chat: ChatId,
    pub from: u64,
    pub age: Duration,
}

/// Why somebody else wants a stream to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseRequest {
    Replaced,
    Revoked,
    Suspended,
    Draining,
    Unauthenticated,
    Unavailable,
    /// The store is another one than the stream was opened on.
    Restored,
    /// As Unavailable: no new streams for some seconds.
    Overloaded,
}

/// Everything that happens to a session.
pub enum Event<'a> {
    Item(Item),
    /// Any frame of the client: a sign of life.
    Frame,
    /// A frame that cannot be read.
    BadFrame(&'static str),
    FrameTooLarge(&'static str),
    /// The client closed its side.
    HalfClosed,
    /// Presence knows the session (again).
    Announced,
    /// A push was dropped: what was missed is in the inbox.
    Redrain,
    /// Receipts for the device may have been lost on their way: it is to ask for them.
    ReceiptsLost,
    Mail(Mail),
    /// The user turned read receipts off, or on again.
    ReadReceipts {
        off: bool,
    },
    /// Owners or links changed for the chats that the function names.
    Moved(&'a dyn Fn(ChatId) -> bool),
    /// The gateway is about to stop: the device is to reconnect after the first and is cut off after the second.
    Drain {
        reconnect_after: Duration,
        close_after: Duration,
    },
    Close(CloseRequest),
    /// The transport has taken all that was put.
    Flushed,
    Tick,
}

/// What a session wants done.
#[derive(Debug, Clone)]
pub enum Effect {
    /// An encoded ServerEvent for the device.
    Put(Bytes),
    /// Make the session known here and to presence.
    Register {
        user: UserId,
        device: DeviceId,
    },
    /// The person came to the device, is there still, or left it.
    Sign {
        active: bool,
        at: Timestamp,
        /// Presence is to hear of it now; otherwise the session's next announcement says it, at the latest that of its
        /// end.
        tell: bool,
    },
    /// The people whom the device watches from now on.
    Watch(Vec<UserId>),
    ReadInbox,
    Send {
        reference: u64,
        send: Send,
    },
    /// With `write` it is answered by AckWritten or AckLost, otherwise not.
    Ack {
        chat: ChatId,
        seq: u64,
        write: bool,
    },
    /// `off`: the user turned read receipts off.
    Read {
        chat: ChatId,
        seq: u64,
        off: bool,
    },
    /// A hint: dropped where it would have to wait.
    Typing {
        chat: ChatId,
        stopped: bool,
    },
    /// The device says too often that the person writes.
    TypingThrottled,
    /// `from` 0: from where the store has the device.
    Window {
        reference: u64,
        chat: ChatId,
        from: u64,
        limit: u32,
    },
    /// An inbox row that only the sweep found.
    SweepFound {
        chat: ChatId,
        from: u64,
        /// Of the row.
        age: Duration,
        /// What the device acknowledged on this stream.
        acked: u64,
    },
    /// The stream ends: with the status, or well when the client left.
    End(Option<ApiError>),
}

/// One message on its way to its chat's owner.
#[derive(Debug, Clone, PartialEq)]
pub struct Send {
    pub chat: ChatId,
    pub peer: Option<UserId>,
    pub request_id: RequestId,
    /// Encoded [`v1::Envelope`].
    pub envelope: Bytes,
    pub body: Bytes,
    /// The user turned read receipts off.
    pub read_receipts_off: bool,
    /// What the device has acknowledged of the chat on this stream.
    pub acked: u64,
    /// What the client says of its trace, until the message is admitted; then the gateway's span.
    pub trace: Option<TraceContext>,
}
