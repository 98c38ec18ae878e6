//! What happens to a shard, what it wants done, what its writer does.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tern_types::{ChatId, DeviceId, RequestId, Seq, Slot, Timestamp, TraceContext, UserId};

use crate::state::chat::{Batch, Snapshot};
use crate::state::entry::{Entry, NewEntry};
use crate::state::receipts::Watermark;
use crate::state::{Change, Making, Missing, Origin, Outcome, Refusal};

/// What happens to a shard.
#[derive(Debug)]
pub enum Event {
    Send {
        origin: Origin,
        chat: ChatId,
        peer: Option<UserId>,
        entry: NewEntry,
    },
    Change {
        origin: Origin,
        chat: ChatId,
        change: Change,
    },
    /// `write`: the device has an inbox row, and `origin` gets an answer when it is written.
    Ack {
        origin: Origin,
        chat: ChatId,
        user: UserId,
        device: DeviceId,
        seq: Seq,
        write: bool,
    },
    /// An acknowledgement from `from` to `seq` was written while the chat was not loaded; a load alone does not tell
    /// that it is news.
    Delivered {
        chat: ChatId,
        user: UserId,
        from: Seq,
        seq: Seq,
    },
    /// `off`: the user turned read receipts off.
    Read {
        chat: ChatId,
        user: UserId,
        seq: Seq,
        off: bool,
    },
    /// The same by a call, which is answered when the mark is known here.
    MarkRead {
        origin: Origin,
        chat: ChatId,
        user: UserId,
        seq: Seq,
        off: bool,
    },
    /// Somebody writes, or stopped; dropped where it would have to wait. `at`: when it came.
    Typing {
        chat: ChatId,
        user: UserId,
        stopped: bool,
        at: Timestamp,
    },
    /// Two people have blocked or unblocked each other: their direct chat is loaded anew, and `origin` told when it is.
    BlocksChanged {
        origin: Origin,
        chat: ChatId,
    },
    /// `number`: of the [`Effect::Load`].
    Loaded {
        chat: ChatId,
        number: u64,
        result: Result<Option<Snapshot>, LoadError>,
    },
    JobDone(JobDone),
    /// What came of a [`Effect::Wake`].
    WakesDone {
        chat: ChatId,
        upto: Seq,
        woken: Woken,
    },
    /// The store has unsettled entries of this chat up to `high`.
    Recover {
        chat: ChatId,
        low: Seq,
        high: Seq,
    },
    /// This node owns these slots now, and no others.
    Owned(Arc<HashSet<Slot>>),
    /// The store is another one: a backup, or a standby that lacked commits. Nothing in memory is true any more.
    Restored,
    /// Time has passed.
    Tick,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadError {
    Away,
    /// Its turn did not come.
    Overloaded,
    PeerNotFound,
    /// The chat does not exist, and one of the two has blocked the other.
    NotAccepted,
    /// The chat does not exist, and its maker has met too many strangers within the last day.
    StrangersLimited {
        retry_after: Duration,
    },
    /// Somebody else holds a lock that is needed.
    Held,
}

/// Whether the devices that were missing are accounted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// Every session of theirs has its duty, or is gone; who has none is offline.
    All,
    /// A look-up failed, or a gateway did not confirm.
    NotAll,
    /// Those found have their duty; whether there are others cannot be known while etcd is out of sight.
    Unsure,
}

/// What is to be done, at once and in order.
#[derive(Debug)]
pub enum Effect {
    /// Read the chat in one snapshot; make it first where `create` names the two people and it does not exist.
    Load {
        chat: ChatId,
        /// No other load of the shard has it.
        number: u64,
        create: Option<Making>,
        requests: Vec<(UserId, RequestId)>,
    },
    Answer {
        origin: Origin,
        outcome: Outcome,
    },
    /// Tell whoever of these users is online: a hint.
    Push {
        chat: ChatId,
        users: Vec<UserId>,
        except: Vec<Origin>,
        what: Pushed,
    },
    /// Look these devices up, make their sessions responsible, then say [`Event::WakesDone`].
    Wake {
        chat: ChatId,
        upto: Seq,
        missing: Vec<Missing>,
    },
}

#[derive(Debug)]
pub enum Pushed {
    Entry(Entry),
    /// They are members since this entry. What lies below it may not be theirs, so their sessions read it from the log, with
    /// the Skipped that comes first.
    Added(Seq),
    Receipt {
        user: UserId,
        mark: Watermark,
    },
    Typing {
        user: UserId,
        stopped: bool,
    },
}

/// The two connections of a shard. What one of them waits for holds nothing up on the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// What somebody waits for: entries and changes.
    Commit,
    /// Inbox rows and read marks.
    Upkeep,
}

impl Lane {
    pub const ALL: [Self; 2] = [Self::Commit, Self::Upkeep];
}

/// One thing for a writer.
#[derive(Debug)]
pub enum Job {
    Commit(Vec<Batch>),
    /// A change of members: a transaction of its own.
    Change(Batch),
    Acks(Vec<AckWrite>),
    Settle(Vec<SettleChat>),
    /// Delete the unsettled rows up to each seq.
    Close(Vec<(ChatId, Seq)>),
    Reads(Vec<ReadMark>),
}

impl Job {
    /// Whose job it is.
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
    pub chat: ChatId,
    pub user: UserId,
    pub seq: Seq,
    /// Read receipts were off when it was made.
    pub off: bool,
    /// Messages that the user sent and that lie after it: not unread to them.
    pub own_unread: u32,
}

#[derive(Debug, Clone)]
pub struct AckWrite {
    pub origin: Origin,
    pub chat: ChatId,
    pub user: UserId,
    pub device: DeviceId,
    pub seq: Seq,
}

/// An inbox row that an acknowledgement met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AckedRow {
    /// Where it began.
    pub was: Seq,
    /// Where it begins now; `None`: it has ended.
    pub now: Option<Seq>,
}

#[derive(Debug, Clone)]
pub struct SettleChat {
    pub chat: ChatId,
    pub upto: Seq,
    pub acks: Vec<(DeviceId, Seq)>,
    /// Of a traced entry among those that it settles.
    pub trace: Option<TraceContext>,
}

/// What came of a job.
#[derive(Debug)]
pub enum JobDone {
    Commit(Vec<(ChatId, Committed)>),
    /// Those that are written, and the rows that the devices had. Of `unwritten` it is not known.
    Acks {
        acks: Vec<AckWrite>,
        rows: HashMap<(ChatId, DeviceId), AckedRow>,
        unwritten: Vec<AckWrite>,
    },
    /// Who is missing of each chat; nobody: it is settled. Of `failed` nothing is known.
    Settle {
        chats: Vec<(ChatId, Seq)>,
        missing: HashMap<ChatId, Vec<Missing>>,
        failed: Vec<(ChatId, Seq)>,
    },
    Close {
        chats: Vec<(ChatId, Seq)>,
        closed: bool,
    },
    /// All but these are written.
    Reads {
        unwritten: Vec<ReadMark>,
    },
}

impl JobDone {
    /// Which writer is free again.
    pub fn lane(&self) -> Lane {
        match self {
            Self::Commit(_) => Lane::Commit,
            Self::Acks { .. } | Self::Settle { .. } | Self::Close { .. } | Self::Reads { .. } => Lane::Upkeep,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Committed {
    Moved,
    /// The head had moved, or a request was in the log: nothing of the chat's batch was written.
    Behind,
    /// The store refused the batch for what is in it.
    Refused(Refusal),
    /// Somebody else holds a lock that the batch needs: nothing of it was written.
    Held,
    /// Not known.
    Away,
}
