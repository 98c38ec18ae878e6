//! Asks every node of the map for its own view of the cluster.

use std::collections::HashMap;
use std::time::Duration;

use futures::future::join_all;
use tern_cluster::{ClusterMap, Node, NodeContext, Role};
use tern_proto::internal::chat_shards_client::ChatShardsClient;
use tern_proto::internal::node_info_client::NodeInfoClient;
use tern_proto::internal::{GetNodeInfoRequest, GetShardsRequest};
use tern_proto::v1;
use tern_types::Slot;
use tonic::Status;

/// The longest wait for a node's answer. After it the node is shown without an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Returns the nodes of the map by role, each with its answer if it gave one. A process with several roles is asked
/// once.
pub async fn nodes(ctx: &NodeContext, map: &ClusterMap) -> Vec<v1::ClusterNode> {
    let all: Vec<(Role, &Node)> = Role::ALL
        .into_iter()
        .flat_map(|role| map.nodes(role).iter().map(move |node| (role, node)))
        .collect();
    let mut addresses: Vec<&str> = all.iter().map(|(_, node)| node.address.as_str()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    let asked = addresses
        .into_iter()
        .map(|address| async move { (address, info(ctx, address).await.ok()) });
    let answers: HashMap<&str, Option<v1::NodeAnswer>> = join_all(asked).await.into_iter().collect();
    let slots = slots(map);
    let node = |(role, node): (Role, &Node)| v1::ClusterNode {
        role: role.as_str().to_owned(),
        name: node.name.clone(),
        address: node.address.clone(),
        admin_address: node.admin.clone(),
        incarnation: node.incarnation,
        draining: node.draining,
        unwell: node.unwell,
        slots: slots.get(&(role, node.name.as_str())).copied().unwrap_or(0),
        answer: answers.get(node.address.as_str()).cloned().flatten(),
    };
    all.into_iter().map(node).collect()
}

/// Returns the queues of every chat node's shards, and the names of the nodes that did not answer.
pub async fn shards(ctx: &NodeContext) -> (Vec<v1::ShardQueue>, Vec<String>) {
    let map = ctx.map.current();
    let asked = map.nodes(Role::Chat).iter().map(|node| async move {
        let shards = timely(async {
            let mut client = ChatShardsClient::new(ctx.channels.get(&node.address)?);
            client.get_shards(GetShardsRequest {}).await
        });
        (node.name.clone(), shards.await)
    });
    let (mut shards, mut missed) = (Vec::new(), Vec::new());
    for (name, answer) in join_all(asked).await {
        match answer {
            Ok(answer) => shards.extend(answer.shards),
            Err(_) => missed.push(name),
        }
    }
    (shards, missed)
}

/// Asks the node at this address for its own view of the cluster.
async fn info(ctx: &NodeContext, address: &str) -> Result<v1::NodeAnswer, Status> {
    let answer = timely(async {
        let mut client = NodeInfoClient::new(ctx.channels.get(address)?);
        client.get_node_info(GetNodeInfoRequest {}).await
    });
    answer
        .await?
        .answer
        .ok_or_else(|| Status::internal("no answer in it"))
}

/// Makes the call, and fails if it takes longer than [`PATIENCE`].
async fn timely<T>(call: impl Future<Output = Result<tonic::Response<T>, Status>>) -> Result<T, Status> {
    let answer = tokio::time::timeout(PATIENCE, call).await;
    let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")))?;
    Ok(answer.into_inner())
}

/// Counts the slots of each node of the roles that own slots.
fn slots(map: &ClusterMap) -> HashMap<(Role, &str), u32> {
    let mut slots = HashMap::new();
    for role in Role::ALL.into_iter().filter(|role| role.owns_slots()) {
        for owner in Slot::all().filter_map(|slot| map.owner(role, slot)) {
            *slots.entry((role, owner.name.as_str())).or_insert(0) += 1;
        }
    }
    slots
}
