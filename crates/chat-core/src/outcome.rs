//! The answers to commands, and the reasons for which commands are refused. Each kind of command has answers of its
//! own: a message is never answered that the group has that title already, and never refused because of a role.

use std::time::Duration;

use tern_types::limits::MAX_GROUP_MEMBERS;
use tern_types::{ChatId, Seq, Timestamp, UserId};

/// The answer to one command, by the kind of the command. One type carries the answers of all kinds, because the state
/// knows the caller by its [`Origin`](crate::Origin) only, which does not say what the caller asked for. A caller takes
/// the answer of its kind out with the method of that kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The answer to a message: its entry is committed at this place. A repeated request gets the same answer as the
    /// first time.
    Sent(Result<Place, Refusal>),
    /// The answer to a change of a group: its entry is committed at this place. `Ok(None)` if the change made no entry,
    /// for example because the group has that title already. A repeated request gets the same answer.
    Changed(Result<Option<Place>, ChangeRefusal>),
    /// The answer to an acknowledgement that is to be written: it is written.
    Acked(Result<WrittenAck, Refusal>),
    /// The answer to a read mark that is noted, and to [`Event::BlocksChanged`](crate::Event::BlocksChanged) once the
    /// chat is as the store has it.
    Noted(Result<(), Refusal>),
    /// This node does not own the chat any more, or has forgotten it because the store is another one. The caller
    /// should send the same request again, of whatever kind it is.
    NotOwner,
}

impl Outcome {
    /// Returns the answer to a message, and `None` if this is the answer to another kind of command.
    pub fn sent(self) -> Option<Result<Place, Refusal>> {
        match self {
            Self::Sent(sent) => Some(sent),
            _ => None,
        }
    }

    /// Returns the answer to a change of a group, and `None` if this is the answer to another kind of command.
    pub fn changed(self) -> Option<Result<Option<Place>, ChangeRefusal>> {
        match self {
            Self::Changed(changed) => Some(changed),
            _ => None,
        }
    }

    /// Returns the answer to an acknowledgement, and `None` if this is the answer to another kind of command.
    pub fn acked(self) -> Option<Result<WrittenAck, Refusal>> {
        match self {
            Self::Acked(acked) => Some(acked),
            _ => None,
        }
    }

    /// Returns the answer to a read mark or to a changed block, and `None` if this is the answer to another kind of
    /// command.
    pub fn noted(self) -> Option<Result<(), Refusal>> {
        match self {
            Self::Noted(noted) => Some(noted),
            _ => None,
        }
    }
}

/// The place of a committed entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The chat.
    pub chat: ChatId,
    /// The place in the chat's log.
    pub seq: Seq,
    /// The time of the entry, by the wall clock.
    pub sent_at: Timestamp,
}

/// An acknowledgement that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrittenAck {
    /// The chat.
    pub chat: ChatId,
    /// The seq up to which the device has stored every entry.
    pub seq: Seq,
    /// The seq at which the device's inbox row begins now, and `None` if it has no row any more.
    pub row: Option<Seq>,
}

/// The reason why a command was refused. The text of each is for people. A message is refused for no other reason than
/// these. A command of another kind that waits for the same load as the first message of a chat is refused together
/// with it, for the same reason. Nothing of the command is stored, but after [`Self::STORE_AWAY`] and
/// [`Self::TOO_LATE`] nobody knows: it may be stored all the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The caller is no member of the chat, or the chat does not exist. The caller is not told which.
    #[error("not a member of this chat, or there is no such chat")]
    NotAMember,
    /// One of the direct chat's two people does not exist.
    #[error("no such user")]
    PeerNotFound,
    /// One of the two people has blocked the other. The caller is not told which.
    #[error("this chat takes no messages")]
    NotAccepted,
    /// The request would reach more new strangers than its sender may reach in a day. The caller should send it again
    /// later.
    #[error("too many people that the sender had nothing to do with before, for one day")]
    StrangersLimited {
        /// The time from now after which there is room for one more stranger.
        retry_after: Duration,
    },
    /// There is no such message for the caller, or it is gone.
    #[error("no such message, or it was deleted")]
    TargetNotFound,
    /// The message is somebody else's, or the caller's role is too low; or the chat is an own log, which takes no
    /// messages.
    #[error("the sender may not do this to the message, or in this chat")]
    NotAllowed,
    /// The message was sent too long ago to be edited or deleted.
    #[error("the message is too old for this")]
    TooOld,
    /// The sender has done as much to the message as one person may.
    #[error("the sender has reacted to this message, or edited it, too often")]
    TooManyActs,
    /// The operator froze the chat.
    #[error("the chat is frozen")]
    Frozen,
    /// The group's policy lets only higher roles send.
    #[error("the sender's role does not allow this")]
    RoleTooLow,
    /// The group is in slow mode, and the sender has sent a message not long ago.
    #[error("the group is in slow mode")]
    SlowMode {
        /// The time from now after which the sender may send again.
        retry_after: Duration,
    },
    /// The request_id belongs to an earlier request with another content (rule 5).
    #[error("the request_id was used for something else")]
    RequestIdReused,
    /// A ticket of the attached media is not valid, or not valid any more.
    #[error("a ticket of the attachments has expired, or is not one of this sender for this media")]
    MediaTicket,
    /// A field is not valid: the name of the field, and the fault.
    #[error("{0} {1}")]
    Invalid(&'static str, &'static str),
    /// A field has too many items.
    #[error("{field} must be at most {most}")]
    TooMany {
        /// The name of the field, with the fields that it is in, such as `envelope.attachments`.
        field: &'static str,
        /// The largest number of items that the field may have.
        most: usize,
    },
    /// The store has the chat, but this node cannot read it: its key does not open with the node's master key, or it
    /// has a value that this version does not know. No caller can change that, but an operator can, or another version.
    #[error("the chat cannot be read")]
    Unreadable,
    /// The command cannot be carried out now. The caller should send the same request again later.
    #[error("{reason}")]
    Unavailable {
        /// The reason, for people.
        reason: &'static str,
        /// The time that the caller should wait.
        retry_after: Duration,
    },
}

impl Refusal {
    /// The store did not answer. The entry may be committed all the same, and the repeated request finds it then.
    pub const STORE_AWAY: Self = Self::Unavailable {
        reason: "the store is away",
        retry_after: Duration::from_millis(500),
    };
    /// Another transaction holds a lock on the chat, or on one of its people, in the store.
    pub const LOCKED: Self = Self::Unavailable {
        reason: "the chat is locked in the store",
        retry_after: Duration::from_secs(1),
    };
    /// The command waited for as long as a caller is kept waiting. If its batch was at the writer, it may be committed
    /// all the same, and the repeated request finds it then.
    pub const TOO_LATE: Self = Self::Unavailable {
        reason: "the store takes too long",
        retry_after: Duration::from_secs(1),
    };
    /// The store gave up the statement for this chat, because it took too long. Nothing was written.
    pub const TOO_SLOW: Self = Self::Unavailable {
        reason: "the store takes too long for this chat",
        retry_after: Duration::from_secs(1),
    };
    /// A bounded queue of the chat's owner is full.
    pub const OVERLOADED: Self = Self::Unavailable {
        reason: "the chat's node has too much to do",
        retry_after: Duration::from_millis(500),
    };
}

/// The reason why a change of a group was refused: a rule of groups, or a reason for which any command can be refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeRefusal {
    /// The user whom the change names does not exist, or is no member of the group.
    #[error("no user has the id {0}")]
    UserNotFound(UserId),
    /// The change needs a higher role than the member has.
    #[error("the member's role does not allow this")]
    RoleTooLow,
    /// The chat is a direct chat, which cannot be changed.
    #[error("only groups can be changed")]
    NotAGroup,
    /// The group would have too many members.
    #[error("the group would have more than {} members", MAX_GROUP_MEMBERS)]
    GroupFull,
    /// The group would keep members but no owner.
    #[error("the group would be left without an owner")]
    LastOwner,
    /// The invite link is not in force, or is not for this user. The caller is not told which.
    #[error("the link leads nowhere")]
    InviteNotFound,
    /// A list would have more items than it may.
    #[error("at most {most} {what}")]
    ListFull {
        /// The largest number of items.
        most: usize,
        /// The rest of the sentence for people, such as "chats are pinned".
        what: &'static str,
    },
    /// The reason is not about groups.
    #[error(transparent)]
    Common(#[from] Refusal),
}
