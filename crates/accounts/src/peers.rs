//! Calls other nodes: any chat node, a chat's owner, and all gateways.
//!
//! - calls about devices and suspensions are in this file; [`people`] has those about blocks, contacts and settings, and
//!   [`own_log`] those that append to users' own logs

mod own_log;
mod people;

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tern_cluster::NodeContext;
use tern_cluster::links::RetryWaits;
use tern_cluster::map::{Node, Role};
use tern_proto::ApiError;
use tern_proto::error::reason_of;
use tern_proto::internal::chat_node_client::ChatNodeClient;
use tern_proto::internal::gateway_node_client::GatewayNodeClient;
use tern_proto::internal::{
    CloseDevicesRequest, LinkDeviceRequest, SuspensionChangedRequest, UnlinkDeviceRequest,
};
use tern_proto::v1::{CloseCode, ErrorReason};
use tern_types::{DeviceId, UserId};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use crate::metrics;

/// The timeout of one call to a chat node. The call is a transaction over all chats of a user, whose statements end
/// after 5 s each.
const CHAT_CALL: Duration = Duration::from_secs(10);
/// The number of attempts before the caller gets UNAVAILABLE. It is enough to find a node that is alive while others
/// restart.
const CHAT_ATTEMPTS: usize = 4;
/// The timeout of a call to a gateway. Telling gateways is best effort: a gateway asks every 30 s who was suspended or
/// revoked, and checks its watches every five minutes.
const GATEWAY_CALL: Duration = Duration::from_secs(2);

/// The result of telling every gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The number of streams that gateways ended.
    pub closed: u32,
    /// The names of the gateways that did not answer.
    pub missed: Vec<String>,
}

/// A client for calls to other nodes. Clones share one state.
#[derive(Clone)]
pub struct Peers {
    ctx: NodeContext,
    /// The permits of the background tasks that wait for a chat's next owner, one for each chat (`people`).
    followed: Arc<Semaphore>,
}

impl Peers {
    /// Makes a client that finds the other nodes by the map of `ctx`.
    pub fn new(ctx: NodeContext) -> Self {
        Self {
            ctx,
            followed: people::room(),
        }
    }

    /// Adds the device to all of its user's chats, and makes it active. Returns `Err` if no chat node has done so.
    pub async fn link_device(&self, user: UserId, device: DeviceId) -> Result<(), ApiError> {
        let request = LinkDeviceRequest {
            user_id: user.to_vec().into(),
            device_id: device.to_vec().into(),
        };
        let linked = self.any_chat("link_device", CHAT_CALL, |mut client| {
            let request = request.clone();
            async move { client.link_device(request).await }
        });
        linked.await.map(drop)
    }

    /// Removes the device from its user's chats. Returns `Err` if no chat node has done so.
    pub async fn unlink_device(&self, user: UserId, device: DeviceId) -> Result<(), ApiError> {
        let request = UnlinkDeviceRequest {
            user_id: user.to_vec().into(),
            device_id: device.to_vec().into(),
        };
        let unlinked = self.any_chat("unlink_device", CHAT_CALL, |mut client| {
            let request = request.clone();
            async move { client.unlink_device(request).await }
        });
        unlinked.await.map(drop)
    }

    /// Calls any chat node, and tries again, perhaps at another node, after a temporary failure. This is safe because
    /// the calls are idempotent. Returns `Err` if the node refuses the call, or after [`CHAT_ATTEMPTS`] failures.
    async fn any_chat<T, F, Fut>(
        &self,
        name: &'static str,
        patience: Duration,
        call: F,
    ) -> Result<T, ApiError>
    where
        F: Fn(ChatNodeClient<Channel>) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let mut waits = RetryWaits::default();
        for before in 0..CHAT_ATTEMPTS {
            if before > 0 {
                tokio::time::sleep(waits.next(Duration::ZERO)).await;
            }
            let attempt = async {
                let map = self.ctx.map.current();
                let node = map
                    .any(Role::Chat)
                    .ok_or_else(|| Status::unavailable("there is no chat node"))?;
                let client = ChatNodeClient::new(self.ctx.channels.get(&node.address)?);
                timeout(patience, call(client))
                    .await
                    .unwrap_or_else(|_| Err(late()))
            };
            let status = match attempt.await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) => status,
            };
            metrics::peer_failure(name);
            tracing::warn!(call = name, code = ?status.code(), message = status.message(), "chat node failed");
            if !passes(&status) {
                return Err(refusal(&status));
            }
        }
        Err(ApiError::unavailable("no chat node answers"))
    }

    /// Tells every gateway to end the device's streams.
    pub(crate) async fn close_device(&self, device: DeviceId, code: CloseCode) {
        let request = CloseDevicesRequest {
            device_ids: vec![device.to_vec().into()],
            code: code.into(),
        };
        let told = self.tell_gateways("close_devices", |mut gateway| {
            let request = request.clone();
            async move { gateway.close_devices(request).await.map(drop) }
        });
        told.await;
    }

    /// Tells every gateway that the user is suspended, or no longer suspended.
    pub async fn suspension_changed(&self, user: UserId, suspended: bool, devices: &[DeviceId]) -> Told {
        let request = SuspensionChangedRequest {
            user_id: user.to_vec().into(),
            suspended,
            device_ids: devices.iter().map(|device| device.to_vec().into()).collect(),
        };
        let told = self.tell_gateways("suspension_changed", |mut gateway| {
            let request = request.clone();
            async move { gateway.suspension_changed(request).await }
        });
        let (answers, missed) = told.await;
        let closed = answers.iter().map(|answer| answer.get_ref().closed).sum();
        Told { closed, missed }
    }

    /// Calls all gateways at the same time, once each. Returns the answers, and the names of the gateways that did not
    /// answer.
    async fn tell_gateways<T, F, Fut>(&self, name: &'static str, call: F) -> (Vec<T>, Vec<String>)
    where
        F: Fn(GatewayNodeClient<Channel>) -> Fut,
        Fut: Future<Output = Result<T, Status>>,
    {
        let map = self.ctx.map.current();
        let calls = map.nodes(Role::Gateway).iter().map(|node| {
            let call = &call;
            async move { (node, self.tell_gateway(node, call).await) }
        });
        let (mut answers, mut missed) = (Vec::new(), Vec::new());
        for (node, answer) in join_all(calls).await {
            match answer {
                Ok(answer) => answers.push(answer),
                Err(status) => {
                    metrics::peer_failure(name);
                    tracing::warn!(call = name, gateway = node.name, code = ?status.code(),
                        message = status.message(), "gateway could not be told");
                    missed.push(node.name.clone());
                }
            }
        }
        (answers, missed)
    }

    async fn tell_gateway<T, F, Fut>(&self, node: &Node, call: &F) -> Result<T, Status>
    where
        F: Fn(GatewayNodeClient<Channel>) -> Fut,
        Fut: Future<Output = Result<T, Status>>,
    {
        let client = GatewayNodeClient::new(self.ctx.channels.get(&node.address)?);
        timeout(GATEWAY_CALL, call(client))
            .await
            .unwrap_or_else(|_| Err(late()))
    }
}

fn late() -> Status {
    Status::deadline_exceeded("no answer in time")
}

/// Returns whether the failure is temporary, so that another attempt may succeed. A broken connection may look like
/// `Unknown` or `Cancelled`.
fn passes(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::DeadlineExceeded | Code::Unknown | Code::Cancelled | Code::Aborted
    )
}

fn refusal(status: &Status) -> ApiError {
    ApiError::new(
        reason_of(status).unwrap_or(ErrorReason::Internal),
        status.message(),
    )
}
