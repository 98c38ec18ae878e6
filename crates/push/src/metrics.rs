//! The metrics of a push node.

use std::time::Duration;

use metrics::{counter, gauge, histogram};
use tern_push_core::Why;
use tern_telemetry::described::Kind::{Counter, Gauge, Histogram};
use tern_telemetry::described::{self, Described};
use tern_types::Cell;

use crate::provider::Provider;

const DUE: &str = "tern_push_due";
const OLDEST_DUE: &str = "tern_push_oldest_due_seconds";
const CLAIMED: &str = "tern_push_claimed_total";
const REPEATED: &str = "tern_push_claims_repeated_total";
const SENT: &str = "tern_push_sent_total";
const ENDED: &str = "tern_push_ended_total";
const HELD: &str = "tern_push_held_total";
const FAILED: &str = "tern_push_failed_total";
const AGE: &str = "tern_push_age_seconds";
const TOKENS_ENDED: &str = "tern_push_tokens_ended_total";
const BREAKERS: &str = "tern_push_breaker_open";
const STORE_FAILURES: &str = "tern_push_store_failures_total";
const PRESENCE_FAILURES: &str = "tern_push_presence_failures_total";

/// The metric that a relay has too.
const BREAKERS_DESCRIBED: Described = (
    Gauge,
    BREAKERS,
    "breakers that are open, by provider: its service is left alone for a while",
);

/// The kind, name and description of each metric.
const DESCRIBED: &[Described] = &[
    (
        Gauge,
        DUE,
        "pushes that are due and not claimed, by cell, up to 10,000",
    ),
    (
        Gauge,
        OLDEST_DUE,
        "seconds for which the push that is due first has been due, by cell",
    ),
    (Counter, CLAIMED, "pushes that this node has claimed"),
    (
        Counter,
        REPEATED,
        "pushes claimed of a worker that did not come to an end within 30 s",
    ),
    (
        Counter,
        SENT,
        "pushes that a provider took, by provider and class",
    ),
    (Counter, ENDED, "pushes that ended unsent, by why"),
    (Counter, HELD, "pushes that were put off, by why"),
    (
        Counter,
        FAILED,
        "pushes that a provider did not take, by provider and reason",
    ),
    (
        Histogram,
        AGE,
        "seconds from when a push was to go out until a provider took it",
    ),
    (
        Counter,
        TOKENS_ENDED,
        "tokens that ended because their provider said so or no device named them, by provider",
    ),
    BREAKERS_DESCRIBED,
    (
        Counter,
        STORE_FAILURES,
        "statements of this node's workers that failed, by step",
    ),
    (
        Counter,
        PRESENCE_FAILURES,
        "questions to presence nodes that failed",
    ),
];

/// The steps of a worker that ask the store.
const STEPS: [&str; 5] = ["claim", "look", "note", "token", "due"];

/// The reasons that any provider may have for not taking a push.
const REASONS: [&str; 11] = [
    "breaker",
    "broken",
    "connect",
    "no_key",
    "payload_too_large",
    "provider_token",
    "request",
    "timeout",
    "too_many",
    "unavailable",
    "unexpected",
];

/// The reasons for which a push is put off.
const HOLDS: [&str; 7] = [
    "live",
    "active",
    "quiet_hours",
    "crowded",
    "unknown",
    "service",
    "late",
];

/// Registers the kinds, names and descriptions of the metrics for `/metrics`.
pub fn describe() {
    described::describe(DESCRIBED);
    // Counters start at 0, so that a metric is visible before its first event.
    for name in [CLAIMED, REPEATED, PRESENCE_FAILURES] {
        counter!(name).absolute(0);
    }
    for why in Why::ALL {
        counter!(ENDED, "why" => why.as_str()).absolute(0);
    }
    for why in HOLDS {
        counter!(HELD, "why" => why).absolute(0);
    }
    for step in STEPS {
        counter!(STORE_FAILURES, "step" => step).absolute(0);
    }
    begin_breakers();
    for provider in Provider::ALL {
        counter!(TOKENS_ENDED, "provider" => provider.as_str()).absolute(0);
        for class in ["alert", "badge", "withdraw", "silent"] {
            counter!(SENT, "provider" => provider.as_str(), "class" => class).absolute(0);
        }
        for reason in REASONS {
            counter!(FAILED, "provider" => provider.as_str(), "reason" => reason).absolute(0);
        }
    }
}

/// Describes the breakers alone.
pub(crate) fn describe_breakers() {
    described::describe(&[BREAKERS_DESCRIBED]);
    begin_breakers();
}

fn begin_breakers() {
    for provider in Provider::ALL {
        gauge!(BREAKERS, "provider" => provider.as_str()).set(0.0);
    }
}

pub(crate) fn due(cell: Cell, count: u64, overdue: Duration) {
    let cell = cell.number().to_string();
    gauge!(DUE, "cell" => cell.clone()).set(count as f64);
    gauge!(OLDEST_DUE, "cell" => cell).set(overdue.as_secs_f64());
}

pub(crate) fn claimed(count: usize, repeated: usize) {
    counter!(CLAIMED).increment(count as u64);
    counter!(REPEATED).increment(repeated as u64);
}

pub(crate) fn sent(provider: Provider, class: &'static str, age: Duration) {
    counter!(SENT, "provider" => provider.as_str(), "class" => class).increment(1);
    histogram!(AGE).record(age.as_secs_f64());
}

pub(crate) fn ended(why: Why) {
    counter!(ENDED, "why" => why.as_str()).increment(1);
}

pub(crate) fn held(why: &'static str) {
    counter!(HELD, "why" => why).increment(1);
}

pub(crate) fn failed(provider: Provider, reason: &'static str) {
    counter!(FAILED, "provider" => provider.as_str(), "reason" => reason).increment(1);
}

pub(crate) fn token_ended(provider: Provider) {
    counter!(TOKENS_ENDED, "provider" => provider.as_str()).increment(1);
}

pub(crate) fn breaker_opened(provider: Provider) {
    gauge!(BREAKERS, "provider" => provider.as_str()).increment(1.0);
}

pub(crate) fn breaker_closed(provider: Provider) {
    gauge!(BREAKERS, "provider" => provider.as_str()).decrement(1.0);
}

pub(crate) fn store_failed(step: &'static str) {
    counter!(STORE_FAILURES, "step" => step).increment(1);
}

pub(crate) fn presence_failed() {
    counter!(PRESENCE_FAILURES).increment(1);
}
