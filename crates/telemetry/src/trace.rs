//! Traces messages on their way through the nodes.
//!
//! A message is traced when its client says so, or when the gateway that takes it chooses it at random. Only then are
//! spans opened, and a [`TraceContext`] travels with the message; a message without one costs nothing on any node. A
//! span is opened with `tracing::info_span!(target: telemetry::TRACE, parent: None, "commit", …)` and made part of
//! the trace with [`continued`]. It is exported when its last handle is dropped.
//!
//! ```text
//!   send (gateway) ──┬── commit (chat node) ── fanout (chat node) ── deliver (gateways)
//!                    └── settle (chat node)
//! ```

use opentelemetry::trace::{
    Link, SpanContext, SpanId, SpanKind, TraceContextExt, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{Sampler, SamplingResult, ShouldSample};
use tern_types::TraceContext;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The name of the span that the gateway opens for a message that it has chosen to trace. A span of this name without a
/// parent is recorded whatever share of the calls is traced.
pub const SEND: &str = "send";

/// Makes the span a child of `parent`, and so a part of its trace.
pub fn continued(span: &Span, parent: TraceContext) {
    let flags = TraceFlags::default().with_sampled(parent.sampled);
    let parent = SpanContext::new(
        TraceId::from_bytes(parent.trace_id),
        SpanId::from_bytes(parent.span_id),
        flags,
        true,
        TraceState::NONE,
    );
    // This fails if no exporter is set up. Then there are no traces, so the error is ignored.
    let _ = span.set_parent(Context::new().with_remote_span_context(parent));
}

/// Returns the span's place in its trace, or `None` if the span is not recorded.
pub fn context(span: &Span) -> Option<TraceContext> {
    let context = span.context();
    let span = context.span();
    let context = span.span_context();
    (context.is_valid() && context.is_sampled()).then(|| TraceContext {
        trace_id: context.trace_id().to_bytes(),
        span_id: context.span_id().to_bytes(),
        sampled: true,
    })
}

/// The sampler that decides which spans are recorded. A span with a parent is recorded if its parent is. Without a
/// parent, a message's [`SEND`] span is always recorded, because the gateway has chosen the message before it opens the
/// span, and any other call is recorded with the probability `share`.
#[derive(Debug, Clone)]
pub(crate) struct Sampling {
    calls: Sampler,
}

impl Sampling {
    pub(crate) fn new(share: f64) -> Self {
        let calls = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(share)));
        Self { calls }
    }
}

impl ShouldSample for Sampling {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let root = parent.is_none_or(|parent| !parent.has_active_span());
        let sampler = if root && name == SEND {
            &Sampler::AlwaysOn
        } else {
            &self.calls
        };
        sampler.should_sample(parent, trace_id, name, kind, attributes, links)
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TracerProvider;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    fn traced<T>(share: f64, run: impl FnOnce() -> T) -> T {
        let tracer = SdkTracerProvider::builder()
            .with_sampler(Sampling::new(share))
            .build();
        let layer = tracing_opentelemetry::layer().with_tracer(tracer.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), run)
    }

    #[test]
    fn what_is_drawn_is_kept_at_any_share_and_calls_by_the_share() {
        let kept = |share| {
            traced(share, || {
                let (send, call) = (tracing::info_span!("send"), tracing::info_span!("call"));
                (context(&send).is_some(), context(&call).is_some())
            })
        };
        assert_eq!((kept(0.0), kept(1.0)), ((true, false), (true, true)));
    }

    #[test]
    fn a_span_is_part_of_its_parents_trace_with_an_id_of_its_own() {
        let parent = TraceContext {
            trace_id: [7; 16],
            span_id: [8; 8],
            sampled: true,
        };
        let child = |parent| {
            traced(1.0, || {
                let span = tracing::info_span!("send");
                continued(&span, parent);
                context(&span)
            })
        };
        let kept = child(parent).expect("a context");
        assert_eq!(kept.trace_id, parent.trace_id);
        assert_ne!(kept.span_id, parent.span_id);
        let dropped = TraceContext {
            sampled: false,
            ..parent
        };
        assert_eq!(child(dropped), None, "the caller does not keep it");
        assert_eq!(context(&tracing::info_span!("send")), None, "nothing is exported");
    }
}
