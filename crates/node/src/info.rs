//! `tern.internal.v1.NodeInfo`: what a node says of itself, on every node.

use tern_proto::internal::node_info_server::{NodeInfo, NodeInfoServer};
use tern_proto::internal::{GetNodeInfoRequest, GetNodeInfoResponse};
use tern_proto::v1::NodeAnswer;
use tern_types::{Clock, Timestamp};
use tonic::{Request, Response, Status};

use crate::NodeContext;

/// See the module.
pub struct Info {
    ctx: NodeContext,
    version: &'static str,
    started_at: Timestamp,
}

impl Info {
    /// `version`: of the program.
    pub fn service(ctx: NodeContext, version: &'static str) -> NodeInfoServer<Self> {
        NodeInfoServer::new(Self {
            ctx,
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
}
