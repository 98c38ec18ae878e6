//! Decides whether this gateway takes new streams.
//!
//! It does not while they would be of no use: while no chat node is linked, while other gateways reach much more of the
//! cluster, or while it has lost its place in the map, so that chat nodes may deliver messages without asking it.
//! Readiness and gRPC health say the same to load balancers. Streams that are open go on and lose nothing: what is not
//! delivered to them live is read from their inboxes again and again. Only a gateway that is worse off than others asks
//! its devices to reconnect to those.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tern_cluster::standing::Place;
use tern_cluster::{NodeContext, Role};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::chat_links::ChatLinks;
use crate::reconnect;
use crate::redrain::redrain;
use crate::registry::Registry;

/// The time between two looks.
const LOOK: Duration = Duration::from_millis(250);
/// The time for which this gateway has to be cut off, or without links, before that counts. A broken link is
/// made again sooner, and a new map is heard of sooner.
const PATIENCE: Duration = Duration::from_secs(2);
/// The time between two readings of all inboxes while messages may be delivered without this gateway. One query reads
/// 64 devices.
const READ_AGAIN: Duration = Duration::from_secs(10);

/// The flag that says whether new streams are turned away. [`keep`] keeps it up to date. It is cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Door(Arc<AtomicBool>);

impl Door {
    /// Returns whether new streams are turned away.
    pub fn is_shut(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The findings of one look.
#[derive(Debug, Clone, Copy)]
struct Found {
    /// This node's place in the map.
    place: Place,
    /// The number of chat nodes that are linked.
    linked: u32,
    /// True if other gateways reach much more of the cluster.
    unwell: bool,
}

/// The state from which the verdict on each look follows. The code is pure: time comes in as an argument.
#[derive(Debug)]
struct Keeper {
    /// True while no chat node has ever been linked.
    fresh: bool,
    /// The time since which no chat node has been linked. `None` while one is.
    unlinked_since: Option<Instant>,
    /// The time since which this node has been cut off. `None` while it is not.
    cut_off_since: Option<Instant>,
}

/// The verdict that follows from one look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Verdict {
    /// The reason why readiness and health say no. `None` if they say yes.
    not_ready: Option<&'static str>,
    /// True if new streams are turned away.
    shut: bool,
    /// True if messages may be delivered without this gateway, since others may not know it.
    passed_by: bool,
}

impl Keeper {
    fn new() -> Self {
        Self {
            fresh: true,
            unlinked_since: None,
            cut_off_since: None,
        }
    }

    /// Takes the findings of a look at `now`, and returns the verdict.
    fn look(&mut self, found: Found, now: Instant) -> Verdict {
        let since = |since: Option<Instant>, holds: bool| holds.then(|| since.unwrap_or(now));
        self.fresh &= found.linked == 0;
        self.unlinked_since = since(self.unlinked_since, found.linked == 0);
        self.cut_off_since = since(self.cut_off_since, found.place == Place::CutOff);
        let lasts = |since: Option<Instant>| since.is_some_and(|at| now.duration_since(at) >= PATIENCE);
        let why = if found.place == Place::Lost {
            Some("it has lost its place in the map")
        } else if lasts(self.cut_off_since) {
            Some("it is cut off from etcd and from most other nodes")
        } else if lasts(self.unlinked_since) {
            Some("no chat node is linked")
        } else if found.unwell {
            Some("other gateways reach more")
        } else {
            None
        };
        Verdict {
            not_ready: why.or(self.fresh.then_some("no chat node is linked yet")),
            shut: why.is_some(),
            passed_by: matches!(found.place, Place::Lost | Place::CutOff),
        }
    }
}

/// Opens and shuts the door, until the drain begins. Each time that other gateways begin to reach much more of the
/// cluster, it asks all devices to reconnect to those, after the door was shut.
pub async fn keep(
    door: Door,
    ctx: NodeContext,
    chats: Arc<ChatLinks>,
    registry: Arc<Registry>,
    health: HealthReporter,
) {
    let mut keeper = Keeper::new();
    let (mut said, mut sent_away) = (None, false);
    let mut read_at = Instant::now();
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            () = ctx.reached.unwell(Role::Gateway), if !sent_away => {}
            () = ctx.drain.wait() => return,
        }
        let found = Found {
            place: ctx.standing.place(),
            linked: chats.linked(),
            unwell: ctx.reached.is_unwell(Role::Gateway),
        };
        if ctx.drain.started() {
            return;
        }
        let now = Instant::now();
        let verdict = keeper.look(found, now);
        door.0.store(verdict.shut, Ordering::Relaxed);
        if said != Some(verdict.not_ready) {
            said = Some(verdict.not_ready);
            tracing::info!(not_ready = verdict.not_ready, ?found, "readiness");
            ctx.readiness.hold_back("gateway", verdict.not_ready);
            let status = match verdict.not_ready {
                None => ServingStatus::Serving,
                Some(_) => ServingStatus::NotServing,
            };
            health.set_service_status("", status).await;
        }
        if found.unwell && !sent_away {
            reconnect::ask(&registry, ctx.drain.deadline(), "other gateways reach more");
        }
        sent_away = found.unwell;
        if !verdict.passed_by {
            read_at = now + READ_AGAIN;
        } else if read_at <= now {
            read_at = now + READ_AGAIN;
            redrain(registry.sessions(|_| true), READ_AGAIN / 2, "passed_by");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: Found = Found {
        place: Place::Held,
        linked: 2,
        unwell: false,
    };

    #[test]
    fn new_streams_are_turned_away_where_they_would_be_of_no_use() {
        let start = Instant::now();
        let unlinked = Found { linked: 0, ..FINE };
        let of = |place| Found { place, ..FINE };
        let unwell = Found { unwell: true, ..FINE };
        // Each case has the findings, then whether the gateway is ready and the door shut, at once and after a while.
        for (found, at_once, later) in [
            (FINE, (true, false), (true, false)),
            (unlinked, (true, false), (false, true)),
            (of(Place::CutOff), (true, false), (false, true)),
            (of(Place::Lost), (false, true), (false, true)),
            // Rule 9: etcd is away for everybody.
            (of(Place::Frozen), (true, false), (true, false)),
            (unwell, (false, true), (false, true)),
        ] {
            let mut keeper = Keeper::new();
            keeper.look(FINE, start);
            for (time, expected) in [(Duration::ZERO, at_once), (PATIENCE, later)] {
                let verdict = keeper.look(found, start + time);
                assert_eq!(
                    (verdict.not_ready.is_none(), verdict.shut),
                    expected,
                    "{found:?} for {time:?}"
                );
            }
            let verdict = keeper.look(FINE, start + PATIENCE);
            assert!(verdict.not_ready.is_none() && !verdict.shut, "after {found:?}");
        }
    }

    #[test]
    fn a_gateway_that_starts_is_ready_with_its_first_link() {
        let (mut keeper, now) = (Keeper::new(), Instant::now());
        let verdict = keeper.look(Found { linked: 0, ..FINE }, now);
        assert!(verdict.not_ready.is_some() && !verdict.shut, "{verdict:?}");
        assert!(keeper.look(FINE, now).not_ready.is_none());
    }
}
