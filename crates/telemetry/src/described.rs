//! What `/metrics` says of each metric.

use metrics::{describe_counter, describe_gauge, describe_histogram};

/// How a metric behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// How often values in each range were seen.
    Histogram,
}

/// A metric: its kind, its name, and what it counts or measures.
pub type Described = (Kind, &'static str, &'static str);

/// Describes the metrics to the recorder of this process.
pub fn describe(metrics: &[Described]) {
    for (kind, name, what) in metrics {
        match kind {
            Kind::Counter => describe_counter!(*name, *what),
            Kind::Gauge => describe_gauge!(*name, *what),
            Kind::Histogram => describe_histogram!(*name, *what),
        }
    }
}
