//! Live delivery: pushes events to the recipients that are online. It is a hint; the settle guarantees delivery.
//!
//! Each shard has a task of its own, and so have the calls that make groups. A task takes all events that
//! came while it was busy, and asks each presence node once for all of them. It puts each event, which was
//! encoded once, with the list of its sessions on the link of each gateway concerned.
//!
//! A push that finds the queue full is dropped, and affects no other recipient. If it was an entry, the settle makes up
//! for it. A receipt has no settle: if its look-up failed, it is tried again. Users who missed a receipt are noted and
//! looked up later, and their gateways tell them to ask for receipts.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use tern_cluster::links::gather;
use tern_proto::internal::Push;
use tern_telemetry::trace;
use tern_types::{ChatId, IdMap, IdSet, SessionId, UserId};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{Instant, sleep_until};
use tracing::{Instrument, Span};

use crate::gateways::{Gateways, Kind};
use crate::lookup::{Found, Live, Lookup};
use crate::metrics;

/// The most events that wait for their look-up: twice as many as a commit of a busy shard leaves.
const QUEUE: usize = 4096;
/// The most events that are looked up together.
const GATHER: usize = 1024;
/// The most receipts whose look-up failed that are kept for another try. If there are more, the oldest are given up,
/// because newer receipts say more; their users are noted as having missed one.
const FAILED: usize = 1024;
/// The most users who are noted because a session may have missed a receipt. If there are more, all gateways are told
/// that any of their sessions may have missed some. From half of this number on, users with receipts are looked up at
/// once, and so are not noted.
const UNREACHED: usize = 16_384;
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

/// The starter of the fan-out tasks. It is cheap to clone.
#[derive(Debug, Clone)]
pub struct Fanout {
    /// The look-up of the recipients' sessions.
    pub lookup: Lookup,
    /// The users that each task has noted.
    unreached: Arc<Mutex<Vec<Unreached>>>,
}

/// A handle of one fan-out task.
#[derive(Debug, Clone)]
pub struct Pushes {
    queue: mpsc::Sender<Outgoing>,
    unreached: Unreached,
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
            Kind::Receipt => self.unreached.nobody_has(&self.gateways, &lost.users),
        }
        metrics::push_dropped("fanout");
    }

    /// Notes that receipts were lost before they reached this queue, and that nobody knows which users they were for.
    /// Every gateway is told that any of its sessions may have missed some.
    pub fn receipts_lost(&self) {
        self.gateways.missed_any();
    }
}

/// The users of whom some session may not have had a receipt, until they are looked up, and the sessions that have had
/// it. They missed it, or it went to the sessions that were known: one that had just begun may not be among them.
#[derive(Debug, Clone, Default)]
struct Unreached(Arc<Mutex<IdMap<UserId, Vec<SessionId>>>>);

impl Unreached {
    /// Notes that no session of these users has had a receipt. If [`UNREACHED`] users are noted already, it tells all
    /// gateways instead that any of their sessions may have missed receipts.
    fn nobody_has(&self, gateways: &Gateways, users: &[UserId]) {
        let mut unreached = self.lock();
        if unreached.len() < UNREACHED {
            unreached.extend(users.iter().map(|user| (*user, Vec::new())));
        } else {
            drop(unreached);
            gateways.missed_any();
        }
    }

    /// Notes that these sessions of each user have had a receipt. Of several receipts that of the fewest sessions counts.
    /// If there is no room, it tells all gateways instead that any of their sessions may have missed receipts.
    fn have(&self, gateways: &Gateways, users: impl IntoIterator<Item = (UserId, Vec<SessionId>)>) {
        let (mut unreached, mut lost) = (self.lock(), false);
        for (user, sessions) in users {
            let room = unreached.len() < UNREACHED;
            match unreached.entry(user) {
                Entry::Occupied(mut before) => before.get_mut().retain(|session| sessions.contains(session)),
                Entry::Vacant(first) if room => {
                    first.insert(sessions);
                }
                Entry::Vacant(_) => lost = true,
            }
        }
        drop(unreached);
        if lost {
            gateways.missed_any();
        }
    }

    /// Returns whether more users can be noted without telling all gateways.
    fn has_room(&self) -> bool {
        self.lock().len() < UNREACHED / 2
    }

    fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Looks the users up, and tells the gateways of the sessions that have not had the receipt. If the look-up failed,
    /// the users are noted again, with the sessions that were told.
    async fn tell(&self, lookup: &Lookup, gateways: &Gateways) {
        let mut users = std::mem::take(&mut *self.lock());
        let found = lookup.sessions(users.keys().copied().collect()).await;
        for session in &found.sessions {
            if let Some(had) = users.get_mut(&session.user)
                && !had.contains(&session.session)
            {
                gateways.missed(&session.gateway, &[session.session.0]);
                had.push(session.session);
            }
        }
        if found.failed {
            self.have(gateways, users);
        }
    }

    fn lock(&self) -> MutexGuard<'_, IdMap<UserId, Vec<SessionId>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fanout {
    /// Makes the starter of tasks that look recipients up here.
    pub fn new(lookup: Lookup) -> Self {
        Self {
            lookup,
            unreached: Arc::default(),
        }
    }

    /// Looks up the users whom the tasks have noted, and tells the gateways of their sessions, as the tasks would have
    /// done later. A drain calls it before the live streams end.
    pub(crate) async fn tell_unreached(&self, gateways: &Gateways) {
        let noted = self
            .unreached
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let noted = noted.into_iter().filter(|unreached| !unreached.is_empty());
        let told = noted.map(|unreached| async move { unreached.tell(&self.lookup, gateways).await });
        join_all(told).await;
    }

    /// Starts one fan-out task. Its events keep their order, except receipts that are tried again. The task
    /// ends when all clones of the returned handle are dropped.
    pub fn spawn(&self, gateways: Gateways) -> Pushes {
        let (pushes, mut queue) = mpsc::channel(QUEUE);
        let (lookup, unreached) = (self.lookup.clone(), Unreached::default());
        self.unreached
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(unreached.clone());
        let handle = Pushes {
            queue: pushes,
            unreached: unreached.clone(),
            gateways: gateways.clone(),
        };
        let run = async move {
            let (mut failed, mut again_at) = (VecDeque::new(), Instant::now());
            loop {
                // A receipt that waits already keeps the time of its next try, however many events come meanwhile.
                let mut keeps_time = !failed.is_empty() || !unreached.is_empty();
                let outgoing = tokio::select! {
                    outgoing = gather(&mut queue, GATHER) => outgoing,
                    () = sleep_until(again_at), if keeps_time => {
                        keeps_time = false;
                        unreached.tell(&lookup, &gateways).await;
                        Some(failed.drain(..).collect())
                    }
                };
                let Some(outgoing) = outgoing else { return };
                let receipts = deliver(&lookup, &gateways, &unreached, outgoing).await;
                if !keeps_time {
                    again_at = Instant::now() + AGAIN_AFTER;
                }
                failed.extend(receipts);
                for receipt in failed.drain(..failed.len().saturating_sub(FAILED)) {
                    let receipt: Outgoing = receipt;
                    unreached.nobody_has(&gateways, &receipt.users);
                }
            }
        };
        tokio::spawn(run.in_current_span());
        handle
    }
}

/// Looks up the recipients and puts each event on the links concerned. Returns the receipts that may not have reached
/// everybody, to be pushed again: a watermark that comes twice does no harm.
async fn deliver(
    lookup: &Lookup,
    gateways: &Gateways,
    unreached: &Unreached,
    outgoing: Vec<Outgoing>,
) -> Vec<Outgoing> {
    let users: BTreeSet<UserId> = outgoing
        .iter()
        .flat_map(|event| event.users.iter().copied())
        .collect();
    let users = users.into_iter().collect();
    let has_receipt = outgoing.iter().any(|event| event.kind == Kind::Receipt);
    let found = if has_receipt && !unreached.has_room() {
        lookup.sessions(users).await.into()
    } else {
        lookup.live(users).await
    };
    if found.failed {
        metrics::lookup_failed("push");
    }
    let receipts = outgoing.iter().filter(|event| event.kind == Kind::Receipt);
    if has_receipt {
        note_known(&found, receipts.clone(), gateways, unreached);
    }
    let again = receipts.filter(|_| found.failed).cloned().collect();
    group(&found.sessions, outgoing, |gateway, kind, push| {
        metrics::pushed(kind.name(), push.sessions.len());
        gateways.push(gateway, kind, push);
    });
    again
}

/// Notes the recipients of receipts whose sessions were known and not looked up. A settle looks up again whom an entry
/// missed, but nothing does so for a receipt.
fn note_known<'a>(
    found: &Live,
    receipts: impl Iterator<Item = &'a Outgoing>,
    gateways: &Gateways,
    unreached: &Unreached,
) {
    if found.followed.is_empty() {
        return;
    }
    let recipients: IdSet<UserId> = receipts
        .flat_map(|receipt| receipt.users.iter().copied())
        .collect();
    let followed = found.followed.iter().filter(|user| recipients.contains(*user));
    let mut have: IdMap<UserId, Vec<SessionId>> = followed.map(|user| (*user, Vec::new())).collect();
    for session in &found.sessions {
        if let Some(sessions) = have.get_mut(&session.user) {
            sessions.push(session.session);
        }
    }
    unreached.have(gateways, have);
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
