//! The limits of the design: what bounds a platform however many machines it gets, and what would have to be done.

use serde::Serialize;
use tern_types::SLOTS;

use super::platform::{MOST_CELLS, Platform, Sizing};

/// The connections of other nodes that a node without clients takes, at a limit of 65,536 file descriptors
/// (`crates/transport/src/descriptors.rs`).
const INTERNAL_CONNECTIONS: f64 = 64_384.0;
/// The channels to other nodes that a node keeps (`crates/transport/src/channels.rs`).
const CHANNELS: f64 = 16_384.0;
/// The bytes of the largest answer of etcd that its client reads. All nodes are read in one answer
/// (`crates/cluster/src/etcd.rs`).
const ETCD_ANSWER_BYTES: f64 = 4.0 * 1024.0 * 1024.0;
/// The numbers of users between which a limit is looked for.
const USERS: (f64, f64) = (1e3, 1e11);
/// Halvings of that range, on a logarithmic scale. They find a number to a thousandth.
const HALVINGS: u32 = 40;

/// A limit of the design.
#[derive(Debug, Clone, Serialize)]
pub struct Limit {
    /// The name of the thing that is limited.
    pub what: &'static str,
    /// The most that there can be of it.
    pub most: f64,
    /// How much of it each of the platforms needs, in their order.
    pub needed: Vec<f64>,
    /// The users from which on there would have to be more. `None`: 100 billion users stay below the limit.
    pub users: Option<f64>,
    /// The change to the design that more users would need.
    pub then: &'static str,
}

impl Limit {
    /// Returns whether the platform with this index needs more than there can be.
    pub fn is_exceeded(&self, platform: usize) -> bool {
        self.needed
            .get(platform)
            .is_some_and(|needed| *needed > self.most)
    }
}

/// How a limit is computed.
struct Rule {
    what: &'static str,
    most: fn(&Sizing<'_>) -> f64,
    needed: fn(&Platform) -> f64,
    then: &'static str,
}

const RULES: [Rule; 11] = [
    Rule {
        what: "machines for a plain Postgres",
        most: |_| 1.0,
        needed: |platform| platform.postgres.one_server,
        then: "a plain Postgres has people and all cells: place the store on a Citus cluster (tern migrate \
               --citus)",
    },
    Rule {
        what: "machines for cells",
        most: |_| f64::from(MOST_CELLS),
        needed: |platform| platform.postgres.machines,
        then: "a store has no more cells than these, one on a machine: allow more, and keep messages for less long",
    },
    Rule {
        what: "processors for people",
        most: |sizing| sizing.machines.postgres_processors * sizing.machines.busy,
        needed: |platform| platform.postgres.people_processors,
        then: "the schema people is on one machine, whatever the number of cells: divide it by user",
    },
    Rule {
        what: "processors of a cell for looks at inboxes",
        most: |sizing| sizing.machines.postgres_processors * sizing.machines.busy,
        needed: |platform| platform.postgres.cell_read_processors,
        then: "each connect and each sweep asks every cell for a device's inbox: keep by user which cells \
               have something, and sweep less often",
    },
    Rule {
        what: "messages a second of a shard",
        most: |sizing| sizing.constants.shard_messages,
        needed: |platform| platform.postgres.shard_messages,
        then: "one connection commits for a cell of a chat node: choose more cells when the store is made",
    },
    Rule {
        what: "shards' connections to a Postgres machine",
        most: |sizing| sizing.machines.postgres_connections,
        needed: |platform| platform.postgres.shard_connections,
        then: "put fewer cells on a machine, or use fewer and larger chat nodes",
    },
    Rule {
        what: "pools' connections to one address",
        most: |sizing| sizing.machines.postgres_connections,
        needed: |platform| platform.postgres.pool_connections,
        then: "use fewer and larger nodes, smaller pools, or readers of their own for what is asked by user",
    },
    Rule {
        what: "nodes of a role that owns slots",
        most: |_| f64::from(SLOTS),
        needed: |platform| platform.chats.max(platform.presences),
        then: "there are 4,096 slots for ever, and a slot has one owner: use larger nodes",
    },
    Rule {
        what: "gateways linked to a chat node",
        most: |_| INTERNAL_CONNECTIONS,
        needed: |platform| platform.gateways.nodes,
        then: "every gateway has a link to every chat node: raise the limit of file descriptors, use larger \
               gateways, or put relays between groups of gateways and chat nodes",
    },
    Rule {
        what: "nodes that a node has to reach",
        most: |_| CHANNELS,
        needed: |platform| platform.nodes,
        then: "a node that reaches more, such as an accounts node that tells all gateways, forgets the channels \
               that it has not used for longest and connects anew: keep more channels",
    },
    Rule {
        what: "bytes of the list of nodes",
        most: |_| ETCD_ANSWER_BYTES,
        needed: |platform| platform.etcd_list_bytes,
        then: "etcd's client reads no larger answer: read the list in pages",
    },
];

/// Returns all limits, with what these platforms need.
pub fn limits(sizing: &Sizing<'_>, platforms: &[Platform]) -> Vec<Limit> {
    let limit = |rule: &Rule| Limit {
        what: rule.what,
        most: (rule.most)(sizing),
        needed: platforms.iter().map(rule.needed).collect(),
        users: users(rule, sizing),
        then: rule.then,
    };
    RULES.iter().map(limit).collect()
}

/// Returns the number of users from which on a limit is exceeded.
fn users(rule: &Rule, sizing: &Sizing<'_>) -> Option<f64> {
    let most = (rule.most)(sizing);
    let exceeds = |users: f64| (rule.needed)(&sizing.platform(users)) > most;
    let (mut below, mut above) = USERS;
    if !exceeds(above) {
        return None;
    }
    for _ in 0..HALVINGS {
        let middle = (below * above).sqrt();
        if exceeds(middle) {
            above = middle;
        } else {
            below = middle;
        }
    }
    Some(above)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::platform::sized;

    #[test]
    fn a_limit_is_exceeded_from_its_number_of_users_on_and_not_before() {
        sized(&[], |sizing| {
            for rule in &RULES {
                let most = (rule.most)(sizing);
                let needed = |users: f64| (rule.needed)(&sizing.platform(users));
                match users(rule, sizing) {
                    Some(users) => {
                        assert!(needed(users) > most, "{} at {users}", rule.what);
                        assert!(needed(users * 0.99) <= most, "{} below {users}", rule.what);
                    }
                    None => assert!(needed(USERS.1) <= most, "{}", rule.what),
                }
            }
        });
    }

    #[test]
    fn two_billion_users_exceed_what_one_server_can_do_and_a_million_do_not() {
        sized(&[], |sizing| {
            let platforms = [1e6, 2e9].map(|users| sizing.platform(users));
            let limits = limits(sizing, &platforms);
            assert!(limits.iter().all(|limit| !limit.is_exceeded(0)), "{limits:?}");
            assert!(limits[0].is_exceeded(1) && limits[0].users.is_some_and(|users| users < 2e9));
            assert!(!limits[0].is_exceeded(7), "there is no such platform");
        });
    }
}
