//! The metrics of a gateway.

use std::sync::LazyLock;
use std::time::Duration;

use metrics::{Counter, counter, gauge, histogram};
use tern_proto::ApiError;
use tern_proto::error::reason_name;
use tern_telemetry::described::{self, Described, Kind};
use tern_telemetry::{exemplars, trace};
use tern_types::NoticeKind;
use tonic::Code;

const SESSIONS: &str = "tern_gateway_sessions";
const MAX_SESSIONS: &str = "tern_gateway_max_sessions";
const STREAMS: &str = "tern_gateway_streams";
const ENDS: &str = "tern_gateway_stream_ends_total";
const OPENS: &str = "tern_gateway_opens_total";
const STREAMS_CUT: &str = "tern_gateway_streams_cut_total";
const WEBSOCKETS: &str = "tern_gateway_websockets_total";
const ORIGINS_REFUSED: &str = "tern_gateway_origins_refused_total";
const FRAMES_OUT: &str = "tern_gateway_frames_out_total";
const EVENTS_OUT: &str = "tern_gateway_events_out_total";
const ITEMS_IN: &str = "tern_gateway_items_in_total";
const LIVE_DROPPED: &str = "tern_gateway_live_dropped_total";
const RECEIPTS_DROPPED: &str = "tern_gateway_receipts_dropped_total";
const NOTICES_DROPPED: &str = "tern_gateway_notices_dropped_total";
const WAKES_DEFERRED: &str = "tern_gateway_wakes_deferred_total";
const REDRAINS: &str = "tern_gateway_redrains_total";
const INBOX_READS: &str = "tern_gateway_inbox_reads_total";
const SWEEP_FOUND: &str = "tern_gateway_sweep_found_total";
const WATCHES: &str = "tern_gateway_watches";
const PRESENCE_TOLD: &str = "tern_gateway_presence_told_total";
const LINK_UP: &str = "tern_gateway_link_up";
const REFUSED: &str = "tern_gateway_link_refused_total";
const REROUTED: &str = "tern_gateway_rerouted_total";
const UNARY: &str = "tern_gateway_unary_total";
const UNARY_SECONDS: &str = "tern_gateway_unary_seconds";
/// The kind, name and description of each metric.
const DESCRIBED: &[Described] = &[
    (Kind::Gauge, SESSIONS, "Registered sessions"),
    (
        Kind::Gauge,
        MAX_SESSIONS,
        "Sessions that this gateway takes at most",
    ),
    (
        Kind::Gauge,
        STREAMS,
        "Open streams, those that have not sent Open too",
    ),
    (Kind::Counter, ENDS, "Streams that ended, by reason"),
    (
        Kind::Counter,
        OPENS,
        "Streams that were greeted with Opened, and those that were not",
    ),
    (
        Kind::Counter,
        STREAMS_CUT,
        "Streams whose connection was cut off because they took nothing",
    ),
    (
        Kind::Counter,
        WEBSOCKETS,
        "Requests for a WebSocket: those that became one, and those that did not",
    ),
    (
        Kind::Counter,
        ORIGINS_REFUSED,
        "Requests of pages whose origin is not allowed, to the unary APIs",
    ),
    (Kind::Histogram, UNARY_SECONDS, "Time of unary calls, by method"),
    (Kind::Counter, FRAMES_OUT, "Frames written to devices"),
    (Kind::Counter, EVENTS_OUT, "Events written to devices"),
    (Kind::Counter, ITEMS_IN, "Items that devices sent, by kind"),
    (
        Kind::Counter,
        LIVE_DROPPED,
        "Live pushes dropped because a session did not keep up",
    ),
    (
        Kind::Counter,
        RECEIPTS_DROPPED,
        "Receipts that found no room at a session, whose device then asks for them",
    ),
    (
        Kind::Counter,
        NOTICES_DROPPED,
        "Notices, such as typing, that were not passed on, by kind and reason",
    ),
    (
        Kind::Counter,
        WAKES_DEFERRED,
        "Wakes that found a session's mailbox full; its inbox is read instead",
    ),
    (
        Kind::Counter,
        REDRAINS,
        "Sessions whose inbox was asked for again, by cause",
    ),
    (Kind::Counter, INBOX_READS, "Queries for inboxes, by outcome"),
    (
        Kind::Counter,
        SWEEP_FOUND,
        "Inbox rows that only the sweep found: each is a defect",
    ),
    (
        Kind::Gauge,
        WATCHES,
        "People whom sessions look at, once for each session",
    ),
    (
        Kind::Counter,
        PRESENCE_TOLD,
        "Sessions that were told what somebody shows",
    ),
    (
        Kind::Gauge,
        LINK_UP,
        "1 while the link to a node is up, by role and node",
    ),
    (
        Kind::Counter,
        REFUSED,
        "Items that found no way to their chat's node, by kind",
    ),
    (
        Kind::Counter,
        REROUTED,
        "Items and calls that a node gave back as not its own",
    ),
    (Kind::Counter, UNARY, "Unary calls, by method and status code"),
];

/// Registers the descriptions of the metrics, and sets most counters and some gauges to 0.
pub(crate) fn describe() {
    described::describe(DESCRIBED);
    // Counters begin at 0. One that first appears at 1 would not have risen in the eyes of an alert.
    for name in [
        SWEEP_FOUND,
        STREAMS_CUT,
        ORIGINS_REFUSED,
        LIVE_DROPPED,
        RECEIPTS_DROPPED,
        WAKES_DEFERRED,
    ] {
        counter!(name).absolute(0);
    }
    for outcome in ["ok", "partial", "failed"] {
        counter!(INBOX_READS, "outcome" => outcome).absolute(0);
    }
    for kind in ["send", "ack", "read", "window"] {
        counter!(REFUSED, "kind" => kind).absolute(0);
    }
    for kind in ["item", "call"] {
        counter!(REROUTED, "kind" => kind).absolute(0);
    }
    for cause in ["announced_again", "presence_moved", "receipts_lost", "passed_by"] {
        counter!(REDRAINS, "cause" => cause).absolute(0);
    }
    for outcome in ["UPGRADED", "NOT_ASKED_FOR", "BAD_KEY", "ORIGIN_REFUSED"] {
        counter!(WEBSOCKETS, "outcome" => outcome).absolute(0);
    }
    for gauge in [gauge!(SESSIONS), gauge!(STREAMS)] {
        gauge.set(0.0);
    }
}

pub(crate) fn max_sessions(count: usize) {
    gauge!(MAX_SESSIONS).set(count as f64);
}

pub(crate) fn sessions(count: usize) {
    gauge!(SESSIONS).set(count as f64);
}

pub(crate) fn stream_began() {
    gauge!(STREAMS).increment(1.0);
}

pub(crate) fn stream_ended(outcome: Option<&ApiError>, opened: bool) {
    gauge!(STREAMS).decrement(1.0);
    let reason = outcome.map_or("LEFT", |error| reason_name(error.reason));
    counter!(ENDS, "reason" => reason).increment(1);
    if !opened {
        counter!(OPENS, "outcome" => reason).increment(1);
    }
}

pub(crate) fn stream_cut() {
    counter!(STREAMS_CUT).increment(1);
}

pub(crate) fn websocket(outcome: &'static str) {
    counter!(WEBSOCKETS, "outcome" => outcome).increment(1);
}

pub(crate) fn origin_refused() {
    counter!(ORIGINS_REFUSED).increment(1);
}

pub(crate) fn opened() {
    counter!(OPENS, "outcome" => "OPENED").increment(1);
}

pub(crate) fn frame_out(events: usize) {
    // The counters are looked up once, since every frame counts.
    static OUT: LazyLock<[Counter; 2]> = LazyLock::new(|| [counter!(FRAMES_OUT), counter!(EVENTS_OUT)]);
    OUT[0].increment(1);
    OUT[1].increment(events as u64);
}

pub(crate) fn item_in(kind: &'static str) {
    counter!(ITEMS_IN, "kind" => kind).increment(1);
}

pub(crate) fn live_dropped() {
    counter!(LIVE_DROPPED).increment(1);
}

pub(crate) fn receipt_dropped() {
    counter!(RECEIPTS_DROPPED).increment(1);
}

pub(crate) fn notice_dropped(kind: NoticeKind, reason: &'static str) {
    counter!(NOTICES_DROPPED, "kind" => kind.name(), "reason" => reason).increment(1);
}

pub(crate) fn wake_deferred() {
    counter!(WAKES_DEFERRED).increment(1);
}

pub(crate) fn redrained(cause: &'static str, sessions: usize) {
    counter!(REDRAINS, "cause" => cause).increment(sessions as u64);
}

pub(crate) fn watches(count: usize) {
    gauge!(WATCHES).set(count as f64);
}

pub(crate) fn presence_told(sessions: usize) {
    counter!(PRESENCE_TOLD).increment(sessions as u64);
}

pub(crate) fn inbox_read(outcome: &'static str) {
    counter!(INBOX_READS, "outcome" => outcome).increment(1);
}

pub(crate) fn sweep_found() {
    counter!(SWEEP_FOUND).increment(1);
}

pub(crate) fn link_up(role: &'static str, node: &str, up: bool) {
    gauge!(LINK_UP, "role" => role, "node" => node.to_owned()).set(f64::from(u8::from(up)));
}

/// The guard that reports a link as up until it is dropped, whatever ends the link.
pub(crate) struct LinkUp(&'static str, String);

impl LinkUp {
    pub(crate) fn new(role: &'static str, node: &str) -> Self {
        link_up(role, node, true);
        Self(role, node.to_owned())
    }
}

impl Drop for LinkUp {
    fn drop(&mut self) {
        link_up(self.0, &self.1, false);
    }
}

pub(crate) fn refused(kind: &'static str) {
    counter!(REFUSED, "kind" => kind).increment(1);
}

pub(crate) fn rerouted(kind: &'static str) {
    counter!(REROUTED, "kind" => kind).increment(1);
}

pub(crate) fn unary(path: &str, code: Code, took: Duration) {
    counter!(UNARY, "method" => path.to_owned(), "code" => format!("{code:?}")).increment(1);
    let seconds = took.as_secs_f64();
    histogram!(UNARY_SECONDS, "method" => path.to_owned()).record(seconds);
    if let Some(trace) = trace::context(&tracing::Span::current()) {
        exemplars::note(UNARY_SECONDS, Some(("method", path)), seconds, trace);
    }
}
