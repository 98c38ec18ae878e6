//! Keeps the nodes that do not answer at present, so that nobody waits for them again and again. It is pure: time comes
//! in as an argument.

use std::collections::HashMap;
use std::time::Duration;

use tern_cluster::links::NodeIdentity;
use tern_cluster::map::Role;
use tokio::time::Instant;

/// The time between two probes of a silent node. A probe is a question for whose answer nobody waits. A node that is
/// back is therefore used again within a second.
pub const PROBE_EVERY: Duration = Duration::from_secs(1);
/// The time after which a silent node that nobody asks is forgotten: it has left the map.
const FORGET_AFTER: Duration = Duration::from_secs(60);

/// The way in which a node is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Ask it, and wait for its answer.
    Wait,
    /// Ask it to find out whether it answers again, and do not wait for its answer.
    Probe,
    /// Do not ask it: it was probed a moment ago.
    Skip,
}

/// The silent nodes, and when each is probed next. A process that has several roles may be silent in one of them only.
#[derive(Debug, Default)]
pub struct Silent(HashMap<(Role, NodeIdentity), Instant>);

impl Silent {
    /// Decides how to ask the node now. After a `Probe` this returns `Skip` until the next probe is due.
    pub fn ask(&mut self, role: Role, node: &NodeIdentity, now: Instant) -> Ask {
        match self.0.get_mut(&(role, node.clone())) {
            None => Ask::Wait,
            Some(next) if *next <= now => {
                *next = now + PROBE_EVERY;
                Ask::Probe
            }
            Some(_) => Ask::Skip,
        }
    }

    /// Notes that the node has not answered in time. It is probed first after [`PROBE_EVERY`].
    pub fn fell_silent(&mut self, role: Role, node: NodeIdentity, now: Instant) {
        self.0.retain(|_, next| now < *next + FORGET_AFTER);
        self.0.entry((role, node)).or_insert(now + PROBE_EVERY);
    }

    /// Notes that the node has answered, in time or not. Returns true if it was silent.
    pub fn answered(&mut self, role: Role, node: &NodeIdentity) -> bool {
        self.0.remove(&(role, node.clone())).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, incarnation: u64) -> NodeIdentity {
        NodeIdentity {
            name: name.to_owned(),
            incarnation,
        }
    }

    #[test]
    fn a_silent_node_is_waited_for_once_and_then_probed_each_second_until_it_answers() {
        let (mut silent, start) = (Silent::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        let (deaf, other, again) = (node("p0", 1), node("p1", 1), node("p0", 2));
        assert_eq!(silent.ask(Role::Presence, &deaf, at(0)), Ask::Wait);
        silent.fell_silent(Role::Presence, deaf.clone(), at(300));
        let asked = [301, 1299, 1300, 1301, 2299, 2300].map(|ms| silent.ask(Role::Presence, &deaf, at(ms)));
        assert_eq!(
            asked,
            [Ask::Skip, Ask::Skip, Ask::Probe, Ask::Skip, Ask::Skip, Ask::Probe]
        );
        // Questions that were under way when it fell silent do not delay its probe.
        silent.fell_silent(Role::Presence, deaf.clone(), at(2301));
        assert_eq!(silent.ask(Role::Presence, &deaf, at(3300)), Ask::Probe);
        assert_eq!(
            silent.ask(Role::Presence, &other, at(301)),
            Ask::Wait,
            "others are asked as before"
        );
        assert_eq!(
            silent.ask(Role::Gateway, &deaf, at(301)),
            Ask::Wait,
            "the same process may answer in another role"
        );
        assert_eq!(
            silent.ask(Role::Presence, &again, at(301)),
            Ask::Wait,
            "started again, it is another"
        );
        assert!(silent.answered(Role::Presence, &deaf) && !silent.answered(Role::Presence, &deaf));
        assert_eq!(silent.ask(Role::Presence, &deaf, at(3301)), Ask::Wait);
    }

    #[test]
    fn what_left_the_map_is_forgotten() {
        let (mut silent, start) = (Silent::default(), Instant::now());
        for number in 0..100 {
            let later = start + 2 * FORGET_AFTER * number;
            silent.fell_silent(Role::Presence, node("p0", number.into()), later);
        }
        assert_eq!(silent.0.len(), 1);
    }
}
