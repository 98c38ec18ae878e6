//! The metrics of one shard, which are looked up once.

use std::time::Instant;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use tern_types::NoticeKind;

use tern_chat_core::shard::{Counts, DropReason, Job, NoticeCounts, ShardState};

pub(super) const LOADED: &str = "tern_chat_loaded_chats";
pub(super) const WAITING: &str = "tern_chat_waiting_commands";
pub(super) const JOB_ITEMS: &str = "tern_chat_job_items_total";
pub(super) const JOB_SECONDS: &str = "tern_chat_job_seconds";
pub(super) const RISEN: &str = "tern_chat_watermarks_risen_total";
pub(super) const RECEIPTS: &str = "tern_chat_receipts_total";
pub(super) const DEFERRED: &str = "tern_chat_receipts_deferred_total";
pub(super) const RECOVERED: &str = "tern_chat_recovered_chats_total";
pub(super) const NOTICES_PASSED: &str = "tern_chat_notices_passed_total";
pub(super) const NOTICES_DROPPED: &str = "tern_chat_notices_dropped_total";

/// The counters of the notices of one kind.
struct NoticeCounters {
    passed: Counter,
    dropped: [Counter; DropReason::ALL.len()],
}

impl NoticeCounters {
    fn new(kind: NoticeKind) -> Self {
        let kind = kind.name();
        let dropped =
            |reason: DropReason| counter!(NOTICES_DROPPED, "kind" => kind, "reason" => reason.name());
        Self {
            passed: counter!(NOTICES_PASSED, "kind" => kind),
            dropped: DropReason::ALL.map(dropped),
        }
    }

    fn count(&self, counts: &NoticeCounts) {
        self.passed.increment(counts.passed);
        for (counter, dropped) in self.dropped.iter().zip(counts.dropped) {
            counter.increment(dropped);
        }
    }
}

/// The metrics of one shard. They are looked up once, because the shard updates them at each turn of its loop.
pub struct ShardMetrics {
    loaded: Gauge,
    waiting: Gauge,
    items: [Counter; 6],
    risen: Counter,
    receipts: Counter,
    deferred: Counter,
    recovered: Counter,
    notices: [NoticeCounters; NoticeKind::ALL.len()],
}

impl ShardMetrics {
    /// Looks up the metrics of the shard with this number.
    pub fn new(shard: usize) -> Self {
        let shard = shard.to_string();
        let items = |kind| counter!(JOB_ITEMS, "kind" => kind, "shard" => shard.clone());
        Self {
            loaded: gauge!(LOADED, "shard" => shard.clone()),
            waiting: gauge!(WAITING, "shard" => shard.clone()),
            items: KINDS.map(items),
            risen: counter!(RISEN),
            receipts: counter!(RECEIPTS),
            deferred: counter!(DEFERRED),
            recovered: counter!(RECOVERED),
            notices: NoticeKind::ALL.map(NoticeCounters::new),
        }
    }

    /// Counts the items of a job.
    pub fn job(&self, job: &Job) {
        let size = match job {
            Job::Commit(batches) => batches.iter().map(|batch| batch.entries.len()).sum(),
            Job::Change(_) => 1,
            Job::Acks(acks) => acks.len(),
            Job::Settle(chats) => chats.len(),
            Job::Close(chats) => chats.len(),
            Job::Reads(reads) => reads.len(),
        };
        self.items[kind(job)].increment(size as u64);
    }

    /// Counts receipts, notices and recovered chats.
    pub fn count(&self, counts: &Counts) {
        self.risen.increment(counts.risen);
        self.receipts.increment(counts.receipts);
        self.deferred.increment(counts.deferred);
        self.recovered.increment(counts.recovered);
        for (counters, counts) in self.notices.iter().zip(&counts.notices) {
            counters.count(counts);
        }
    }

    /// Sets how many chats and commands the shard holds.
    pub fn holds(&self, state: &ShardState) {
        self.loaded.set(state.chats() as f64);
        self.waiting.set(state.waiting() as f64);
    }
}

/// The times that one shard's jobs take, by kind.
pub struct JobTimes([Histogram; 6]);

impl JobTimes {
    /// Looks up the times of the shard with this number.
    pub fn new(shard: usize) -> Self {
        let shard = shard.to_string();
        Self(KINDS.map(|kind| histogram!(JOB_SECONDS, "kind" => kind, "shard" => shard.clone())))
    }

    /// Begins to measure a job that began, or asked for its turn, at `began`.
    pub fn begin(&self, job: &Job, began: Instant) -> JobTimer {
        JobTimer {
            times: self.0[kind(job)].clone(),
            began,
        }
    }
}

/// The timer of one job. A timer that is not stopped records nothing.
pub struct JobTimer {
    times: Histogram,
    began: Instant,
}

impl JobTimer {
    /// Records the time since the job began.
    pub fn stop(self) {
        self.times.record(self.began.elapsed().as_secs_f64());
    }
}

/// The names of the kinds of jobs.
const KINDS: [&str; 6] = ["commit", "change", "ack", "settle", "close", "read"];

/// Returns the index of the job's kind in [`KINDS`].
fn kind(job: &Job) -> usize {
    match job {
        Job::Commit(_) => 0,
        Job::Change(_) => 1,
        Job::Acks(_) => 2,
        Job::Settle(_) => 3,
        Job::Close(_) => 4,
        Job::Reads(_) => 5,
    }
}
