//! Many chats and one writer: what comes in changes chats and asks for effects; whenever the writer is free,
//! [`ShardState::next_job`] says what it does next. Whatever arrived while it was busy makes the next batch, so
//! batches grow under load and an idle shard commits at once.
//!
//! - [`event`]: events, effects, jobs
//! - [`commands`]: sends, changes, acknowledgements, read marks
//! - [`jobs`], [`results`]: what the writer does, and what follows
//! - [`inspect`]: what it tells operators
//! - [`loads`]: chats come into memory and leave it

mod commands;
pub mod event;
mod inspect;
mod jobs;
mod loads;
mod results;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;

use tern_types::{ChatId, Seq, Timestamp, UserId};

use crate::state::bytes::Held;
use crate::state::chat::{Batch, Chat, Command, Stage};
use crate::state::receipts::Watermark;
use crate::state::{Origin, Outcome};

pub use inspect::{Inspected, Load};

pub use event::{AckWrite, AckedRow, Committed, Effect, Event, Job, JobDone, LoadError, Pushed, SettleChat};

/// From a chat's first unsettled commit to its settle: a device in reach acknowledges well within it.
pub const SETTLE_AFTER: Duration = Duration::from_millis(500);

/// See the module.
#[derive(Debug, Default)]
pub struct ShardState {
    chats: HashMap<ChatId, Chat>,
    held: HashMap<ChatId, Vec<Event>>,
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
    reads: HashMap<(ChatId, UserId), Seq>,
    reads_due: Option<Timestamp>,
    risen: HashSet<ChatId>,
    busy: bool,
    last_was_commit: bool,
    swept_at: Timestamp,
}

impl ShardState {
    pub fn chats(&self) -> usize {
        self.chats.len()
    }

    /// Commands without an answer yet.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Nothing is under way that the store or a client waits for.
    pub fn is_quiet(&self) -> bool {
        !self.busy
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
                self.ack(ack, write, out);
            }
            Event::Delivered {
                chat,
                user,
                from,
                seq,
            } => self.delivered(chat, user, from, seq, now, out),
            Event::Read { chat, user, seq } => self.read(chat, user, seq, now, out),
            Event::Loaded { chat, result } => self.loaded(chat, result, now, out),
            Event::JobDone(done) => self.job_done(done, now, out),
            Event::WakesDone { chat, upto, ok } => self.wakes_done(chat, upto, ok, now),
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

    /// Receipts that rose since the last call, each once.
    pub fn flush_receipts(&mut self, out: &mut Vec<Effect>) {
        for id in self.risen.drain() {
            let Some(chat) = self.chats.get_mut(&id) else {
                continue;
            };
            for risen in chat.receipts.take_risen() {
                let users = chat.told_of(risen.user, risen.since, risen.marked);
                if !users.is_empty() {
                    let what = Pushed::Receipt {
                        user: risen.user,
                        mark: risen.mark,
                    };
                    out.push(Effect::Push {
                        chat: id,
                        users,
                        except: Vec::new(),
                        what,
                    });
                }
            }
        }
    }

    /// When [`Event::Tick`] and [`Self::next_job`] are due although nothing happens.
    pub fn next_wake(&self) -> Option<Timestamp> {
        if self.busy {
            return None;
        }
        let settle = self.settle_due.first().map(|(at, _)| *at);
        [settle, self.reads_due].into_iter().flatten().min()
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

/// What is committed by now is settled then.
fn schedule(due: &mut BTreeSet<(Timestamp, ChatId)>, chat: &mut Chat, at: Timestamp) {
    chat.settle_upto = chat.head();
    if let Some(before) = chat.settle_at.replace(at) {
        due.remove(&(before, chat.id));
    }
    due.insert((at, chat.id));
}
