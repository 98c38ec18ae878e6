//! The state of one shard: many chats, and the work that its two writers do next. An event changes chats and asks for
//! effects. Whenever a writer is free, [`ShardState::next_job`] gives it its next job. Everything that arrived while it
//! was busy makes the next batch, so batches grow under load and an idle shard commits at once.
//!
//! One writer commits. The other does the upkeep (settles, acknowledgements, read marks), so that a lock that the
//! upkeep waits for delays no message. Both may work on one chat at the same time, as two owners may: each statement
//! decides by what it finds after it has locked the chat's head.
//!
//! - [`event`]: events, effects, jobs
//! - [`commands`]: sends, changes, acknowledgements, read marks
//! - [`jobs`]: the next job of each writer
//! - [`results`]: the results of jobs, and their effects
//! - [`patience`]: chats that are locked in the store, and callers who have waited long enough
//! - [`receipts`]: the pushes that tell users that a watermark rose
//! - [`notices`]: the pushes that tell users of notices, such as that somebody is typing
//! - [`inspect`]: the view of a shard that operators have
//! - [`loads`]: the loading of chats into memory, and the forgetting of chats
//! - [`trims`]: the hints to the trimmer of what need not be kept any more

mod commands;
pub mod event;
mod inspect;
mod jobs;
mod loads;
mod notices;
mod patience;
mod receipts;
mod results;
#[cfg(test)]
mod tests;
mod trims;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use tern_types::{ChatId, IdMap, IdSet, NoticeKind, Seq, Timestamp, UserId};

use crate::bytes::QueuedBytes;
use crate::chat::{Batch, Chat, Command, Stage};
use crate::receipts::Watermark;
use crate::retention::Mode;
use crate::target::Windows;
use crate::{Origin, Outcome, Refusal};

pub use event::{
    AckWrite, AckedRow, Committed, Effect, Event, Job, JobDone, Lane, LoadError, Pushed, ReadMark,
    SettleChat, WakesDone, Woken,
};
pub use inspect::{Busyness, Inspected};
pub use notices::{DropReason, NoticeCounts};
pub use patience::ANSWER_WITHIN;
pub use receipts::GATHER_RECEIPTS;

use notices::Given;

/// The time from a chat's first unsettled commit to its settle. A device that is online and reachable
/// acknowledges well within it. Entries that are committed too late for that settle get the next one, which
/// comes this time after the first has ended.
pub const SETTLE_AFTER: Duration = Duration::from_millis(500);
/// The interval to whose multiples the times of settles are rounded up. The settles of several chats
/// then share a statement also when there is little to do. A statement for twenty chats costs Postgres twice as much as
/// one for a single chat, and that one four times as much as a commit.
const SETTLE_TOGETHER: Duration = Duration::from_millis(100);
/// The interval to whose multiples a settle is put off if every member has acknowledged everything.
/// Nobody waits for what such a settle writes, so it can share its statement with the settles of more chats.
const SETTLE_AT_LEISURE: Duration = Duration::from_secs(1);

/// The most callers that wait for a shard's answer: some seconds of work. More are refused at once, and their clients
/// send their requests again.
const MAX_WAITING: usize = 16_384;

/// The counts, for metrics, of the things that happened since the last [`ShardState::take_counts`].
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// The number of times that a watermark rose.
    pub risen: u64,
    /// The number of those times at which the receipts were put off because the node is under load.
    pub deferred: u64,
    /// The number of receipts pushed, one for each user who is told.
    pub receipts: u64,
    /// The number of written acknowledgements whose chat could not be loaded, so that nobody knows which senders to
    /// tell.
    pub receipts_lost: u64,
    /// The number of chats with unsettled entries in the store of which this owner did not know. A chat is counted
    /// once, however often a look at the store finds it.
    pub recovered: u64,
    /// The counts of notices, by the number of their [`NoticeKind`].
    pub notices: [NoticeCounts; NoticeKind::ALL.len()],
}

/// The chats of one shard, and the writes that wait. It is pure: [`Self::apply`] takes an event and the time.
///
/// The loop around it calls, in this order: [`Self::apply`] for each event and for an [`Event::Tick`],
/// [`Self::flush_receipts`], [`Self::keep_patience`], then [`Self::next_job`] for each writer; it performs the effects,
/// and waits for the next event or until [`Self::next_wake`].
#[derive(Debug, Default)]
pub struct ShardState {
    chats: IdMap<ChatId, Chat>,
    /// The events that wait for their chat to be loaded, in the order in which they came. No list is empty.
    awaiting_load: IdMap<ChatId, Vec<Event>>,
    /// The number of events in `awaiting_load`.
    awaiting_load_count: usize,
    /// The number of callers that wait for the answer to a command or a reload.
    waiting: usize,
    /// The bytes of the commands that wait.
    queued_bytes: QueuedBytes,
    /// The chats that may have something to commit. A chat is in it once for each time that it became due.
    due: VecDeque<ChatId>,
    /// A change of a group that the commit writer takes next, alone.
    change: Option<Batch>,
    /// The times at which chats are settled next.
    settle_due: BTreeSet<(Timestamp, ChatId)>,
    /// The acknowledgements to be written.
    acks: Vec<AckWrite>,
    /// The chats whose unsettled rows up to the seq are to be deleted, because all wakes are confirmed.
    closes: Vec<(ChatId, Seq)>,
    /// The read marks to be written, the newest of each user and chat.
    reads: IdMap<(ChatId, UserId), ReadMark>,
    /// The time at which the read marks are written; `None` if there are none.
    reads_due: Option<Timestamp>,
    /// The direct chats with receipts to be pushed at once.
    risen: IdSet<ChatId>,
    /// The chats with receipts to be pushed later, and the time of each.
    receipts_due: BTreeSet<(Timestamp, ChatId)>,
    /// True while delivered receipts are put off because the node is under load.
    defers_delivered: bool,
    counts: Counts,
    /// The chats that were locked in the store, and the time at which each is tried again.
    parked: BTreeSet<(Timestamp, ChatId)>,
    /// The chats with callers that wait, and the time at which the shard checks whether the first of them has waited
    /// too long.
    answer_by: BTreeSet<(Timestamp, ChatId)>,
    /// True for each [`Lane`] whose writer has a job.
    busy: [bool; 2],
    /// True for each [`Lane`] whose writer has a job that was given to it before the store became another one.
    outdated: [bool; 2],
    /// The number of the log: how many times the store has become another one so far.
    log: u64,
    /// The time at which idle chats were last forgotten.
    swept_at: Timestamp,
    loads: Loads,
    windows: Windows,
    /// The operator's choice of how long chats keep messages whose members chose nothing.
    kept_by_default: Mode,
}

/// The counts of a shard's loads.
#[derive(Debug, Default)]
struct Loads {
    /// The number of loads that have begun so far. Each load's number is this count, itself included.
    begun: u64,
    /// The number of loads that have not ended.
    under_way: usize,
}

impl ShardState {
    /// Makes the state of a shard without chats, in which messages may be edited and deleted within these times.
    pub fn new(windows: Windows) -> Self {
        Self {
            windows,
            ..Self::default()
        }
    }

    /// Returns the number of chats in memory.
    pub fn chats(&self) -> usize {
        self.chats.len()
    }

    /// Returns the number of callers that wait for the answer to a command or a reload.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Takes the counts since the last call.
    pub fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    /// Returns whether nothing is under way: no writer has a job, no caller waits for a command or a reload,
    /// and nothing is left to write but settles. Events that wait for their chat to be loaded do not count.
    pub fn is_quiet(&self) -> bool {
        self.busy == [false; 2]
            && self.waiting == 0
            && self.acks.is_empty()
            && self.closes.is_empty()
            && self.reads.is_empty()
    }

    /// Returns the number of chats with unsettled entries.
    pub fn unsettled(&self) -> usize {
        self.chats
            .values()
            .filter(|chat| chat.unsettled.is_some())
            .count()
    }

    /// Applies an event at the monotonic time `now`, and appends the effects to `out`.
    pub fn apply(&mut self, event: Event, now: Timestamp, out: &mut Vec<Effect>) {
        match event {
            Event::Send {
                origin,
                chat,
                peer,
                entry,
            } => self.send(origin, chat, peer, entry, now, out),
            Event::Change { origin, chat, change } => {
                self.enqueue(origin, chat, Command::Change(change), now, out)
            }
            Event::Ack {
                origin,
                chat,
                user,
                device,
                seq,
                write,
            } => {
                let ack = AckWrite {
                    origin,
                    chat,
                    user,
                    device,
                    seq,
                };
                self.ack(ack, write, now, out);
            }
            Event::Delivered {
                chat,
                user,
                from,
                seq,
            } => self.delivered(chat, user, from, seq, now, out),
            Event::Read { chat, user, seq, off } => {
                self.read(chat, user, (seq, off), now, out);
            }
            Event::MarkRead {
                origin,
                chat,
                user,
                seq,
                off,
            } => self.mark_read(origin, (chat, user), (seq, off), now, out),
            Event::Notice {
                chat,
                user,
                notice,
                at,
            } => {
                let given = Given {
                    chat,
                    user,
                    notice,
                    at,
                };
                self.notice(given, now, out);
            }
            Event::BlocksChanged { origin, chat } => self.blocks_changed(origin, chat, out),
            Event::Loaded { chat, number, result } => self.loaded(chat, number, result, now, out),
            Event::JobDone(done) => self.job_done(done, now, out),
            Event::WakesDone(done) => self.wakes_done(done, now),
            Event::Recover { chat, low, high } => self.recover(chat, low, high, now, out),
            Event::Owned(slots) => self.keep_only(&slots, out),
            Event::Restored => self.forget_all(out),
            Event::Tick => self.forget_idle(now),
        }
    }

    /// Returns the watermarks of a chat's present members, or `None` if the chat is not in memory. A chat that is
    /// loaded for the first time has none yet.
    pub fn watermarks(&self, chat: ChatId) -> Option<Vec<(UserId, Watermark)>> {
        let chat = self.chats.get(&chat)?;
        Some(
            chat.members()
                .map(|(user, _)| (user, chat.receipts.mark(user)))
                .collect(),
        )
    }

    /// Returns the user's read mark in the chat, whether it is written to the store yet or not, and the number of their
    /// own messages after it that count as unread. Returns `None` if this owner knows no more than the store.
    pub fn read_mark(&self, id: ChatId, user: UserId) -> Option<(Seq, u32)> {
        let chat = self.chats.get(&id);
        let known = chat.map(|chat| (chat.receipts.mark(user).read, chat.own_unread(user)));
        if chat.is_some_and(|chat| chat.stage == Stage::Ready) {
            return known;
        }
        // A chat that is loaded anew keeps its marks, also one that a writer has taken and not written yet.
        let kept = known.filter(|(read, _)| *read > Seq::ZERO);
        let unwritten = self
            .reads
            .get(&(id, user))
            .map(|mark| (mark.seq, mark.own_unread));
        let events = self.awaiting_load.get(&id).into_iter().flatten();
        let marks = events.filter_map(|event| match event {
            Event::Read { user: of, seq, .. } | Event::MarkRead { user: of, seq, .. } if *of == user => {
                Some((*seq, 0))
            }
            _ => None,
        });
        marks.chain(unwritten).chain(kept).max()
    }

    /// Returns the time at which the loop must run again although nothing happened, for [`Self::flush_receipts`],
    /// [`Self::keep_patience`] and [`Self::next_job`]. Returns `None` if nothing will be due.
    pub fn next_wake(&self) -> Option<Timestamp> {
        let first = |due: &BTreeSet<(Timestamp, ChatId)>| due.first().map(|(at, _)| *at);
        let upkeep = [first(&self.settle_due), self.reads_due];
        let upkeep = upkeep
            .into_iter()
            .flatten()
            .filter(|_| !self.is_busy(Lane::Upkeep));
        let answers = first(&self.answer_by).filter(|_| self.waiting > 0);
        let others = [first(&self.receipts_due), first(&self.parked), answers];
        upkeep.chain(others.into_iter().flatten()).min()
    }

    fn is_busy(&self, lane: Lane) -> bool {
        self.busy[lane as usize]
    }

    /// Notes that the chat may have something to commit, if it is due.
    fn mark_due(&mut self, id: ChatId) {
        if self.chats.get(&id).is_some_and(Chat::is_due) {
            self.due.push_back(id);
        }
    }

    /// Answers callers that were counted in `waiting`.
    fn answer(&mut self, answers: Vec<(Origin, Outcome)>, out: &mut Vec<Effect>) {
        debug_assert!(answers.len() <= self.waiting, "every caller is answered once");
        self.waiting = self.waiting.saturating_sub(answers.len());
        out.extend(
            answers
                .into_iter()
                .map(|(origin, outcome)| Effect::Answer { origin, outcome }),
        );
    }
}

/// Gives up acknowledgements that were not written. Unary calls are refused. Gateways get no answer, and repeat an
/// acknowledgement that is not confirmed (fine print 12).
fn not_written(acks: impl IntoIterator<Item = AckWrite>, refusal: &Refusal, out: &mut Vec<Effect>) {
    let calls = acks
        .into_iter()
        .filter(|ack| matches!(ack.origin, Origin::Call(_)));
    out.extend(calls.map(|ack| Effect::Answer {
        origin: ack.origin,
        outcome: Outcome::Acked(Err(refusal.clone())),
    }));
}

/// Schedules the chat's next settle for `at`, rounded up to a multiple of [`SETTLE_TOGETHER`], in place of one that is
/// scheduled already. It will cover every entry that is committed now.
fn schedule(due: &mut BTreeSet<(Timestamp, ChatId)>, chat: &mut Chat, at: Timestamp) {
    let at = at.rounded_up(SETTLE_TOGETHER);
    chat.settle_upto = chat.head();
    if let Some(before) = chat.settle_at.replace(at) {
        due.remove(&(before, chat.id));
    }
    due.insert((at, chat.id));
}
