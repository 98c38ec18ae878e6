//! `tern admin map`, `nodes` and `queues`: prints the owners of the slots, the cluster's nodes, and the lengths of the
//! queues.

use clap::Args;
use serde::Serialize;
use tern_cluster::{ClusterMap, Node, Role};
use tern_proto::v1;
use tern_types::{ChatId, Clock, Slot, UserId};

use super::output::{facts, show, span, table, when};
use super::remark;
use super::remote::Remote;
use super::state::State;

#[derive(Args, Clone, Debug)]
pub struct ClusterArgs {
    #[command(flatten)]
    remote: Remote,
}

#[derive(Args, Clone, Debug)]
pub struct MapArgs {
    /// Only say which chat node owns this chat
    #[arg(long, conflicts_with = "user")]
    chat: Option<ChatId>,
    /// Only say which presence node owns this user
    #[arg(long)]
    user: Option<UserId>,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Serialize)]
struct Map {
    map_version: i64,
    answered_by: String,
    store_epoch: String,
    nodes: Vec<ListedNode>,
}

#[derive(Serialize)]
struct ListedNode {
    role: String,
    name: String,
    address: String,
    /// The `host:port` of the node's metrics. Empty if the node's version does not tell it.
    admin_address: String,
    incarnation: u64,
    draining: bool,
    unwell: bool,
    slots: u32,
    #[serde(skip)]
    state: State,
    /// The node's answer when it was asked; `None` if it did not answer.
    answer: Option<Answer>,
}

#[derive(Serialize)]
struct Answer {
    map_version: i64,
    version: String,
    started_at_ms: i64,
    shed_level: u32,
    draining: bool,
    incarnation: u64,
}

#[derive(Serialize)]
struct Owner {
    slot: u16,
    owner_node: Option<String>,
}

#[derive(Serialize)]
struct Queues {
    unsettled: Vec<UnsettledRange>,
    inbox_rows: u64,
    inbox_oldest_age_ms: i64,
    inbox_estimated: bool,
    shards: Vec<Shard>,
    nodes_missed: Vec<String>,
    partial: bool,
}

#[derive(Serialize)]
struct UnsettledRange {
    first_slot: u32,
    last_slot: u32,
    commits: u64,
    oldest_age_ms: i64,
}

#[derive(Serialize)]
struct Shard {
    node: String,
    shard: u32,
    busy: bool,
    waiting: u64,
    loaded_chats: u64,
    unsettled_chats: u64,
}

/// Runs `tern admin map`: prints how many slots each node owns and whether all nodes follow the same map. With
/// `--chat` or `--user` it prints the owner of that slot only.
pub async fn map(args: MapArgs) -> anyhow::Result<()> {
    let map = ask(&args.remote).await?;
    let asked = [
        args.chat.map(|chat| (Role::Chat, Slot::of_chat(chat))),
        args.user.map(|user| (Role::Presence, Slot::of_user(user))),
    ];
    if let Some((role, slot)) = asked.into_iter().flatten().next() {
        let owner = Owner {
            slot: slot.number(),
            owner_node: owner(&map, role, slot),
        };
        return show(args.remote.json, &owner, |owner| {
            let name = owner.owner_node.as_deref().unwrap_or("nobody");
            format!("slot {} belongs to {name}", owner.slot)
        });
    }
    show(args.remote.json, &map, |map| {
        let row = |node: &ListedNode| {
            [
                node.role.clone(),
                node.name.clone(),
                node.slots.to_string(),
                node.state.as_str().to_owned(),
                version(node, map.map_version),
            ]
        };
        format!(
            "{}\n{}",
            facts(&[
                (
                    "map version",
                    format!("{} (by {})", map.map_version, map.answered_by)
                ),
                ("store epoch", map.store_epoch.clone()),
            ]),
            table(
                ["ROLE", "NODE", "SLOTS", "STATE", "FOLLOWS"],
                map.nodes.iter().map(row)
            )
        )
    })
}

/// Runs `tern admin nodes`: prints every node in the map with what the node says about itself.
pub async fn nodes(args: ClusterArgs) -> anyhow::Result<()> {
    let nodes = ask(&args.remote).await?.nodes;
    let now = Clock::wall();
    show(args.remote.json, &nodes, |nodes| {
        let row = |node: &ListedNode| {
            let answer =
                |text: fn(&Answer) -> String| node.answer.as_ref().map_or_else(|| "-".to_owned(), text);
            let started = node.answer.as_ref().map_or(0, |answer| answer.started_at_ms);
            [
                node.role.clone(),
                node.name.clone(),
                node.state.as_str().to_owned(),
                answer(|answer| answer.version.clone()),
                when(started, now),
                answer(|answer| answer.shed_level.to_string()),
                node.address.clone(),
                if node.admin_address.is_empty() {
                    "-".to_owned()
                } else {
                    node.admin_address.clone()
                },
            ]
        };
        let head = [
            "ROLE", "NODE", "STATE", "VERSION", "STARTED", "SHEDS", "ADDRESS", "METRICS",
        ];
        table(head, nodes.iter().map(row))
    })
}

/// Runs `tern admin queues`: prints unsettled commits, inbox rows, and the load of each shard.
pub async fn queues(args: ClusterArgs) -> anyhow::Result<()> {
    let queues = waiting(args.remote.api()?.get_queues(v1::GetQueuesRequest {}).await?);
    if !queues.nodes_missed.is_empty() {
        remark(&format!("did not answer: {}", queues.nodes_missed.join(", ")))?;
    }
    if queues.partial {
        remark("a part of the store did not answer: its commits and rows are missing")?;
    }
    show(args.remote.json, &queues, queues_text)
}

/// Reads the cluster map from a gateway.
async fn ask(remote: &Remote) -> anyhow::Result<Map> {
    let map = remote.api()?.get_cluster_map(v1::GetClusterMapRequest {}).await?;
    Ok(Map {
        map_version: map.map_version,
        answered_by: map.answered_by,
        store_epoch: map.store_epoch,
        nodes: map.nodes.into_iter().map(listed).collect(),
    })
}

/// Returns the slot's owner by the same rule that the nodes use, or `None` if the map has no node for it.
fn owner(map: &Map, role: Role, slot: Slot) -> Option<String> {
    let nodes = map
        .nodes
        .iter()
        .filter(|node| node.role == role.as_str())
        .map(|node| {
            let node = Node {
                name: node.name.clone(),
                address: node.address.clone(),
                admin: node.admin_address.clone(),
                incarnation: node.incarnation,
                draining: node.draining,
                unwell: node.unwell,
                ..Node::default()
            };
            (role, node)
        });
    let map = ClusterMap::new(map.map_version, nodes);
    map.owner(role, slot).map(|node| node.name.clone())
}

/// Returns the version of the map that a node follows, as in `7`, or `6 (not 7)` if it differs from `map_version`.
fn version(node: &ListedNode, map_version: i64) -> String {
    match &node.answer {
        None => "-".to_owned(),
        Some(answer) if answer.map_version == map_version => answer.map_version.to_string(),
        Some(answer) => format!("{} (not {map_version})", answer.map_version),
    }
}

fn queues_text(queues: &Queues) -> String {
    let about = if queues.inbox_estimated { "about " } else { "" };
    let oldest = |age: i64, rows: u64| {
        if rows == 0 {
            String::new()
        } else {
            format!(", oldest {}", span(age))
        }
    };
    let commits: u64 = queues.unsettled.iter().map(|range| range.commits).sum();
    let age = queues
        .unsettled
        .iter()
        .map(|range| range.oldest_age_ms)
        .max()
        .unwrap_or(0);
    let facts = facts(&[
        ("unsettled", format!("{commits} commits{}", oldest(age, commits))),
        (
            "inbox",
            format!(
                "{about}{} rows{}",
                queues.inbox_rows,
                oldest(queues.inbox_oldest_age_ms, queues.inbox_rows)
            ),
        ),
    ]);
    let ranges = queues.unsettled.iter().map(|range| {
        let slots = format!("{}-{}", range.first_slot, range.last_slot);
        [slots, range.commits.to_string(), span(range.oldest_age_ms)]
    });
    let shards = queues.shards.iter().map(|shard| {
        [
            shard.node.clone(),
            shard.shard.to_string(),
            if shard.busy { "busy" } else { "idle" }.to_owned(),
            shard.waiting.to_string(),
            shard.loaded_chats.to_string(),
            shard.unsettled_chats.to_string(),
        ]
    });
    let head = [
        "NODE",
        "SHARD",
        "STORE",
        "WAITING",
        "CHATS LOADED",
        "CHATS UNSETTLED",
    ];
    let mut text = facts;
    if commits > 0 {
        text = format!("{text}\n{}", table(["SLOTS", "UNSETTLED", "OLDEST"], ranges));
    }
    format!("{text}\n{}", table(head, shards))
}

fn listed(node: v1::ClusterNode) -> ListedNode {
    ListedNode {
        state: State::of(&node),
        role: node.role,
        name: node.name,
        address: node.address,
        admin_address: node.admin_address,
        incarnation: node.incarnation,
        draining: node.draining,
        unwell: node.unwell,
        slots: node.slots,
        answer: node.answer.map(|answer| Answer {
            map_version: answer.map_version,
            version: answer.version,
            started_at_ms: answer.started_at_ms,
            shed_level: answer.shed_level,
            draining: answer.draining,
            incarnation: answer.incarnation,
        }),
    }
}

fn waiting(queues: v1::GetQueuesResponse) -> Queues {
    let inbox = queues.inbox.unwrap_or_default();
    let range = |range: v1::UnsettledRange| UnsettledRange {
        first_slot: range.first_slot,
        last_slot: range.last_slot,
        commits: range.commits,
        oldest_age_ms: range.oldest_age_ms,
    };
    let shard = |shard: v1::ShardQueue| Shard {
        node: shard.node,
        shard: shard.shard,
        busy: shard.busy,
        waiting: shard.waiting,
        loaded_chats: shard.loaded_chats,
        unsettled_chats: shard.unsettled_chats,
    };
    Queues {
        unsettled: queues.unsettled.into_iter().map(range).collect(),
        inbox_rows: inbox.rows,
        inbox_oldest_age_ms: inbox.oldest_age_ms,
        inbox_estimated: inbox.estimated,
        shards: queues.shards.into_iter().map(shard).collect(),
        nodes_missed: queues.nodes_missed,
        partial: queues.partial,
    }
}
