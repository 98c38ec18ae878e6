//! The metrics of connections and certificates.

use metrics::{counter, gauge};
use tern_telemetry::described::Kind::{Counter, Gauge};
use tern_telemetry::described::{self, Described};

const CERTIFICATE_EXPIRES: &str = "tern_node_certificate_expires_timestamp_seconds";
const CERTIFICATE_READS: &str = "tern_node_certificate_reads_total";
const HANDSHAKES_FAILED: &str = "tern_node_internal_handshakes_failed_total";
const CONNECTIONS: &str = "tern_node_connections";
const CONNECTIONS_ENDED: &str = "tern_node_connections_ended_total";

/// The kind, name and description of each metric.
const DESCRIBED: &[Described] = &[
    (
        Gauge,
        CERTIFICATE_EXPIRES,
        "When the certificate in use ends, in seconds since the epoch, by which: edge, internal",
    ),
    (
        Counter,
        CERTIFICATE_READS,
        "What became of changes of certificates' files, by which and outcome: taken, refused, unreadable (for several seconds)",
    ),
    (
        Counter,
        HANDSHAKES_FAILED,
        "Connections between nodes without TLS that both accept, by direction",
    ),
    (
        Gauge,
        CONNECTIONS,
        "Connections that others made to this process, by listener: clients, internal, admin",
    ),
    (
        Counter,
        CONNECTIONS_ENDED,
        "Connections that were ended for what they did not do, by listener and why: silent (no request), idle, call (an answer not taken), room (for another one), refused (no room)",
    ),
];

/// Describes the metrics. A process calls it once, when its recorder is installed.
pub fn describe() {
    described::describe(DESCRIBED);
    for direction in ["in", "out"] {
        counter!(HANDSHAKES_FAILED, "direction" => direction).absolute(0);
    }
}

pub(crate) fn certificate_expires(of: &'static str, at: i64) {
    gauge!(CERTIFICATE_EXPIRES, "of" => of).set(at as f64);
    for outcome in ["taken", "refused", "unreadable"] {
        counter!(CERTIFICATE_READS, "of" => of, "outcome" => outcome).increment(0);
    }
}

pub(crate) fn certificate_read(of: &'static str, outcome: &'static str) {
    counter!(CERTIFICATE_READS, "of" => of, "outcome" => outcome).increment(1);
}

/// Makes the metrics of a listener visible before its first event.
pub(crate) fn listener(name: &'static str) {
    gauge!(CONNECTIONS, "listener" => name).increment(0.0);
    for why in ["silent", "idle", "call", "room", "refused"] {
        counter!(CONNECTIONS_ENDED, "listener" => name, "why" => why).increment(0);
    }
}

pub(crate) fn connections(listener: &'static str, more: f64) {
    gauge!(CONNECTIONS, "listener" => listener).increment(more);
}

pub(crate) fn connection_ended(listener: &'static str, why: &'static str) {
    counter!(CONNECTIONS_ENDED, "listener" => listener, "why" => why).increment(1);
}

pub(crate) fn connection_refused(listener: &'static str) {
    counter!(CONNECTIONS_ENDED, "listener" => listener, "why" => "refused").increment(1);
}

pub(crate) fn internal_handshake_failed(direction: &'static str) {
    counter!(HANDSHAKES_FAILED, "direction" => direction).increment(1);
}
