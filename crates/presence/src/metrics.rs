//! The metrics of a presence node.

use metrics::{counter, gauge};
use tern_telemetry::described::Kind::{Counter, Gauge};
use tern_telemetry::described::{self, Described};

const SESSIONS: &str = "tern_presence_sessions";
const ANNOUNCEMENTS: &str = "tern_presence_announcements_total";
const LOOKUPS: &str = "tern_presence_lookups_total";
const LOOKED_UP_USERS: &str = "tern_presence_looked_up_users_total";
const NOT_OWNER: &str = "tern_presence_not_owner_total";
const REPLACED: &str = "tern_presence_replaced_sessions_total";
const MAP_WAITS: &str = "tern_presence_map_waits_total";
const WATCHES: &str = "tern_presence_watches";
const FOLLOWED: &str = "tern_presence_followed_users";
const CHANGES: &str = "tern_presence_changes_total";
const LAST_SEEN: &str = "tern_presence_last_seen_total";
const LINKS_ENDED: &str = "tern_presence_links_ended_total";

/// The kind, name and description of each metric.
const DESCRIBED: &[Described] = &[
    (Gauge, SESSIONS, "live sessions of the users in this node's slots"),
    (Counter, ANNOUNCEMENTS, "sessions announced or ended by gateways"),
    (Counter, LOOKUPS, "look-ups answered"),
    (Counter, LOOKED_UP_USERS, "users asked for in look-ups"),
    (
        Counter,
        NOT_OWNER,
        "announcements and look-ups refused because the slot is another node's",
    ),
    (
        Counter,
        REPLACED,
        "sessions reported as replaced by a newer one of their device",
    ),
    (
        Counter,
        MAP_WAITS,
        "frames that waited for this node's map to catch up",
    ),
    (Gauge, WATCHES, "people watched, once for each gateway"),
    (
        Gauge,
        FOLLOWED,
        "users whose changes of sessions chat nodes are told",
    ),
    (Counter, CHANGES, "states told to gateways that watch"),
    (
        Counter,
        LAST_SEEN,
        "people whose last seen was read or written, by what and outcome",
    ),
    (
        Counter,
        LINKS_ENDED,
        "announce streams ended by this node, by reason",
    ),
];

/// Registers the names and descriptions of the metrics for `/metrics`.
pub fn describe() {
    described::describe(DESCRIBED);
    // Counters start at 0, so that what has not happened yet can be seen.
    for name in [SESSIONS, WATCHES, FOLLOWED] {
        gauge!(name).set(0.0);
    }
    for name in [ANNOUNCEMENTS, CHANGES, LOOKUPS, LOOKED_UP_USERS, REPLACED] {
        counter!(name).absolute(0);
    }
    for call in ["announce", "lookup"] {
        counter!(NOT_OWNER, "call" => call).absolute(0);
    }
    for what in ["read", "write"] {
        for outcome in ["ok", "failed"] {
            counter!(LAST_SEEN, "what" => what, "outcome" => outcome).absolute(0);
        }
    }
    for outcome in ["caught_up", "in_vain"] {
        counter!(MAP_WAITS, "outcome" => outcome).absolute(0);
    }
    for reason in ["superseded_or_left", "slow"] {
        counter!(LINKS_ENDED, "reason" => reason).absolute(0);
    }
}

pub(crate) fn sessions(count: usize) {
    gauge!(SESSIONS).set(count as f64);
}

pub(crate) fn announcements(count: usize) {
    counter!(ANNOUNCEMENTS).increment(count as u64);
}

pub(crate) fn lookups(lookups: usize, users: usize) {
    counter!(LOOKUPS).increment(lookups as u64);
    counter!(LOOKED_UP_USERS).increment(users as u64);
}

pub(crate) fn not_owner(call: &'static str) {
    counter!(NOT_OWNER, "call" => call).increment(1);
}

pub(crate) fn replaced() {
    counter!(REPLACED).increment(1);
}

pub(crate) fn map_wait(outcome: &'static str) {
    counter!(MAP_WAITS, "outcome" => outcome).increment(1);
}

pub(crate) fn watches(count: usize) {
    gauge!(WATCHES).set(count as f64);
}

pub(crate) fn followed(users: usize) {
    gauge!(FOLLOWED).set(users as f64);
}

pub(crate) fn changes(count: usize) {
    counter!(CHANGES).increment(count as u64);
}

pub(crate) fn last_seen(what: &'static str, ok: bool, people: usize) {
    let outcome = if ok { "ok" } else { "failed" };
    counter!(LAST_SEEN, "what" => what, "outcome" => outcome).increment(people as u64);
}

pub(crate) fn link_ended(reason: &'static str) {
    counter!(LINKS_ENDED, "reason" => reason).increment(1);
}
