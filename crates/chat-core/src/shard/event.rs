//! The types of everything that goes into a shard and comes out of it: events, which happen to it; effects, which it
//! asks for; and jobs, which its writers do.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tern_types::{ChatId, DeviceId, Notice, Seq, Slot, Timestamp, TraceContext, UserId};

use crate::chat::{Batch, LookUp, Snapshot};
use crate::entry::{Entry, NewEntry};
use crate::receipts::Watermark;
use crate::{Change, ChangeRefusal, Making, Missing, Origin, Outcome, Refusal};

/// Something that happens to a shard.
#[derive(Debug)]
pub enum Event {
    /// Somebody sends a message.
    Send {
        /// The caller that waits for the answer.
        origin: Origin,
        /// The chat. For a message to a person it is the direct chat of the two.
        chat: ChatId,
        /// The other person if the message is sent to a person and not to a chat. The chat is then made for a message
        /// if it does not exist, but not for what is done to one.
        peer: Option<UserId>,
        /// The message.
        entry: NewEntry,
    },
    /// Somebody asks for a change of a group.
    Change {
        /// The caller that waits for the answer.
        origin: Origin,
        /// The group.
        chat: ChatId,
        /// The change, with the user who makes it. It is in a box because it is large, and messages are not.
        change: Box<Change>,
    },
    /// A device has stored every entry up to `seq`.
    Ack {
        /// The caller. It is answered if `write` is set.
        origin: Origin,
        /// The chat.
        chat: ChatId,
        /// The user of the device.
        user: UserId,
        /// The device that acknowledges.
        device: DeviceId,
        /// The seq up to which the device has stored every entry.
        seq: Seq,
        /// True if the device has an inbox row. The acknowledgement is then written, and `origin` gets an answer.
        /// Otherwise there is no answer.
        write: bool,
    },
    /// An acknowledgement of `from..=seq` was written while the chat was not loaded. The load that follows includes it
    /// in the watermark, and so does not show that others have not been told of it.
    Delivered {
        /// The chat.
        chat: ChatId,
        /// The user whose device acknowledged.
        user: UserId,
        /// The first seq that the acknowledgement covers.
        from: Seq,
        /// The last seq that the acknowledgement covers.
        seq: Seq,
    },
    /// The user has read every entry up to `seq`. Nobody is answered.
    Read {
        /// The chat.
        chat: ChatId,
        /// The user who has read.
        user: UserId,
        /// The seq up to which the user has read every entry.
        seq: Seq,
        /// True if the user has turned read receipts off.
        off: bool,
    },
    /// A unary call says the same as [`Self::Read`], and is answered once the mark is noted here.
    MarkRead {
        /// The call that waits for the answer.
        origin: Origin,
        /// The chat.
        chat: ChatId,
        /// The user who has read.
        user: UserId,
        /// The seq up to which the user has read every entry.
        seq: Seq,
        /// True if the user has turned read receipts off.
        off: bool,
    },
    /// The user gives a notice to the others of a chat. It is dropped if it would have to wait long.
    Notice {
        /// The chat.
        chat: ChatId,
        /// The user who gives the notice.
        user: UserId,
        /// The notice.
        notice: Notice,
        /// The time at which the notice arrived at this node, by the monotonic clock.
        at: Timestamp,
    },
    /// One of two people has blocked or unblocked the other. Their direct chat is loaded anew, and `origin`
    /// is answered then.
    BlocksChanged {
        /// The caller that is answered once the chat is loaded.
        origin: Origin,
        /// The direct chat of the two.
        chat: ChatId,
    },
    /// A load has ended.
    Loaded {
        /// The chat.
        chat: ChatId,
        /// The number of the [`Effect::Load`] that this ends.
        number: u64,
        /// The chat as the store has it, or `Ok(None)` if there is no such chat.
        result: Result<Option<Snapshot>, LoadError>,
    },
    /// A writer has done its job, and is free again.
    JobDone(JobDone),
    /// An [`Effect::Wake`] has been performed.
    WakesDone(WakesDone),
    /// The store has unsettled entries of this chat.
    Recover {
        /// The chat.
        chat: ChatId,
        /// The lowest seq at which an unsettled commit begins.
        low: Seq,
        /// The highest seq at which an unsettled commit begins.
        high: Seq,
    },
    /// This node owns these slots now, and no others.
    Owned(Arc<HashSet<Slot>>),
    /// The store is another one: a restored backup, or a standby that lacked commits. Nothing in memory is true any
    /// more, and the results of what is under way count no more.
    Restored,
    /// Time has passed. It is applied in each turn of the loop, so that a shard that is never idle forgets chats too.
    Tick,
}

/// The reason why a load failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadError {
    /// The store did not answer.
    Away,
    /// The store has the chat, but this node cannot read it: see [`Refusal::Unreadable`].
    Unreadable,
    /// The load's turn at the store did not come in time.
    Overloaded,
    /// The chat does not exist, and one of its two people does not exist either.
    PeerNotFound,
    /// The chat does not exist, and one of the two has blocked the other.
    NotAccepted,
    /// The chat does not exist, and its maker has met too many strangers within the last day.
    StrangersLimited {
        /// The time from now after which there is room for one more stranger.
        retry_after: Duration,
    },
    /// Another transaction holds a lock that the load needs.
    Locked,
}

/// An [`Effect::Wake`] that has been performed. The fields other than `woken` are those of the effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WakesDone {
    /// The chat whose devices were woken.
    pub chat: ChatId,
    /// The number of the log that the settle was of.
    pub log: u64,
    /// The seq up to which the settle covered every entry.
    pub upto: Seq,
    /// The result.
    pub woken: Woken,
}

/// The result of a wake: whether all devices that a settle found missing are accounted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// Every gateway concerned has confirmed: each session that was found is responsible now, or is gone. Devices
    /// without a session are offline.
    All,
    /// A look-up failed, or a gateway did not confirm.
    NotAll,
    /// Every gateway concerned has confirmed, but etcd is out of sight, so nobody can be sure that there are no other
    /// sessions.
    Unsure,
}

/// Something that the caller does after an event, at once and in order.
#[derive(Debug)]
pub enum Effect {
    /// Read the chat in one snapshot. If `create` is set and the chat does not exist, make it first. Then apply
    /// [`Event::Loaded`].
    Load {
        /// The chat.
        chat: ChatId,
        /// The number of the load, unique in its shard.
        number: u64,
        /// The direct chat to make if it does not exist.
        create: Option<Making>,
        /// The requests and entries to look up in the log.
        look_up: LookUp,
    },
    /// Answer a caller.
    Answer {
        /// The caller.
        origin: Origin,
        /// The answer.
        outcome: Outcome,
    },
    /// Push something to the online devices of these users, except the sessions of these origins. It is a hint and
    /// may be lost (rule 6).
    Push {
        /// The chat.
        chat: ChatId,
        /// The users, in a list that the pushes of a batch share.
        users: Arc<[UserId]>,
        /// The callers whose sessions get an answer instead.
        except: Vec<Origin>,
        /// The content of the push.
        what: Pushed,
    },
    /// Look these devices up, make their sessions responsible for the entries up to `upto`, then apply
    /// [`Event::WakesDone`].
    Wake {
        /// The chat.
        chat: ChatId,
        /// The number of the log, which is another one after [`Event::Restored`].
        log: u64,
        /// The seq up to which the settle covered every entry.
        upto: Seq,
        /// The devices to be woken, each with the first seq that it lacks.
        missing: Vec<Missing>,
    },
    /// Have the trimmer look at the chat soon. It is a hint and may be lost, because the trimmer looks at each chat
    /// that has something to be trimmed from time to time.
    Trim {
        /// The chat.
        chat: ChatId,
    },
}

/// The content of a push to devices.
#[derive(Debug)]
pub enum Pushed {
    /// An entry.
    Entry(Entry),
    /// The users became members by the entry at this seq. Their sessions are not sent the entry but read it from the
    /// log, because a device must first get a `Skipped` for the entries before it (rule 6).
    Added(Seq),
    /// The watermark of `user` rose to `mark`.
    Receipt {
        /// The member whose watermark it is.
        user: UserId,
        /// The watermark as it is now.
        mark: Watermark,
    },
    /// A notice that `user` gives.
    Notice {
        /// The user who gives the notice.
        user: UserId,
        /// The notice.
        notice: Notice,
    },
}

/// The two writers of a shard, each with its own connection. A lock that one of them waits for does not delay the
/// other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// The writer that commits entries and changes, for which callers wait.
    Commit,
    /// The writer of inbox rows and read marks: it settles, and writes acknowledgements and read marks.
    Upkeep,
}

impl Lane {
    /// Both lanes, in the order of their numbers.
    pub const ALL: [Self; 2] = [Self::Commit, Self::Upkeep];
}

/// One piece of work for a writer.
#[derive(Debug)]
pub enum Job {
    /// Commit these batches, each of another chat.
    Commit(Vec<Batch>),
    /// Commit a change of a group, in a transaction of its own.
    Change(Batch),
    /// Write these acknowledgements.
    Acks(Vec<AckWrite>),
    /// Settle these chats.
    Settle(Vec<SettleChat>),
    /// Delete each chat's unsettled rows up to the seq.
    Close(Vec<(ChatId, Seq)>),
    /// Write these read marks.
    Reads(Vec<ReadMark>),
}

impl Job {
    /// Returns the writer that does the job.
    pub fn lane(&self) -> Lane {
        match self {
            Self::Commit(_) | Self::Change(_) => Lane::Commit,
            Self::Acks(_) | Self::Settle(_) | Self::Close(_) | Self::Reads(_) => Lane::Upkeep,
        }
    }
}

/// A read mark to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReadMark {
    /// The chat.
    pub chat: ChatId,
    /// The user whose mark it is.
    pub user: UserId,
    /// The seq up to which the user has read every entry.
    pub seq: Seq,
    /// True if read receipts were turned off when the mark was set.
    pub off: bool,
    /// The number of messages after the mark that the user sent themselves and that count as unread. They are not
    /// unread to the user.
    pub own_unread: u32,
    /// True if the mark passes entries of others, and another device of the user may show notifications of these. They
    /// are withdrawn.
    pub withdraws: bool,
}

/// An acknowledgement to be written.
#[derive(Debug, Clone)]
pub struct AckWrite {
    /// The caller that is answered once it is written.
    pub origin: Origin,
    /// The chat.
    pub chat: ChatId,
    /// The user of the device.
    pub user: UserId,
    /// The device that acknowledges.
    pub device: DeviceId,
    /// The seq up to which the device has stored every entry.
    pub seq: Seq,
}

/// The inbox row of a device that acknowledged something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AckedRow {
    /// The seq at which the row began before.
    pub was: Seq,
    /// The seq at which the row begins now; `None` if it is deleted.
    pub now: Option<Seq>,
}

/// A chat to be settled, with the acknowledgements of its devices.
#[derive(Debug, Clone)]
pub struct SettleChat {
    /// The chat.
    pub chat: ChatId,
    /// The seq up to which every entry is settled.
    pub upto: Seq,
    /// The highest acknowledgement of each device that acknowledged unsettled entries.
    pub acks: Vec<(DeviceId, Seq)>,
    /// The users whose read mark covers every entry up to `upto` and is not written yet. No push is due to their other
    /// devices.
    pub read: Vec<UserId>,
    /// The trace context of a traced entry that waits for this settle.
    pub trace: Option<TraceContext>,
}

/// The result of a job.
#[derive(Debug)]
pub enum JobDone {
    /// The result of each batch, also for [`Job::Change`].
    Commit(Vec<(ChatId, Committed)>),
    /// Acknowledgements are written, or it is not known whether they are.
    Acks {
        /// The acknowledgements that are written.
        acks: Vec<AckWrite>,
        /// The inbox rows that they met, by chat and device.
        rows: HashMap<(ChatId, DeviceId), AckedRow>,
        /// The acknowledgements of which it is not known whether they are written.
        unwritten: Vec<AckWrite>,
    },
    /// Chats are settled or have missing devices, or it is not known whether they are settled.
    Settle {
        /// The chats that the settle covered, each with the seq up to which it did.
        chats: Vec<(ChatId, Seq)>,
        /// The devices of each chat that were found missing. A chat without any is settled.
        missing: HashMap<ChatId, Vec<Missing>>,
        /// The chats of which it is not known whether they are settled, each with the seq up to which they were to be.
        failed: Vec<(ChatId, Seq)>,
    },
    /// The unsettled rows of chats are deleted, or it is not known whether they are.
    Close {
        /// The chats, each with the seq up to which its unsettled rows were to be deleted.
        chats: Vec<(ChatId, Seq)>,
        /// True if the rows are deleted. Otherwise that is not known.
        closed: bool,
    },
    /// The read marks of the job are written, or it is not known of some whether they are.
    Reads {
        /// The read marks of which it is not known whether they are written.
        unwritten: Vec<ReadMark>,
    },
}

impl JobDone {
    /// Returns the writer that is free again.
    pub fn lane(&self) -> Lane {
        match self {
            Self::Commit(_) => Lane::Commit,
            Self::Acks { .. } | Self::Settle { .. } | Self::Close { .. } | Self::Reads { .. } => Lane::Upkeep,
        }
    }
}

/// The result of a chat's batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Committed {
    /// The batch is committed, and its last entry is the head.
    Stored,
    /// The head had moved, a request was in the log already, or somebody had done enough to a message: nothing of the
    /// batch was written.
    Conflict,
    /// The store refused the batch because of its content, or gave it up because it took too long: nothing was written.
    Refused(Refusal),
    /// The store's facts do not allow the change that the batch is: nothing was written.
    NotPermitted(ChangeRefusal),
    /// Another transaction holds a lock that the batch needs: nothing was written.
    Locked,
    /// The store did not answer, so the result is not known.
    Away,
}
