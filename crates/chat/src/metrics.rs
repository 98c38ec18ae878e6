//! Defines and records the metrics of a chat node.
//!
//! - [`shard`]: those that a shard updates at each turn of its loop

mod shard;

use std::sync::LazyLock;
use std::time::Duration;

use metrics::{Histogram, counter, gauge, histogram};
use tern_telemetry::described::{self, Described, Kind};

use tern_proto::v1::SendErrorCode;
use tern_telemetry::exemplars;
use tern_types::{Cell, Clock, NoticeKind};

use tern_chat_core::NewEntry;

use shard::{
    DEFERRED, JOB_ITEMS, JOB_SECONDS, LOADED, NOTICES_DROPPED, NOTICES_PASSED, RECEIPTS, RECOVERED, RISEN,
    WAITING,
};
pub use shard::{JobTimes, ShardMetrics};

const SEND_SECONDS: &str = "tern_chat_send_seconds";
const SENDS_REFUSED: &str = "tern_chat_sends_refused_total";
const INBOX_ROWS: &str = "tern_chat_inbox_rows";
const INBOX_OLDEST: &str = "tern_chat_inbox_oldest_seconds";
const WAL_BYTES: &str = "tern_chat_postgres_wal_bytes";
const STORE_FAILURES: &str = "tern_chat_store_failures_total";
const LOADS_REFUSED: &str = "tern_chat_loads_refused_total";
const GATEWAY_LINKS: &str = "tern_chat_gateway_links";
const PUSHES: &str = "tern_chat_pushes_total";
const PUSHES_DROPPED: &str = "tern_chat_pushes_dropped_total";
const LOOKUPS_UNSURE: &str = "tern_chat_lookups_unsure_total";
const LOOKUPS_FAILED: &str = "tern_chat_lookups_failed_total";
const LOOKUPS_AT_GATEWAYS: &str = "tern_chat_lookups_at_gateways_total";
const WAKES_UNCONFIRMED: &str = "tern_chat_wakes_unconfirmed_total";
const SLOTS: &str = "tern_chat_slots";
const MAP_VERSION: &str = "tern_chat_map_version";
const WINDOW_ENTRIES: &str = "tern_chat_window_entries_total";
const ERASURES_OLDEST: &str = "tern_chat_erasures_oldest_seconds";
const ERASED: &str = "tern_chat_erased_entries_total";
const LINK_UP: &str = "tern_chat_link_up";
const NOTICES_IN: &str = "tern_chat_notices_in_total";
const RINGS_LOST: &str = "tern_chat_push_rings_lost_total";
const TRIMMED: &str = "tern_chat_trimmed_total";
const TRIM_FAILURES: &str = "tern_chat_trim_failures_total";
const TRIM_GIVEN_UP: &str = "tern_chat_trim_given_up_total";
const TRIM_HINTS_LOST: &str = "tern_chat_trim_hints_lost_total";
const TRIM_OVERDUE: &str = "tern_chat_trim_overdue_seconds";

/// The kind, name and description of each metric.
const DESCRIBED: &[Described] = &[
    (Kind::Gauge, LOADED, "Chats that a shard holds in memory"),
    (
        Kind::Gauge,
        WAITING,
        "Commands that wait for their chat to be loaded, by shard",
    ),
    (
        Kind::Counter,
        JOB_ITEMS,
        "What jobs of a shard's connections carried, by kind: entries, acknowledgements, chats",
    ),
    (
        Kind::Histogram,
        JOB_SECONDS,
        "Time that a job took a shard's connection, with the wait for its turn, by kind: the sum's rate over commit and change is how busy the one that commits is, over the others the one for upkeep",
    ),
    (
        Kind::Histogram,
        SEND_SECONDS,
        "Time of messages from their arrival at this node to their commit",
    ),
    (
        Kind::Counter,
        SENDS_REFUSED,
        "Messages that were refused, by the code that their device is told",
    ),
    (
        Kind::Gauge,
        INBOX_ROWS,
        "Inbox rows: chats with something that a device lacks, one each; asked by the owner of slot 0, 0 elsewhere",
    ),
    (
        Kind::Gauge,
        INBOX_OLDEST,
        "Age of the oldest inbox row; asked by the owner of slot 0, 0 elsewhere",
    ),
    (
        Kind::Gauge,
        WAL_BYTES,
        "Position of Postgres' WAL, in bytes; asked by the owner of slot 0, 0 elsewhere",
    ),
    (
        Kind::Counter,
        STORE_FAILURES,
        "Statements of shards that failed, by what it meant: away, refused, held, slow",
    ),
    (
        Kind::Counter,
        LOADS_REFUSED,
        "Loads of chats refused because their turn did not come in time",
    ),
    (Kind::Gauge, GATEWAY_LINKS, "Gateways with a link to this node"),
    (Kind::Counter, PUSHES, "Live events sent, one a session, by kind"),
    (
        Kind::Counter,
        RISEN,
        "Watermarks that rose: somebody received or read more",
    ),
    (
        Kind::Counter,
        RECEIPTS,
        "Receipts told, one for each user who is told",
    ),
    (
        Kind::Counter,
        DEFERRED,
        "Watermarks of deliveries that were put off for load",
    ),
    (
        Kind::Counter,
        NOTICES_IN,
        "Notices, such as typing, that came from gateways, by kind",
    ),
    (Kind::Counter, NOTICES_PASSED, "Notices passed on, by kind"),
    (
        Kind::Counter,
        NOTICES_DROPPED,
        "Notices given up, by kind and reason",
    ),
    (
        Kind::Counter,
        PUSHES_DROPPED,
        "Live events given up, by where; devices get them when the chat is settled",
    ),
    (
        Kind::Counter,
        LOOKUPS_FAILED,
        "Look-ups that neither presence nor the gateways answered in full, by purpose",
    ),
    (
        Kind::Counter,
        LOOKUPS_AT_GATEWAYS,
        "Look-ups for which the gateways were asked because a presence node did not answer or was unsure, by outcome: found, failed",
    ),
    (
        Kind::Counter,
        LOOKUPS_UNSURE,
        "Look-ups after which a missing device may not be offline, since etcd is out of sight; their chats are settled again",
    ),
    (
        Kind::Counter,
        WAKES_UNCONFIRMED,
        "Wakes that a gateway did not confirm; their chats are settled again",
    ),
    (
        Kind::Counter,
        RECOVERED,
        "Chats with unsettled entries that their owner did not know of; most were left by a node that is gone",
    ),
    (Kind::Gauge, SLOTS, "Slots that the map gives this node"),
    (
        Kind::Gauge,
        MAP_VERSION,
        "Version of the map that the slots are of",
    ),
    (
        Kind::Counter,
        WINDOW_ENTRIES,
        "Entries read from logs for devices that catch up",
    ),
    (
        Kind::Gauge,
        ERASURES_OLDEST,
        "Age that the oldest deletion had, at the last look, of those whose edits and reactions are still being erased",
    ),
    (
        Kind::Counter,
        ERASED,
        "Edits of deleted messages and reactions to them that were erased after the deletions' commits",
    ),
    (
        Kind::Gauge,
        LINK_UP,
        "1 while the link to a node is up, by role and node",
    ),
    (
        Kind::Counter,
        RINGS_LOST,
        "Times that the store did not take the news of a push that is due; the push workers find it within a second",
    ),
    (
        Kind::Counter,
        TRIMMED,
        "What was taken out of logs since it need not be kept, by what: body, entry",
    ),
    (
        Kind::Counter,
        TRIM_FAILURES,
        "Times that the trimmer was stopped by a cell that did not answer or refused a statement",
    ),
    (
        Kind::Counter,
        TRIM_GIVEN_UP,
        "Times that a chat was not trimmed because the store takes too long for a single entry of it",
    ),
    (
        Kind::Counter,
        TRIM_HINTS_LOST,
        "Hints to the trimmer for which there was no room; what they said is found within the hour",
    ),
    (
        Kind::Gauge,
        TRIM_OVERDUE,
        "Time by which the first message that is to disappear, or the first chat that is to be trimmed, was overdue at the last look, by cell; 0 on nodes that do not look at the cell",
    ),
];

/// Describes the metrics for `/metrics`, and sets counters to 0 that otherwise appear only with their first event. A
/// query of a counter's rate does not see a rise if the counter first appears at 1.
pub fn describe() {
    described::describe(DESCRIBED);
    for name in [
        LOADS_REFUSED,
        LOOKUPS_UNSURE,
        WAKES_UNCONFIRMED,
        RECOVERED,
        RISEN,
        RECEIPTS,
        DEFERRED,
        WINDOW_ENTRIES,
        ERASED,
        RINGS_LOST,
        TRIM_FAILURES,
        TRIM_GIVEN_UP,
        TRIM_HINTS_LOST,
    ] {
        counter!(name).absolute(0);
    }
    for what in ["body", "entry"] {
        counter!(TRIMMED, "what" => what).absolute(0);
    }
    for code in [SendErrorCode::NotAMember, SendErrorCode::Unavailable] {
        counter!(SENDS_REFUSED, "code" => code_name(code)).absolute(0);
    }
    backlog(&Backlog::default());
    erasures(Duration::ZERO);
    for what in ["away", "refused", "held", "slow"] {
        counter!(STORE_FAILURES, "what" => what).absolute(0);
    }
    for purpose in ["push", "settle"] {
        counter!(LOOKUPS_FAILED, "for" => purpose).absolute(0);
    }
    for outcome in ["found", "failed"] {
        counter!(LOOKUPS_AT_GATEWAYS, "outcome" => outcome).absolute(0);
    }
    for kind in NoticeKind::ALL.map(NoticeKind::name) {
        counter!(NOTICES_IN, "kind" => kind).absolute(0);
        for reason in ["fanout", "link", "no_link", "shed", "not_owner", "shard"] {
            counter!(NOTICES_DROPPED, "kind" => kind, "reason" => reason).absolute(0);
        }
    }
    for at in ["fanout", "link", "no_link"] {
        counter!(PUSHES_DROPPED, "at" => at).absolute(0);
    }
}

/// The size of all inboxes in the store, and how much was written to it.
#[derive(Debug, Default, Clone, Copy)]
pub struct Backlog {
    /// The number of inbox rows in the store.
    pub inbox_rows: u64,
    /// The age of the oldest inbox row.
    pub inbox_oldest: Duration,
    /// The position in Postgres's WAL, in bytes.
    pub wal_bytes: i64,
}

/// Sets the size of all inboxes.
pub(crate) fn backlog(backlog: &Backlog) {
    gauge!(INBOX_ROWS).set(backlog.inbox_rows as f64);
    gauge!(INBOX_OLDEST).set(backlog.inbox_oldest.as_secs_f64());
    gauge!(WAL_BYTES).set(backlog.wal_bytes as f64);
}

/// Sets the age that the oldest erasure had at the last look; 0 if there was none.
pub(crate) fn erasures(oldest: Duration) {
    gauge!(ERASURES_OLDEST).set(oldest.as_secs_f64());
}

/// Counts entries about deleted messages that were erased after the deletions' commits.
pub(crate) fn erased(entries: u64) {
    counter!(ERASED).increment(entries);
}

/// Counts a message that was refused, by the code that its device is told.
pub(crate) fn send_refused(code: SendErrorCode) {
    counter!(SENDS_REFUSED, "code" => code_name(code)).increment(1);
}

/// Returns the name of the code in the protos, without the prefix that all codes have.
fn code_name(code: SendErrorCode) -> &'static str {
    let name = code.as_str_name();
    name.strip_prefix("SEND_ERROR_CODE_").unwrap_or(name)
}

/// Records the time of messages from their arrival at this node to their commit, which is now.
pub fn sent<'a>(entries: impl Iterator<Item = &'a NewEntry>) {
    static SECONDS: LazyLock<Histogram> = LazyLock::new(|| histogram!(SEND_SECONDS));
    let now = Clock::monotonic();
    for entry in entries {
        let Some(arrived) = entry.sending.arrived else {
            continue;
        };
        let seconds = now.since(arrived).as_secs_f64();
        SECONDS.record(seconds);
        if let Some(trace) = entry.sending.trace {
            exemplars::note(SEND_SECONDS, None, seconds, trace);
        }
    }
}

/// Counts a shard's statement that failed: the store is "away", it "refused" the statement, another transaction "held"
/// a lock, or the statement was too "slow".
pub(crate) fn store_failed(what: &'static str) {
    counter!(STORE_FAILURES, "what" => what).increment(1);
}

/// Counts a load whose turn did not come in time, because more chats were asked for than the store can give.
pub(crate) fn load_refused() {
    counter!(LOADS_REFUSED).increment(1);
}

/// Sets the number of gateways with a link to this node.
pub(crate) fn gateway_links(links: usize) {
    gauge!(GATEWAY_LINKS).set(links as f64);
}

/// Counts live events that were sent, one for each session, by kind.
pub fn pushed(kind: &'static str, sessions: usize) {
    counter!(PUSHES, "kind" => kind).increment(sessions as u64);
}

/// Counts a notice that came from a gateway.
pub(crate) fn notice_in(kind: NoticeKind) {
    counter!(NOTICES_IN, "kind" => kind.name()).increment(1);
}

/// Counts a notice that was given up, by reason.
pub(crate) fn notice_dropped(kind: NoticeKind, reason: &'static str) {
    counter!(NOTICES_DROPPED, "kind" => kind.name(), "reason" => reason).increment(1);
}

/// Counts a live event that was given up, by place. If it is an entry, devices get it when the chat is settled.
pub(crate) fn push_dropped(at: &'static str) {
    counter!(PUSHES_DROPPED, "at" => at).increment(1);
}

/// Counts a look-up for which the gateways were asked in place of a presence node, and whether all of them answered.
pub(crate) fn looked_up_at_gateways(answered: bool) {
    let outcome = if answered { "found" } else { "failed" };
    counter!(LOOKUPS_AT_GATEWAYS, "outcome" => outcome).increment(1);
}

/// Counts a look-up that neither presence nor the gateways answered in full.
pub(crate) fn lookup_failed(purpose: &'static str) {
    counter!(LOOKUPS_FAILED, "for" => purpose).increment(1);
}

/// Counts a look-up that was unsure: a user for whom it found no session may be online all the same.
pub(crate) fn lookup_unsure() {
    counter!(LOOKUPS_UNSURE).increment(1);
}

/// Counts a wake that a gateway did not confirm. Its chat is settled again.
pub(crate) fn wake_unconfirmed() {
    counter!(WAKES_UNCONFIRMED).increment(1);
}

/// Sets the number of slots that the map gives this node, and the map's version.
pub fn slots(slots: usize, version: i64) {
    gauge!(SLOTS).set(slots as f64);
    gauge!(MAP_VERSION).set(version as f64);
}

/// Counts the entries of a window that was read for a device that catches up.
pub fn window(entries: usize) {
    counter!(WINDOW_ENTRIES).increment(entries as u64);
}

/// Counts a ring for the push workers that the store did not take.
pub(crate) fn ring_lost() {
    counter!(RINGS_LOST).increment(1);
}

/// Counts bodies that were erased because they need not be kept, and entries that were deleted.
pub(crate) fn trimmed(bodies: u64, entries: u64) {
    counter!(TRIMMED, "what" => "body").increment(bodies);
    counter!(TRIMMED, "what" => "entry").increment(entries);
}

/// Counts work of the trimmer that the store did not carry out. It is done again.
pub(crate) fn trim_failed() {
    counter!(TRIM_FAILURES).increment(1);
}

/// Counts a chat that was not trimmed because the store takes too long for a single entry of it.
pub(crate) fn trim_given_up() {
    counter!(TRIM_GIVEN_UP).increment(1);
}

/// Counts a hint to the trimmer for which there was no room.
pub(crate) fn trim_hint_lost() {
    counter!(TRIM_HINTS_LOST).increment(1);
}

/// Sets the time by which the first thing that the trimmer found due in the cell was overdue.
pub(crate) fn trim_overdue(cell: Cell, overdue: Duration) {
    gauge!(TRIM_OVERDUE, "cell" => cell.number().to_string()).set(overdue.as_secs_f64());
}

/// Sets whether the link to a presence node is up.
pub(crate) fn presence_link_up(node: &str, up: bool) {
    gauge!(LINK_UP, "role" => "presence", "node" => node.to_owned()).set(f64::from(u8::from(up)));
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Mutex;

    use metrics::{
        Counter, Gauge, Key, KeyName, Metadata, Recorder, SharedString, Unit, with_local_recorder,
    };

    use super::*;

    /// The counters that were named so far: the name of each, and the values of its labels.
    #[derive(Default)]
    struct Named(Mutex<HashSet<String>>);

    impl Recorder for Named {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            let labels = key.labels().map(|label| format!(" {}", label.value()));
            let name = format!("{}{}", key.name(), labels.collect::<String>());
            self.0.lock().unwrap().insert(name);
            Counter::noop()
        }

        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }

        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    #[test]
    fn counters_of_what_is_given_up_are_there_before_their_first_event() {
        let named = Named::default();
        with_local_recorder(&named, describe);
        let named = named.0.into_inner().unwrap();
        assert!(named.contains(LOOKUPS_UNSURE));
        for reason in ["fanout", "link", "no_link", "shed", "not_owner", "shard"] {
            assert!(
                named.contains(&format!("{NOTICES_DROPPED} typing {reason}")),
                "{reason}"
            );
        }
    }
}
