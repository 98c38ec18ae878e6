//! This module has the events that a session takes, the effects that it returns, and the types in both.

use std::time::Duration;

use bytes::Bytes;
use tern_proto::{ApiError, v1};
use tern_types::{ChatId, DeviceId, Notice, NoticeKind, RequestId, Timestamp, TraceContext, UserId};

/// The user and the device of an access token, and the time at which the token expires by the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The user of the token.
    pub user: UserId,
    /// The device of the token.
    pub device: DeviceId,
    /// The time at which the token expires, by the wall clock.
    pub expires_at: Timestamp,
}

/// One decoded item of a client frame, named as in messaging.proto. Its access token, if it has one, is verified
/// already: `Err` says why it was refused.
#[derive(Debug, Clone)]
pub enum Item {
    /// The first item of each stream.
    Open {
        /// The identity of the access token, or the reason why it was refused.
        token: Result<Identity, ApiError>,
        /// The name and version of the client, as it wrote them, of any length.
        client_version: String,
        /// True if the user is at the device.
        active: bool,
    },
    /// A message to a chat or to a person, as the client wrote it.
    Send(v1::SendMessage),
    /// An acknowledgement, as the client wrote it.
    Ack(v1::Ack),
    /// A read mark, as the client wrote it.
    MarkRead(v1::MarkRead),
    /// A newer access token: its identity, or the reason why it was refused.
    Reauthenticate(Result<Identity, ApiError>),
    /// A heartbeat.
    Heartbeat {
        /// The number that the answer repeats.
        token: u64,
    },
    /// The user came to the device, or left it.
    SetActive {
        /// True if the user is at the device.
        active: bool,
    },
    /// The ids of the users to watch, as the client wrote them.
    WatchPresence(Vec<String>),
    /// A notice for the others of a chat, whose id is as the client wrote it.
    Notice(String, Notice),
    /// An item whose kind this version does not know.
    Unknown,
}

/// A message that another part of the gateway puts into a session's mailbox.
#[derive(Debug, Clone)]
pub enum Mail {
    /// An entry that was just committed.
    Live {
        /// The chat.
        chat: ChatId,
        /// The seq of the entry.
        seq: u64,
        /// The entry as an encoded ServerEvent.
        event: Bytes,
    },
    /// An entry that was just committed made the user a member. Entries below it may not be theirs, so the log is
    /// read up to `seq`: reading brings the Skipped that has to come first.
    Added {
        /// The chat.
        chat: ChatId,
        /// The seq of the entry that made the user a member.
        seq: u64,
    },
    /// The chat's owner wrote an inbox row for the device, for the entries `from..=to`.
    Wake {
        /// The chat.
        chat: ChatId,
        /// The first seq that the device is owed.
        from: u64,
        /// The last seq that the owner settled when it wrote the row.
        to: u64,
    },
    /// The owner's answer to a send.
    Result {
        /// The reference of the [`Op::Send`] that this answers.
        reference: u64,
        /// The answer as an encoded ServerEvent.
        event: Bytes,
        /// The chat and the seq of the entry that the send became. `None` for an error.
        placed: Option<(ChatId, u64)>,
    },
    /// The send did not reach a chat node, or its answer was lost.
    SendFailed {
        /// The reference of the [`Op::Send`].
        reference: u64,
    },
    /// The store has written the acknowledgement of `seq`.
    AckWritten {
        /// The chat.
        chat: ChatId,
        /// The seq that the device acknowledged.
        seq: u64,
        /// The seq at which the device's inbox row of the chat begins now. 0 says that there is no row any more.
        row_from: u64,
    },
    /// The answer to an acknowledgement was lost, so it is not known whether it was written. Or an
    /// acknowledgement or a read mark found no way to the owner. The session sends both again.
    AckLost {
        /// The chat.
        chat: ChatId,
    },
    /// A part of a chat's log, the answer to [`Effect::Window`].
    Window(Window),
    /// The window could not be read; the session asks again later.
    WindowFailed {
        /// The reference of the [`Effect::Window`].
        reference: u64,
        /// The chat.
        chat: ChatId,
    },
    /// The device's inbox, the answer to [`Effect::ReadInbox`].
    Inbox(Inbox),
    /// The inbox could not be read; the session asks again later.
    InboxFailed,
    /// The device's inbox as the regular sweep read it, which the session did not ask for.
    Swept(Inbox),
    /// An encoded ServerEvent that is no entry: presence, the answer to WatchPresence, a receipt, or a notice.
    Seen(Bytes),
}

/// A part of a chat's log, ascending, which begins at the seq that was asked for.
#[derive(Debug, Clone)]
pub struct Window {
    /// The reference of the [`Effect::Window`] that this answers.
    pub reference: u64,
    /// The chat.
    pub chat: ChatId,
    /// The encoded ServerEvents, each an Entry or a Skipped.
    pub events: Vec<Bytes>,
    /// The seq of each event, which for a Skipped is its `to_seq`.
    pub seqs: Vec<u64>,
    /// The seq to ask for next.
    pub next: u64,
    /// True if `next` was above the last entry that the device may have when the window was read.
    pub done: bool,
}

/// A device as the store has it: its inbox rows, and whether its stream may go on.
#[derive(Debug, Clone, Default)]
pub struct Inbox {
    /// False if the device is revoked or unknown.
    pub active: bool,
    /// True if the store knows nothing of the device: it was linked after the backup that the store was restored from.
    pub unknown: bool,
    /// The device's user. `None` if the chat node did not say.
    pub user: Option<UserId>,
    /// True if the user is suspended.
    pub suspended: bool,
    /// The device's inbox rows, at most one for each chat.
    pub rows: Vec<InboxRow>,
    /// True if rows are missing because a part of the store did not answer. The session asks again.
    pub partial: bool,
    /// The epoch of the store; it changes when the store is restored from a backup.
    pub store_epoch: String,
    /// True if the user has turned read receipts off, as the store has it.
    pub read_receipts_off: bool,
    /// The seconds after a message was sent for which its sender may edit it; 0 if the chat node did not say.
    pub edit_window_s: u32,
    /// The seconds after a message was sent for which its sender may delete it for everyone; 0 if the chat node did not
    /// say.
    pub delete_window_s: u32,
}

/// A device's inbox row of one chat: the device has not acknowledged everything from `from` on.
#[derive(Debug, Clone, Copy)]
pub struct InboxRow {
    /// The chat.
    pub chat: ChatId,
    /// The first seq that the device is owed.
    pub from: u64,
    /// The time since the row was written.
    pub age: Duration,
}

/// The reason for which another part of the gateway asks a session to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseRequest {
    /// A newer stream of the device was opened.
    Replaced,
    /// The device was revoked.
    Revoked,
    /// The user is suspended.
    Suspended,
    /// This gateway is stopping.
    Draining,
    /// The token is not valid.
    Unauthenticated,
    /// This gateway cannot serve now.
    Unavailable,
    /// The store's epoch is not the one that the stream was opened on.
    Restored,
    /// The platform is overloaded: the client is told to come back after some seconds.
    Overloaded,
}

/// Something that happened to a session.
pub enum Event<'a> {
    /// An item of the client came.
    Item(Item),
    /// A frame of the client came, which shows that the client is alive.
    Frame,
    /// A frame came that cannot be decoded. The text says why.
    BadFrame(&'static str),
    /// A frame came that has too many items or bytes. The text says which.
    FrameTooLarge(&'static str),
    /// The client closed its side of the stream.
    HalfClosed,
    /// A presence node has taken an announcement of the session, the first one or a repeated one.
    Announced,
    /// A push for the session was dropped. Its entry is found by reading the inbox again.
    Redrain,
    /// Receipts for the device may have been lost on their way. The device is made to ask for them.
    ReceiptsLost,
    /// Another part of the gateway put a message into the session's mailbox.
    Mail(Mail),
    /// The user turned read receipts off, or on again.
    ReadReceipts {
        /// True if the user has turned them off.
        off: bool,
    },
    /// The owners of some chats, or the links to them, have changed. The function says whether a chat is one of them.
    Moved(&'a dyn Fn(ChatId) -> bool),
    /// The gateway is about to stop. The device is told to reconnect, and later it is cut off.
    Drain {
        /// The time from now after which the device is to reconnect.
        reconnect_after: Duration,
        /// The time from now after which the device is cut off.
        close_after: Duration,
    },
    /// Another part of the gateway asks the session to end.
    Close(CloseRequest),
    /// The transport has taken everything that was put.
    Flushed,
    /// A timer may be due: see [`super::Session::due`].
    Tick,
}

/// Something that the gateway is to do for a session.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Send this encoded ServerEvent to the device.
    Put(Bytes),
    /// Enter the session into this gateway's registry and announce it to presence.
    Register {
        /// The user of the session.
        user: UserId,
        /// The device of the session.
        device: DeviceId,
    },
    /// Note that the user became active on the device, is still active, or left it.
    Sign {
        /// False if the user left the device.
        active: bool,
        /// The time of the sign, in the monotonic time that the session is given.
        at: Timestamp,
        /// True if presence is to be told at once. Otherwise the session's next announcement tells it, at the latest
        /// the one of the session's end.
        tell: bool,
    },
    /// Watch the presence of these users for the device, in place of those watched before.
    Watch(Vec<UserId>),
    /// Read the device's inbox; the answer is [`Mail::Inbox`] or [`Mail::InboxFailed`].
    ReadInbox,
    /// Pass an operation on to the chat's owner.
    Up(Op),
    /// Pass a notice on to the chat's owner. A notice that would have to wait is dropped.
    Notice {
        /// The chat.
        chat: ChatId,
        /// The notice.
        notice: Notice,
    },
    /// Count a notice that was dropped because the device sends them too often.
    NoticeThrottled(NoticeKind),
    /// Read a part of the chat's log. The answer is [`Mail::Window`] or [`Mail::WindowFailed`].
    Window {
        /// The number by which the answer names this window.
        reference: u64,
        /// The chat.
        chat: ChatId,
        /// The first seq to read. With 0 the window begins at the device's place as the store knows it.
        from: u64,
        /// The most entries to read.
        limit: u32,
    },
    /// Log and count a defect: the sweep found an inbox row that this session did not know of.
    SweepFound {
        /// The chat of the row.
        chat: ChatId,
        /// The first seq that the device is owed.
        from: u64,
        /// The time since the row was written.
        age: Duration,
        /// The seq that the device acknowledged last in the chat on this stream, 0 for none.
        acked: u64,
    },
    /// End the stream with this status. `None` is OK: the client left.
    End(Option<ApiError>),
}

/// An operation on its way to its chat's owner.
#[derive(Debug, Clone)]
pub enum Op {
    /// A message is to be committed; the answer is [`Mail::Result`] or [`Mail::SendFailed`].
    Send {
        /// The number by which the answer names this send.
        reference: u64,
        /// The message.
        send: Send,
    },
    /// The device has acknowledged everything up to `seq`. With `write` the acknowledgement is written to the store and
    /// answered by [`Mail::AckWritten`] or [`Mail::AckLost`]. Without it there is no answer, but [`Mail::AckLost`] comes
    /// if there is no way to the owner.
    Ack {
        /// The number by which the owner's answer names this acknowledgement.
        reference: u64,
        /// The chat.
        chat: ChatId,
        /// The seq up to which the device has stored every entry.
        seq: u64,
        /// True if the acknowledgement has to be written to the store, because the device has an inbox row of the chat.
        write: bool,
    },
    /// The user has read everything up to `seq`. There is no answer, but [`Mail::AckLost`] comes if there is no way to
    /// the owner.
    Read {
        /// The chat.
        chat: ChatId,
        /// The seq up to which the user has read every entry.
        seq: u64,
        /// True if the user has turned read receipts off.
        off: bool,
    },
}

/// A message on its way to its chat's owner.
#[derive(Debug, Clone, PartialEq)]
pub struct Send {
    /// The chat. For a message to a person it is the direct chat of the two.
    pub chat: ChatId,
    /// The user whom the device named instead of a chat. Their direct chat is made if it does not exist.
    pub peer: Option<UserId>,
    /// The request_id that the client chose for the message.
    pub request_id: RequestId,
    /// The encoded [`v1::Envelope`].
    pub envelope: Bytes,
    /// The body, which is never parsed here.
    pub body: Bytes,
    /// True if the user has turned read receipts off.
    pub read_receipts_off: bool,
    /// The seq that the device acknowledged last in the chat on this stream, 0 for none.
    pub acked: u64,
    /// The client's trace context until the gateway decides to trace the message, and then that of the gateway's span.
    pub trace: Option<TraceContext>,
}
