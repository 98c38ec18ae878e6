//! Whether a node that lives is worse off than others of its role: cut off from Postgres, or from the nodes that it works
//! with. Then it says so in its record, owns no slots while others may, and takes them back when it is well again.
//!
//! ```text
//! every half second: does it reach all that it needs? ─ no ─> ask others of the role what they reach ─> Wellness (pure)
//! ```
//!
//! What is away for everybody makes nobody unwell: moving slots would help no one. So a node asks before it says so.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use rand::seq::IteratorRandom;
use tern_proto::internal::GetReachRequest;
use tern_proto::internal::node_info_client::NodeInfoClient;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::NodeContext;
use crate::etcd::Registration;
use crate::map::{ClusterMap, Node, Role};
use crate::metrics;

/// Between two looks at what is reached.
const LOOK: Duration = Duration::from_millis(500);
/// So long a node has to be worse off than others before it says so: links that break are made again sooner.
const WORSE_FOR: Duration = Duration::from_millis(1500);
/// So long it has to be fine before it takes its slots back; twice as long after each relapse.
const FINE_FOR: Duration = Duration::from_secs(5);
/// A node that is cut off again and again is back at the latest after it was fine for this long.
const FINE_FOR_MAX: Duration = Duration::from_secs(60);
/// A node that was well for so long has no relapses behind it.
const FORGIVEN_AFTER: Duration = Duration::from_secs(600);
/// Others that are asked: one that is better off is enough.
const ASKED: usize = 8;
/// They answer from memory.
const TIMEOUT: Duration = Duration::from_secs(1);

/// What a node reaches in one of its roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// Postgres answers, or the role does without.
    pub store: bool,
    /// Nodes that it is linked to: see [`partner`].
    pub links: u32,
}

/// Whom a role works with by links that the other side makes or keeps.
pub fn partner(role: Role) -> Option<Role> {
    match role {
        Role::Chat | Role::Presence => Some(Role::Gateway),
        Role::Gateway => Some(Role::Chat),
        Role::Accounts | Role::Media => None,
    }
}

impl Reach {
    /// Nothing is missing of what the map has.
    fn is_all(self, needed: u32) -> bool {
        self.store && self.links >= needed
    }

    /// Whether slots are better off with a node that reaches `other`. One link that is missing is no reason to move
    /// thousands of chats; half of them are.
    fn is_worse_than(self, other: Self, needed: u32) -> bool {
        let serves = other.store && (needed == 0 || other.links > 0);
        let fewer = needed > 0 && self.links.saturating_mul(2) <= other.links;
        serves && (!self.store || fewer)
    }
}

/// Decides when a node says that it is unwell, and when that it is well again. Pure: time comes in.
#[derive(Debug, Default)]
pub struct Wellness {
    unwell: bool,
    worse_since: Option<Instant>,
    fine_since: Option<Instant>,
    relapses: u32,
    well_since: Option<Instant>,
}

impl Wellness {
    pub fn is_unwell(&self) -> bool {
        self.unwell
    }

    /// One look: `fine`, all is reached; `worse`, others reach more.
    pub fn look(&mut self, fine: bool, worse: bool, now: Instant) {
        let since = |since: Option<Instant>, holds: bool| holds.then(|| since.unwrap_or(now));
        self.worse_since = since(self.worse_since, worse);
        self.fine_since = since(self.fine_since, fine);
        let lasts = |since: Option<Instant>, time| since.is_some_and(|at| now.duration_since(at) >= time);
        if !self.unwell && lasts(self.worse_since, WORSE_FOR) {
            if lasts(self.well_since, FORGIVEN_AFTER) {
                self.relapses = 0;
            }
            (self.unwell, self.well_since) = (true, None);
        } else if self.unwell && lasts(self.fine_since, self.fine_for()) {
            self.relapses = self.relapses.saturating_add(1);
            (self.unwell, self.well_since) = (false, Some(now));
        }
    }

    fn fine_for(&self) -> Duration {
        FINE_FOR
            .saturating_mul(1 << self.relapses.min(8))
            .min(FINE_FOR_MAX)
    }
}

/// What this process reaches; told by its roles and by whoever asks Postgres.
#[derive(Clone)]
pub struct Reached(Arc<Inner>);

struct Inner {
    store: watch::Sender<bool>,
    links: Mutex<HashMap<Role, Links>>,
    unwell: watch::Sender<Vec<Role>>,
}

type Links = Box<dyn Fn() -> u32 + Send>;

impl Default for Reached {
    fn default() -> Self {
        Self(Arc::new(Inner {
            store: watch::Sender::new(true),
            links: Mutex::default(),
            unwell: watch::Sender::default(),
        }))
    }
}

impl fmt::Debug for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reached").finish_non_exhaustive()
    }
}

impl Reached {
    /// How the role's links are counted: distinct nodes of its [`partner`] role.
    pub fn links(&self, role: Role, count: impl Fn() -> u32 + Send + 'static) {
        self.lock().insert(role, Box::new(count));
    }

    /// Whether Postgres answers.
    pub fn store(&self, answers: bool) {
        self.0.store.send_replace(answers);
    }

    pub fn of(&self, role: Role) -> Reach {
        let needs_store = matches!(role, Role::Chat | Role::Accounts | Role::Media);
        Reach {
            store: !needs_store || *self.0.store.borrow(),
            links: self.lock().get(&role).map_or(0, |count| count()),
        }
    }

    /// Whether this node has said of the role that it is unwell.
    pub fn is_unwell(&self, role: Role) -> bool {
        self.0.unwell.borrow().contains(&role)
    }

    /// Until it has said so.
    pub async fn unwell(&self, role: Role) {
        let mut unwell = self.0.unwell.subscribe();
        // The sender lives in self.
        let _ = unwell.wait_for(|roles| roles.contains(&role)).await;
    }

    /// Until it has said that it is well, or said nothing yet.
    pub async fn well(&self, role: Role) {
        let mut unwell = self.0.unwell.subscribe();
        // The sender lives in self.
        let _ = unwell.wait_for(|roles| !roles.contains(&role)).await;
    }

    /// This node has said so of the role.
    pub fn said(&self, role: Role, is_unwell: bool) {
        metrics::unwell(role, is_unwell);
        self.0.unwell.send_modify(|roles| {
            roles.retain(|of| *of != role);
            if is_unwell {
                roles.push(role);
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Role, Links>> {
        self.0.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks again and again, and writes into this node's record what comes of it; until the drain begins.
pub async fn watch(ctx: NodeContext, roles: Vec<Role>, registration: Arc<Registration>) {
    let mut states: Vec<(Role, Wellness)> = roles
        .into_iter()
        .map(|role| (role, Wellness::default()))
        .collect();
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            () = ctx.drain.wait() => return,
        }
        for (role, state) in &mut states {
            let (fine, worse) = look(&ctx, *role).await;
            let before = state.is_unwell();
            state.look(fine, worse, Instant::now());
            if state.is_unwell() != before {
                let unwell = state.is_unwell();
                tracing::warn!(%role, unwell, reach = ?ctx.reached.of(*role), "what this node reaches has changed");
                ctx.reached.said(*role, unwell);
                let said = registration.unwell(*role, unwell);
                // An etcd that is away does not keep it from looking; the registration writes it when it is back.
                let _late = timeout(TIMEOUT, said).await;
            }
        }
    }
}

async fn look(ctx: &NodeContext, role: Role) -> (bool, bool) {
    let map = ctx.map.current();
    let needed = partner(role).map_or(0, |partner| needed(&map, partner));
    let own = ctx.reached.of(role);
    if own.is_all(needed) {
        return (true, false);
    }
    let others = map.nodes(role).iter();
    let others = others.filter(|node| *node.name != *ctx.name && !node.draining && !node.unwell);
    let asked = others.choose_multiple(&mut rand::rng(), ASKED);
    let some = !asked.is_empty();
    let answers = join_all(asked.into_iter().map(|node| ask(ctx, role, node))).await;
    let answers: Vec<Reach> = answers.into_iter().flatten().collect();
    // Whom nobody answers, and who has no link or no store: it is this node that is alone.
    let alone = some && answers.is_empty() && (!own.store || own.links == 0);
    let worse = answers.iter().any(|other| own.is_worse_than(*other, needed));
    (false, worse || alone)
}

fn needed(map: &ClusterMap, role: Role) -> u32 {
    let count = map.nodes(role).iter().filter(|node| !node.draining).count();
    u32::try_from(count).unwrap_or(u32::MAX)
}

async fn ask(ctx: &NodeContext, role: Role, node: &Node) -> Option<Reach> {
    let mut client = NodeInfoClient::new(ctx.channels.get(&node.address).ok()?);
    let request = GetReachRequest {
        role: role.as_str().to_owned(),
    };
    let answer = timeout(TIMEOUT, client.get_reach(request))
        .await
        .ok()?
        .ok()?
        .into_inner();
    Some(Reach {
        store: answer.store,
        links: answer.links,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: Reach = Reach {
        store: true,
        links: 4,
    };

    #[test]
    fn only_who_can_do_the_work_is_better_off() {
        let reach = |store, links| Reach { store, links };
        for (own, other, worse, why) in [
            (
                reach(false, 4),
                FULL,
                true,
                "Postgres is away from this node alone",
            ),
            (reach(false, 4), reach(false, 4), false, "it is away for both"),
            (reach(true, 0), FULL, true, "no gateway reaches this node"),
            (reach(true, 0), reach(true, 0), false, "all gateways are gone"),
            (
                reach(false, 4),
                reach(true, 0),
                false,
                "whom no gateway reaches does nothing with Postgres",
            ),
            (reach(true, 3), FULL, false, "one link is missing"),
            (reach(true, 2), FULL, true, "half of the gateways do not reach it"),
            (
                reach(true, 0),
                reach(false, 4),
                false,
                "gateways without Postgres are no help",
            ),
        ] {
            assert_eq!(own.is_worse_than(other, 4), worse, "{why}");
        }
        assert!(
            reach(false, 0).is_worse_than(reach(true, 0), 0),
            "a role without links"
        );
        assert!(!reach(true, 0).is_worse_than(reach(true, 0), 0));
    }

    /// Looks each half second; for how long it took until it changed its mind.
    fn until(wellness: &mut Wellness, now: &mut Instant, fine: bool, worse: bool) -> Duration {
        let (began, before) = (*now, wellness.is_unwell());
        for _ in 0..1_000 {
            wellness.look(fine, worse, *now);
            if wellness.is_unwell() != before {
                return *now - began;
            }
            *now += LOOK;
        }
        Duration::MAX
    }

    #[test]
    fn a_node_says_so_after_a_while_and_each_relapse_costs_it_more() {
        let (mut wellness, mut now) = (Wellness::default(), Instant::now());
        // A blink is nothing.
        wellness.look(false, true, now);
        wellness.look(true, false, now + LOOK);
        now += LOOK * 2;
        let mut waits = Vec::new();
        for _ in 0..6 {
            assert_eq!(until(&mut wellness, &mut now, false, true), WORSE_FOR);
            waits.push(until(&mut wellness, &mut now, true, false).as_secs());
        }
        assert_eq!(waits, [5, 10, 20, 40, 60, 60]);
        now += FORGIVEN_AFTER;
        until(&mut wellness, &mut now, false, true);
        assert_eq!(until(&mut wellness, &mut now, true, false), FINE_FOR);
    }

    #[test]
    fn who_is_unwell_stays_so_while_anything_is_missing() {
        let (mut wellness, mut now) = (Wellness::default(), Instant::now());
        until(&mut wellness, &mut now, false, true);
        // Now it is away for everybody.
        assert_eq!(until(&mut wellness, &mut now, false, false), Duration::MAX);
        assert!(wellness.is_unwell());
    }
}
