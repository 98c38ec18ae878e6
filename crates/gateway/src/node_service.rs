//! The internal service of a gateway: what other nodes tell it about devices and users.

use std::collections::HashSet;
use std::sync::Arc;

use tern_proto::internal::gateway_node_server::GatewayNode;
use tern_proto::internal::{
    CloseDevicesRequest, CloseDevicesResponse, PrivacyChangedRequest, PrivacyChangedResponse,
    SuspensionChangedRequest, SuspensionChangedResponse,
};
use tern_proto::v1::CloseCode;
use tern_types::{DeviceId, UserId};
use tonic::{Request, Response, Status};

use tern_gateway_core::session::CloseRequest;

use crate::audience::Audience;
use crate::barred::Barred;
use crate::presence_links::PresenceLinks;
use crate::registry::Registry;
use crate::watches::Watches;

/// The implementation of `tern.internal.v1.GatewayNode`.
pub struct NodeService {
    /// The sessions of this gateway.
    pub registry: Arc<Registry>,
    /// The links over which presence is told that a session has ended.
    pub presence: Arc<PresenceLinks>,
    /// The users whose presence sessions watch.
    pub watches: Arc<Watches>,
    /// The members who are told that somebody writes.
    pub audience: Arc<Audience>,
    /// The users and devices whose access tokens do not count.
    pub barred: Arc<Barred>,
}

#[tonic::async_trait]
impl GatewayNode for NodeService {
    async fn close_devices(
        &self,
        request: Request<CloseDevicesRequest>,
    ) -> Result<Response<CloseDevicesResponse>, Status> {
        let request = request.into_inner();
        let why = why(CloseCode::try_from(request.code).unwrap_or_default());
        let mut closed = 0;
        for device in &request.device_ids {
            let device =
                DeviceId::from_slice(device).map_err(|_| Status::invalid_argument("ids are 16 bytes"))?;
            if why == CloseRequest::Revoked {
                self.barred.revoked(device).await;
            }
            if let Some(session) = self.registry.of_device(device) {
                match why {
                    CloseRequest::Replaced | CloseRequest::Revoked => self.presence.end(&session, why),
                    _ => session.mailbox.close(why),
                }
                closed += 1;
            }
        }
        tracing::info!(
            devices = request.device_ids.len(),
            closed,
            ?why,
            "closing streams for another node"
        );
        Ok(Response::new(CloseDevicesResponse { closed }))
    }

    async fn suspension_changed(
        &self,
        request: Request<SuspensionChangedRequest>,
    ) -> Result<Response<SuspensionChangedResponse>, Status> {
        let request = request.into_inner();
        let malformed = |_| Status::invalid_argument("ids are 16 bytes");
        let user = UserId::from_slice(&request.user_id).map_err(malformed)?;
        self.barred.suspended(user, request.suspended);
        let mut closed = 0;
        for device in request.device_ids.iter().filter(|_| request.suspended) {
            let device = DeviceId::from_slice(device).map_err(malformed)?;
            if let Some(session) = self.registry.of_device(device) {
                self.presence.end(&session, CloseRequest::Suspended);
                closed += 1;
            }
        }
        tracing::info!(%user, suspended = request.suspended, closed, "suspension changed");
        Ok(Response::new(SuspensionChangedResponse { closed }))
    }

    async fn privacy_changed(
        &self,
        request: Request<PrivacyChangedRequest>,
    ) -> Result<Response<PrivacyChangedResponse>, Status> {
        let users = request.into_inner().users;
        let mut changed = HashSet::with_capacity(users.len());
        for user in users {
            let id = UserId::from_slice(&user.user_id)
                .map_err(|_| Status::invalid_argument("ids are 16 bytes"))?;
            read_receipts_changed(&self.registry, id, user.read_receipts_off);
            changed.insert(id);
        }
        self.audience.privacy_changed(&changed);
        self.watches.privacy_changed(&changed);
        Ok(Response::new(PrivacyChangedResponse {}))
    }
}

/// Tells the user's sessions here of the setting. They send it to the chat nodes with what they send next.
fn read_receipts_changed(registry: &Registry, user: UserId, off: bool) {
    for session in registry.of_user(user) {
        session.mailbox.read_receipts(off);
    }
}

/// Returns the reason for the session to end, by the code that another node gives.
fn why(code: CloseCode) -> CloseRequest {
    match code {
        CloseCode::SessionReplaced => CloseRequest::Replaced,
        CloseCode::DeviceRevoked => CloseRequest::Revoked,
        CloseCode::UserSuspended => CloseRequest::Suspended,
        CloseCode::Draining => CloseRequest::Draining,
        CloseCode::Unauthenticated => CloseRequest::Unauthenticated,
        _ => CloseRequest::Unavailable,
    }
}
