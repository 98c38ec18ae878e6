//! This module serves the part of `tern.v1.Admin` that is about sessions.

use std::sync::Arc;

use tern_cluster::routing::NOT_OWNER;
use tern_cluster::standing::Standing;
use tern_identity::principal::{Principal, Scope};
use tern_proto::internal::presence_admin_server::PresenceAdmin;
use tern_proto::{ApiError, parse, v1};
use tern_types::UserId;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};

use tern_presence_core::registry::Session;

use crate::hub::Hub;

/// The service that answers operators' questions about the sessions of this node's users.
pub struct AdminService {
    hub: Arc<Hub>,
    /// This node's name.
    name: Arc<str>,
    standing: Standing,
}

impl AdminService {
    /// Makes the service. `name` is this node's name, and `standing` says whether its place in the map is certain.
    pub fn new(hub: Arc<Hub>, name: Arc<str>, standing: Standing) -> Self {
        Self { hub, name, standing }
    }
}

#[tonic::async_trait]
impl PresenceAdmin for AdminService {
    async fn list_sessions(
        &self,
        request: Request<v1::ListSessionsRequest>,
    ) -> Result<Response<v1::ListSessionsResponse>, Status> {
        Principal::read(request.metadata())?.key(Scope::Admin)?;
        let user: UserId = parse::id("user_id", &request.get_ref().user_id)?;
        let mut sessions = Vec::new();
        let found = self.hub.sessions(user, |session| sessions.push(message(session)));
        let Ok(is_sure) = found else {
            let mut status = Status::from(ApiError::unavailable("the user belongs to another node"));
            let version = *self.hub.version().borrow();
            status
                .metadata_mut()
                .insert(NOT_OWNER, MetadataValue::from(version));
            return Err(status);
        };
        Ok(Response::new(v1::ListSessionsResponse {
            sessions,
            node: self.name.to_string(),
            // The standing is read after the sessions, as for look-ups.
            sessions_incomplete: !is_sure || !self.standing.is_held(),
        }))
    }
}

fn message(session: &Session) -> v1::AdminSession {
    v1::AdminSession {
        device_id: session.device.to_string(),
        session_id: session.session.to_string(),
        gateway: session.gateway.name.to_string(),
        since_ms: session.since.0,
    }
}
