//! This module has the types that the app sees: entries, chats, messages to send, events.

mod act;
mod attached;
mod chat;
mod expiry;
mod message;
mod outgoing;
mod unknown;

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use tern_proto::v1;
use tern_types::limits::{MAX_BODY_BYTES, MAX_ENVELOPE_BYTES};
use tern_types::{ChatId, DeviceId, IdError, RequestId, Seq, Timestamp, UserId};
use uuid::Uuid;

pub use act::{Act, erased};
pub use chat::{Chat, ChatList, ChatSettings, GroupPolicy, ListedChat, Retention};
pub use expiry::vanished;
pub use message::{Deletion, Message, Messages, Only, Reaction};
pub use unknown::decoded;

/// One item of a chat's log.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The chat whose log has the entry.
    pub chat: ChatId,
    /// The entry's place in the log, from 1 on.
    pub seq: Seq,
    /// The time at which the server took the entry, by the server's clock.
    pub sent_at: Timestamp,
    /// The person who caused the entry. `None`: a back end caused it, in nobody's name. Such a message comes
    /// from the system.
    pub sender: Option<UserId>,
    /// The device that sent the entry. `None`: a back end sent it.
    pub device: Option<DeviceId>,
    /// The request_id that the sender chose for the send.
    pub request: Option<RequestId>,
    /// The number of the chat's entries up to and with this one that count as unread for those who did not send them.
    /// It is 0 in an entry that was made from the result of an own send, which does not say it.
    pub ordinal: u64,
    /// The content: a message, something that is done to an earlier one, or a change of the chat. It is empty if this
    /// version does not know the kind. [`Entry::act`] says what it does to messages.
    pub content: v1::EntryContent,
    /// The encoded content as it came, if this version does not know all of it. Otherwise it is empty.
    pub unknown: Bytes,
}

impl Entry {
    /// Returns the message, or `None` if the entry is something else (a member was added, a title was changed …), or if
    /// its content was erased.
    pub fn message(&self) -> Option<&v1::Message> {
        match &self.content.content {
            Some(v1::entry_content::Content::Message(message)) => Some(message),
            _ => None,
        }
    }

    /// Returns the message's text: the body, or the text beside the attachments. Bytes of a body that are no UTF-8 are
    /// replaced. Of a reaction the text is the reaction, and of an edit the new text. Returns `None` if the entry is no
    /// message.
    pub fn text(&self) -> Option<std::borrow::Cow<'_, str>> {
        if let Some(body) = self.attached() {
            return Some(body.text.into());
        }
        self.message()
            .map(|message| String::from_utf8_lossy(&message.body))
    }
}

/// The reason why an entry that came over the wire is malformed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// An id is malformed.
    #[error("an id of the entry is {0}")]
    Id(#[from] IdError),
    /// The content is no encoded `EntryContent`.
    #[error("the content of the entry does not decode: {0}")]
    Content(#[from] prost::DecodeError),
}

impl TryFrom<v1::Entry> for Entry {
    type Error = EntryError;

    fn try_from(entry: v1::Entry) -> Result<Self, EntryError> {
        let (content, unknown) = decoded(entry.content)?;
        Ok(Self {
            chat: entry.chat_id.parse()?,
            seq: Seq(entry.seq),
            sent_at: Timestamp(entry.sent_at_ms),
            sender: optional(&entry.sender_user_id)?,
            device: optional(&entry.sender_device_id)?,
            request: optional(&entry.request_id)?,
            ordinal: entry.ordinal,
            content,
            unknown,
        })
    }
}

/// Parses an id from the wire. An empty text means that there is none.
pub(crate) fn optional<T: std::str::FromStr<Err = IdError>>(text: &str) -> Result<Option<T>, IdError> {
    if text.is_empty() {
        Ok(None)
    } else {
        text.parse().map(Some)
    }
}

/// The address of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum To {
    /// A chat that the sender is a member of.
    Chat(ChatId),
    /// The direct chat with this person. It comes into being with its first message.
    Peer(UserId),
}

impl From<ChatId> for To {
    fn from(chat: ChatId) -> Self {
        Self::Chat(chat)
    }
}

impl From<UserId> for To {
    fn from(peer: UserId) -> Self {
        Self::Peer(peer)
    }
}

/// A message to send.
#[derive(Debug, Clone, PartialEq)]
pub struct Outgoing {
    /// The id of the send: the same id never makes two entries.
    pub request: RequestId,
    /// The address.
    pub to: To,
    /// The part that the server reads: kind, mentions, attachments and the like.
    pub envelope: v1::Envelope,
    /// The body, which the server does not parse.
    pub body: Bytes,
}

impl Outgoing {
    /// Makes a plain message with a new request_id.
    #[allow(
        clippy::disallowed_methods,
        reason = "the app makes messages; the engine only takes them"
    )]
    pub fn new(to: impl Into<To>, body: impl Into<Bytes>) -> Self {
        Self {
            request: RequestId::random(),
            to: to.into(),
            envelope: v1::Envelope {
                kind: v1::MessageKind::Message.into(),
                ..Default::default()
            },
            body: body.into(),
        }
    }

    /// Checks the sizes of body and envelope against the limits that every server has.
    ///
    /// # Errors
    ///
    /// Returns a text for a developer that says which of the two is too large, its size and the limit.
    pub fn check_size(&self) -> Result<(), String> {
        let fits = |what: &str, bytes: usize, max: usize| {
            let error = || format!("the {what} has {bytes} bytes, at most {max} are taken");
            (bytes <= max).then_some(()).ok_or_else(error)
        };
        fits("body", self.body.len(), MAX_BODY_BYTES)?;
        fits("envelope", self.envelope.encoded_len(), MAX_ENVELOPE_BYTES)
    }
}

/// A message in the outbox: its entry is not stored here yet, or it was refused.
#[derive(Debug, Clone, PartialEq)]
pub struct QueuedMessage {
    /// The message.
    pub message: Outgoing,
    /// The chat whose log it will enter.
    pub chat: ChatId,
    /// The time at which the app handed it over, by this device's clock.
    pub created_at: Timestamp,
    /// The state of the send.
    pub state: SendState,
}

/// The state of a send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendState {
    /// The message is durable on this device; the server has not confirmed it yet.
    Queued,
    /// The message is durable at the server, at this place of the chat's log.
    Sent {
        /// The message's place in the log.
        seq: Seq,
        /// The time at which the server took the message, by the server's clock.
        sent_at: Timestamp,
    },
    /// The message was refused for good.
    Failed {
        /// The reason, for the program.
        code: FailureCode,
        /// The reason, for a developer to read.
        message: String,
        /// The time from which on the person may send it again, by this device's clock, if the server named one (slow
        /// mode, the day's limit of strangers). The client does not send it again by itself.
        retry_at: Option<Timestamp>,
    },
}

/// The reason for which a send was refused.
pub type FailureCode = v1::SendErrorCode;

/// The two watermarks of one person in a chat. Both seqs only ever rise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    /// The seq up to which one of the person's devices has stored everything.
    pub delivered: Seq,
    /// The seq up to which the person has read everything.
    pub read: Seq,
}

impl Mark {
    /// Returns the higher of both marks, each seq for itself. Everything that was read counts as delivered. Example:
    /// a mark with delivered 5 and read 2, raised by one with read 7, has delivered 7 and read 7.
    #[must_use]
    pub fn raise(self, other: Self) -> Self {
        let read = self.read.max(other.read);
        Self {
            delivered: self.delivered.max(other.delivered).max(read),
            read,
        }
    }
}

/// Another person's presence, as the device's person may see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// The other person's presence may not be seen.
    Hidden,
    /// The other person is online.
    Online,
    /// The other person is offline and was last active at this time. Zero: the time is not known.
    LastSeen(Timestamp),
}

/// The receipts of one message: the other people who were members when it was sent and still are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MessageReceipts {
    /// The people who have read it.
    pub read: Vec<UserId>,
    /// The people who have received it and did not read it, or do not tell that they did.
    pub delivered: Vec<UserId>,
    /// The people who have not received it yet.
    pub waiting: Vec<UserId>,
}

impl MessageReceipts {
    /// Adds one page of the answer. Returns the token of the next page, which is empty after the last page, or an error
    /// if a user id is malformed.
    pub fn add(&mut self, page: v1::GetMessageReceiptsResponse) -> Result<String, IdError> {
        for member in page.members {
            let to = match (member.read, member.delivered) {
                (true, _) => &mut self.read,
                (false, true) => &mut self.delivered,
                (false, false) => &mut self.waiting,
            };
            to.push(member.user_id.parse()?);
        }
        Ok(page.next_page_token)
    }

    /// Returns the number of people in all three lists.
    pub fn members(&self) -> usize {
        self.read.len() + self.delivered.len() + self.waiting.len()
    }
}

/// The identity of a device, and its tokens.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user whose device it is.
    pub user: UserId,
    /// The device.
    pub device: DeviceId,
    /// The token that every stream and call is opened with.
    pub access_token: String,
    /// The time at which the access token expires, by the wall clock.
    pub access_expires_at: Timestamp,
    /// The token for which the server gives new tokens.
    pub refresh_token: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("user", &self.user)
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

/// A thing that the client tells the app. Everything in an event is in the store already, except presence and typing,
/// which are not stored. Whatever happened while the app was not running is in the store too, and no event tells it.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// An entry of a chat. Each entry that the cursor reaches comes exactly once and in the chat's order, including own
    /// messages. Entries over which the cursor was set or raised do not come. If [`Entry::target`] is a seq, the
    /// message with that seq has changed.
    Entry(Entry),
    /// The new state of a send of this device.
    Send {
        /// The id of the send.
        request: RequestId,
        /// The chat whose log has the message or will have it.
        chat: ChatId,
        /// The new state.
        state: SendState,
    },
    /// Somebody received or read more of a chat.
    Receipt {
        /// The chat.
        chat: ChatId,
        /// The person.
        user: UserId,
        /// The person's watermarks as they are now.
        mark: Mark,
    },
    /// The presence of a person whom the app watches. It comes again after a reconnect.
    Presence {
        /// The person.
        user: UserId,
        /// The presence as it is now.
        presence: Presence,
    },
    /// The answer to a watch, after the presence of each person. The error UNSPECIFIED says that everybody is watched
    /// except `limited`, who may be asked for again after `retry_after`.
    Watching {
        /// UNSPECIFIED if the people are watched, and otherwise the reason why they are not.
        error: v1::WatchErrorCode,
        /// The people who are not watched because of the day's limit of strangers.
        limited: Vec<UserId>,
        /// The time from now after which the app may ask again.
        retry_after: Duration,
    },
    /// Somebody began or stopped typing in a chat. Typing ends with their message, when they stop, or when nothing
    /// was heard of it for 6 s.
    Typing {
        /// The chat.
        chat: ChatId,
        /// The person who is typing.
        user: UserId,
        /// True if the person began, false if they stopped.
        typing: bool,
    },
    /// A chat is new or has changed: title, unread count, membership, this person's own settings of it.
    Chat(Chat),
    /// Messages are gone from this device without a trace: they have disappeared, or the person has deleted them for
    /// themselves. It may come twice for the same messages.
    Gone {
        /// The chat.
        chat: ChatId,
        /// The messages.
        seqs: Vec<Seq>,
    },
    /// Somebody asks to join a group to which this person may add members.
    JoinRequested {
        /// The group.
        chat: ChatId,
        /// The person who asks.
        user: UserId,
    },
    /// Something of the person's account was changed, on this device or elsewhere. [`v1::AccountChange`] says what the
    /// app does about it.
    AccountChanged {
        /// The change.
        change: v1::AccountChange,
        /// The device that was linked or revoked, or the person who was blocked or unblocked. Otherwise it is empty.
        subject: String,
    },
    /// Entries up to `to` will not come: they are from before the person joined, or were trimmed.
    Skipped {
        /// The chat.
        chat: ChatId,
        /// The last seq that will not come.
        to: Seq,
    },
    /// Everything that waited at the server when the stream was opened has been told. This comes once at most after
    /// each [`Self::Connected`].
    CaughtUp,
    /// A stream is open.
    Connected {
        /// The id of the stream in the server's logs.
        session: String,
        /// The address of the gateway. The engine leaves it empty, and the driver, which knows the address, fills it
        /// in.
        gateway: String,
    },
    /// There is no stream.
    Disconnected {
        /// The reason, for a developer to read.
        reason: String,
        /// The time from now after which the client tries again. `None`: it does not try again by itself.
        retry_in: Option<Duration>,
    },
    /// The server's store was replaced by another one, such as a restored backup. The local store was emptied and
    /// fills again from the server: the app has to read anew everything that it shows.
    Reset,
    /// The client has ended. This is the last event.
    Stopped(StopReason),
}

/// The reason for which a client has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopReason {
    /// The app stopped it.
    ByApp,
    /// Another client opened a stream of this device.
    Replaced,
    /// The device was revoked: the app should erase its data.
    Revoked,
    /// The operator has suspended the user. The data stay, and the next start tries again.
    Suspended,
    /// The refresh token has ended: the device has to be linked anew.
    SignedOut,
    /// The server refuses this client for good because it broke the protocol, which is a defect of the client.
    Refused(String),
    /// The local store failed, so the client can guarantee nothing any more.
    StoreFailed(String),
}

/// The name of a server's store. It changes when the operator restores the store from a backup.
pub type StoreEpoch = Uuid;
