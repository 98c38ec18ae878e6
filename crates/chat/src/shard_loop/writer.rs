//! Runs the jobs of a shard in its two writers: one commits, the other does the upkeep. Each has one connection, which
//! nothing else uses, and does one job at a time.
//!
//! A writer waits only shortly for a lock of another transaction, and the lock delays only the chat that it is on. If a
//! statement for many chats meets such a lock, it is run again without the chats whose heads are locked; if it meets a
//! lock again, it is run chat by chat. For a while after that the connection waits for no head at all. A statement that
//! the store refuses, or that takes it too long, is run chat by chat too, so that only the bad part fails.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::PgConnection;
use sqlx::postgres::PgConnectOptions;
use tern_cluster::shedding::Meter;
use tern_types::{ChatId, DeviceId, IdMap};
use tokio::sync::mpsc;
use tracing::Instrument;

use tern_chat_core::Refusal;
use tern_chat_core::chat::Batch;
use tern_chat_core::shard::{Committed, Event, Job, JobDone, Lane, ReadMark, SettleChat};

use tern_store::error::{is_conflict, is_locked, is_refusal, is_too_slow};
use tern_store::postgres::connect_hot;

use crate::bell::Rope;
use crate::metrics::{self, JobTimes};
use crate::shard_loop::commit_turns::Turn;
use crate::shard_loop::traces;
use crate::store::by_chat::ByChat;
use crate::store::heads::Heads;
use crate::store::withdraw::Withdrawal;
use crate::store::{change, settle};

/// Returns the settings of the next connection, from `tern_store::postgres::cell_connect_options`. Each may be at another
/// server of the store.
pub type Connect = Arc<dyn Fn() -> PgConnectOptions + Send + Sync>;

/// The most tries of one statement in all, if deadlocks or serialisation failures end it.
const CONFLICT_TRIES: u32 = 5;
/// The longest time that a connection attempt may take. After it the callers are told to try again.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The longest time that one try of a job may take, with all statements of its transaction. It is longer than
/// the server's own statement_timeout of 5 s for each statement: a server that does not even report that its
/// first statement timed out is gone or frozen.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(6);

/// The longest time that a commit waits for a lock of another transaction. All chats of the statement wait with it. It
/// is longer than this node's own upkeep of the same chats takes.
const COMMIT_LOCK_TIMEOUT: Duration = Duration::from_millis(500);
/// The longest time that the upkeep waits for a lock. The upkeep may hold the heads of other chats meanwhile, so this
/// is shorter than the wait of a commit: the commits of those chats outlast it.
const UPKEEP_LOCK_TIMEOUT: Duration = Duration::from_millis(250);
/// The time after meeting a lock for which the connection waits for no head. A locked chat is tried again in a moment,
/// and would delay all others each time.
const WARY_FOR: Duration = Duration::from_secs(5);
/// The longest time that a change of a group waits for a lock during [`WARY_FOR`].
const WARY_LOCK_TIMEOUT: Duration = Duration::from_millis(20);
/// The time for which chats are tried one by one. The chats that are left then come with a later job.
const ONE_BY_ONE_FOR: Duration = Duration::from_secs(2);

/// The refusal that callers get for an entry that the store refuses. No app can repair the cause.
const REFUSED: Refusal = Refusal::Invalid("body", "was refused by the store");

/// A job for a writer.
#[derive(Debug)]
pub struct Given {
    job: Job,
    /// The turn in which a commit is made; `None` for upkeep.
    turn: Option<Turn>,
}

impl Given {
    /// Returns a commit that is made in this turn.
    pub fn in_turn(job: Job, turn: Turn) -> Self {
        let turn = Some(turn);
        Self { job, turn }
    }
}

impl From<Job> for Given {
    fn from(job: Job) -> Self {
        Self { job, turn: None }
    }
}

/// Starts the writer of a lane and returns the queue of its jobs. Each job's result goes to `results`. The writer pulls
/// the `rope` when it has made a push due.
pub fn spawn(
    connect: Connect,
    lane: Lane,
    commit_time: Arc<Meter>,
    times: JobTimes,
    rope: Rope,
    results: mpsc::Sender<Event>,
) -> mpsc::Sender<Given> {
    let (jobs, mut queue) = mpsc::channel(1);
    let lock_timeout = match lane {
        Lane::Commit => COMMIT_LOCK_TIMEOUT,
        Lane::Upkeep => UPKEEP_LOCK_TIMEOUT,
    };
    let lock_timeout = lock_timeout.as_millis().to_string();
    let connect: Connect = Arc::new(move || connect().options([("lock_timeout", lock_timeout.as_str())]));
    let run = async move {
        let mut writer = Writer {
            connect,
            db: None,
            commit_time,
            times,
            rope,
            wary_until: None,
        };
        while let Some(Given { job, turn }) = queue.recv().await {
            let done = match turn {
                Some(turn) => {
                    let asked = turn.asked;
                    turn.cover(Box::pin(writer.run(job, asked))).await
                }
                None => writer.run(job, Instant::now()).await,
            };
            if results.send(Event::JobDone(done)).await.is_err() {
                return;
            }
        }
    };
    tokio::spawn(run.in_current_span());
    jobs
}

/// Runs `$work` on the writer's connection `$db`, and again after a conflict.
macro_rules! attempt {
    ($writer:expr, |$db:ident| $work:expr) => {{
        let mut tries = 0;
        loop {
            let Some($db) = $writer.connection().await else {
                break Err(Failure::Away);
            };
            match tokio::time::timeout(STATEMENT_TIMEOUT, $work).await {
                Ok(Ok(value)) => break Ok(value),
                Err(_) => break Err($writer.hung()),
                Ok(Err(error)) => {
                    if let Some(failure) = $writer.judge(&error, &mut tries) {
                        break Err(failure);
                    }
                }
            }
        }
    }};
}

/// The writer of one lane.
struct Writer {
    connect: Connect,
    commit_time: Arc<Meter>,
    times: JobTimes,
    /// The rope of the bell that wakes the push workers of the cell.
    rope: Rope,
    /// The connection; `None` before the first job, and after the store was away.
    db: Option<PgConnection>,
    /// The time until which the connection waits for no head, after it met a lock.
    wary_until: Option<Instant>,
}

impl Writer {
    /// Runs a job that has waited for its turn since `asked`.
    async fn run(&mut self, job: Job, asked: Instant) -> JobDone {
        let timer = self.times.begin(&job, asked);
        let done = self.run_job(job).await;
        timer.stop();
        done
    }

    async fn run_job(&mut self, job: Job) -> JobDone {
        match job {
            Job::Commit(batches) => {
                let began = Instant::now();
                let committed = self.commit(&batches).await;
                self.commit_time.record(began.elapsed());
                let stored = committed
                    .iter()
                    .filter(|(_, committed)| *committed == Committed::Stored);
                metrics::sent(stored.flat_map(|(batch, _)| batch.entries.iter().map(|entry| &*entry.new)));
                let committed = committed.into_iter();
                JobDone::Commit(
                    committed
                        .map(|(batch, committed)| (batch.chat, committed))
                        .collect(),
                )
            }
            Job::Change(batch) => {
                let patience = self.is_wary().then_some(WARY_LOCK_TIMEOUT);
                let result = match attempt!(self, |db| change::change(db, &batch, patience)) {
                    Ok(change::Changed::Stored) => Committed::Stored,
                    Ok(change::Changed::Conflict) => Committed::Conflict,
                    Ok(change::Changed::Refused(refusal)) => Committed::NotPermitted(refusal),
                    Err(failure) => failure.into(),
                };
                JobDone::Commit(vec![(batch.chat, result)])
            }
            Job::Acks(mut acks) => {
                let (rows, failed) = self.each(&mut acks).await;
                let (unwritten, acks) = acks.into_iter().partition(|ack| failed.contains_key(&ack.chat));
                JobDone::Acks {
                    acks,
                    rows,
                    unwritten,
                }
            }
            Job::Settle(chats) => self.settle(chats).await,
            Job::Close(chats) => {
                let closed = attempt!(self, |db| settle::close(db, &chats)).is_ok();
                JobDone::Close { chats, closed }
            }
            Job::Reads(reads) => self.mark_read(reads).await,
        }
    }

    async fn commit<'a>(&mut self, batches: &'a [Batch]) -> Vec<(&'a Batch, Committed)> {
        let mut batches: Vec<&Batch> = batches.iter().collect();
        let (stored, failed) = self.each(&mut batches).await;
        let outcome = |batch: &Batch| match failed.get(&batch.chat) {
            Some(failure) => (*failure).into(),
            None if stored.contains(&batch.chat) => Committed::Stored,
            None => Committed::Conflict,
        };
        batches.into_iter().map(|batch| (batch, outcome(batch))).collect()
    }

    async fn settle(&mut self, mut chats: Vec<SettleChat>) -> JobDone {
        let spans = traces::settling(&chats);
        let (missing, failures) = self.each(&mut chats).await;
        traces::settled(spans, &missing, |chat| failures.contains_key(&chat));
        let mut devices = missing.values().flatten();
        // A user without a device has the reserved one, which gets no pushes.
        if devices.any(|missing| missing.device != DeviceId::reserved(missing.user)) {
            self.rope.ring();
        }
        let chats = chats.into_iter().map(|settle| (settle.chat, settle.upto));
        let (failed, chats) = chats.partition(|(chat, _)| failures.contains_key(chat));
        JobDone::Settle {
            chats,
            missing,
            failed,
        }
    }

    /// Writes read marks, and then makes due what they withdraw: whoever sends that must find the mark. A mark of which it
    /// is not known whether both are done counts as not written.
    async fn mark_read(&mut self, mut reads: Vec<ReadMark>) -> JobDone {
        let ((), mut failed) = self.each(&mut reads).await;
        let written = reads.iter().filter(|mark| !failed.contains_key(&mark.chat));
        let withdrawals = written.filter(|mark| mark.withdraws).map(Withdrawal::from);
        let mut withdrawals: Vec<Withdrawal> = withdrawals.collect();
        if !withdrawals.is_empty() {
            let (due, not_withdrawn) = self.each(&mut withdrawals).await;
            if due > 0 {
                self.rope.ring();
            }
            failed.extend(not_withdrawn);
        }
        reads.retain(|mark| failed.contains_key(&mark.chat));
        JobDone::Reads { unwritten: reads }
    }

    /// Does the work of many chats, all at once as long as no lock is in the way. Returns the result, and the chats
    /// that failed. It sorts `parts` by chat.
    async fn each<T: ByChat>(&mut self, parts: &mut [T]) -> (T::Found, IdMap<ChatId, Failure>) {
        parts.sort_by_key(ByChat::chat);
        let mut heads = if self.is_wary() {
            Heads::LeaveOut
        } else {
            Heads::Wait
        };
        let mut done = attempt!(self, |db| T::run(db, parts, heads));
        if heads == Heads::Wait && matches!(done, Err(Failure::Locked)) {
            heads = Heads::LeaveOut;
            done = attempt!(self, |db| T::run(db, parts, heads));
        }
        let chats = parts.chunk_by(same_chat).take(2).count();
        match done {
            Ok((found, locked)) => {
                if !locked.is_empty() {
                    self.note_locked();
                }
                (
                    found,
                    locked.into_iter().map(|chat| (chat, Failure::Locked)).collect(),
                )
            }
            Err(Failure::Locked | Failure::Refused | Failure::TooSlow) if chats > 1 => {
                self.one_by_one(parts).await
            }
            Err(failure) => (T::Found::default(), all(parts, failure)),
        }
    }

    /// Does the work chat by chat, for [`ONE_BY_ONE_FOR`]. The chats that are left then count as locked.
    async fn one_by_one<T: ByChat>(&mut self, parts: &[T]) -> (T::Found, IdMap<ChatId, Failure>) {
        let began = Instant::now();
        let (mut found, mut failed) = (T::Found::default(), IdMap::default());
        for part in parts.chunk_by(same_chat) {
            if began.elapsed() > ONE_BY_ONE_FOR {
                failed.extend(all(part, Failure::Locked));
                continue;
            }
            match attempt!(self, |db| T::run(db, part, Heads::LeaveOut)) {
                Ok((more, locked)) => {
                    T::join(&mut found, more);
                    failed.extend(locked.into_iter().map(|chat| (chat, Failure::Locked)));
                }
                Err(failure) => failed.extend(all(part, failure)),
            }
        }
        (found, failed)
    }

    /// Returns whether a lock was met a moment ago, and may still be there.
    fn is_wary(&self) -> bool {
        self.wary_until.is_some_and(|until| Instant::now() < until)
    }

    /// Notes that a lock of another transaction was in the way.
    fn note_locked(&mut self) {
        if !self.is_wary() {
            tracing::warn!("somebody holds a lock in the store: its chats wait");
        }
        self.wary_until = Some(Instant::now() + WARY_FOR);
    }

    /// Gives the connection up after a statement that got no answer. Nobody knows whether it is carried out.
    fn hung(&mut self) -> Failure {
        tracing::warn!("the store does not answer");
        metrics::store_failed("away");
        self.db = None;
        Failure::Away
    }

    /// Decides what an error means. Returns `None` after a conflict with another transaction: the statement is to be
    /// run again. `tries` counts the tries of the statement.
    fn judge(&mut self, error: &sqlx::Error, tries: &mut u32) -> Option<Failure> {
        *tries += 1;
        if is_conflict(error) && *tries < CONFLICT_TRIES {
            tracing::debug!(%error, "conflict, trying again");
            return None;
        }
        if is_locked(error) {
            metrics::store_failed("held");
            self.note_locked();
            return Some(Failure::Locked);
        }
        if is_refusal(error) {
            tracing::error!(%error, "the store refused a statement");
            metrics::store_failed("refused");
            return Some(Failure::Refused);
        }
        if is_too_slow(error) {
            tracing::warn!(%error, "a statement takes the store too long");
            metrics::store_failed("slow");
            return Some(Failure::TooSlow);
        }
        tracing::warn!(%error, "the store is away");
        metrics::store_failed("away");
        self.db = None;
        Some(Failure::Away)
    }

    async fn connect_anew(&self) -> sqlx::Result<PgConnection> {
        connect_hot(&(self.connect)()).await
    }

    /// Returns the connection, and opens it first if there is none. Returns `None` if this one attempt to open it
    /// fails: callers are then told that the store is away.
    async fn connection(&mut self) -> Option<&mut PgConnection> {
        if self.db.is_none() {
            match tokio::time::timeout(CONNECT_TIMEOUT, self.connect_anew()).await {
                Ok(Ok(db)) => self.db = Some(db),
                Ok(Err(error)) => tracing::warn!(%error, "cannot connect to the store"),
                Err(_) => tracing::warn!("connecting to the store takes too long"),
            }
            if self.db.is_none() {
                metrics::store_failed("away");
            }
        }
        self.db.as_mut()
    }
}

/// The reason why a chat's part of a job failed.
#[derive(Debug, Clone, Copy)]
enum Failure {
    /// The store refused the statement because of its content.
    Refused,
    /// Another transaction holds a lock; nothing was written.
    Locked,
    /// The store gave the statement up, because it took too long; nothing was written.
    TooSlow,
    /// The store did not answer, or could not be reached.
    Away,
}

fn same_chat<T: ByChat>(one: &T, other: &T) -> bool {
    one.chat() == other.chat()
}

/// Returns this failure for the chats of all parts.
fn all<T: ByChat>(parts: &[T], failure: Failure) -> IdMap<ChatId, Failure> {
    parts.iter().map(|part| (part.chat(), failure)).collect()
}

impl From<Failure> for Committed {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused => Self::Refused(REFUSED),
            Failure::Locked => Self::Locked,
            Failure::TooSlow => Self::Refused(Refusal::TOO_SLOW),
            Failure::Away => Self::Away,
        }
    }
}
