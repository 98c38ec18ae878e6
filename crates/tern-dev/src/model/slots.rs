//! How slots are spread over nodes, and how many of them move. Everything here is asked of the map and the membership
//! that nodes use (`tern_cluster`).

use std::collections::BTreeMap;
use std::time::Instant;

use serde::Serialize;
use tern_cluster::membership::{Change, LEASE, Membership};
use tern_cluster::{ClusterMap, Node, Role};
use tern_types::{SLOTS, Slot};

/// The bytes of a record in an answer of etcd besides key and value: its revisions, version, lease, and the lengths of
/// all fields.
const RECORD_OVERHEAD: usize = 32;

/// The simulated map.
#[derive(clap::Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Simulation of the map")]
pub struct SlotArgs {
    /// Chat nodes
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(2..=20_000))]
    nodes: u16,
    /// Zones that the nodes are spread over
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(2..=100))]
    zones: u16,
}

/// The slots of each node, and how many move. Shares are parts of all slots, from 0 to 1.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SlotMoves {
    pub nodes: u16,
    pub zones: u16,
    /// Slots of the node that has the fewest.
    pub fewest: u32,
    /// Slots of the node that has the most.
    pub most: u32,
    /// Share that moves when a node joins.
    pub join: f64,
    /// Share that moves when a node leaves.
    pub leave: f64,
    /// Nodes of the zone that is lost.
    pub zone_nodes: usize,
    /// How many of them stay in the map for one lease more, because too many vanished at once.
    pub zone_held: usize,
    /// Share that moves as soon as the zone's leases have ended.
    pub zone_at_once: f64,
    /// Share that has moved one lease later.
    pub zone_later: f64,
    /// Milliseconds in which this machine made the first map, as every node does after every change.
    pub map_ms: f64,
}

/// Lets a node join, a node leave and a zone be lost.
pub fn simulate(args: SlotArgs) -> SlotMoves {
    let SlotArgs { nodes, zones } = args;
    let now = tokio::time::Instant::now();
    let mut membership = cluster(nodes, now);
    let began = Instant::now();
    let first = membership.map();
    let map_ms = began.elapsed().as_secs_f64() * 1000.0;
    membership.change(2, [Change::Put(Role::Chat, node(nodes))], now);
    let joined = membership.map();
    membership.change(3, [delete(0)], now);
    let left = membership.map();

    let mut membership = cluster(nodes, now);
    let zone: Vec<Change> = (0..nodes)
        .filter(|number| number % zones == 0)
        .map(delete)
        .collect();
    let zone_nodes = zone.len();
    membership.change(2, zone, now);
    let (at_once, zone_held) = (membership.map(), membership.held());
    membership.expire(now + LEASE);
    let (fewest, most) = spread(&first);
    SlotMoves {
        nodes,
        zones,
        fewest,
        most,
        join: moved(&first, &joined),
        leave: moved(&joined, &left),
        zone_nodes,
        zone_held,
        zone_at_once: moved(&first, &at_once),
        zone_later: moved(&first, &membership.map()),
        map_ms,
    }
}

/// Returns how many shards have slots: the pairs of a chat node and a cell. Slots are spread over nodes as if at
/// random, and each cell has as many slots as any other.
pub fn shards(nodes: f64, cells: u16) -> f64 {
    let slots_of_a_cell = f64::from(SLOTS) / f64::from(cells);
    let nodes_of_a_cell = nodes * (1.0 - (1.0 - 1.0 / nodes).powf(slots_of_a_cell));
    f64::from(cells) * nodes_of_a_cell
}

/// Returns the bytes that a node's record takes in the list that etcd sends.
pub fn record_bytes() -> usize {
    let node = node(10_000);
    let key = format!("/tern/v1/nodes/{}/{}", Role::Gateway, node.name);
    let value = serde_json::to_vec(&node).map_or(0, |value| value.len());
    key.len() + value + RECORD_OVERHEAD
}

fn cluster(nodes: u16, now: tokio::time::Instant) -> Membership {
    let mut membership = Membership::default();
    let all = (0..nodes).map(|number| Change::Put(Role::Chat, node(number)));
    membership.change(1, all, now);
    membership
}

/// Returns the record of a node as a pod writes it.
fn node(number: u16) -> Node {
    let host = format!("10.200.{}.{}", number / 256, number % 256);
    Node {
        name: name(number),
        address: format!("{host}:7070"),
        admin: format!("{host}:7071"),
        incarnation: 1_800_000_000_000,
        ..Node::default()
    }
}

fn name(number: u16) -> String {
    format!("tern-chat-{number}")
}

fn delete(number: u16) -> Change {
    Change::Delete((Role::Chat, name(number)))
}

/// Returns the share of the slots that have another owner than in an older map.
fn moved(older: &ClusterMap, newer: &ClusterMap) -> f64 {
    newer.moved_since(older, Role::Chat).count() as f64 / f64::from(SLOTS)
}

/// Returns the fewest and the most slots that a node has.
fn spread(map: &ClusterMap) -> (u32, u32) {
    let nodes = map.nodes(Role::Chat).iter();
    let mut slots: BTreeMap<&str, u32> = nodes.map(|node| (node.name.as_str(), 0)).collect();
    for owner in Slot::all().filter_map(|slot| map.owner(Role::Chat, slot)) {
        *slots.entry(owner.name.as_str()).or_default() += 1;
    }
    let (fewest, most) = (slots.values().min(), slots.values().max());
    (fewest.copied().unwrap_or(0), most.copied().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tern_types::Cells;

    use super::*;

    #[test]
    fn only_the_slots_of_who_comes_or_goes_move() {
        let moves = simulate(SlotArgs { nodes: 20, zones: 4 });
        assert!((0.02..0.09).contains(&moves.join), "{moves:?}");
        assert!((0.02..0.09).contains(&moves.leave), "{moves:?}");
        assert!(moves.fewest > 100 && moves.most < 350, "{moves:?}");
        assert_eq!((moves.zone_nodes, moves.zone_held), (5, 0));
        assert!((0.15..0.35).contains(&moves.zone_at_once), "{moves:?}");
        assert_eq!(moves.zone_later, moves.zone_at_once);
    }

    #[test]
    fn half_of_all_nodes_are_held_for_a_lease() {
        let moves = simulate(SlotArgs { nodes: 20, zones: 2 });
        // 30 % of 20 nodes may vanish at once.
        assert_eq!((moves.zone_nodes, moves.zone_held), (10, 4));
        assert!(moves.zone_later > moves.zone_at_once, "{moves:?}");
    }

    #[test]
    fn the_number_of_shards_is_that_of_the_map() {
        let cells = Cells::new(64).unwrap();
        let map = cluster(30, tokio::time::Instant::now()).map();
        let real: BTreeSet<_> = Slot::all()
            .filter_map(|slot| Some((map.owner(Role::Chat, slot)?.name.as_str(), cells.of(slot))))
            .collect();
        let computed = shards(30.0, cells.count());
        let off = computed / real.len() as f64 - 1.0;
        assert!(off.abs() < 0.03, "{computed} and {}", real.len());
        assert_eq!(shards(1.0, 4), 4.0);
    }

    #[test]
    fn a_record_has_some_hundred_bytes() {
        assert!((100..500).contains(&record_bytes()), "{}", record_bytes());
    }
}
