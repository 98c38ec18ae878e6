//! Many chats and one writer: what comes in changes chats and asks for effects; whenever the writer is free,
//! [`ShardState::next_job`] says what it does next. Whatever arrived while it was busy makes the next batch, so
//! batches grow under load and an idle shard commits at once.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tern_types::{ChatId, DeviceId, RequestId, Seq, Slot, Timestamp, UserId};

use super::chat::{Batch, Chat, Command, Snapshot, Stage};
use super::entry::{Entry, NewEntry};
use super::{Change, Missing, Origin, Outcome, Refusal};
use crate::state::receipts::Watermark;

/// From a chat's first unsettled commit to its settle: a device in reach acknowledges well within it.
pub const SETTLE_AFTER: Duration = Duration::from_millis(500);
/// From a settle that failed to the next.
const SETTLE_RETRY: Duration = Duration::from_secs(2);
/// Read marks gather this long before they are written.
const READ_MARKS_AFTER: Duration = Duration::from_secs(1);
/// A chat that nobody used for so long is forgotten.
const IDLE: Duration = Duration::from_secs(300);
/// Entries of one commit: beyond it the statement grows without getting cheaper an entry.
const MAX_COMMIT: usize = 1024;
/// Chats in one settle statement.
const MAX_SETTLE: usize = 256;
/// Acknowledgements in one statement.
const MAX_ACKS: usize = 1024;
/// Commands that wait in a shard: some seconds of work. More are refused at once, and clients come again.
const MAX_WAITING: usize = 16_384;
/// Acknowledgements that wait to be written. More are dropped unconfirmed: gateways repeat them.
const MAX_WAITING_ACKS: usize = 65_536;
/// Events that wait for chats to be loaded.
const MAX_HELD: usize = 16_384;
/// Chats in memory; beyond it idle ones go early. About 2 KiB each, more with many members.
const MAX_CHATS: usize = 100_000;

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
    Read {
        chat: ChatId,
        user: UserId,
        seq: Seq,
    },
    Loaded {
        chat: ChatId,
        result: Result<Option<Snapshot>, LoadError>,
    },
    JobDone(JobDone),
    /// Every session of a [`Effect::Wake`] has its duty or is gone; `ok` false: not known.
    WakesDone {
        chat: ChatId,
        upto: Seq,
        ok: bool,
    },
    /// The store has unsettled entries of this chat up to `high`.
    Recover {
        chat: ChatId,
        low: Seq,
        high: Seq,
    },
    /// This node owns these slots now, and no others.
    Owned(Arc<HashSet<Slot>>),
    /// Time has passed.
    Tick,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadError {
    Away,
    PeerNotFound,
}

/// What is to be done, at once and in order.
#[derive(Debug)]
pub enum Effect {
    /// Read the chat in one snapshot; make it first where `create` names the two people and it does not exist.
    Load {
        chat: ChatId,
        create: Option<(UserId, UserId)>,
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
    Receipt { user: UserId, mark: Watermark },
}

/// One thing for the writer.
#[derive(Debug)]
pub enum Job {
    Commit(Vec<Batch>),
    /// A change of members: a transaction of its own.
    Change(Batch),
    Acks(Vec<AckWrite>),
    Settle(Vec<SettleChat>),
    /// Delete the unsettled rows up to each seq.
    Close(Vec<(ChatId, Seq)>),
    Reads(Vec<(ChatId, UserId, Seq)>),
}

#[derive(Debug, Clone)]
pub struct AckWrite {
    pub origin: Origin,
    pub chat: ChatId,
    pub user: UserId,
    pub device: DeviceId,
    pub seq: Seq,
}

#[derive(Debug, Clone)]
pub struct SettleChat {
    pub chat: ChatId,
    pub upto: Seq,
    pub acks: Vec<(DeviceId, Seq)>,
}

/// What came of a job.
#[derive(Debug)]
pub enum JobDone {
    Commit(Vec<(ChatId, Committed)>),
    /// Which devices still have a row, and from where. `None`: nothing was written.
    Acks {
        acks: Vec<AckWrite>,
        rows: Option<HashMap<(ChatId, DeviceId), Seq>>,
    },
    /// Who is missing of each chat; nobody: it is settled. `None`: the store was away.
    Settle {
        chats: Vec<(ChatId, Seq)>,
        missing: Option<HashMap<ChatId, Vec<Missing>>>,
    },
    Close {
        chats: Vec<(ChatId, Seq)>,
        closed: bool,
    },
    Reads {
        reads: Vec<(ChatId, UserId, Seq)>,
        written: bool,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Committed {
    Moved,
    /// The head had moved, or a request was in the log: nothing of the chat's batch was written.
    Behind,
    /// The store refused the batch for what is in it.
    Refused(Refusal),
    /// Not known.
    Away,
}

/// See the module.
#[derive(Debug, Default)]
pub struct ShardState {
    chats: HashMap<ChatId, Chat>,
    held: HashMap<ChatId, Vec<Event>>,
    held_count: usize,
    waiting: usize,
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
                self.ack(ack, write);
            }
            Event::Read { chat, user, seq } => self.read(chat, user, seq, now, out),
            Event::Loaded { chat, result } => self.loaded(chat, result, now, out),
            Event::JobDone(done) => self.job_done(done, now, out),
            Event::WakesDone { chat, upto, ok } => self.wakes_done(chat, upto, ok, now),
            Event::Recover { chat, low, high } => self.recover(chat, low, high, now, out),
            Event::Owned(slots) => self.keep_only(&slots, out),
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
                let users = chat.told_of(risen.user, risen.since, risen.read_rose);
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

    /// What the writer does next; `None` while it is busy or there is nothing. Commits take turns with the rest.
    pub fn next_job(&mut self, now: Timestamp, out: &mut Vec<Effect>) -> Option<Job> {
        if self.busy {
            return None;
        }
        let job = if self.last_was_commit {
            self.upkeep_job(now).or_else(|| self.commit_job(now, out))
        } else {
            self.commit_job(now, out).or_else(|| self.upkeep_job(now))
        };
        self.last_was_commit = matches!(job, Some(Job::Commit(_) | Job::Change(_)));
        self.busy = job.is_some();
        job
    }

    fn commit_job(&mut self, now: Timestamp, out: &mut Vec<Effect>) -> Option<Job> {
        if let Some(batch) = self.change.take() {
            return Some(Job::Change(batch));
        }
        let mut batches = Vec::new();
        let mut entries = 0;
        while entries < MAX_COMMIT && self.change.is_none() {
            let Some(id) = self.due.pop_front() else { break };
            let Some(chat) = self.chats.get_mut(&id).filter(|chat| chat.is_due()) else {
                continue;
            };
            let (batch, answers) = chat.take_batch(now);
            self.answer(answers, out);
            match batch {
                Some(batch) if batch.change.is_some() => self.change = Some(batch),
                Some(batch) => {
                    entries += batch.entries.len();
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

    fn upkeep_job(&mut self, now: Timestamp) -> Option<Job> {
        if !self.acks.is_empty() {
            let rest = self.acks.split_off(self.acks.len().min(MAX_ACKS));
            return Some(Job::Acks(std::mem::replace(&mut self.acks, rest)));
        }
        if !self.closes.is_empty() {
            return Some(Job::Close(std::mem::take(&mut self.closes)));
        }
        let settle = self.take_settle(now);
        if !settle.is_empty() {
            return Some(Job::Settle(settle));
        }
        if self.reads_due.is_some_and(|due| due <= now) {
            self.reads_due = None;
            let reads = std::mem::take(&mut self.reads);
            return Some(Job::Reads(
                reads
                    .into_iter()
                    .map(|((chat, user), seq)| (chat, user, seq))
                    .collect(),
            ));
        }
        None
    }

    fn take_settle(&mut self, now: Timestamp) -> Vec<SettleChat> {
        let mut settle = Vec::new();
        while settle.len() < MAX_SETTLE {
            let Some((at, id)) = self.settle_due.first().copied().filter(|(at, _)| *at <= now) else {
                break;
            };
            self.settle_due.remove(&(at, id));
            let Some(chat) = self.chats.get_mut(&id) else {
                continue;
            };
            chat.settle_at = None;
            if chat.settling.is_some() || chat.unsettled.is_none() {
                continue;
            }
            if chat.stage == Stage::Loading {
                schedule(&mut self.settle_due, chat, now + SETTLE_AFTER);
                continue;
            }
            let upto = chat.head();
            chat.settling = Some(upto);
            settle.push(SettleChat {
                chat: id,
                upto,
                acks: chat.acks().collect(),
            });
        }
        settle
    }

    fn send(
        &mut self,
        origin: Origin,
        chat: ChatId,
        peer: Option<UserId>,
        entry: NewEntry,
        now: Timestamp,
        out: &mut Vec<Effect>,
    ) {
        let create = peer.map(|peer| (entry.sender, peer));
        if let Some(known) = self
            .chats
            .get_mut(&chat)
            .filter(|known| known.stage == Stage::Loading)
            && create.is_some()
        {
            // The load under way may have been asked for by somebody who could not make the chat.
            load(known, create, out);
        }
        self.enqueue_with(origin, chat, create, Command::Send(Arc::new(entry)), now, out);
    }

    fn enqueue(
        &mut self,
        origin: Origin,
        chat: ChatId,
        command: Command,
        now: Timestamp,
        out: &mut Vec<Effect>,
    ) {
        self.enqueue_with(origin, chat, None, command, now, out);
    }

    fn enqueue_with(
        &mut self,
        origin: Origin,
        id: ChatId,
        create: Option<(UserId, UserId)>,
        command: Command,
        now: Timestamp,
        out: &mut Vec<Effect>,
    ) {
        if self.waiting >= MAX_WAITING {
            out.push(Effect::Answer {
                origin,
                outcome: Outcome::Refused(Refusal::OVERLOADED),
            });
            return;
        }
        let chat = self
            .chats
            .entry(id)
            .or_insert_with(|| load_new(id, create, now, out));
        chat.last_used = now;
        match chat.enqueue(origin, command) {
            Some(outcome) => out.push(Effect::Answer { origin, outcome }),
            None => {
                self.waiting += 1;
                self.mark_due(id);
            }
        }
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

    fn ack(&mut self, ack: AckWrite, write: bool) {
        if write {
            if self.acks.len() < MAX_WAITING_ACKS {
                self.acks.push(ack);
            }
            return;
        }
        // Without a row and not loaded: nothing of the chat is unsettled here, so nothing hangs on it.
        if let Some(chat) = self.chats.get_mut(&ack.chat)
            && chat.stage == Stage::Ready
            && chat.acknowledge(ack.user, ack.device, ack.seq)
        {
            self.risen.insert(ack.chat);
        }
    }

    fn read(&mut self, id: ChatId, user: UserId, seq: Seq, now: Timestamp, out: &mut Vec<Effect>) {
        if !self.chats.get(&id).is_some_and(|chat| chat.stage == Stage::Ready) {
            self.hold(id, Event::Read { chat: id, user, seq }, now, out);
            return;
        }
        let Some(chat) = self.chats.get_mut(&id) else {
            return;
        };
        if chat.member(user).is_none() || !chat.receipts.read(user, seq.min(chat.head())) {
            return;
        }
        chat.last_used = now;
        let read = chat.receipts.mark(user).read;
        self.risen.insert(id);
        self.write_read(id, user, read, now);
    }

    fn write_read(&mut self, id: ChatId, user: UserId, seq: Seq, now: Timestamp) {
        self.reads.insert((id, user), seq);
        self.reads_due.get_or_insert(now + READ_MARKS_AFTER);
    }

    /// Keeps `event` until the chat is loaded, and has it loaded.
    fn hold(&mut self, id: ChatId, event: Event, now: Timestamp, out: &mut Vec<Effect>) {
        if self.held_count >= MAX_HELD {
            return;
        }
        self.held_count += 1;
        self.held.entry(id).or_default().push(event);
        self.chats
            .entry(id)
            .or_insert_with(|| load_new(id, None, now, out));
    }

    fn loaded(
        &mut self,
        id: ChatId,
        result: Result<Option<Snapshot>, LoadError>,
        now: Timestamp,
        out: &mut Vec<Effect>,
    ) {
        let Some(chat) = self
            .chats
            .get_mut(&id)
            .filter(|chat| chat.stage == Stage::Loading)
        else {
            return;
        };
        chat.loads = chat.loads.saturating_sub(1);
        let refusal = match result {
            // A load that may make the chat is still under way.
            Ok(None) if chat.loads > 0 => return,
            Ok(Some(snapshot)) => {
                let answers = chat.load(snapshot);
                if chat.unsettled.is_some() && chat.settling.is_none() {
                    schedule(&mut self.settle_due, chat, now + SETTLE_AFTER);
                }
                self.answer(answers, out);
                self.mark_due(id);
                let held = self.held.remove(&id).unwrap_or_default();
                self.held_count -= held.len();
                for event in held {
                    self.apply(event, now, out);
                }
                return;
            }
            Ok(None) => Refusal::NotAMember,
            Err(LoadError::PeerNotFound) => Refusal::PeerNotFound,
            Err(LoadError::Away) => Refusal::STORE_AWAY,
        };
        let answers = chat.refuse_all(&refusal);
        self.answer(answers, out);
        self.chats.remove(&id);
        self.held_count -= self.held.remove(&id).map_or(0, |held| held.len());
    }

    fn job_done(&mut self, done: JobDone, now: Timestamp, out: &mut Vec<Effect>) {
        self.busy = false;
        match done {
            JobDone::Commit(results) => {
                for (id, result) in results {
                    self.committed(id, result, now, out);
                }
            }
            JobDone::Acks {
                acks,
                rows: Some(rows),
            } => {
                for ack in acks {
                    let row = rows.get(&(ack.chat, ack.device)).copied();
                    self.ack_written(ack, row, now, out);
                }
            }
            // Unconfirmed, the gateways repeat them; a unary call is told.
            JobDone::Acks { acks, rows: None } => {
                for ack in acks
                    .into_iter()
                    .filter(|ack| matches!(ack.origin, Origin::Call(_)))
                {
                    out.push(Effect::Answer {
                        origin: ack.origin,
                        outcome: Outcome::Refused(Refusal::STORE_AWAY),
                    });
                }
            }
            JobDone::Settle { chats, missing } => self.settled(chats, missing, now, out),
            JobDone::Close { chats, closed } => {
                for (id, upto) in chats {
                    self.close_done(id, upto, closed, now);
                }
            }
            JobDone::Reads { reads, written } => {
                for (chat, user, seq) in reads.into_iter().filter(|_| !written) {
                    if !self.reads.contains_key(&(chat, user)) {
                        self.write_read(chat, user, seq, now);
                    }
                }
            }
        }
    }

    fn committed(&mut self, id: ChatId, result: Committed, now: Timestamp, out: &mut Vec<Effect>) {
        let Some(chat) = self.chats.get_mut(&id) else {
            return;
        };
        let answers = match result {
            Committed::Moved => {
                self.moved(id, now, out);
                return;
            }
            Committed::Behind => {
                let answers = chat.behind();
                load(chat, None, out);
                answers
            }
            Committed::Refused(refusal) => chat.refused(&refusal),
            Committed::Away => {
                let answers = chat.refuse_all(&Refusal::STORE_AWAY);
                // What the store has of it is not known: loaded anew on the next use; what was committed is
                // found unsettled.
                self.chats.remove(&id);
                answers
            }
        };
        self.answer(answers, out);
        self.mark_due(id);
    }

    fn moved(&mut self, id: ChatId, now: Timestamp, out: &mut Vec<Effect>) {
        let Some(chat) = self.chats.get_mut(&id) else {
            return;
        };
        let before: Vec<UserId> = chat.members().map(|(user, _)| user).collect();
        let placed = chat.committed();
        if chat.settling.is_none() && chat.settle_at.is_none() {
            schedule(&mut self.settle_due, chat, now + SETTLE_AFTER);
        }
        let chat = &*chat;
        // Who was removed still gets the entry that says so; who was added gets the entry that added them.
        let mut users = before;
        users.extend(chat.members().map(|(user, _)| user));
        users.sort_unstable();
        users.dedup();
        let mut reads = Vec::new();
        for (entry, origins) in placed {
            let outcome = Outcome::Placed {
                chat: id,
                seq: entry.seq,
                sent_at: entry.sent_at,
            };
            self.waiting = self.waiting.saturating_sub(origins.len());
            out.extend(origins.iter().map(|origin| Effect::Answer {
                origin: *origin,
                outcome: outcome.clone(),
            }));
            if entry.new.kind.is_message() && chat.member(entry.new.sender).is_some() {
                reads.push((entry.new.sender, entry.seq));
            }
            out.push(Effect::Push {
                chat: id,
                users: users.clone(),
                except: origins,
                what: Pushed::Entry(entry),
            });
        }
        for (user, seq) in reads {
            if let Some(chat) = self.chats.get_mut(&id) {
                chat.receipts.sent(user, seq);
            }
            self.write_read(id, user, seq, now);
        }
        self.mark_due(id);
    }

    fn ack_written(&mut self, ack: AckWrite, row: Option<Seq>, now: Timestamp, out: &mut Vec<Effect>) {
        let outcome = Outcome::AckWritten {
            chat: ack.chat,
            seq: ack.seq,
            row,
        };
        out.push(Effect::Answer {
            origin: ack.origin,
            outcome,
        });
        if self
            .chats
            .get(&ack.chat)
            .is_some_and(|chat| chat.stage == Stage::Ready)
        {
            self.ack(ack, false);
        } else {
            // For the senders' delivered ticks.
            let AckWrite {
                origin,
                chat,
                user,
                device,
                seq,
            } = ack;
            self.hold(
                chat,
                Event::Ack {
                    origin,
                    chat,
                    user,
                    device,
                    seq,
                    write: false,
                },
                now,
                out,
            );
        }
    }

    fn settled(
        &mut self,
        chats: Vec<(ChatId, Seq)>,
        missing: Option<HashMap<ChatId, Vec<Missing>>>,
        now: Timestamp,
        out: &mut Vec<Effect>,
    ) {
        let Some(mut missing) = missing else {
            for (id, upto) in chats {
                self.close_done(id, upto, false, now);
            }
            return;
        };
        for (id, upto) in chats {
            match missing.remove(&id).filter(|missing| !missing.is_empty()) {
                Some(missing) => out.push(Effect::Wake {
                    chat: id,
                    upto,
                    missing,
                }),
                None => self.close_done(id, upto, true, now),
            }
        }
    }

    fn wakes_done(&mut self, id: ChatId, upto: Seq, ok: bool, now: Timestamp) {
        if ok {
            self.closes.push((id, upto));
        } else {
            self.close_done(id, upto, false, now);
        }
    }

    fn close_done(&mut self, id: ChatId, upto: Seq, closed: bool, now: Timestamp) {
        let Some(chat) = self.chats.get_mut(&id) else {
            return;
        };
        if closed {
            chat.settled(upto);
        } else {
            chat.settling = None;
        }
        if chat.unsettled.is_some() && chat.settle_at.is_none() {
            let after = if closed { SETTLE_AFTER } else { SETTLE_RETRY };
            schedule(&mut self.settle_due, chat, now + after);
        }
    }

    fn recover(&mut self, id: ChatId, low: Seq, high: Seq, now: Timestamp, out: &mut Vec<Effect>) {
        let Some(chat) = self.chats.get_mut(&id) else {
            self.chats.insert(id, load_new(id, None, now, out));
            return;
        };
        if chat.stage == Stage::Loading || chat.settling.is_some() {
            return;
        }
        chat.unsettled = Some(chat.unsettled.map_or(low, |lowest| lowest.min(low)));
        if high > chat.head() && chat.waiting() == 0 {
            // Another owner committed: what is believed of this chat is stale.
            chat.stage = Stage::Loading;
            load(chat, None, out);
        } else if chat.settle_at.is_none() {
            schedule(&mut self.settle_due, chat, now);
        }
    }

    fn keep_only(&mut self, slots: &HashSet<Slot>, out: &mut Vec<Effect>) {
        let lost: Vec<ChatId> = self
            .chats
            .keys()
            .copied()
            .filter(|id| !slots.contains(&Slot::of_chat(*id)))
            .collect();
        for id in lost {
            let Some(chat) = self.chats.get_mut(&id) else {
                continue;
            };
            if chat.stage == Stage::Ready && !chat.is_due() && chat.waiting() > 0 {
                // Under way at the writer: it ends with its own answer, and the chat goes when it is idle.
                continue;
            }
            let answers = chat.answer_all(&Outcome::NotOwner);
            self.answer(answers, out);
            self.chats.remove(&id);
            self.held_count -= self.held.remove(&id).map_or(0, |held| held.len());
        }
    }

    fn forget_idle(&mut self, now: Timestamp) {
        let crowded = self.chats.len() > MAX_CHATS;
        let idle = if crowded { Duration::from_secs(5) } else { IDLE };
        if now.since(self.swept_at) < idle / 10 {
            return;
        }
        self.swept_at = now;
        let held = &self.held;
        self.chats
            .retain(|id, chat| !chat.is_idle() || held.contains_key(id) || now.since(chat.last_used) < idle);
    }
}

fn schedule(due: &mut BTreeSet<(Timestamp, ChatId)>, chat: &mut Chat, at: Timestamp) {
    if let Some(before) = chat.settle_at.replace(at) {
        due.remove(&(before, chat.id));
    }
    due.insert((at, chat.id));
}

fn load_new(id: ChatId, create: Option<(UserId, UserId)>, now: Timestamp, out: &mut Vec<Effect>) -> Chat {
    let mut chat = Chat::loading(id, now);
    load(&mut chat, create, out);
    chat
}

fn load(chat: &mut Chat, create: Option<(UserId, UserId)>, out: &mut Vec<Effect>) {
    chat.loads += 1;
    out.push(Effect::Load {
        chat: chat.id,
        create,
        requests: chat.requests(),
    });
}
