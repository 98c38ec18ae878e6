//! The metrics of a gateway.

use std::sync::LazyLock;

use metrics::{Counter, counter, describe_counter, describe_gauge, gauge};
use tern_proto::ApiError;
use tern_proto::error::reason_name;
use tonic::Code;

const SESSIONS: &str = "tern_gateway_sessions";
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
const TYPING_DROPPED: &str = "tern_gateway_typing_dropped_total";
const WAKES_DEFERRED: &str = "tern_gateway_wakes_deferred_total";
const REDRAINS: &str = "tern_gateway_redrains_total";
const INBOX_READS: &str = "tern_gateway_inbox_reads_total";
const SWEEP_FOUND: &str = "tern_gateway_sweep_found_total";
const LINK_UP: &str = "tern_gateway_link_up";
const REFUSED: &str = "tern_gateway_link_refused_total";
const REROUTED: &str = "tern_gateway_rerouted_total";
const UNARY: &str = "tern_gateway_unary_total";

pub(crate) fn describe() {
    describe_gauge!(SESSIONS, "Registered sessions");
    describe_gauge!(STREAMS, "Open streams, those that have not sent Open too");
    describe_counter!(ENDS, "Streams that ended, by reason");
    describe_counter!(
        OPENS,
        "Streams that were greeted with Opened, and those that were not"
    );
    describe_counter!(
        STREAMS_CUT,
        "Streams whose connection was cut off because they took nothing"
    );
    describe_counter!(
        WEBSOCKETS,
        "Requests for a WebSocket: those that became one, and those that did not"
    );
    describe_counter!(
        ORIGINS_REFUSED,
        "Requests of pages whose origin is not allowed, to the unary APIs"
    );
    describe_counter!(FRAMES_OUT, "Frames written to devices");
    describe_counter!(EVENTS_OUT, "Events written to devices");
    describe_counter!(ITEMS_IN, "Items that devices sent, by kind");
    describe_counter!(
        LIVE_DROPPED,
        "Live pushes dropped because a session did not keep up"
    );
    describe_counter!(TYPING_DROPPED, "Typing that was not passed on, by reason");
    describe_counter!(
        WAKES_DEFERRED,
        "Wakes that found a session's mailbox full; its inbox is read instead"
    );
    describe_counter!(REDRAINS, "Sessions whose inbox was asked for again, by cause");
    describe_counter!(INBOX_READS, "Queries for inboxes, by outcome");
    describe_counter!(
        SWEEP_FOUND,
        "Inbox rows that only the sweep found: each is a defect"
    );
    describe_gauge!(LINK_UP, "1 while the link to a node is up, by role and node");
    describe_counter!(REFUSED, "Items that found no way to their chat's node, by kind");
    describe_counter!(REROUTED, "Items and calls that a node gave back as not its own");
    describe_counter!(UNARY, "Unary calls, by method and status code");
    // A defect that never happened is to be seen as 0.
    counter!(SWEEP_FOUND).absolute(0);
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
    // Found once: these count all that goes out.
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

pub(crate) fn typing_dropped(reason: &'static str) {
    counter!(TYPING_DROPPED, "reason" => reason).increment(1);
}

pub(crate) fn wake_deferred() {
    counter!(WAKES_DEFERRED).increment(1);
}

pub(crate) fn redrained(cause: &'static str, sessions: usize) {
    counter!(REDRAINS, "cause" => cause).increment(sessions as u64);
}

pub(crate) fn inbox_read(ok: bool) {
    counter!(INBOX_READS, "outcome" => if ok { "ok" } else { "failed" }).increment(1);
}

pub(crate) fn sweep_found() {
    counter!(SWEEP_FOUND).increment(1);
}

pub(crate) fn link_up(role: &'static str, node: &str, up: bool) {
    gauge!(LINK_UP, "role" => role, "node" => node.to_owned()).set(f64::from(u8::from(up)));
}

pub(crate) fn refused(kind: &'static str) {
    counter!(REFUSED, "kind" => kind).increment(1);
}

pub(crate) fn rerouted(kind: &'static str) {
    counter!(REROUTED, "kind" => kind).increment(1);
}

pub(crate) fn unary(path: &str, code: Code) {
    counter!(UNARY, "method" => path.to_owned(), "code" => format!("{code:?}")).increment(1);
}
