//! The state of one shard: many chats, and what its two writers do next. An event changes chats and asks for effects;
//! whenever a writer is free, [`ShardState::next_job`] says what it does next. Everything that arrived while it was
//! busy makes the next batch, so batches grow under load and an idle shard commits at once.
//!
//! One writer commits. The other does the upkeep (settles, acknowledgements, read marks), so that a lock that the
//! upkeep waits for delays no message. Both may work on one chat at the same time, as two owners may: each statement
//! decides by what it finds after it has locked the chat's head.
//!
//! - [`event`]: events, effects, jobs
//! - [`commands`]: sends, changes, acknowledgements, read marks
//! - [`jobs`], [`results`]: what the writers do, and what follows from it
//! - [`patience`]: chats that are locked in the store, and callers who have waited long enough
//! - [`receipts`]: who is told that a watermark rose, and when
//! - [`typing`]: who is told that somebody is typing
//! - [`inspect`]: what operators can see of a shard
//! - [`loads`]: chats come into memory and leave it

mod commands;
pub mod event;
mod inspect;
mod jobs;
mod loads;
mod patience;
mod receipts;
mod results;
#[cfg(test)]
mod tests;
mod typing;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use tern_types::{ChatId, IdMap, IdSet, Seq, Timestamp, UserId};

use crate::bytes::Held;
use crate::chat::{Batch, Chat, Command, Stage};
use crate::receipts::Watermark;
use crate::{Origin, Outcome, Refusal};

pub use event::{
    AckWrite, AckedRow, Committed, Effect, Event, Job, JobDone, Lane, LoadError, Pushed, ReadMark,
    SettleChat, Woken,
};
pub use inspect::{Inspected, Load};
pub use patience::ANSWER_WITHIN;
pub use receipts::GATHER_RECEIPTS;
pub use typing::DropReason;

use typing::Typing;

/// The time from a chat's first unsettled commit to its settle. A device that is online and reachable acknowledges
/// well within it.
pub const SETTLE_AFTER: Duration = Duration::from_millis(500);
/// Milliseconds. Settles are due at multiples of this, so that the settles of several chats share a statement also
/// when there is little to do: a statement for twenty chats costs Postgres twice as much as one for a single chat,
/// and that one four times as much as a commit.
const SETTLE_TOGETHER: i64 = 100;

/// Commands that wait in a shard: some seconds of work. More are refused at once, and their clients send them again.
const MAX_WAITING: usize = 16_384;

/// Counts what happened since the last [`ShardState::take_counts`], for metrics.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Watermarks that rose.
    pub risen: u64,
    /// Of those, the ones whose receipts were put off because the node is under load.
    pub deferred: u64,
    /// Receipts pushed, one for each user who is told.
    pub receipts: u64,
    /// Written acknowledgements whose chat could not be loaded, so that nobody knows which senders to tell.
    pub receipts_lost: u64,
    /// Signs of typing passed on.
    pub typing: u64,
    /// Signs of typing dropped, by [`DropReason`].
    pub typing_dropped: [u64; DropReason::ALL.len()],
}

/// The chats of one shard, and the writes that wait. It is pure: [`Self::apply`] takes an event and the time.
///
/// The loop around it calls, in this order: [`Self::apply`] for each event, [`Self::flush_receipts`],
/// [`Self::keep_patience`], then [`Self::next_job`] for each writer; it performs the effects, and waits for the next
/// event or until [`Self::next_wake`].
#[derive(Debug, Default)]
pub struct ShardState {
    chats: IdMap<ChatId, Chat>,
    /// Events that wait for their chat to be loaded.
    held: IdMap<ChatId, Vec<Event>>,
    held_count: usize,
    /// Callers that wait for the answer to a command or a reload.
    waiting: usize,
    /// The bytes of the commands that wait.
    held_bytes: Held,
    /// Chats that may have something to commit. A chat is in it once for each time it became due.
    due: VecDeque<ChatId>,
    /// A change of a group that the commit writer takes next, alone.
    change: Option<Batch>,
    /// When each chat is settled next.
    settle_due: BTreeSet<(Timestamp, ChatId)>,
    /// Acknowledgements to be written.
    acks: Vec<AckWrite>,
    /// Chats whose unsettled rows up to the seq are to be deleted, because all wakes are confirmed.
    closes: Vec<(ChatId, Seq)>,
    /// Read marks to be written, the newest of each user and chat.
    reads: IdMap<(ChatId, UserId), ReadMark>,
    /// When the read marks are written; `None`: there are none.
    reads_due: Option<Timestamp>,
    /// Direct chats with receipts to be pushed at once.
    risen: IdSet<ChatId>,
    /// Chats with receipts to be pushed later, and when.
    receipts_due: BTreeSet<(Timestamp, ChatId)>,
    /// Whether delivered receipts are put off because the node is under load.
    defers_delivered: bool,
    counts: Counts,
    /// Chats that were locked in the store, and when each is tried again.
    parked: BTreeSet<(Timestamp, ChatId)>,
    /// Chats with callers that wait, and when the shard checks whether the first of them has waited too long.
    answer_by: BTreeSet<(Timestamp, ChatId)>,
    /// Whether each [`Lane`]'s writer has a job.
    busy: [bool; 2],
    /// When idle chats were last forgotten.
    swept_at: Timestamp,
    loads: Loads,
}

#[derive(Debug, Default)]
struct Loads {
    /// The number of loads that have begun so far. Each load's number is this count when it began.
    begun: u64,
    under_way: usize,
}

impl ShardState {
    /// The number of chats in memory.
    pub fn chats(&self) -> usize {
        self.chats.len()
    }

    /// The number of callers that wait for the answer to a command or a reload.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Takes the counts since the last call.
    pub fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    /// Whether neither the store nor a caller waits for anything of this shard.
    pub fn is_quiet(&self) -> bool {
        self.busy == [false; 2]
            && self.waiting == 0
            && self.acks.is_empty()
            && self.closes.is_empty()
            && self.reads.is_empty()
    }

    /// The number of chats with unsettled entries.
    pub fn unsettled(&self) -> usize {
        self.chats
            .values()
            .filter(|chat| chat.unsettled.is_some())
            .count()
    }

    /// Applies an event at `now`, by the monotonic clock, and appends the effects to `out`.
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
            Event::Typing {
                chat,
                user,
                stopped,
                at,
            } => {
                let typing = Typing {
                    chat,
                    user,
                    stopped,
                    at,
                };
                self.typing(typing, now, out);
            }
            Event::BlocksChanged { origin, chat } => self.blocks_changed(origin, chat, out),
            Event::Loaded { chat, number, result } => self.loaded(chat, number, result, now, out),
            Event::JobDone(done) => self.job_done(done, now, out),
            Event::WakesDone { chat, upto, woken } => self.wakes_done(chat, upto, woken, now),
            Event::Recover { chat, low, high } => self.recover(chat, low, high, now, out),
            Event::Owned(slots) => self.keep_only(&slots, out),
            Event::Restored => self.forget_all(out),
            Event::Tick => self.forget_idle(now),
        }
    }

    /// The watermarks of a chat's present members, or `None` if the chat is not loaded.
    pub fn watermarks(&self, chat: ChatId) -> Option<Vec<(UserId, Watermark)>> {
        let chat = self.chats.get(&chat).filter(|chat| chat.stage == Stage::Ready)?;
        Some(
            chat.members()
                .map(|(user, _)| (user, chat.receipts.mark(user)))
                .collect(),
        )
    }

    /// How far the user has read the chat, whether that is written to the store yet or not, and how many
    /// unread-counting messages of their own lie after it. `None`: this owner knows no more than the store.
    pub fn read_mark(&self, id: ChatId, user: UserId) -> Option<(Seq, u32)> {
        let chat = self.chats.get(&id).filter(|chat| chat.stage == Stage::Ready);
        if let Some(chat) = chat {
            return Some((chat.receipts.mark(user).read, chat.own_unread(user)));
        }
        let unwritten = self
            .reads
            .get(&(id, user))
            .map(|mark| (mark.seq, mark.own_unread));
        let held = self.held.get(&id).into_iter().flatten();
        let held = held.filter_map(|event| match event {
            Event::Read { user: of, seq, .. } | Event::MarkRead { user: of, seq, .. } if *of == user => {
                Some((*seq, 0))
            }
            _ => None,
        });
        held.chain(unwritten).max()
    }

    /// When the loop must run again although nothing happened, for [`Event::Tick`], [`Self::flush_receipts`],
    /// [`Self::keep_patience`] and [`Self::next_job`]. `None`: nothing is due.
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

    fn mark_due(&mut self, id: ChatId) {
        if self.chats.get(&id).is_some_and(Chat::is_due) {
            self.due.push_back(id);
        }
    }

    fn answer(&mut self, answers: Vec<(Origin, Outcome)>, out: &mut Vec<Effect>) {
        self.waiting = self.waiting.saturating_sub(answers.len());
        out.extend(
            answers
                .into_iter()
                .map(|(origin, outcome)| Effect::Answer { origin, outcome }),
        );
    }
}

/// Gives up acknowledgements that were not written. Unary calls are refused; gateways get no answer, and repeat what
/// is not confirmed.
fn not_written(acks: impl IntoIterator<Item = AckWrite>, refusal: &Refusal, out: &mut Vec<Effect>) {
    let calls = acks
        .into_iter()
        .filter(|ack| matches!(ack.origin, Origin::Call(_)));
    out.extend(calls.map(|ack| Effect::Answer {
        origin: ack.origin,
        outcome: Outcome::Refused(refusal.clone()),
    }));
}

/// Schedules the chat's next settle for `at`, rounded up to a multiple of [`SETTLE_TOGETHER`]. It covers every entry
/// that is committed by now.
fn schedule(due: &mut BTreeSet<(Timestamp, ChatId)>, chat: &mut Chat, at: Timestamp) {
    let rounds =
        at.0.saturating_add(SETTLE_TOGETHER - 1)
            .div_euclid(SETTLE_TOGETHER);
    let at = Timestamp(rounds * SETTLE_TOGETHER);
    chat.settle_upto = chat.head();
    if let Some(before) = chat.settle_at.replace(at) {
        due.remove(&(before, chat.id));
    }
    due.insert((at, chat.id));
}
