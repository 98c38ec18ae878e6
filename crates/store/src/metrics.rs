//! The metrics of the store.

use metrics::gauge;
use tern_telemetry::described::Kind::Gauge;
use tern_telemetry::described::{self, Described};

const POSTGRES_SAFE: &str = "tern_node_postgres_setting_safe";

/// The kind, name and description of each metric.
const DESCRIBED: &[Described] = &[(
    Gauge,
    POSTGRES_SAFE,
    "1 when a durability setting of Postgres is safe, by setting and value",
)];

/// Describes the metrics. A process calls it once, when its recorder is installed.
pub fn describe() {
    described::describe(DESCRIBED);
}

pub(crate) fn postgres_setting(name: &'static str, value: &str, safe: bool) {
    gauge!(POSTGRES_SAFE, "setting" => name, "value" => value.to_owned()).set(f64::from(u8::from(safe)));
}
