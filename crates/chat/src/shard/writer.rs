//! A shard's connection: it commits, settles and acknowledges, one job at a time, and nothing else uses it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, PgConnection};
use tern_node::shedding::Meter;
use tern_types::{ChatId, IdSet};
use tokio::sync::mpsc;
use tracing::Instrument;

use crate::metrics::{self, JobTimes};
use crate::shard::traces;
use crate::state::Refusal;
use crate::state::chat::Batch;
use crate::state::shard::{Committed, Event, Job, JobDone};
use crate::store::{ack, commit, is_conflict, is_refusal, settle};

/// How to reach the database; see `tern_node::postgres::hot_connect_options`.
pub type Connect = PgConnectOptions;

/// Tries of one job after deadlocks or serialisation failures.
const CONFLICT_TRIES: u32 = 5;
/// A connection attempt takes no longer: whoever waits is told to come again instead.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Longer than the server's own statement_timeout: a server that does not even say that is gone or frozen.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(6);

/// What entries the store refuses: nothing that an app can mend.
const REFUSED: Refusal = Refusal::Invalid("body", "was refused by the store");

/// Starts the writer; each job's result goes to `results`.
pub fn spawn(
    connect: Connect,
    commit_time: Arc<Meter>,
    times: JobTimes,
    results: mpsc::Sender<Event>,
) -> mpsc::Sender<Job> {
    let (jobs, mut queue) = mpsc::channel(1);
    let run = async move {
        let mut writer = Writer {
            connect,
            db: None,
            commit_time,
            times,
        };
        while let Some(job) = queue.recv().await {
            let done = writer.run(job).await;
            if results.send(Event::JobDone(done)).await.is_err() {
                return;
            }
        }
    };
    tokio::spawn(run.in_current_span());
    jobs
}

/// Runs `$work` on the writer's connection `$db`, again after a conflict.
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

struct Writer {
    connect: Connect,
    commit_time: Arc<Meter>,
    times: JobTimes,
    db: Option<PgConnection>,
}

impl Writer {
    async fn run(&mut self, job: Job) -> JobDone {
        let timer = self.times.begin(&job);
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
                let moved = batches.iter().zip(&committed);
                let moved = moved.filter(|(_, (_, committed))| matches!(committed, Committed::Moved));
                metrics::sent(moved.flat_map(|(batch, _)| batch.entries.iter().map(|entry| &*entry.new)));
                JobDone::Commit(committed)
            }
            Job::Change(batch) => {
                let result = match attempt!(self, |db| commit::change(db, &batch)) {
                    Ok(commit::Changed::Moved) => Committed::Moved,
                    Ok(commit::Changed::Behind) => Committed::Behind,
                    Ok(commit::Changed::Refused(refusal)) => Committed::Refused(refusal),
                    Err(failure) => failure.into(),
                };
                JobDone::Commit(vec![(batch.chat, result)])
            }
            Job::Acks(acks) => {
                let rows = attempt!(self, |db| ack::acknowledge(db, &acks)).ok();
                JobDone::Acks { acks, rows }
            }
            Job::Settle(chats) => {
                let spans = traces::settling(&chats);
                let missing = attempt!(self, |db| settle::settle(db, &chats)).ok();
                traces::settled(spans, missing.as_ref());
                let chats = chats
                    .into_iter()
                    .map(|settle| (settle.chat, settle.upto))
                    .collect();
                JobDone::Settle { chats, missing }
            }
            Job::Close(chats) => {
                let closed = attempt!(self, |db| settle::close(db, &chats)).is_ok();
                JobDone::Close { chats, closed }
            }
            Job::Reads(reads) => {
                let written = attempt!(self, |db| ack::mark_read(db, &reads)).is_ok();
                JobDone::Reads { reads, written }
            }
        }
    }

    /// All in one statement; after an error that is not the connection's, chat by chat, so that a bad entry fails alone.
    async fn commit(&mut self, batches: &[Batch]) -> Vec<(ChatId, Committed)> {
        let outcome = |moved: &IdSet<ChatId>, chat| {
            if moved.contains(&chat) {
                Committed::Moved
            } else {
                Committed::Behind
            }
        };
        match attempt!(self, |db| commit::commit(db, batches)) {
            Ok(moved) => batches
                .iter()
                .map(|batch| (batch.chat, outcome(&moved, batch.chat)))
                .collect(),
            Err(Failure::Refused) if batches.len() > 1 => {
                let mut results = Vec::with_capacity(batches.len());
                for batch in batches {
                    let alone = std::slice::from_ref(batch);
                    let result = match attempt!(self, |db| commit::commit(db, alone)) {
                        Ok(moved) => outcome(&moved, batch.chat),
                        Err(failure) => failure.into(),
                    };
                    results.push((batch.chat, result));
                }
                results
            }
            Err(failure) => batches.iter().map(|batch| (batch.chat, failure.into())).collect(),
        }
    }

    /// Whether the statement is carried out is not known.
    fn hung(&mut self) -> Failure {
        tracing::warn!("the store does not answer");
        metrics::store_failed("away");
        self.db = None;
        Failure::Away
    }

    /// `None`: a conflict with another transaction, to be tried again.
    fn judge(&mut self, error: &sqlx::Error, tries: &mut u32) -> Option<Failure> {
        *tries += 1;
        if is_conflict(error) && *tries < CONFLICT_TRIES {
            tracing::debug!(%error, "conflict, trying again");
            return None;
        }
        if is_refusal(error) {
            tracing::error!(%error, "the store refused a statement");
            metrics::store_failed("refused");
            return Some(Failure::Refused);
        }
        tracing::warn!(%error, "the store is away");
        metrics::store_failed("away");
        self.db = None;
        Some(Failure::Away)
    }

    /// One attempt to connect a call; whoever waits is told that the store is away, and comes again.
    async fn connection(&mut self) -> Option<&mut PgConnection> {
        if self.db.is_none() {
            match tokio::time::timeout(CONNECT_TIMEOUT, self.connect.connect()).await {
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

#[derive(Debug, Clone, Copy)]
enum Failure {
    Refused,
    Away,
}

impl From<Failure> for Committed {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused => Self::Refused(REFUSED),
            Failure::Away => Self::Away,
        }
    }
}
