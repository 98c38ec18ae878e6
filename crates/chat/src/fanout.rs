//! Live delivery: pushes events to the recipients that are online. It is a hint; the settle guarantees delivery.
//!
//! Each shard has a task of its own, and so have the calls that make groups. A task takes all events that
//! came while it was busy, and asks each presence node once for all of them. It puts each event, which was
//! encoded once, with the list of its sessions on the link of each gateway concerned.
//!
//! A push that finds the queue full is dropped, and affects no other recipient. If it was an entry, the settle makes up
//! for it. A receipt has no settle: if its look-up failed, it is tried again. Users who missed a receipt are noted and
//! looked up later, and their gateways tell them to ask for receipts.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tern_cluster::links::gather;
use tern_proto::internal::Push;
use tern_telemetry::trace;
use tern_types::{ChatId, IdMap, IdSet, SessionId, UserId};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{Instant, sleep_until};
use tracing::{Instrument, Span};

use crate::gateways::{Gateways, Kind};
use crate::lookup::{Found, Lookup};
use crate::metrics;

/// The most events that wait for their look-up: twice as many as a commit of a busy shard leaves.
const QUEUE: usize = 4096;
/// The most events that are looked up together.
const GATHER: usize = 1024;
/// The most receipts whose look-up failed that are kept for another try. If there are more, the oldest are given up,
/// because newer receipts say more; their users are noted as having missed one.
const FAILED: usize = 1024;
/// The most users who missed receipts and are still to be looked up. If there are more, all gateways are told that any
/// of their sessions may have missed some.
const MISSED: usize = 16_384;
/// The time from a failed look-up to the next try. A presence node that restarts takes longer, and one look-up a second
/// costs nothing.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// An event for those of `users` who are online.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The chat that the event belongs to.
    pub chat: ChatId,
    /// The kind of the event, which decides what happens if it cannot be pushed.
    pub kind: Kind,
    /// The recipients, shared by the events of a batch.
    pub users: Arc<[UserId]>,
    /// The sessions that are left out, because they get an answer instead.
    pub except: Vec<SessionId>,
    /// The encoded event. It is empty for users who were just added: their gateways read the entry from the log (see
    /// `Push.event` of link.proto).
    pub event: Bytes,
    /// The `fanout` span of a traced entry. It ends when the event is on the links.
    pub span: Option<Span>,
}

/// The starter of the fan-out tasks.
#[derive(Debug, Clone)]
pub struct Fanout {
    /// The look-up of the recipients' sessions.
    pub lookup: Lookup,
}

/// A handle of one fan-out task.
#[derive(Debug, Clone)]
pub struct Pushes {
    queue: mpsc::Sender<Outgoing>,
    missed: Missed,
    gateways: Gateways,
}

impl Pushes {
    /// Hands an event to the task. It never waits: an event that finds no room is dropped and counted. Receipts and
    /// notices may use only half of the queue, so that they displace no entry. The users of a dropped receipt are noted.
    pub fn push(&self, outgoing: Outgoing) {
        let room = matches!(outgoing.kind, Kind::Entry(_)) || self.queue.capacity() >= QUEUE / 2;
        let lost = if room {
            self.queue.try_send(outgoing).err().map(TrySendError::into_inner)
        } else {
            Some(outgoing)
        };
        let Some(lost) = lost else { return };
        match lost.kind {
            Kind::Notice(kind) => return metrics::notice_dropped(kind, "fanout"),
            Kind::Entry(_) => {}
            Kind::Receipt => self.missed.note(&self.gateways, lost.users.iter().copied()),
        }
        metrics::push_dropped("fanout");
    }

    /// Notes that receipts were lost before they reached this queue, and that nobody knows which users they were for.
    /// Every gateway is told that any of its sessions may have missed some.
    pub fn receipts_lost(&self) {
        self.gateways.missed_any();
    }
}

/// The users who missed receipts, until their sessions are found.
#[derive(Debug, Clone, Default)]
struct Missed(Arc<Mutex<IdSet<UserId>>>);

impl Missed {
    /// Notes these users. If [`MISSED`] users are noted already, it tells all gateways instead that any of their
    /// sessions may have missed receipts.
    fn note(&self, gateways: &Gateways, users: impl IntoIterator<Item = UserId>) {
        let mut missed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if missed.len() < MISSED {
            missed.extend(users);
        } else {
            drop(missed);
            gateways.missed_any();
        }
    }

    fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn take(&self) -> Vec<UserId> {
        let mut missed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        missed.drain().collect()
    }

    /// Looks the users up, and tells the gateways of their sessions. Users whose look-up failed are noted again.
    async fn tell(&self, lookup: &Lookup, gateways: &Gateways) {
        let users = self.take();
        let found = lookup.sessions(users.clone()).await;
        for session in &found.sessions {
            gateways.missed(&session.gateway, &[session.session.0]);
        }
        if found.failed {
            self.note(gateways, users);
        }
    }
}

impl Fanout {
    /// Starts one fan-out task. Its events keep their order, except receipts that are tried again. The task
    /// ends when all clones of the returned handle are dropped.
    pub fn spawn(&self, gateways: Gateways) -> Pushes {
        let (pushes, mut queue) = mpsc::channel(QUEUE);
        let (lookup, missed) = (self.lookup.clone(), Missed::default());
        let handle = Pushes {
            queue: pushes,
            missed: missed.clone(),
            gateways: gateways.clone(),
        };
        let run = async move {
            let (mut failed, mut again_at) = (VecDeque::new(), Instant::now());
            loop {
                // A receipt that waits already keeps the time of its next try, however many events come meanwhile.
                let mut keeps_time = !failed.is_empty() || !missed.is_empty();
                let outgoing = tokio::select! {
                    outgoing = gather(&mut queue, GATHER) => outgoing,
                    () = sleep_until(again_at), if keeps_time => {
                        keeps_time = false;
                        missed.tell(&lookup, &gateways).await;
                        Some(failed.drain(..).collect())
                    }
                };
                let Some(outgoing) = outgoing else { return };
                let receipts = deliver(&lookup, &gateways, outgoing).await;
                if !keeps_time {
                    again_at = Instant::now() + AGAIN_AFTER;
                }
                failed.extend(receipts);
                let given_up = failed.drain(..failed.len().saturating_sub(FAILED));
                missed.note(
                    &gateways,
                    given_up.flat_map(|receipt: Outgoing| receipt.users.to_vec()),
                );
            }
        };
        tokio::spawn(run.in_current_span());
        handle
    }
}

/// Looks up the recipients and puts each event on the links concerned. Returns the receipts that may not have reached
/// everybody, to be pushed again: a watermark that comes twice does no harm.
async fn deliver(lookup: &Lookup, gateways: &Gateways, outgoing: Vec<Outgoing>) -> Vec<Outgoing> {
    let users: BTreeSet<UserId> = outgoing
        .iter()
        .flat_map(|event| event.users.iter().copied())
        .collect();
    let found = lookup.sessions(users.into_iter().collect()).await;
    if found.failed {
        metrics::lookup_failed("push");
    }
    let receipts = outgoing
        .iter()
        .filter(|event| found.failed && event.kind == Kind::Receipt);
    let receipts = receipts.cloned().collect();
    group(&found.sessions, outgoing, |gateway, kind, push| {
        metrics::pushed(kind.name(), push.sessions.len());
        gateways.push(gateway, kind, push);
    });
    receipts
}

/// Calls `push` once for each event and each gateway that has sessions of the event's users. It is a pure function.
pub fn group(sessions: &[Found], outgoing: Vec<Outgoing>, mut push: impl FnMut(&str, Kind, Push)) {
    let mut by_user: IdMap<UserId, Vec<&Found>> = IdMap::default();
    for session in sessions {
        by_user.entry(session.user).or_default().push(session);
    }
    for event in outgoing {
        let except: IdSet<SessionId> = event.except.into_iter().collect();
        let mut by_gateway: IdMap<&str, Vec<u64>> = IdMap::default();
        for session in event.users.iter().filter_map(|user| by_user.get(user)).flatten() {
            if !except.contains(&session.session) {
                by_gateway
                    .entry(&session.gateway)
                    .or_default()
                    .push(session.session.0);
            }
        }
        let traceparent = traceparent(event.span.as_ref(), &by_gateway);
        for (gateway, sessions) in by_gateway {
            let chat_id = event.chat.to_vec().into();
            push(
                gateway,
                event.kind,
                Push {
                    sessions,
                    event: event.event.clone(),
                    chat_id,
                    seq: event.kind.seq().0,
                    traceparent: traceparent.clone(),
                },
            );
        }
    }
}

/// Returns the trace context of a traced event as text; empty for all others. It also records in the span how many
/// gateways and sessions the event goes to.
fn traceparent(span: Option<&Span>, by_gateway: &IdMap<&str, Vec<u64>>) -> String {
    let Some(span) = span else {
        return String::new();
    };
    span.record("gateways", by_gateway.len());
    span.record("sessions", by_gateway.values().map(Vec::len).sum::<usize>());
    trace::context(span)
        .map(|context| context.to_string())
        .unwrap_or_default()
}
