//! Describes metrics, so that `/metrics` says what each of them is.

use metrics::{describe_counter, describe_gauge, describe_histogram};

/// The kind of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The value only rises.
    Counter,
    /// The value rises and falls.
    Gauge,
    /// The metric counts how many values fell into each range.
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
