//! Sets up the logs, traces and metrics of a process.
//!
//! - [`trace`]: the spans that trace a message on its way
//! - [`exemplars`]: exemplars, which lead from a metric to the trace of a call
//! - [`request_id`]: the header `x-request-id`, which names a call in logs
//! - [`described`]: what `/metrics` says of each metric
//!
//! Spans give log lines their context; most of them live as long as a task. Only spans with the target [`TRACE`] go
//! into traces: one for each call, begun by [`call_span`], and those of a message on its way (see [`crate::trace`]).

#![warn(missing_docs)]

pub mod described;
pub mod exemplars;
pub mod request_id;
pub mod trace;

use std::io::IsTerminal;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Context as _;
use clap::ValueEnum;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tern_types::TraceContext;
use tonic::metadata::{MetadataMap, MetadataValue};
use tracing::Metadata;
use tracing::subscriber::Interest;
use tracing_subscriber::filter::{LevelFilter, dynamic_filter_fn};
use tracing_subscriber::layer::{Context, Filter, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::trace::Sampling;

/// The end of the names of histograms that measure time.
const SECONDS_SUFFIX: &str = "_seconds";
/// The bucket bounds of histograms named `*_seconds`, in seconds. A commit takes about a millisecond, and a catch-up
/// may take many seconds.
const SECONDS: [f64; 17] = [
    0.000_25, 0.000_5, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1.0, 2.5, 5.0,
    15.0, 60.0,
];
/// The bucket bounds of all other histograms, which count things, such as the items of a batch.
const COUNTS: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0, 4096.0];

/// Returns the bucket bounds of this histogram, ascending, without the last bucket, which has none.
fn bounds(histogram: &str) -> &'static [f64] {
    if histogram.ends_with(SECONDS_SUFFIX) {
        &SECONDS
    } else {
        &COUNTS
    }
}

/// The timeout of exporting spans. A collector that is away delays the end of the process by no more than this.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(3);
const TRACEPARENT: &str = "traceparent";

/// The share of calls and messages that begin a trace, 0 to 1. It is unset if traces are not exported.
static SHARE: OnceLock<f64> = OnceLock::new();

/// The target of the spans that make up traces.
pub const TRACE: &str = "tern::trace";

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
#[allow(missing_docs, reason = "--help would print the comments of the variants")]
pub enum LogFormat {
    #[default]
    Human,
    Json,
}

/// The flags for what a process tells about itself.
#[derive(clap::Args, Clone, Debug)]
pub struct TelemetryArgs {
    /// Which log lines are written: a level, or filters such as info,tern_chat=debug
    #[arg(long, env = "TERN_LOG", default_value = "info")]
    pub log: String,
    /// How log lines look
    #[arg(long, env = "TERN_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// Where traces go by OTLP over gRPC, such as http://collector:4317; left out: nowhere
    #[arg(long, env = "TERN_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,
    /// Share, 0 to 1, of the calls and messages that are traced if their client does not decide it
    #[arg(long, env = "TERN_OTLP_SAMPLE", default_value_t = 0.01, value_parser = parse_share)]
    pub otlp_sample: f64,
}

/// The error for a text that is no share.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoShare {
    /// The text is no number.
    #[error(transparent)]
    NoNumber(#[from] std::num::ParseFloatError),
    /// The number is below 0, above 1, or none at all (NaN).
    #[error("a share is between 0 and 1")]
    OutOfRange,
}

/// Parses a share, 0 to 1.
fn parse_share(text: &str) -> Result<f64, NoShare> {
    let share: f64 = text.parse()?;
    if (0.0..=1.0).contains(&share) {
        Ok(share)
    } else {
        Err(NoShare::OutOfRange)
    }
}

/// A guard that exports the remaining spans when it is dropped.
#[must_use]
pub struct Guard {
    tracer: Option<SdkTracerProvider>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(tracer) = self.tracer.take()
            && let Err(error) = tracer.shutdown_with_timeout(EXPORT_TIMEOUT)
        {
            tracing::debug!(%error, "traces not exported");
        }
    }
}

/// Sets up the process's logs and traces; call it once. Logs go to standard error. It needs a Tokio runtime if `args`
/// name an OTLP endpoint. Returns `Err` if a flag is not valid, or if it was called before.
pub fn init(args: &TelemetryArgs, node: &str) -> anyhow::Result<Guard> {
    let filter = EnvFilter::try_new(&args.log).context("--log is no filter")?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let lines = match args.log_format {
        LogFormat::Human => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let tracer = args
        .otlp_endpoint
        .as_deref()
        .map(|endpoint| exporter(endpoint, args.otlp_sample, node))
        .transpose()?;
    let spans = tracer.as_ref().map(|tracer| {
        tracing_opentelemetry::layer()
            .with_tracer(tracer.tracer("tern"))
            .with_filter(spans_of_traces())
    });
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(spans)
        .try_init()?;
    if tracer.is_some() {
        SHARE.get_or_init(|| args.otlp_sample);
    }
    Ok(Guard { tracer })
}

/// Returns a filter that lets only the spans of traces pass. The filter is asked anew for each span
/// (`Interest::sometimes`). If it were asked only once for each place in the code, tracing-subscriber would take the
/// decision for a span from state that the thread's last question left behind. Libraries ask whether they should log
/// and then log nothing, and the answer that they leave behind would lose the next span.
fn spans_of_traces<S: tracing::Subscriber>() -> impl Filter<S> {
    dynamic_filter_fn(|metadata: &Metadata<'_>, _: &Context<'_, S>| is_of_a_trace(metadata))
        .with_callsite_filter(|metadata| match is_of_a_trace(metadata) {
            true => Interest::sometimes(),
            false => Interest::never(),
        })
        .with_max_level_hint(LevelFilter::INFO)
}

fn is_of_a_trace(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && metadata.target() == TRACE
}

/// Returns the share of calls and messages that begin a trace, 0 to 1, or `None` if this process exports no traces.
pub fn share() -> Option<f64> {
    SHARE.get().copied()
}

fn exporter(endpoint: &str, sample: f64, node: &str) -> anyhow::Result<SdkTracerProvider> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .with_timeout(EXPORT_TIMEOUT)
        .build()
        .context("--otlp-endpoint is unusable")?;
    let instance = opentelemetry::KeyValue::new("service.instance.id", node.to_owned());
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(Sampling::new(sample))
        .with_resource(
            Resource::builder()
                .with_service_name("tern")
                .with_attribute(instance)
                .build(),
        )
        .build())
}

/// Installs the metrics recorder of this process; call it once. Crates describe their metrics afterwards. Returns `Err`
/// if a recorder is installed already.
pub fn recorder() -> anyhow::Result<PrometheusHandle> {
    Ok(PrometheusBuilder::new()
        .set_buckets(&COUNTS)?
        .set_buckets_for_metric(Matcher::Suffix(SECONDS_SUFFIX.to_owned()), &SECONDS)?
        .install_recorder()?)
}

/// Returns the W3C trace context of the current span, to be sent to the next node, or an empty string if the span is
/// not recorded.
pub fn traceparent() -> String {
    let context = trace::context(&tracing::Span::current());
    context.map(|context| context.to_string()).unwrap_or_default()
}

/// Makes the span part of a caller's trace. It does nothing if `traceparent` is empty or malformed.
pub(crate) fn continue_trace(span: &tracing::Span, traceparent: &str) {
    if let Some(parent) = TraceContext::parse(traceparent) {
        trace::continued(span, parent);
    }
}

/// Puts the current span's trace context into a call's metadata. The listener of the other node finds it there and
/// continues the trace ([`call_span`]).
pub fn propagate(metadata: &mut MetadataMap) {
    if let Ok(value) = MetadataValue::try_from(traceparent())
        && !value.is_empty()
    {
        metadata.insert(TRACEPARENT, value);
    }
}

/// Makes the span of an incoming call, which continues the caller's trace if the call has one.
pub fn call_span(request: &http::Request<()>) -> tracing::Span {
    let id = request_id::of(request.headers());
    let span = tracing::info_span!(target: TRACE, "call", path = request.uri().path(), request_id = id);
    let caller = request
        .headers()
        .get(TRACEPARENT)
        .and_then(|value| value.to_str().ok());
    continue_trace(&span, caller.unwrap_or_default());
    span
}

#[cfg(test)]
mod tests {
    use opentelemetry_sdk::trace::Sampler;

    use super::*;

    const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    /// Runs `run` with traces that are not exported.
    fn traced<T>(sample: Sampler, run: impl FnOnce() -> T) -> T {
        let tracer = SdkTracerProvider::builder().with_sampler(sample).build();
        let layer = tracing_opentelemetry::layer().with_tracer(tracer.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), run)
    }

    fn call(traceparent: &str) -> http::Request<()> {
        http::Request::builder()
            .uri("/a/b")
            .header(TRACEPARENT, traceparent)
            .body(())
            .unwrap()
    }

    #[test]
    fn a_share_is_between_0_and_1() {
        for (text, share) in [("0", 0.0), ("0.01", 0.01), ("1", 1.0)] {
            assert_eq!(parse_share(text), Ok(share));
        }
        for text in ["5", "-0.1", "NaN", "inf"] {
            assert_eq!(parse_share(text), Err(NoShare::OutOfRange), "{text}");
        }
        assert!(matches!(parse_share("half"), Err(NoShare::NoNumber(_))));
    }

    #[test]
    fn a_call_continues_its_callers_trace_and_passes_it_on() {
        let passed_on = traced(Sampler::ParentBased(Box::new(Sampler::AlwaysOff)), || {
            call_span(&call(CALLER)).in_scope(|| {
                let mut metadata = MetadataMap::new();
                propagate(&mut metadata);
                metadata
                    .get(TRACEPARENT)
                    .and_then(|value| value.to_str().ok())
                    .unwrap_or_default()
                    .to_owned()
            })
        });
        let parts = |text: &str| text.split('-').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(parts(&passed_on)[1], parts(CALLER)[1], "{passed_on}");
        assert_ne!(parts(&passed_on)[2], parts(CALLER)[2], "{passed_on}");
    }

    #[test]
    fn a_question_without_an_event_loses_no_span() {
        let tracer = SdkTracerProvider::builder().build();
        let layer = tracing_opentelemetry::layer().with_tracer(tracer.tracer("test"));
        let lines = tracing_subscriber::fmt::layer().with_filter(EnvFilter::new("info"));
        let subscriber = tracing_subscriber::registry()
            .with(lines)
            .with(layer.with_filter(spans_of_traces()));
        tracing::subscriber::with_default(subscriber, || {
            let other = tracing::info_span!("other");
            let metadata = other.metadata().unwrap();
            for _ in 0..2 {
                tracing::dispatcher::get_default(|dispatch| dispatch.enabled(metadata));
                let span = tracing::info_span!(target: TRACE, parent: None, "commit");
                assert!(trace::context(&span).is_some());
            }
            assert!(trace::context(&other).is_none());
        });
    }

    #[test]
    fn without_a_sampled_trace_nothing_is_passed_on() {
        let off = || Sampler::ParentBased(Box::new(Sampler::AlwaysOff));
        for traceparent in ["", "garbage", "00-0-0-01", CALLER.trim_end_matches('1')] {
            let passed_on = traced(off(), || {
                call_span(&call(traceparent)).in_scope(super::traceparent)
            });
            assert_eq!(passed_on, "", "{traceparent}");
        }
        assert_eq!(call_span(&call(CALLER)).in_scope(super::traceparent), "");
    }
}
