//! Keeps exemplars. The exemplar of a bucket of a latency histogram is the trace of a recent call that fell into the
//! bucket, so it leads from a slow bucket on a dashboard to a trace of such a call. Only the OpenMetrics format has
//! exemplars, and a scraper asks for that format in its `Accept` header.
//!
//! The metrics recorder does not support exemplars. This module keeps them, for sampled traces only, and writes them
//! into the recorder's text.
//!
//! Source: the OpenMetrics specification, version 1.0.0 (prometheus.io/docs/specs/om/open_metrics_spec).

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{LazyLock, Mutex, PoisonError};

use tern_types::{Clock, Timestamp, TraceContext};

use crate::bounds;

/// The media type by which a scraper's `Accept` header asks for OpenMetrics.
pub const MEDIA_TYPE: &str = "application/openmetrics-text";
/// The content type of an answer in OpenMetrics.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

static KNOWN: LazyLock<Mutex<Exemplars>> = LazyLock::new(Mutex::default);

/// A histogram's label as name and value, or `None` if the histogram has no label.
type Label = Option<(&'static str, String)>;

#[derive(Debug, Clone, Copy)]
struct Exemplar {
    trace_id: u128,
    value: f64,
    at: Timestamp,
}

/// The newest exemplar of each bucket, for each histogram and label. However many calls are fast, the slow one keeps its
/// place.
#[derive(Debug, Default)]
struct Exemplars(HashMap<(&'static str, Label), Vec<Option<Exemplar>>>);

/// Remembers that `value`, in seconds, was recorded in this histogram within the sampled trace `trace`.
pub fn note(histogram: &'static str, label: Option<(&'static str, &str)>, value: f64, trace: TraceContext) {
    let label = label.map(|(name, value)| (name, value.to_owned()));
    let exemplar = Exemplar {
        trace_id: u128::from_be_bytes(trace.trace_id),
        value,
        at: Clock::wall(),
    };
    lock().note(histogram, label, exemplar);
}

/// Turns the recorder's text into OpenMetrics with exemplars.
pub fn open_metrics(text: &str) -> String {
    lock().write(text)
}

fn lock() -> std::sync::MutexGuard<'static, Exemplars> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Exemplars {
    fn note(&mut self, histogram: &'static str, label: Label, exemplar: Exemplar) {
        let bounds = bounds(histogram);
        let bucket = bounds.partition_point(|upto| *upto < exemplar.value);
        let kept = self.0.entry((histogram, label)).or_default();
        // The last bucket has no bound.
        kept.resize(bounds.len() + 1, None);
        kept[bucket] = Some(exemplar);
    }

    /// Returns the exemplar of the bucket of values that are above `above` and at most `upto`.
    fn within(&self, histogram: &str, labels: &str, above: f64, upto: f64) -> Option<Exemplar> {
        let (_, kept) = self
            .0
            .iter()
            .find(|((name, label), _)| *name == histogram && is(label.as_ref(), labels))?;
        let inside = |exemplar: &&Exemplar| exemplar.value > above && exemplar.value <= upto;
        kept.iter().flatten().find(inside).copied()
    }

    fn write(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len() + 256);
        // The series and the upper bound of the bucket that was written last. The next bucket of the same series begins
        // at this bound.
        let mut before: (&str, f64) = ("", f64::NEG_INFINITY);
        for line in text.lines().filter(|line| !line.is_empty()) {
            let bucket = bucket(line);
            if let Some(rest) = line.strip_prefix("# ") {
                out.push_str("# ");
                out.push_str(&family(rest));
            } else {
                out.push_str(line);
            }
            if let Some(Bucket {
                series,
                name,
                labels,
                upto,
            }) = bucket
            {
                let above = if before.0 == series {
                    before.1
                } else {
                    f64::NEG_INFINITY
                };
                if let Some(exemplar) = self.within(name, labels, above, upto) {
                    let seconds = exemplar.at.0 as f64 / 1000.0;
                    let _ = write!(
                        out,
                        " # {{trace_id=\"{:032x}\"}} {} {seconds:.3}",
                        exemplar.trace_id, exemplar.value
                    );
                }
                before = (series, upto);
            }
            out.push('\n');
        }
        out.push_str("# EOF\n");
        out
    }
}

/// Returns a `HELP` or `TYPE` comment in the form of OpenMetrics, which names a counter without its `_total`.
fn family(comment: &str) -> String {
    let mut words = comment.splitn(3, ' ');
    match (words.next(), words.next(), words.next()) {
        (Some(keyword), Some(name), Some(rest)) => {
            format!("{keyword} {} {rest}", name.strip_suffix("_total").unwrap_or(name))
        }
        _ => comment.to_owned(),
    }
}

struct Bucket<'a> {
    /// The line up to its label `le`: the name, and the other labels. It identifies the series.
    series: &'a str,
    name: &'a str,
    labels: &'a str,
    upto: f64,
}

/// Parses a line such as `name_bucket{kind="commit",le="0.004"} 12`. Returns `None` if it is not a bucket.
fn bucket(line: &str) -> Option<Bucket<'_>> {
    let (name, rest) = line.split_once("_bucket{")?;
    let at = rest.rfind("le=\"")?;
    let (labels, le) = rest.split_at(at);
    let bound = le.strip_prefix("le=\"")?.split_once('"')?.0;
    let upto = match bound {
        "+Inf" => f64::INFINITY,
        bound => bound.parse().ok()?,
    };
    let series = line.get(..line.len() - le.len())?;
    let labels = labels.trim_end_matches(',');
    Some(Bucket {
        series,
        name,
        labels,
        upto,
    })
}

fn is(label: Option<&(&'static str, String)>, labels: &str) -> bool {
    match label {
        None => labels.is_empty(),
        Some((name, value)) => labels
            .strip_prefix(name)
            .and_then(|rest| rest.strip_prefix("=\""))
            .and_then(|rest| rest.strip_suffix('"'))
            .is_some_and(|known| known == value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# HELP calls_total Calls
# TYPE calls_total counter
calls_total{method=\"a\"} 3

# HELP call_seconds Time
# TYPE call_seconds histogram
call_seconds_bucket{method=\"a\",le=\"0.001\"} 1
call_seconds_bucket{method=\"a\",le=\"0.002\"} 2
call_seconds_bucket{method=\"a\",le=\"+Inf\"} 3
call_seconds_sum{method=\"a\"} 5.0025
call_seconds_count{method=\"a\"} 3
call_seconds_bucket{method=\"b\",le=\"0.001\"} 0
call_seconds_bucket{method=\"b\",le=\"+Inf\"} 1
other_seconds_bucket{le=\"0.001\"} 1

";

    fn exemplar(trace_id: u128, value: f64) -> Exemplar {
        Exemplar {
            trace_id,
            value,
            at: Timestamp(1_700_000_000_500),
        }
    }

    #[test]
    fn each_bucket_names_the_newest_trace_that_fell_into_it() {
        let mut known = Exemplars::default();
        let a = || Some(("method", "a".to_owned()));
        known.note("call_seconds", a(), exemplar(1, 0.002));
        known.note("call_seconds", a(), exemplar(2, 0.0015));
        known.note("call_seconds", a(), exemplar(3, 5.0));
        known.note("other_seconds", None, exemplar(4, 0.0001));
        let text = known.write(TEXT);
        let lines: Vec<&str> = text.lines().collect();
        let id = |id: u128| format!("# {{trace_id=\"{id:032x}\"}}");
        assert_eq!(lines[0], "# HELP calls Calls");
        assert_eq!(lines[1], "# TYPE calls counter");
        assert_eq!(lines[2], "calls_total{method=\"a\"} 3");
        assert_eq!(lines[5], "call_seconds_bucket{method=\"a\",le=\"0.001\"} 1");
        assert_eq!(
            lines[6],
            format!(
                "call_seconds_bucket{{method=\"a\",le=\"0.002\"}} 2 {} 0.0015 1700000000.500",
                id(2)
            )
        );
        assert!(
            lines[7].ends_with(&format!("{} 5 1700000000.500", id(3))),
            "{}",
            lines[7]
        );
        assert_eq!(lines[10], "call_seconds_bucket{method=\"b\",le=\"0.001\"} 0");
        assert_eq!(lines[11], "call_seconds_bucket{method=\"b\",le=\"+Inf\"} 1");
        assert!(
            lines[12].ends_with(&format!("{} 0.0001 1700000000.500", id(4))),
            "{}",
            lines[12]
        );
        assert_eq!(lines.last(), Some(&"# EOF"));
        assert!(!text.contains("\n\n"), "OpenMetrics has no empty lines");
    }

    #[test]
    fn a_slow_call_is_known_however_many_fast_ones_follow_and_what_is_kept_is_bounded() {
        let mut known = Exemplars::default();
        known.note("call_seconds", None, exemplar(1, 100.0));
        for id in 2..100 {
            known.note("call_seconds", None, exemplar(id, 0.001));
        }
        let of = |above, upto| {
            known
                .within("call_seconds", "", above, upto)
                .map(|found| found.trace_id)
        };
        assert_eq!(of(60.0, f64::INFINITY), Some(1));
        assert_eq!(of(0.000_5, 0.001), Some(99), "the newest");
        assert_eq!(of(0.001, 0.002), None);
        assert_eq!(
            known.0[&("call_seconds", None)].len(),
            bounds("call_seconds").len() + 1
        );
    }
}
