//! Many chats and two writers: what comes in changes chats and asks for effects; whenever a writer is free,
//! [`ShardState::next_job`] says what it does next. Whatever arrived while it was busy makes the next batch, so
//! batches grow under load and an idle shard commits at once.
//!
//! One writer commits, the other does the upkeep (settles, acknowledgements, read marks), so that a lock that the upkeep
//! waits for holds no message up. Both may be at work on one chat, as two owners may: each statement decides by what it
//! finds under the lock of the chat's head.
//!
//! - [`event`]: events, effects, jobs
//! - [`commands`]: sends, changes, acknowledgements, read marks
//! - [`jobs`], [`results`]: what the writers do, and what follows
//! - [`patience`]: chats that somebody holds in the store, and callers who have waited long enough
//! - [`receipts`]: who is told of watermarks, and when
//! - [`typing`]: who is told that somebody writes
//! - [`inspect`]: what it tells operators
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

use crate::state::bytes::Held;
use crate::state::chat::{Batch, Chat, Command, Stage};
use crate::state::receipts::Watermark;
use crate::state::{Origin, Outcome};

pub use event::{
    AckWrite, AckedRow, Committed, Effect, Event, Job, JobDone, Lane, LoadError, Pushed, ReadMark,
    SettleChat, Woken,
};
pub use inspect::{Inspected, Load};
pub use patience::ANSWER_WITHIN;
pub use receipts::GATHER_RECEIPTS;
pub use typing::DropReason;

use typing::Typing;

/// From a chat's first unsettled commit to its settle: a device in reach acknowledges well within it.
pub const SETTLE_AFTER: Duration = Duration::from_millis(500);
/// Milliseconds. Settles are due at multiples of it, so that those of a calm platform share a statement: one for twenty chats
/// costs Postgres twice what one for a single chat costs, and that four times a commit.
const SETTLE_TOGETHER: i64 = 100;

/// What happened since it was asked last: for metrics.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Watermarks that rose.
    pub risen: u64,
    /// Of those, put off for load.
    pub deferred: u64,
    /// Receipts pushed, one for each user that is told.
    pub receipts: u64,
    /// What was delivered and could not be told, for its chat could not be loaded: whom it concerns is not known.
    pub receipts_lost: u64,
    /// Typing passed on.
    pub typing: u64,
    /// Typing dropped, by [`DropReason`].
    pub typing_dropped: [u64; DropReason::ALL.len()],
}

/// See the module.
#[derive(Debug, Default)]
pub struct ShardState {
    chats: IdMap<ChatId, Chat>,
    held: IdMap<ChatId, Vec<Event>>,
    held_count: usize,
    waiting: usize,
    /// Bytes of what waits.
    held_bytes: Held,
    /// Chats with something to commit, each once.
    due: VecDeque<ChatId>,
    change: Option<Batch>,
    settle_due: BTreeSet<(Timestamp, ChatId)>,
    acks: Vec<AckWrite>,
    closes: Vec<(ChatId, Seq)>,
    /// Read marks to be written, the newest of each.
    reads: IdMap<(ChatId, UserId), ReadMark>,
    reads_due: Option<Timestamp>,
    /// Direct chats in which a watermark rose.
    risen: IdSet<ChatId>,
    /// Groups in which one did, and when it is told.
    receipts_due: BTreeSet<(Timestamp, ChatId)>,
    /// For load.
    defers_delivered: bool,
    counts: Counts,
    /// Chats that are tried again then, because somebody held them.
    parked: BTreeSet<(Timestamp, ChatId)>,
    /// Chats where somebody waits, and when whoever waited first is to be answered.
    answer_by: BTreeSet<(Timestamp, ChatId)>,
    /// Whether each [`Lane`]'s writer has a job.
    busy: [bool; 2],
    swept_at: Timestamp,
    loads: Loads,
}

#[derive(Debug, Default)]
struct Loads {
    /// So far: each has a number.
    begun: u64,
    under_way: usize,
}

impl ShardState {
    pub fn chats(&self) -> usize {
        self.chats.len()
    }

    /// Commands without an answer yet.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// What happened since the last call.
    pub fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    /// Nothing is under way that the store or a client waits for.
    pub fn is_quiet(&self) -> bool {
        self.busy == [false; 2]
            && self.waiting == 0
            && self.acks.is_empty()
            && self.closes.is_empty()
            && self.reads.is_empty()
    }

    /// Chats whose entries are not settled yet.
    pub fn unsettled(&self) -> usize {
        self.chats
            .values()
            .filter(|chat| chat.unsettled.is_some())
            .count()
    }

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

    /// What this owner knows of a chat's watermarks; `None`: the chat is not loaded.
    pub fn watermarks(&self, chat: ChatId) -> Option<Vec<(UserId, Watermark)>> {
        let chat = self.chats.get(&chat).filter(|chat| chat.stage == Stage::Ready)?;
        Some(
            chat.members()
                .map(|(user, _)| (user, chat.receipts.mark(user)))
                .collect(),
        )
    }

    /// How far the user has read the chat, written or not, and how many messages of their own lie after it; `None`: the
    /// store knows it as well.
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

    /// When [`Event::Tick`], [`Self::flush_receipts`], [`Self::keep_patience`] and [`Self::next_job`] are due although
    /// nothing happens.
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

/// What is committed by now is settled then, or a little later.
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
