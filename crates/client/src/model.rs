//! What the app sees.

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use tern_proto::v1;
use tern_types::limits::{MAX_BODY_BYTES, MAX_ENVELOPE_BYTES};
use tern_types::{ChatId, DeviceId, IdError, RequestId, Seq, Timestamp, UserId};
use uuid::Uuid;

/// One item of a chat's log.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub chat: ChatId,
    pub seq: Seq,
    pub sent_at: Timestamp,
    /// None: the operator's back end, for nobody.
    pub sender: Option<UserId>,
    /// None: a back end.
    pub device: Option<DeviceId>,
    pub request: Option<RequestId>,
    /// 0 in what this device sent itself: a send's result does not tell it.
    pub ordinal: u64,
    pub content: v1::EntryContent,
}

impl Entry {
    /// The message that it is, if it is one.
    pub fn message(&self) -> Option<&v1::Message> {
        match &self.content.content {
            Some(v1::entry_content::Content::Message(message)) => Some(message),
            _ => None,
        }
    }

    /// The body as text, with attachments the text beside them; None when it is no message.
    pub fn text(&self) -> Option<std::borrow::Cow<'_, str>> {
        if let Some(body) = self.attached() {
            return Some(body.text.into());
        }
        self.message()
            .map(|message| String::from_utf8_lossy(&message.body))
    }

    /// Whether the chat's unread count rises by it.
    pub fn counts_as_unread(&self) -> bool {
        use v1::MessageKind as Kind;
        // Without an envelope it is an ordinary message.
        self.message().is_some_and(|message| {
            let (kind, uncounted) = message
                .envelope
                .as_ref()
                .map_or((0, false), |envelope| (envelope.kind, envelope.uncounted));
            !uncounted && matches!(Kind::try_from(kind), Ok(Kind::Unspecified | Kind::Message))
        })
    }
}

impl TryFrom<v1::Entry> for Entry {
    type Error = IdError;

    fn try_from(entry: v1::Entry) -> Result<Self, IdError> {
        Ok(Self {
            chat: entry.chat_id.parse()?,
            seq: Seq(entry.seq),
            sent_at: Timestamp(entry.sent_at_ms),
            sender: optional(&entry.sender_user_id)?,
            device: optional(&entry.sender_device_id)?,
            request: optional(&entry.request_id)?,
            ordinal: entry.ordinal,
            content: entry.content.unwrap_or_default(),
        })
    }
}

/// An id that may be missing.
pub(crate) fn optional<T: std::str::FromStr<Err = IdError>>(text: &str) -> Result<Option<T>, IdError> {
    if text.is_empty() {
        Ok(None)
    } else {
        text.parse().map(Some)
    }
}

/// A chat as this device sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Chat {
    pub id: ChatId,
    pub kind: v1::ChatKind,
    /// Groups only.
    pub title: String,
    /// Direct chats: the other person.
    pub peer: Option<UserId>,
    pub member_count: u32,
    pub role: v1::Role,
    /// Last entry known.
    pub head: Seq,
    /// When it was last active.
    pub active_at: Timestamp,
    /// The person has read up to here.
    pub read: Seq,
    pub unread: u32,
    /// The person is no member any more.
    pub left: bool,
}

/// Where a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum To {
    Chat(ChatId),
    /// The direct chat with this person, which needs no creation.
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
    pub request: RequestId,
    pub to: To,
    pub envelope: v1::Envelope,
    pub body: Bytes,
}

impl Outgoing {
    /// A plain message, under a new request_id.
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

    /// What of it is larger than any server takes.
    ///
    /// # Errors
    ///
    /// For a developer to read.
    pub fn check_size(&self) -> Result<(), String> {
        let fits = |what: &str, bytes: usize, max: usize| {
            let error = || format!("the {what} has {bytes} bytes, at most {max} are taken");
            (bytes <= max).then_some(()).ok_or_else(error)
        };
        fits("body", self.body.len(), MAX_BODY_BYTES)?;
        fits("envelope", self.envelope.encoded_len(), MAX_ENVELOPE_BYTES)
    }
}

/// A message of the outbox: not in the log yet, or refused.
#[derive(Debug, Clone, PartialEq)]
pub struct QueuedMessage {
    pub message: Outgoing,
    /// The chat that it will be in.
    pub chat: ChatId,
    pub created_at: Timestamp,
    pub state: SendState,
}

/// What became of a send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendState {
    /// Durable on this device, not yet at the server.
    Queued,
    /// Durable at the server, at this place of the log.
    Sent { seq: Seq, sent_at: Timestamp },
    /// Refused for good.
    Failed { code: FailureCode, message: String },
}

/// Why a send was refused.
pub type FailureCode = v1::SendErrorCode;

/// How far one person has got in a chat. Only ever rises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    pub delivered: Seq,
    pub read: Seq,
}

impl Mark {
    /// Raises to `other` where that is higher. What was read was delivered.
    #[must_use]
    pub fn raise(self, other: Self) -> Self {
        let read = self.read.max(other.read);
        Self {
            delivered: self.delivered.max(other.delivered).max(read),
            read,
        }
    }
}

/// What a person shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Nothing, to this person.
    Hidden,
    Online,
    /// Zero: not known.
    LastSeen(Timestamp),
}

/// Whom one message reached, of the others who are members since before it and now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MessageReceipts {
    pub read: Vec<UserId>,
    /// And did not read it, as far as they tell.
    pub delivered: Vec<UserId>,
    pub waiting: Vec<UserId>,
}

impl MessageReceipts {
    /// One page more; returns the token of the next.
    pub(crate) fn add(&mut self, page: v1::GetMessageReceiptsResponse) -> Result<String, IdError> {
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

    /// How many they are.
    pub fn members(&self) -> usize {
        self.read.len() + self.delivered.len() + self.waiting.len()
    }
}

/// Who a device is, and its tokens.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub user: UserId,
    pub device: DeviceId,
    pub access_token: String,
    pub access_expires_at: Timestamp,
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

/// What the client tells the app. Everything told is in the store already; what happened while the app was not
/// running is there too, and is not told again.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// One entry of a chat, each exactly once and in the chat's order; own messages too.
    Entry(Entry),
    /// What became of a send of this device.
    Send {
        request: RequestId,
        chat: ChatId,
        state: SendState,
    },
    /// Somebody got further in a chat.
    Receipt {
        chat: ChatId,
        user: UserId,
        mark: Mark,
    },
    /// What a person whom the app watches shows; after a reconnect again.
    Presence {
        user: UserId,
        presence: Presence,
    },
    /// The answer to the watches, after each person's presence. UNSPECIFIED: all but `limited` are watched.
    Watching {
        error: v1::WatchErrorCode,
        limited: Vec<UserId>,
        retry_after: Duration,
    },
    /// Somebody writes in a chat, or does so no longer: their message came, they stopped, or nothing was heard of it
    /// for 6 s.
    Typing {
        chat: ChatId,
        user: UserId,
        typing: bool,
    },
    /// A chat is new or has changed: title, unread count, membership.
    Chat(Chat),
    /// Entries up to `to` will not come: before the person joined, or trimmed.
    Skipped {
        chat: ChatId,
        to: Seq,
    },
    /// What waited when the stream was opened has been told; once a stream.
    CaughtUp,
    Connected {
        session: String,
        gateway: String,
    },
    /// `retry_in` None: it stays disconnected.
    Disconnected {
        reason: String,
        retry_in: Option<Duration>,
    },
    /// The server's store is another one: everything shown is to be read anew from the store.
    Reset,
    /// The last event.
    Stopped(StopReason),
}

/// Why a client ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopReason {
    /// The app stopped it.
    ByApp,
    /// Another client opened a stream of this device.
    Replaced,
    /// The device was revoked: its data is to be erased.
    Revoked,
    /// The operator keeps the user out for now: data stay, the next start tries again.
    Suspended,
    /// The refresh token ended: link the device anew.
    SignedOut,
    /// The server takes this client no more, and gives no way to come back: it broke the protocol, a defect.
    Refused(String),
    /// The local store failed: nothing can be promised any more.
    StoreFailed(String),
}

/// A `Chat` of the wire, with what only the engine needs.
#[derive(Debug, Clone, PartialEq)]
pub struct ListedChat {
    pub chat: Chat,
    /// Where a cursor starts.
    pub resume: Seq,
}

impl TryFrom<v1::Chat> for ListedChat {
    type Error = IdError;

    fn try_from(chat: v1::Chat) -> Result<Self, IdError> {
        let active_at = chat
            .last_entry
            .as_ref()
            .map_or(chat.created_at_ms, |entry| entry.sent_at_ms);
        Ok(Self {
            chat: Chat {
                id: chat.chat_id.parse()?,
                kind: chat.kind(),
                role: chat.role(),
                peer: optional(&chat.peer_user_id)?,
                member_count: chat.member_count,
                head: Seq(chat.head_seq),
                active_at: Timestamp(active_at),
                read: Seq(chat.read_seq),
                unread: u32::try_from(chat.unread_count).unwrap_or(u32::MAX),
                left: false,
                title: chat.title,
            },
            resume: Seq(chat.resume_seq),
        })
    }
}

/// One UUID a server store.
pub type StoreEpoch = Uuid;
