//! Finds out whether this node is worse off than others of its role, because it is cut off from Postgres or from the
//! nodes that it works with. Such a node is alive, but marks itself as unwell in its record, owns no slots while other
//! nodes can, and takes its slots back when it is well again.
//!
//! ```text
//! every half second: does it reach all that it needs?
//!     ── no ──> ask others of the role what they reach ──> Wellness (pure)
//! ```
//!
//! Something that is away for everybody makes nobody unwell, because moving slots would not help. So a node asks
//! others before it marks itself.

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

/// The time between two looks at what is reached.
const LOOK: Duration = Duration::from_millis(500);
/// The time for which a node has to be worse off than others before it marks itself as unwell. Links that break are
/// usually open again sooner.
const WORSE_FOR: Duration = Duration::from_millis(1500);
/// The time for which an unwell node has to reach everything before it takes its slots back. Each relapse doubles it.
const FINE_FOR: Duration = Duration::from_secs(5);
/// The longest such time after relapses. A node that was cut off again and again takes its slots back when it has
/// reached everything for this long.
const FINE_FOR_MAX: Duration = Duration::from_secs(60);
/// The time for which a node has to be well for its relapses to be forgotten.
const FORGIVEN_AFTER: Duration = Duration::from_secs(600);
/// The most other nodes that are asked. One that is better off is enough.
const ASKED: usize = 8;
/// The timeout of an answer, which comes from the other node's memory.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The things that a node reaches in one of its roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// True if Postgres answers, or the role does not need it.
    pub store: bool,
    /// The number of nodes of the [`partner`] role that it is linked to.
    pub links: u32,
}

/// Returns the role whose nodes a role is linked to, or `None` if it needs no links.
pub(crate) fn partner(role: Role) -> Option<Role> {
    match role {
        Role::Chat | Role::Presence => Some(Role::Gateway),
        Role::Gateway => Some(Role::Chat),
        Role::Accounts | Role::Media => None,
    }
}

impl Reach {
    /// Returns whether everything is reached: the store, if it is needed, and `needed` nodes.
    fn is_all(self, needed: u32) -> bool {
        self.store && self.links >= needed
    }

    /// Returns whether a node that reaches `other` would serve the slots better. One missing link is no reason to move
    /// thousands of chats, but half of the links missing is. For example, a node with 2 links is worse off than one
    /// with 4, and a node with 3 links is not.
    fn is_worse_than(self, other: Self, needed: u32) -> bool {
        let serves = other.store && (needed == 0 || other.links > 0);
        let fewer = needed > 0 && self.links.saturating_mul(2) <= other.links;
        serves && (!self.store || fewer)
    }
}

/// The state of one role that decides when a node is unwell, and when it is well again. It is pure: callers pass in the
/// time.
#[derive(Debug, Default)]
pub struct Wellness {
    unwell: bool,
    /// The time since which the node has been worse off than others. `None`: it is not.
    worse_since: Option<Instant>,
    /// The time since which the node has reached everything. `None`: it does not.
    fine_since: Option<Instant>,
    /// The number of times that the node became well again, since they were last forgotten.
    relapses: u32,
    /// The time at which the node last became well again. `None`: it is unwell now, or was never unwell.
    well_since: Option<Instant>,
}

impl Wellness {
    /// Returns whether the node is unwell at present.
    pub fn is_unwell(&self) -> bool {
        self.unwell
    }

    /// Takes the result of one look at `now`. `fine` means that everything is reached, `worse` that this node
    /// is worse off than others of its role.
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

    /// Returns the time for which everything has to be reached, after the relapses so far, before the node is well
    /// again.
    fn fine_for(&self) -> Duration {
        FINE_FOR
            .saturating_mul(1 << self.relapses.min(8))
            .min(FINE_FOR_MAX)
    }
}

/// The state of what this process reaches in each role. Its roles and the probe of Postgres keep it up to date. Clones
/// share one state.
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
    /// Sets how a role's links are counted: `count` returns the number of distinct nodes of its [`partner`] role that
    /// it is linked to.
    pub fn links(&self, role: Role, count: impl Fn() -> u32 + Send + 'static) {
        metrics::unwell(role, false);
        self.lock().insert(role, Box::new(count));
    }

    /// Sets whether Postgres answers.
    pub fn store(&self, answers: bool) {
        self.0.store.send_replace(answers);
    }

    /// Returns what this process reaches in `role` at present.
    pub fn of(&self, role: Role) -> Reach {
        let needs_store = matches!(role, Role::Chat | Role::Accounts | Role::Media);
        Reach {
            store: !needs_store || *self.0.store.borrow(),
            links: self.lock().get(&role).map_or(0, |count| count()),
        }
    }

    /// Returns whether this node has marked itself as unwell in the role.
    pub fn is_unwell(&self, role: Role) -> bool {
        self.0.unwell.borrow().contains(&role)
    }

    /// Waits until this node has marked itself as unwell in the role.
    pub async fn unwell(&self, role: Role) {
        let mut unwell = self.0.unwell.subscribe();
        // This cannot fail, since `self` keeps the sender.
        let _ = unwell.wait_for(|roles| roles.contains(&role)).await;
    }

    /// Notes that this node has marked itself in the role as unwell, or as well again.
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

/// Checks every half second what each role reaches, and marks this node's record as unwell or well accordingly. It ends
/// when the drain begins.
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
                // If etcd is away, this loop goes on, and the registration writes the record when etcd is back.
                let _late = timeout(TIMEOUT, said).await;
            }
        }
    }
}

/// Returns whether `role` reaches everything, and whether it is worse off than other nodes of the role: one
/// of them reaches more, or none of them answers a node that has no store or no link.
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
    // If this node has no link or no store, and none of the nodes that it asked answers, it is itself the one that is
    // cut off.
    let alone = some && answers.is_empty() && (!own.store || own.links == 0);
    let worse = answers.iter().any(|other| own.is_worse_than(*other, needed));
    (false, worse || alone)
}

/// Returns the number of nodes of `role` that a node should be linked to.
fn needed(map: &ClusterMap, role: Role) -> u32 {
    let count = map.nodes(role).iter().filter(|node| !node.draining).count();
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Asks another node what it reaches. Returns `None` if it does not answer in time.
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

    /// Looks every half second, and returns how long it took until the node's state changed.
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
        // Being worse off for a moment has no effect.
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
        // From now on Postgres or the links are away for everybody.
        assert_eq!(until(&mut wellness, &mut now, false, false), Duration::MAX);
        assert!(wellness.is_unwell());
    }
}
