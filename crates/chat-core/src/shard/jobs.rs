//! The next job of each writer. A commit takes whatever waits, in batches of several chats. The upkeep writes
//! acknowledgements first, then deletes unsettled rows, settles, and writes read marks.

use tern_types::{ChatId, IdMap, Seq, Timestamp, UserId};

use super::event::{Effect, Job, Lane, ReadMark, SettleChat};
use super::loads::begin_load;
use super::{SETTLE_AFTER, SETTLE_AT_LEISURE, ShardState, schedule};
use crate::chat::{Chat, Stage};

/// The number of entries at which a commit takes no further batch; the last batch may exceed it. A larger statement
/// costs no less for each entry.
const MAX_COMMIT: usize = 1024;
/// The most bytes of the entries of one commit; the first entry of the last batch may exceed it. They take the store
/// some tens of milliseconds.
pub(super) const MAX_COMMIT_BYTES: usize = 4 << 20;
/// The most chats in one settle statement.
const MAX_SETTLE: usize = 256;
/// The most acknowledgements in one statement.
const MAX_ACKS: usize = 1024;
/// The most chats whose unsettled rows one statement deletes.
pub(super) const MAX_CLOSE: usize = 1024;
/// The most read marks in one statement.
pub(super) const MAX_READS: usize = 1024;

impl ShardState {
    /// Returns whether the writer that commits is free, and there may be something for it.
    pub fn wants_to_commit(&self) -> bool {
        !self.is_busy(Lane::Commit) && (self.change.is_some() || !self.due.is_empty())
    }

    /// Returns the writer's next job; `None` while it is busy, or if there is nothing to do. `now` is the monotonic
    /// clock's time. `wall` is the wall clock's time, with which entries are stored and tickets are compared.
    pub fn next_job(
        &mut self,
        lane: Lane,
        now: Timestamp,
        wall: Timestamp,
        out: &mut Vec<Effect>,
    ) -> Option<Job> {
        if self.is_busy(lane) {
            return None;
        }
        let job = match lane {
            Lane::Commit => self.commit_job(wall, out),
            Lane::Upkeep => self.upkeep_job(now),
        };
        debug_assert!(
            job.as_ref().is_none_or(|job| job.lane() == lane),
            "the result of a job frees its writer"
        );
        self.busy[lane as usize] = job.is_some();
        job
    }

    /// Returns the batches of chats that are due, or a change of a group alone.
    fn commit_job(&mut self, wall: Timestamp, out: &mut Vec<Effect>) -> Option<Job> {
        if let Some(batch) = self.change.take() {
            return Some(Job::Change(batch));
        }
        let mut batches = Vec::new();
        let (mut entries, mut room) = (0, MAX_COMMIT_BYTES);
        while entries < MAX_COMMIT && room > 0 && self.change.is_none() {
            let Some(id) = self.due.pop_front() else { break };
            let Some(chat) = self.chats.get_mut(&id).filter(|chat| chat.is_due()) else {
                continue;
            };
            let (batch, answers) = chat.take_batch(room, wall, self.windows);
            if batch.is_none() && chat.stage == Stage::Loading {
                begin_load(&mut self.loads, chat, None, out);
            }
            self.answer(answers, out);
            match batch {
                Some(batch) if batch.change.is_some() => self.change = Some(batch),
                Some(batch) => {
                    entries += batch.entries.len();
                    room = room.saturating_sub(batch.bytes());
                    batches.push(batch);
                }
                None => {}
            }
        }
        if batches.is_empty() {
            return self.change.take().map(Job::Change);
        }
        Some(Job::Commit(batches))
    }

    /// Returns the most urgent work of the upkeep: acknowledgements, rows to delete, settles, then read marks.
    fn upkeep_job(&mut self, now: Timestamp) -> Option<Job> {
        if !self.acks.is_empty() {
            return Some(Job::Acks(take_first(&mut self.acks, MAX_ACKS)));
        }
        if !self.closes.is_empty() {
            return Some(Job::Close(take_first(&mut self.closes, MAX_CLOSE)));
        }
        let settle = self.take_settle(now);
        if !settle.is_empty() {
            return Some(Job::Settle(settle));
        }
        self.take_reads(now).map(Job::Reads)
    }

    /// Takes read marks if they are due. Those that are left stay due. A mark withdraws nothing if no device of its user
    /// is behind.
    fn take_reads(&mut self, now: Timestamp) -> Option<Vec<ReadMark>> {
        self.reads_due.filter(|due| *due <= now)?;
        let first: Vec<_> = self.reads.keys().copied().take(MAX_READS).collect();
        let chats = &self.chats;
        let may_withdraw = |mark: &ReadMark| {
            let chat = chats.get(&mark.chat);
            mark.withdraws && chat.is_none_or(|chat| chat.behind.may_have(mark.user))
        };
        let taken = first.iter().filter_map(|key| self.reads.remove(key));
        let taken = taken.map(|mark| ReadMark {
            withdraws: may_withdraw(&mark),
            ..mark
        });
        let taken = taken.collect();
        if self.reads.is_empty() {
            self.reads_due = None;
        }
        Some(taken)
    }

    /// Takes the chats whose settle is due. A chat that has nothing that is old enough waits on, and so does, once, a
    /// chat in which everybody has everything: until a multiple of [`SETTLE_AT_LEISURE`]. A chat that is being
    /// loaded does not wait: everybody can have it loaded again and again, by commands that are refused. It is settled
    /// by the memory that this owner has of it, as a chat is to which another owner has committed unnoticed.
    fn take_settle(&mut self, now: Timestamp) -> Vec<SettleChat> {
        let mut settle = Vec::new();
        while settle.len() < MAX_SETTLE {
            let Some((at, id)) = self.settle_due.first().copied().filter(|(at, _)| *at <= now) else {
                break;
            };
            self.settle_due.remove(&(at, id));
            // A time of before the chat was forgotten and loaded again is not its own.
            let Some(chat) = self.chats.get_mut(&id).filter(|chat| chat.settle_at == Some(at)) else {
                continue;
            };
            chat.settle_at = None;
            let (None, Some(lowest)) = (chat.settling, chat.unsettled) else {
                continue;
            };
            let at_leisure = at.rounded_up(SETTLE_AT_LEISURE);
            if at < at_leisure && chat.has_reached_everybody() {
                schedule(&mut self.settle_due, chat, at_leisure);
                continue;
            }
            let upto = chat.settles_upto();
            if upto < lowest {
                schedule(&mut self.settle_due, chat, now + SETTLE_AFTER);
                continue;
            }
            chat.settling = Some(upto);
            settle.push(SettleChat {
                chat: id,
                upto,
                acks: chat.acks().collect(),
                read: readers(&self.reads, chat, upto),
                trace: chat.settle_trace.take(),
            });
        }
        settle
    }
}

/// Returns the members whose read mark covers every entry up to `upto` and is among those to be written.
fn readers(reads: &IdMap<(ChatId, UserId), ReadMark>, chat: &Chat, upto: Seq) -> Vec<UserId> {
    if reads.is_empty() {
        return Vec::new();
    }
    let marks = chat.members().filter_map(|(user, _)| reads.get(&(chat.id, user)));
    let covering = marks.filter(|mark| mark.seq >= upto);
    covering.map(|mark| mark.user).collect()
}

/// Takes at most `most` items from the front, and leaves the others.
fn take_first<T>(items: &mut Vec<T>, most: usize) -> Vec<T> {
    let rest = items.split_off(items.len().min(most));
    std::mem::replace(items, rest)
}
