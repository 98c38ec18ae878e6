//! Opens and ends the spans of traced messages in a shard: `commit`, from a message's arrival to its answer; `fanout`,
//! from the commit to the gateways' links; and `settle`. The state knows nothing of the spans, and only carries an
//! opaque [`TraceContext`] along. While nothing is traced, each of these calls is one look at an empty list. See
//! [`tern_telemetry::trace`].

use std::collections::HashMap;

use tern_telemetry::TRACE;
use tern_telemetry::trace;
use tern_types::{ChatId, TraceContext};
use tracing::Span;
use tracing::field::Empty;

use tern_chat_core::shard::{Event, Job, SettleChat};
use tern_chat_core::{Entry, Missing, Origin, Outcome};

/// The most traced messages under way in one shard; further ones are not traced. The gateways trace few messages, and a
/// shard where so many of them wait has other things to do.
const MAX_TRACED: usize = 64;

/// The `commit` spans of the traced messages that wait for their answer in one shard.
#[derive(Debug, Default)]
pub struct Traces(Vec<UnderWay>);

/// A traced message that waits for its answer.
#[derive(Debug)]
struct UnderWay {
    origin: Origin,
    /// The trace context of the gateway's span. It identifies the message.
    from: TraceContext,
    span: Span,
    answered: bool,
}

impl Traces {
    /// Opens the `commit` span if the event is a traced message.
    pub fn arrived(&mut self, event: &Event) {
        let Event::Send {
            origin, chat, entry, ..
        } = event
        else {
            return;
        };
        let Some(from) = entry.sending.trace.filter(|_| self.0.len() < MAX_TRACED) else {
            return;
        };
        let span = tracing::info_span!(
            target: TRACE, parent: None, "commit",
            otel.kind = "consumer", %chat, request = %entry.request, bytes = entry.content.len(),
            batch.chats = Empty, batch.entries = Empty, batch.entries_of_chat = Empty, seq = Empty, refused = Empty,
        );
        trace::continued(&span, from);
        self.0.push(UnderWay {
            origin: *origin,
            from,
            span,
            answered: false,
        });
    }

    /// Records the size of the job that a message is committed with. A message that is tried again shows its last
    /// job.
    pub fn taken(&self, job: &Job) {
        if self.0.is_empty() {
            return;
        }
        let batches = match job {
            Job::Commit(batches) => batches.as_slice(),
            Job::Change(batch) => std::slice::from_ref(batch),
            _ => return,
        };
        let entries: usize = batches.iter().map(|batch| batch.entries.len()).sum();
        for batch in batches {
            for span in batch.entries.iter().filter_map(|entry| self.commit(entry)) {
                span.record("batch.chats", batches.len());
                span.record("batch.entries", entries);
                span.record("batch.entries_of_chat", batch.entries.len());
            }
        }
    }

    /// Records the answer of a traced message.
    pub fn answered(&mut self, origin: Origin, outcome: &Outcome) {
        let Some(under_way) = self.0.iter_mut().find(|under_way| under_way.origin == origin) else {
            return;
        };
        under_way.answered = true;
        match outcome {
            Outcome::Sent(Ok(place)) => under_way.span.record("seq", place.seq.0),
            outcome => under_way.span.record("refused", tracing::field::debug(outcome)),
        };
    }

    /// Opens the `fanout` span of a traced entry; `None` if it is not traced.
    pub fn fanout(&self, entry: &Entry) -> Option<Span> {
        let from = entry.new.sending.trace?;
        let span = tracing::info_span!(
            target: TRACE, parent: None, "fanout",
            otel.kind = "producer", chat = %entry.chat, seq = entry.seq.0, gateways = Empty, sessions = Empty,
        );
        let parent = self.commit(entry).and_then(trace::context).unwrap_or(from);
        trace::continued(&span, parent);
        Some(span)
    }

    /// Ends the spans of the messages that were answered.
    pub(crate) fn forget_answered(&mut self) {
        self.0.retain(|under_way| !under_way.answered);
    }

    /// Returns the `commit` span of the entry, if it is traced and not answered yet.
    fn commit(&self, entry: &Entry) -> Option<&Span> {
        let from = entry.new.sending.trace?;
        let under_way = self.0.iter().find(|under_way| under_way.from == from)?;
        Some(&under_way.span)
    }
}

/// Opens a `settle` span for each chat in which a traced message waits for the settle.
pub fn settling(chats: &[SettleChat]) -> Vec<(ChatId, Span)> {
    let traced = chats.iter().filter_map(|settle| Some((settle, settle.trace?)));
    let spans = traced.map(|(settle, from)| {
        let span = tracing::info_span!(
            target: TRACE, parent: None, "settle",
            chat = %settle.chat, upto = settle.upto.0, batch.chats = chats.len(), missing = Empty,
        );
        trace::continued(&span, from);
        (settle.chat, span)
    });
    spans.collect()
}

/// Ends the `settle` spans, and records in each the number of devices in `missing`, which lack entries of the chat. For
/// a chat whose settle `failed` it records nothing, because nothing is known of it.
pub fn settled(
    spans: Vec<(ChatId, Span)>,
    missing: &HashMap<ChatId, Vec<Missing>>,
    failed: impl Fn(ChatId) -> bool,
) {
    for (chat, span) in spans {
        if !failed(chat) {
            span.record("missing", missing.get(&chat).map_or(0, Vec::len));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tern_types::{DeviceId, RequestId, Seq, SessionId, Timestamp, UserId};

    use super::*;
    use tern_chat_core::{NewEntry, Sending};

    fn send(number: u8, traced: bool) -> (Event, Entry) {
        let chat = ChatId(uuid::Uuid::nil());
        let sending = Sending {
            trace: traced.then_some(TraceContext {
                trace_id: [1; 16],
                span_id: [number; 8],
                sampled: true,
            }),
            ..Sending::default()
        };
        let (sender, device, request) = (UserId::random(), DeviceId::random(), RequestId::random());
        let entry = NewEntry {
            sending,
            ..NewEntry::message(sender, device, request, [0; 16], bytes::Bytes::new())
        };
        let placed = Entry {
            chat,
            seq: Seq(1),
            ordinal: 1,
            sent_at: Timestamp(1),
            new: Arc::new(entry.clone()),
        };
        let event = Event::Send {
            origin: origin(number),
            chat,
            peer: None,
            entry,
        };
        (event, placed)
    }

    fn origin(number: u8) -> Origin {
        Origin::Link {
            link: 1,
            reference: number.into(),
            session: SessionId(1),
            request: RequestId(uuid::Uuid::nil()),
        }
    }

    #[test]
    fn only_traced_messages_are_remembered_until_they_are_answered() {
        let mut traces = Traces::default();
        let ((first, placed), (second, untraced)) = (send(1, true), send(2, false));
        traces.arrived(&first);
        traces.arrived(&second);
        assert_eq!(traces.0.len(), 1);
        traces.answered(origin(2), &Outcome::NotOwner);
        traces.answered(origin(1), &Outcome::NotOwner);
        assert!(traces.fanout(&placed).is_some() && traces.fanout(&untraced).is_none());
        traces.forget_answered();
        assert!(traces.0.is_empty());
    }

    #[test]
    fn those_under_way_are_bounded() {
        let mut traces = Traces::default();
        for number in 1..=200 {
            traces.arrived(&send(number, true).0);
        }
        assert_eq!(traces.0.len(), MAX_TRACED);
    }
}
