//! The metrics of an accounts node.

use metrics::counter;
use tern_telemetry::described::Kind::Counter;
use tern_telemetry::described::{self, Described};

const LINKED: &str = "tern_accounts_devices_linked_total";
const REVOKED: &str = "tern_accounts_devices_revoked_total";
const REFRESHES: &str = "tern_accounts_refreshes_total";
const KEY_CHECKS: &str = "tern_accounts_key_checks_total";
const UNFINISHED: &str = "tern_accounts_revocations_resumed_total";
const STRANGERS: &str = "tern_accounts_new_strangers_total";
const SUSPENSIONS: &str = "tern_accounts_suspensions_total";
const PEER_FAILURES: &str = "tern_accounts_peer_failures_total";

/// The kind, name and description of each metric.
const DESCRIBED: &[Described] = &[
    (Counter, LINKED, "devices linked, repeated requests too"),
    (Counter, REVOKED, "devices revoked, by cause"),
    (Counter, REFRESHES, "refresh tokens presented, by outcome"),
    (Counter, KEY_CHECKS, "API keys presented, by outcome"),
    (
        Counter,
        UNFINISHED,
        "revocations that were finished later than by the call that began them",
    ),
    (
        Counter,
        STRANGERS,
        "strangers that users asked to watch for the first time in a day, by outcome",
    ),
    (Counter, SUSPENSIONS, "users suspended and resumed, by which"),
    (Counter, PEER_FAILURES, "failed calls to other nodes, by call"),
];

/// Registers the kinds, names and descriptions of the metrics for `/metrics`.
pub fn describe() {
    described::describe(DESCRIBED);
    // Counters start at 0, so that a metric is visible before its first event.
    for name in [LINKED, UNFINISHED] {
        counter!(name).absolute(0);
    }
    for outcome in ["valid", "invalid"] {
        counter!(KEY_CHECKS, "outcome" => outcome).absolute(0);
    }
    counter!(REFRESHES, "outcome" => "exchanged").absolute(0);
    for what in ["suspended", "resumed"] {
        counter!(SUSPENSIONS, "what" => what).absolute(0);
    }
    for call in [
        "link_device",
        "unlink_device",
        "close_devices",
        "suspension_changed",
        "privacy_changed",
        "blocks_changed",
        "have_written",
        "append_own",
    ] {
        counter!(PEER_FAILURES, "call" => call).absolute(0);
    }
}

pub(crate) fn linked() {
    counter!(LINKED).increment(1);
}

pub(crate) fn revoked(cause: &'static str) {
    counter!(REVOKED, "cause" => cause).increment(1);
}

pub(crate) fn suspended(suspended: bool) {
    let what = if suspended { "suspended" } else { "resumed" };
    counter!(SUSPENSIONS, "what" => what).increment(1);
}

pub(crate) fn refresh(outcome: &'static str) {
    counter!(REFRESHES, "outcome" => outcome).increment(1);
}

pub(crate) fn key_check(outcome: &'static str) {
    counter!(KEY_CHECKS, "outcome" => outcome).increment(1);
}

pub(crate) fn revocation_resumed() {
    counter!(UNFINISHED).increment(1);
}

pub(crate) fn strangers(watched: usize, limited: usize) {
    counter!(STRANGERS, "outcome" => "watched").increment(watched as u64);
    counter!(STRANGERS, "outcome" => "limited").increment(limited as u64);
}

pub(crate) fn peer_failure(call: &'static str) {
    counter!(PEER_FAILURES, "call" => call).increment(1);
}
