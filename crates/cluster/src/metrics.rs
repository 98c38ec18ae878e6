//! The metrics of this crate.

use std::time::Duration;

use metrics::{counter, gauge};
use tern_telemetry::described::Kind::{Counter, Gauge};
use tern_telemetry::described::{self, Described};

use crate::level::Level;
use crate::map::{ClusterMap, Role};
use crate::standing::Place;

const BUILD: &str = "tern_node_build_info";
const LINK_BREAKS: &str = "tern_node_link_breaks_total";
const MAP_VERSION: &str = "tern_node_map_version";
const MAP_NODES: &str = "tern_node_map_nodes";
const MAP_LISTS: &str = "tern_node_map_lists_total";
const REMOVALS_HELD: &str = "tern_node_map_removals_held";
const ETCD_UP: &str = "tern_node_etcd_up";
const LEASES_LOST: &str = "tern_node_leases_lost_total";
const SHED_LEVEL: &str = "tern_node_shed_level";
const SHED_DELAY: &str = "tern_node_shed_delay_seconds";
const SHED: &str = "tern_node_shed_total";
const MAP_TOLD: &str = "tern_node_map_told_total";
const FOUND_DEAD: &str = "tern_node_found_dead_total";
const PLACE: &str = "tern_node_place";
const UNWELL: &str = "tern_node_unwell";
const DRAINING: &str = "tern_node_draining";

/// The kind, name and description of each metric.
const DESCRIBED: &[Described] = &[
    (Gauge, BUILD, "1, by the version of the program"),
    (
        Counter,
        LINK_BREAKS,
        "Links to other nodes that ended, and attempts to open one that failed, by the other's role",
    ),
    (Gauge, MAP_VERSION, "Version of the cluster map in use"),
    (Gauge, MAP_NODES, "Nodes in the cluster map, by role"),
    (Counter, MAP_LISTS, "Times the whole map was read from etcd"),
    (
        Gauge,
        REMOVALS_HELD,
        "Nodes gone from etcd that are kept for one lease because too many vanished at once",
    ),
    (
        Gauge,
        ETCD_UP,
        "1 while etcd answers this node's keep-alive; at 0 the map is frozen",
    ),
    (
        Counter,
        LEASES_LOST,
        "Leases that ended without this node's doing and were granted again",
    ),
    (
        Gauge,
        SHED_LEVEL,
        "What this process gives up under load, 0 to 4, by whose it is: measured by itself, in effect",
    ),
    (
        Gauge,
        SHED_DELAY,
        "Median time that work waited in the last quarter of a second, by signal",
    ),
    (Counter, SHED, "What was dropped or put off under load, by kind"),
    (
        Counter,
        MAP_TOLD,
        "Times a newer map came from another node, since etcd was out of this one's sight",
    ),
    (
        Counter,
        FOUND_DEAD,
        "Records of others that this node marked as gone, since nothing listens at their address",
    ),
    (
        Gauge,
        PLACE,
        "1 for what is so of this node's place in the map: held; frozen (etcd is away for all), lost, cut_off",
    ),
    (
        Gauge,
        UNWELL,
        "1 while this node has given its slots up since it is cut off from what others reach, by role",
    ),
    (Gauge, DRAINING, "1 while this process drains"),
];

/// Describes the metrics. A process calls it once, when its recorder is installed.
pub fn describe() {
    described::describe(DESCRIBED);
    gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    for level in &Level::ALL[1..] {
        counter!(SHED, "what" => level.name()).absolute(0);
    }
    // These metrics start at 0, so that each is visible before its first event.
    gauge!(DRAINING).set(0.0);
    for of in ["effect", "own"] {
        gauge!(SHED_LEVEL, "of" => of).set(0.0);
    }
    for name in [MAP_LISTS, LEASES_LOST, MAP_TOLD, FOUND_DEAD] {
        counter!(name).absolute(0);
    }
    for role in Role::ALL {
        counter!(LINK_BREAKS, "role" => role.as_str()).absolute(0);
    }
}

pub(crate) fn link_broke(role: Role) {
    counter!(LINK_BREAKS, "role" => role.as_str()).increment(1);
}

pub(crate) fn map(map: &ClusterMap, held: usize) {
    gauge!(MAP_VERSION).set(map.version() as f64);
    gauge!(REMOVALS_HELD).set(held as f64);
    for role in Role::ALL {
        gauge!(MAP_NODES, "role" => role.as_str()).set(map.nodes(role).len() as f64);
    }
}

pub(crate) fn map_listed() {
    counter!(MAP_LISTS).increment(1);
}

pub(crate) fn map_told() {
    counter!(MAP_TOLD).increment(1);
}

pub(crate) fn found_dead() {
    counter!(FOUND_DEAD).increment(1);
}

/// Sets the metric of this node's place in the map. It is called at each attempt to renew the lease.
pub(crate) fn place(place: Place) {
    for of in Place::ALL {
        gauge!(PLACE, "of" => of.as_str()).set(f64::from(u8::from(of == place)));
    }
}

pub(crate) fn unwell(role: Role, unwell: bool) {
    gauge!(UNWELL, "role" => role.as_str()).set(f64::from(u8::from(unwell)));
}

pub(crate) fn etcd_up(up: bool) {
    gauge!(ETCD_UP).set(f64::from(u8::from(up)));
}

pub(crate) fn lease_lost() {
    counter!(LEASES_LOST).increment(1);
}

pub(crate) fn shed_level(effective: Level, own: Level) {
    gauge!(SHED_LEVEL, "of" => "effect").set(f64::from(effective.to_wire()));
    gauge!(SHED_LEVEL, "of" => "own").set(f64::from(own.to_wire()));
}

pub(crate) fn gave_up(what: Level) {
    counter!(SHED, "what" => what.name()).increment(1);
}

pub(crate) fn delay(signal: &'static str, delay: Duration) {
    gauge!(SHED_DELAY, "signal" => signal).set(delay.as_secs_f64());
}

pub(crate) fn draining() {
    gauge!(DRAINING).set(1.0);
}
