//! Asks other nodes what etcd has, while this node cannot reach etcd.
//!
//! A node that alone is cut off from etcd would otherwise use its old map for as long as that lasts, while other nodes
//! use a newer one, and each slot that moved would have two owners. So it asks other nodes for their records. If they
//! have newer ones, it uses those, and may learn that it is no longer in the map itself. If most of the nodes asked
//! answer and none has newer records, its map is up to date as far as anybody knows, and etcd is away for all nodes.

use std::time::Duration;

use futures::future::join_all;
use rand::seq::IteratorRandom;
use tern_proto::internal::node_info_client::NodeInfoClient;
use tern_proto::internal::{GetRecordsRequest, GetRecordsResponse};
use tokio::time::{Instant, timeout};
use tonic::Status;

use tern_transport::channels::Channels;

use crate::map::{ClusterMap, Node, Role};
use crate::standing::Standing;

/// The most nodes that are asked in a round: enough that some of them can probably reach etcd, and few enough for a
/// cluster of hundreds of nodes.
const ASKED: usize = 8;
/// The timeout of an answer, which comes from the other node's memory.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The means by which a node that cannot reach etcd asks the other nodes.
#[derive(Clone)]
pub struct Peers {
    channels: Channels,
    /// This node's own address as it stands in the map.
    own: String,
}

/// Records of etcd that are newer than this node's.
pub(super) struct News {
    /// The version of the records.
    pub version: i64,
    /// The records.
    pub nodes: Vec<(Role, Node)>,
    /// True if the node that told them holds nodes that vanished.
    pub cautious: bool,
}

impl Peers {
    /// Makes the peers of the node with the address `own`, which is not asked itself.
    pub fn new(channels: Channels, own: &str) -> Self {
        Self {
            channels,
            own: own.to_owned(),
        }
    }

    /// Asks some of the other nodes, and returns the newest of their records if they are newer than `map`. Returns
    /// `None` if there are no newer ones. In that case it also notes in `standing` that the others agree, if more than
    /// half of the nodes asked have answered, or there are no other nodes.
    pub(super) async fn ask(&self, map: &ClusterMap, standing: &Standing) -> Option<News> {
        let mut addresses: Vec<&str> = Role::ALL
            .into_iter()
            .flat_map(|role| map.nodes(role))
            .map(|node| node.address.as_str())
            .filter(|address| *address != self.own)
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
        let some = addresses.into_iter().choose_multiple(&mut rand::rng(), ASKED);
        let asked = some.len();
        let answers = join_all(
            some.into_iter()
                .map(|address| self.records(address, map.version())),
        )
        .await;
        let answers: Vec<_> = answers.into_iter().filter_map(Result::ok).collect();
        let answered = answers.len();
        let newest = answers
            .into_iter()
            .filter(|answer| answer.revision > map.version())
            .max_by_key(|answer| answer.revision);
        match newest {
            Some(newest) => Some(parse(newest)),
            None => {
                if answered * 2 > asked || asked == 0 {
                    standing.agreed(Instant::now());
                }
                None
            }
        }
    }

    async fn records(&self, address: &str, known: i64) -> Result<GetRecordsResponse, Status> {
        let mut client = NodeInfoClient::new(self.channels.get(address)?);
        let request = GetRecordsRequest {
            known_revision: known,
        };
        let answer = timeout(TIMEOUT, client.get_records(request)).await;
        let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")))?;
        Ok(answer.into_inner())
    }
}

/// Parses an answer, without the records that this version does not understand.
fn parse(answer: GetRecordsResponse) -> News {
    let records = answer.records.into_iter().filter_map(|record| {
        let node: Node = serde_json::from_slice(&record.value).ok()?;
        let node = Node {
            name: record.name,
            ..node
        };
        Some((record.role.parse().ok()?, node))
    });
    News {
        version: answer.revision,
        nodes: records.collect(),
        cautious: answer.cautious,
    }
}
