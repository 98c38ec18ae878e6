//! What a chat node exports.

use std::time::Instant;

use metrics::{Counter, Gauge, counter, gauge, histogram};

use crate::state::shard::{Counts, DropReason, Job, ShardState};

/// One shard's own, found once: it counts each turn of its loop.
pub struct ShardMetrics {
    loaded: Gauge,
    waiting: Gauge,
    items: [Counter; 6],
    risen: Counter,
    receipts: Counter,
    typing: Counter,
    typing_dropped: [Counter; DropReason::ALL.len()],
}

impl ShardMetrics {
    pub fn new(shard: usize) -> Self {
        let shard = shard.to_string();
        let dropped =
            |reason: DropReason| counter!("tern_chat_typing_dropped_total", "reason" => reason.name());
        let items = |kind| counter!("tern_chat_job_items_total", "kind" => kind, "shard" => shard.clone());
        Self {
            loaded: gauge!("tern_chat_loaded_chats", "shard" => shard.clone()),
            waiting: gauge!("tern_chat_waiting_commands", "shard" => shard.clone()),
            items: KINDS.map(items),
            risen: counter!("tern_chat_watermarks_risen_total"),
            receipts: counter!("tern_chat_receipts_total"),
            typing: counter!("tern_chat_typing_passed_total"),
            typing_dropped: DropReason::ALL.map(dropped),
        }
    }

    /// How much a job carries.
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

    /// What happened to receipts and typing.
    pub fn count(&self, counts: &Counts) {
        self.risen.increment(counts.risen);
        self.receipts.increment(counts.receipts);
        self.typing.increment(counts.typing);
        for (counter, dropped) in self.typing_dropped.iter().zip(counts.typing_dropped) {
            counter.increment(dropped);
        }
    }

    /// What the shard holds.
    pub fn holds(&self, state: &ShardState) {
        self.loaded.set(state.chats() as f64);
        self.waiting.set(state.waiting() as f64);
    }
}

/// Measures one job.
pub fn job_timer(job: &Job) -> JobTimer {
    JobTimer {
        kind: KINDS[kind(job)],
        began: Instant::now(),
    }
}

#[derive(Debug)]
pub struct JobTimer {
    kind: &'static str,
    began: Instant,
}

impl JobTimer {
    pub fn stop(self) {
        histogram!("tern_chat_job_seconds", "kind" => self.kind).record(self.began.elapsed().as_secs_f64());
    }
}

/// Kinds of jobs.
const KINDS: [&str; 6] = ["commit", "change", "ack", "settle", "close", "read"];

/// Its place among [`KINDS`].
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

/// Loads whose turn did not come in time: more chats were asked for than the store can give.
pub fn load_refused() {
    counter!("tern_chat_loads_refused_total").increment(1);
}

/// Gateways with a link to this node.
pub fn gateway_links(links: usize) {
    gauge!("tern_chat_gateway_links").set(links as f64);
}

/// Live events sent, one a session, by kind.
pub fn pushed(kind: &'static str, sessions: usize) {
    counter!("tern_chat_pushes_total", "kind" => kind).increment(sessions as u64);
}

/// Typing that came from a gateway.
pub fn typing_in() {
    counter!("tern_chat_typing_in_total").increment(1);
}

/// Typing given up, by reason.
pub fn typing_dropped(reason: &'static str) {
    counter!("tern_chat_typing_dropped_total", "reason" => reason).increment(1);
}

/// Live events given up: devices get them when the chat is settled.
pub fn push_dropped(at: &'static str) {
    counter!("tern_chat_pushes_dropped_total", "at" => at).increment(1);
}

/// Look-ups that a presence node did not answer.
pub fn lookup_failed(purpose: &'static str) {
    counter!("tern_chat_lookups_failed_total", "for" => purpose).increment(1);
}

/// Wakes that a gateway did not confirm: their chats are settled again.
pub fn wake_unconfirmed() {
    counter!("tern_chat_wakes_unconfirmed_total").increment(1);
}

/// Chats whose unsettled entries were found in the store, left by an owner that is gone.
pub fn recovered(chats: usize) {
    counter!("tern_chat_recovered_chats_total").increment(chats as u64);
}

/// Slots that the map gives this node, and the map's version.
pub fn slots(slots: usize, version: i64) {
    gauge!("tern_chat_slots").set(slots as f64);
    gauge!("tern_chat_map_version").set(version as f64);
}

/// Windows of logs read for devices that catch up.
pub fn window(entries: usize) {
    counter!("tern_chat_window_entries_total").increment(entries as u64);
}

/// Whether a presence node can be asked.
pub fn presence_link_up(node: &str, up: bool) {
    gauge!("tern_chat_link_up", "role" => "presence", "node" => node.to_owned()).set(f64::from(u8::from(up)));
}
