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

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use rand::seq::IteratorRandom;
use tern_proto::internal::GetReachRequest;
use tern_proto::internal::node_info_client::NodeInfoClient;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::NodeContext;
use crate::etcd::Registration;
use crate::map::{ClusterMap, Node, Role};
use crate::reach::partner;

pub use crate::reach::{Reach, Reached};

/// The time between two looks at what is reached.
const LOOK: Duration = Duration::from_millis(500);
/// The time for which a node has to be worse off than others before it marks itself as unwell. Links that break are
/// usually open again sooner.
const WORSE_FOR: Duration = Duration::from_millis(1500);
/// The time for which an unwell node has to be fine before it takes its slots back: it reaches everything, or about as
/// much as the others. Each relapse doubles it.
const FINE_FOR: Duration = Duration::from_secs(5);
/// The longest such time after relapses. A node that was cut off again and again takes its slots back when it has been
/// fine for this long.
const FINE_FOR_MAX: Duration = Duration::from_secs(60);
/// The time for which a node has to be well for its relapses to be forgotten.
const FORGIVEN_AFTER: Duration = Duration::from_secs(600);
/// The most other nodes that are asked. One that is better off is enough.
const ASKED: usize = 8;
/// The timeout of an answer, which comes from the other node's memory.
const TIMEOUT: Duration = Duration::from_secs(1);

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

    /// Returns whether a node that reaches `other` would serve the slots hardly better. Links that most nodes lack are
    /// no reason to stay unwell, such as those to a gateway that hangs or has just started. For example, a node with 3
    /// links is as good as one with 4, and a node with 2 links is not.
    fn is_as_good_as(self, other: Self) -> bool {
        let enough = self.links.saturating_mul(4) >= other.links.saturating_mul(3);
        self.store && self.links > 0 && (enough || !other.store)
    }
}

/// The state of one role that decides when a node is unwell, and when it is well again. It is pure: callers pass in the
/// time.
#[derive(Debug, Default)]
pub struct Wellness {
    unwell: bool,
    /// The time since which the node has been worse off than others. `None`: it is not.
    worse_since: Option<Instant>,
    /// The time since which the node has been fine. `None`: it is not.
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

    /// Takes the result of one look at `now`. `fine` means that this node reaches everything, or about as much as others
    /// of its role, `worse` that it is worse off than they are.
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

    /// Returns the time for which the node has to be fine, after the relapses so far, before it is well again.
    fn fine_for(&self) -> Duration {
        FINE_FOR
            .saturating_mul(1 << self.relapses.min(8))
            .min(FINE_FOR_MAX)
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

/// Returns whether `role` reaches everything, or about as much as the other nodes of the role that were asked, and
/// whether it is worse off than they are: one of them reaches more, or none of them answers a node that has no store or
/// no link.
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
    let fine = !answers.is_empty() && answers.iter().all(|other| own.is_as_good_as(*other));
    (fine, worse || alone)
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

    /// One gateway hangs, or is not linked yet, for all nodes alike.
    #[test]
    fn who_reaches_about_as_much_as_others_is_fine() {
        let reach = |store, links| Reach { store, links };
        for (own, other, good, why) in [
            (reach(true, 3), reach(true, 3), true, "one gateway hangs for both"),
            (
                reach(true, 3),
                FULL,
                true,
                "the link to a gateway that starts is not open yet",
            ),
            (
                reach(true, 2),
                reach(true, 3),
                false,
                "a third of the links is missing here alone",
            ),
            (reach(true, 2), FULL, false, "half of them is"),
            (reach(true, 1), reach(true, 0), true, "the other has none"),
            (reach(true, 1), reach(false, 4), true, "the other has no Postgres"),
            (
                reach(true, 0),
                reach(true, 0),
                false,
                "no gateway reaches this node",
            ),
            (reach(false, 4), FULL, false, "Postgres is away"),
        ] {
            assert_eq!(own.is_as_good_as(other), good, "{why}");
            assert!(!(good && own.is_worse_than(other, 4)), "{why}");
        }
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
