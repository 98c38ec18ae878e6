//! Finds what is wrong, and says it in words for an on-call engineer. The code is pure.

use tern_cluster::Role;
use tern_proto::v1;

use super::figures::{Figures, Sweeps};
use super::{Cell, Moment, Mood};
use crate::admin::output::span;
use crate::admin::state::State;

/// The age above which an unsettled commit is an alarm, in milliseconds. The owner settles a commit about
/// half a second after it was made. A look for commits that the owner has forgotten comes every 10 s, and
/// takes those that are older than 5 s. A commit stays unsettled for longer than that while the store fails,
/// or while nobody can say who is online.
pub const UNSETTLED_LATE_MS: i64 = 12_000;

/// The roles without which a platform may run.
const OPTIONAL: [Role; 2] = [Role::Media, Role::Push];

/// Returns the alarms of one node.
pub fn of_node(node: &v1::ClusterNode, map_version: i64, figures: &Figures) -> Vec<Cell> {
    let name = &node.name;
    let mut alarms = Vec::new();
    if node.answer.is_none() {
        alarms.push(bad(format!("{name} does not answer")));
    } else if State::of(node) == State::Restarted {
        alarms.push(warn(format!(
            "{name} was started again, and the map has the process before"
        )));
    } else if node.unwell {
        alarms.push(bad(format!("{name} is cut off from what others reach")));
    } else if !figures.scraped {
        alarms.push(warn(format!(
            "the metrics of {name} cannot be had at {:?}",
            node.admin_address
        )));
    }
    if is_behind(node, map_version) {
        alarms.push(warn(format!("{name} follows another version of the map")));
    }
    if figures.etcd == Some(false) {
        alarms.push(bad(format!("{name} does not reach etcd: its map is frozen")));
    }
    if figures.unsafe_settings > 0.0 {
        alarms.push(warn(format!("{name}: settings of Postgres are not safe")));
    }
    let sheds = figures.shed_level.unwrap_or(0.0);
    if sheds > 0.0 {
        alarms.push(warn(format!("{name} gives way under load: level {sheds}")));
    }
    alarms
}

/// Returns whether the node answers with another version of the map than the present one.
pub fn is_behind(node: &v1::ClusterNode, map_version: i64) -> bool {
    let answer = node.answer.as_ref();
    answer.is_some_and(|answer| answer.map_version != map_version)
}

/// Returns an alarm for each role, except those in [`OPTIONAL`], for which there are no nodes or only draining ones, and
/// for each node that has left the map since the moment before.
pub fn of_map(before: &Moment, map: &v1::GetClusterMapResponse) -> Vec<Cell> {
    let mut alarms = Vec::new();
    let needed = Role::ALL.into_iter().filter(|role| !OPTIONAL.contains(role));
    for role in needed.map(Role::as_str) {
        if !map.nodes.iter().any(|node| node.role == role && !node.draining) {
            alarms.push(bad(format!("there is no {role} node")));
        }
    }
    for old in before.map.iter().flat_map(|before| &before.nodes) {
        if !map
            .nodes
            .iter()
            .any(|node| node.name == old.name && node.role == old.role)
        {
            alarms.push(warn(format!("{} has left the map", old.name)));
        }
    }
    alarms
}

/// Returns an alarm if the sweeps have found something between the two moments.
pub fn of_sweeps(sweeps: Sweeps) -> Option<Cell> {
    let new = sweeps.new;
    (new > 0.0).then(|| bad(format!("the sweep found {new} rows that were lost on the way")))
}

/// Returns the alarms of the queues: for commits that wait too long to be settled, and for nodes and parts of the store
/// that did not answer.
pub fn of_queues(queues: &v1::GetQueuesResponse) -> Vec<Cell> {
    let mut alarms = Vec::new();
    let oldest = oldest_unsettled_ms(queues);
    if oldest > UNSETTLED_LATE_MS {
        alarms.push(bad(format!("a commit has not been settled for {}", span(oldest))));
    }
    for node in &queues.nodes_missed {
        alarms.push(bad(format!("{node} does not say how its shards are")));
    }
    if queues.partial {
        alarms.push(bad("a part of the store does not answer".to_owned()));
    }
    alarms
}

/// Returns the age of the oldest commit that is not settled, in milliseconds; 0 if all are settled.
pub fn oldest_unsettled_ms(queues: &v1::GetQueuesResponse) -> i64 {
    let ages = queues.unsettled.iter().map(|range| range.oldest_age_ms);
    ages.max().unwrap_or(0)
}

/// Returns an alarm that is shown in red.
pub fn bad(text: String) -> Cell {
    Cell {
        text,
        mood: Mood::Bad,
    }
}

fn warn(text: String) -> Cell {
    Cell {
        text,
        mood: Mood::Warn,
    }
}
