//! The metrics of the store.

use metrics::{counter, gauge};
use tern_telemetry::described::Kind::{Counter, Gauge};
use tern_telemetry::described::{self, Described};

const POSTGRES_SAFE: &str = "tern_node_postgres_setting_safe";
const CELLS_LEFT_OUT: &str = "tern_node_cells_left_out_total";

/// The kind, name and description of each metric.
const DESCRIBED: &[Described] = &[
    (
        Gauge,
        POSTGRES_SAFE,
        "1 when a durability setting of Postgres is safe, by setting and value",
    ),
    (
        Counter,
        CELLS_LEFT_OUT,
        "Answers about a user without the part of a cell that did not answer",
    ),
];

/// Describes the metrics. A process calls it once, when its recorder is installed.
pub fn describe() {
    described::describe(DESCRIBED);
}

/// Sets the counter to 0 on a node that asks cells, so that the metric is visible before its first event.
pub(crate) fn has_cells() {
    counter!(CELLS_LEFT_OUT).absolute(0);
}

pub(crate) fn cell_left_out() {
    counter!(CELLS_LEFT_OUT).increment(1);
}

pub(crate) fn postgres_setting(name: &'static str, value: &str, safe: bool) {
    gauge!(POSTGRES_SAFE, "setting" => name, "value" => value.to_owned()).set(f64::from(u8::from(safe)));
}
