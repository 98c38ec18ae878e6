//! The metrics of a relay.

use std::sync::Arc;

use metrics::counter;
use tern_telemetry::described::Kind::Counter;
use tern_telemetry::described::{self, Described};

use crate::metrics as breakers;
use crate::provider::Delivery;

const PUSHES: &str = "tern_push_relay_pushes_total";
const STRANGERS: &str = "tern_push_relay_unauthenticated_total";

/// The kind, name and description of each metric.
const DESCRIBED: &[Described] = &[
    (
        Counter,
        PUSHES,
        "pushes of other platforms, by the key's name and outcome: sent, token_ended, later, refused, limited (above the key's rate)",
    ),
    (Counter, STRANGERS, "calls with no key that is known"),
];

/// Describes the metrics. Those of each key are visible before its first push.
pub(super) fn describe<'a>(names: impl Iterator<Item = &'a Arc<str>>) {
    described::describe(DESCRIBED);
    breakers::describe_breakers();
    counter!(STRANGERS).absolute(0);
    for name in names {
        for outcome in ["sent", "token_ended", "later", "refused", "limited"] {
            counter!(PUSHES, "key" => name.clone(), "outcome" => outcome).absolute(0);
        }
    }
}

pub(super) fn forwarded(key: &Arc<str>, became: &Delivery) {
    let outcome = match became {
        Delivery::Sent => "sent",
        Delivery::TokenEnded { .. } => "token_ended",
        Delivery::Later { .. } => "later",
        Delivery::Refused { .. } => "refused",
    };
    counter!(PUSHES, "key" => key.clone(), "outcome" => outcome).increment(1);
}

pub(super) fn limited(key: &Arc<str>, pushes: u64) {
    counter!(PUSHES, "key" => key.clone(), "outcome" => "limited").increment(pushes);
}

pub(super) fn stranger() {
    counter!(STRANGERS).increment(1);
}
