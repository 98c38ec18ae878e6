//! Live delivery: who of the recipients is online, and on which gateway. A hint: the settle is what guarantees.
//!
//! One task a shard gathers what its commits left meanwhile, asks each presence node once, and puts each event, encoded
//! once, with the list of its sessions on the link of each gateway concerned. Pushes that find the queue full are dropped.
//! Entries have the settle behind them; receipts have nothing, so one whose look-up failed is tried again, and whoever misses
//! one is noted, looked up later, and told by their gateway to ask.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tern_node::links::gather;
use tern_node::trace;
use tern_proto::internal::Push;
use tern_types::{ChatId, IdMap, IdSet, Seq, SessionId, UserId};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{Instant, sleep_until};
use tracing::{Instrument, Span};

use crate::gateways::Gateways;
use crate::lookup::{Found, Lookup};
use crate::metrics;

/// Events that wait for their look-up: a busy shard's commit twice over.
const QUEUE: usize = 4096;
/// Events looked up together.
const GATHER: usize = 1024;
/// Receipts whose look-up failed; beyond it the oldest are given up. They are small, and the newer ones say more.
const FAILED: usize = 1024;
/// People who missed receipts and are still to be looked up; with more, anybody may have.
const MISSED: usize = 16_384;
/// From a failed look-up to the next: a presence node that restarts takes longer, one look-up a second costs nothing.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What an event is: what becomes of it when it finds no way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The settle comes after it.
    Entry(Seq),
    /// Nothing comes after it.
    Receipt,
    /// It is said again.
    Typing,
}

impl Kind {
    /// Of the entry; 0: it is none.
    pub fn seq(self) -> Seq {
        match self {
            Self::Entry(seq) => seq,
            Self::Receipt | Self::Typing => Seq::ZERO,
        }
    }

    /// As metrics name it.
    fn name(self) -> &'static str {
        match self {
            Self::Entry(_) => "entry",
            Self::Receipt => "receipt",
            Self::Typing => "typing",
        }
    }
}

/// An event for whoever of `users` is online.
#[derive(Debug, Clone)]
pub struct Outgoing {
    pub chat: ChatId,
    pub kind: Kind,
    pub users: Vec<UserId>,
    /// Sessions that get an answer instead.
    pub except: Vec<SessionId>,
    /// Empty: the entry is not passed on but read (see `Push.event` of link.proto).
    pub event: Bytes,
    /// Where it is traced: ends when the event is on the links.
    pub span: Option<Span>,
}

#[derive(Debug, Clone)]
pub struct Fanout {
    pub lookup: Lookup,
}

/// Where one shard's events go.
#[derive(Debug, Clone)]
pub struct Pushes {
    queue: mpsc::Sender<Outgoing>,
    missed: Missed,
    gateways: Gateways,
}

impl Pushes {
    /// Hands the event over. Receipts and typing only where there is room for much more, so that they push no entry out.
    pub fn push(&self, outgoing: Outgoing) {
        let room = matches!(outgoing.kind, Kind::Entry(_)) || self.queue.capacity() >= QUEUE / 2;
        let lost = if room {
            self.queue.try_send(outgoing).err().map(TrySendError::into_inner)
        } else {
            Some(outgoing)
        };
        let Some(lost) = lost else { return };
        match lost.kind {
            Kind::Typing => return metrics::typing_dropped("fanout"),
            Kind::Entry(_) => {}
            Kind::Receipt => self.missed.note(&self.gateways, lost.users),
        }
        metrics::push_dropped("fanout");
    }

    /// Receipts were lost before they came here, for whom is not known.
    pub fn receipts_lost(&self) {
        self.gateways.missed_any();
    }
}

/// People who missed receipts, until their sessions are found.
#[derive(Debug, Clone, Default)]
struct Missed(Arc<Mutex<IdSet<UserId>>>);

impl Missed {
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

    /// Tells the gateways of whoever is online.
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
    /// A task for one shard; its events keep their order.
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
                let outgoing = tokio::select! {
                    outgoing = gather(&mut queue, GATHER) => outgoing,
                    () = sleep_until(again_at), if !failed.is_empty() || !missed.is_empty() => {
                        missed.tell(&lookup, &gateways).await;
                        Some(failed.drain(..).collect())
                    }
                };
                let Some(outgoing) = outgoing else { return };
                let receipts = deliver(&lookup, &gateways, outgoing).await;
                if failed.is_empty() {
                    again_at = Instant::now() + AGAIN_AFTER;
                }
                failed.extend(receipts);
                let given_up = failed.drain(..failed.len().saturating_sub(FAILED));
                missed.note(&gateways, given_up.flat_map(|receipt: Outgoing| receipt.users));
            }
        };
        tokio::spawn(run.in_current_span());
        handle
    }
}

/// Puts each event on the links concerned. The receipts that may not have found everybody are returned: told twice, a
/// watermark is no news.
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

/// One push for each event and gateway that has sessions of its users: pure.
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

/// What goes along with a traced event; empty for all others.
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
