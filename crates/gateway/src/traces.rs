//! Decides which messages are traced, and holds their spans in this gateway: `send`, from a message's arrival to its
//! result, and `deliver`, from the chat node's push to the device's stream. See [`tern_telemetry::trace`].

use std::sync::{Mutex, PoisonError};

use tern_proto::internal::Push;
use tern_telemetry::TRACE;
use tern_telemetry::trace::{self, SEND};
use tern_types::{Clock, SessionId, Timestamp, TraceContext};
use tracing::Span;
use tracing::field::Empty;

use tern_gateway_core::gcra::Gcra;
use tern_gateway_core::session::{Mail, Send};

/// The most messages traced a second. Clients decide which are traced; this keeps them from making the platform work
/// on traces alone.
const TRACES_PER_SECOND: u32 = 100;
/// The most spans for the deliveries of one push: a group's trace says as much with some of them as with a thousand.
const MAX_DELIVERIES: usize = 16;

/// The policy that decides which messages are traced.
#[derive(Debug)]
pub struct Traces {
    /// The share, from 0 to 1, of messages to trace among those whose clients send no trace context. `None` if no spans
    /// are exported, so that nothing is traced.
    share: Option<f64>,
    rate: Mutex<Gcra>,
}

impl Traces {
    /// Makes the policy that traces this share of messages whose clients send no trace context. `None` traces no
    /// message at all.
    pub fn new(share: Option<f64>) -> Self {
        Self {
            share,
            rate: Mutex::new(Gcra::new(TRACES_PER_SECOND, TRACES_PER_SECOND)),
        }
    }

    /// Returns whether a message is traced whose client sent this trace context. Without one the share decides.
    fn admits(&self, client: Option<TraceContext>, now: impl FnOnce() -> Timestamp) -> bool {
        let Some(share) = self.share else { return false };
        let wanted = match client {
            Some(client) => client.sampled,
            None => share > 0.0 && rand::random::<f64>() < share,
        };
        let within_rate = || {
            let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
            rate.take(now()).is_ok()
        };
        wanted && within_rate()
    }
}

/// The spans of a session's sends that have no result yet. Their number is bounded by the sends in flight, each of
/// which gets a result or fails. Most sessions have none, and then this takes no memory.
#[derive(Debug, Default)]
pub struct Sends(Vec<(u64, Span)>);

impl Sends {
    /// Opens the span of a message if it is traced. `send.trace` is the span's context afterwards, or `None`.
    pub fn begin(&mut self, traces: &Traces, reference: u64, send: &mut Send) {
        let client = send.trace.take();
        if !traces.admits(client, Clock::monotonic) {
            return;
        }
        let span = tracing::info_span!(
            target: TRACE, parent: None, SEND,
            otel.kind = "server", chat = %send.chat, request = %send.request_id, bytes = send.body.len(),
            seq = Empty, failed = Empty,
        );
        if let Some(client) = client {
            trace::continued(&span, client);
        }
        send.trace = trace::context(&span);
        self.0.push((reference, span));
    }

    /// Takes out the span that ends with this mail, if there is one. Dropping the span ends it.
    pub fn answered(&mut self, mail: &Mail) -> Option<Span> {
        if self.0.is_empty() {
            return None;
        }
        let (reference, seq) = match mail {
            Mail::Result {
                reference, placed, ..
            } => (*reference, placed.map(|(_, seq)| seq)),
            Mail::SendFailed { reference } => (*reference, None),
            _ => return None,
        };
        let at = self.0.iter().position(|(of, _)| *of == reference)?;
        let (_, span) = self.0.swap_remove(at);
        match seq {
            Some(seq) => span.record("seq", seq),
            None => span.record("failed", true),
        };
        Some(span)
    }
}

/// The `deliver` spans of one push, each of which is opened when its session gets the push.
#[derive(Debug)]
pub struct Deliveries {
    trace: Option<TraceContext>,
    seq: u64,
    left: usize,
}

impl Deliveries {
    /// Makes the spans for this push. There are none if it is not traced.
    pub fn of(push: &Push) -> Self {
        Self {
            trace: TraceContext::sampled(&push.traceparent),
            seq: push.seq,
            left: MAX_DELIVERIES,
        }
    }

    /// Opens the span for the next of the push's sessions. `None` if the push is not traced, or has enough spans.
    pub fn next(&mut self, session: SessionId) -> Option<Span> {
        let trace = self.trace.filter(|_| self.left > 0)?;
        self.left -= 1;
        let span = tracing::info_span!(
            target: TRACE, parent: None, "deliver",
            otel.kind = "consumer", seq = self.seq, %session, dropped = Empty,
        );
        trace::continued(&span, trace);
        Some(span)
    }
}

/// Notes in the span that the session's mailbox had no room for the push.
pub fn dropped(span: Option<Span>) {
    if let Some(span) = span {
        span.record("dropped", true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(sampled: bool) -> Option<TraceContext> {
        Some(TraceContext {
            trace_id: [1; 16],
            span_id: [2; 8],
            sampled,
        })
    }

    #[test]
    fn the_client_decides_then_the_share_and_never_more_than_the_rate() {
        let admitted = |share, client| {
            let traces = Traces::new(share);
            (0..1000)
                .filter(|_| traces.admits(client, || Timestamp(1)))
                .count()
        };
        let most = TRACES_PER_SECOND as usize;
        assert_eq!(admitted(None, client(true)), 0, "nothing is exported");
        assert_eq!(admitted(Some(0.0), client(true)), most);
        assert_eq!(admitted(Some(1.0), client(false)), 0);
        assert_eq!(admitted(Some(0.0), None), 0);
        assert_eq!(admitted(Some(1.0), None), most);
    }

    #[test]
    fn a_push_to_a_large_group_opens_some_spans_and_an_untraced_one_none() {
        let opened = |traceparent: &str| {
            let mut deliveries = Deliveries::of(&Push {
                traceparent: traceparent.to_owned(),
                ..Push::default()
            });
            (0..1000)
                .filter(|session| deliveries.next(SessionId(*session)).is_some())
                .count()
        };
        let traced = client(true).map(|trace| trace.to_string()).unwrap_or_default();
        assert_eq!(opened(&traced), MAX_DELIVERIES);
        assert_eq!((opened(""), opened("garbage")), (0, 0));
    }

    #[test]
    fn a_span_ends_with_its_result_or_failure() {
        let mut sends = Sends(vec![(1, Span::none()), (2, Span::none())]);
        assert!(sends.answered(&Mail::InboxFailed).is_none());
        assert!(sends.answered(&Mail::SendFailed { reference: 3 }).is_none());
        assert!(sends.answered(&Mail::SendFailed { reference: 1 }).is_some());
        let result = Mail::Result {
            reference: 2,
            event: bytes::Bytes::new(),
            placed: None,
        };
        assert!(sends.answered(&result).is_some() && sends.0.is_empty());
    }
}
