//! The service `tern.internal.v1.NodeInfo`, by which every node answers questions about itself.

use tern_proto::internal::node_info_server::{NodeInfo, NodeInfoServer};
use tern_proto::internal::{
    GetNodeInfoRequest, GetNodeInfoResponse, GetReachRequest, GetReachResponse, GetRecordsRequest,
    GetRecordsResponse, NodeRecord,
};
use tern_proto::v1::NodeAnswer;
use tern_types::{Clock, Timestamp};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use crate::NodeContext;
use crate::etcd::Records;
use crate::map::UnknownRole;

/// The service that answers what this node is, which records of etcd it knows, and what it reaches.
pub struct Info {
    ctx: NodeContext,
    records: Records,
    version: &'static str,
    started_at: Timestamp,
}

impl Info {
    /// Makes the service. `version` is the program's version.
    pub fn service(ctx: NodeContext, records: Records, version: &'static str) -> NodeInfoServer<Self> {
        NodeInfoServer::new(Self {
            ctx,
            records,
            version,
            started_at: Clock::wall(),
        })
    }
}

#[tonic::async_trait]
impl NodeInfo for Info {
    async fn get_node_info(
        &self,
        _request: Request<GetNodeInfoRequest>,
    ) -> Result<Response<GetNodeInfoResponse>, Status> {
        let answer = NodeAnswer {
            map_version: self.ctx.map.current().version(),
            version: self.version.to_owned(),
            started_at_ms: self.started_at.0,
            shed_level: self.ctx.shedding.level().to_wire(),
            draining: self.ctx.drain.started(),
            incarnation: self.ctx.incarnation,
        };
        Ok(Response::new(GetNodeInfoResponse {
            name: self.ctx.name.to_string(),
            answer: Some(answer),
        }))
    }

    async fn get_records(
        &self,
        request: Request<GetRecordsRequest>,
    ) -> Result<Response<GetRecordsResponse>, Status> {
        let current = self.records.current();
        let news = current.version > request.get_ref().known_revision;
        let records = current
            .nodes
            .iter()
            .filter(|_| news)
            .map(|(role, node)| NodeRecord {
                role: role.as_str().to_owned(),
                name: node.name.clone(),
                value: serde_json::to_vec(node).unwrap_or_default().into(),
            });
        Ok(Response::new(GetRecordsResponse {
            revision: current.version,
            records: records.collect(),
            cautious: current.cautious_until.is_some_and(|until| Instant::now() < until),
        }))
    }

    async fn get_reach(
        &self,
        request: Request<GetReachRequest>,
    ) -> Result<Response<GetReachResponse>, Status> {
        let role = request.get_ref().role.parse();
        let role = role.map_err(|error: UnknownRole| Status::invalid_argument(error.to_string()))?;
        let reach = self.ctx.reached.of(role);
        Ok(Response::new(GetReachResponse {
            store: reach.store,
            links: reach.links,
        }))
    }
}
