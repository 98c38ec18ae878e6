//! Describes and records the metrics that the canary exports.

use std::time::Duration;

use metrics::{counter, histogram};
use tern_telemetry::described::Kind::{Counter, Histogram};
use tern_telemetry::described::{self, Described};

use super::round::Step;

const MESSAGES: &str = "tern_canary_messages_total";
const FAILURES: &str = "tern_canary_failures_total";
const SECONDS: &str = "tern_canary_message_seconds";

/// The kind, name and description of each metric.
const DESCRIBED: &[Described] = &[
    (
        Counter,
        MESSAGES,
        "Messages of the canary, by outcome: ok when the sender had the receipt in time",
    ),
    (
        Counter,
        FAILURES,
        "Messages of the canary that failed, by the step that did not come",
    ),
    (Histogram, SECONDS, "Time from the send of a message to each step"),
];

/// Describes the metrics and sets every counter to 0, so that `/metrics` shows all of them from the start.
pub fn describe() {
    described::describe(DESCRIBED);
    for outcome in ["ok", "failed"] {
        counter!(MESSAGES, "outcome" => outcome).absolute(0);
    }
    for step in Step::ALL {
        counter!(FAILURES, "step" => step.as_str()).absolute(0);
    }
}

/// Records the time from a message's send to this step.
pub fn took(step: Step, time: Duration) {
    histogram!(SECONDS, "step" => step.as_str()).record(time.as_secs_f64());
}

/// Counts a message whose sender had the receipt in time.
pub fn ok() {
    counter!(MESSAGES, "outcome" => "ok").increment(1);
}

/// Counts a message that failed because this step did not come.
pub fn failed(step: Step) {
    counter!(MESSAGES, "outcome" => "failed").increment(1);
    counter!(FAILURES, "step" => step.as_str()).increment(1);
}
