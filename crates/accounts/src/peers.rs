//! Calls to other nodes: any chat node, and all gateways.

use std::time::Duration;

use futures::future::join_all;
use tern_node::NodeContext;
use tern_node::links::BackOff;
use tern_node::map::{Node, Role};
use tern_proto::ApiError;
use tern_proto::error::reason_of;
use tern_proto::internal::chat_node_client::ChatNodeClient;
use tern_proto::internal::gateway_node_client::GatewayNodeClient;
use tern_proto::internal::{
    CloseDevicesRequest, LinkDeviceRequest, SuspensionChangedRequest, UnlinkDeviceRequest,
};
use tern_proto::v1::{CloseCode, ErrorReason};
use tern_types::{DeviceId, UserId};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::metrics;

/// One attempt at a chat node: a transaction over all chats of a user. Its statements end after 5 s each.
const CHAT_CALL: Duration = Duration::from_secs(10);
/// Attempts before the caller is told to come back: enough to find a node that lives while others restart.
const CHAT_ATTEMPTS: usize = 4;
/// One gateway's answer. Best effort: a gateway that does not answer re-checks its devices when they open streams.
const GATEWAY_CALL: Duration = Duration::from_secs(2);

/// What came of telling every gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Streams ended.
    pub closed: u32,
    /// Gateways that did not answer.
    pub missed: Vec<String>,
}

#[derive(Clone)]
pub struct Peers {
    ctx: NodeContext,
}

#[derive(Clone, Copy)]
enum ChatCall {
    Link,
    Unlink,
}

impl ChatCall {
    fn name(self) -> &'static str {
        match self {
            Self::Link => "link_device",
            Self::Unlink => "unlink_device",
        }
    }
}

impl Peers {
    pub fn new(ctx: NodeContext) -> Self {
        Self { ctx }
    }

    /// Makes the device part of all its user's chats, and active. Done when it returns.
    pub async fn link_device(&self, user: UserId, device: DeviceId) -> Result<(), ApiError> {
        self.chat(ChatCall::Link, user, device).await
    }

    /// Takes the device out of its user's chats.
    pub async fn unlink_device(&self, user: UserId, device: DeviceId) -> Result<(), ApiError> {
        self.chat(ChatCall::Unlink, user, device).await
    }

    /// Any chat node does; both calls are idempotent, so after a failure the next one is asked.
    async fn chat(&self, call: ChatCall, user: UserId, device: DeviceId) -> Result<(), ApiError> {
        let mut back_off = BackOff::default();
        for _ in 0..CHAT_ATTEMPTS {
            let status = match self.try_chat(call, user, device).await {
                Ok(()) => return Ok(()),
                Err(status) => status,
            };
            metrics::peer_failure(call.name());
            tracing::warn!(call = call.name(), code = ?status.code(), message = status.message(), "chat node failed");
            if !passes(&status) {
                return Err(refusal(&status));
            }
            tokio::time::sleep(back_off.next(Duration::ZERO)).await;
        }
        Err(ApiError::unavailable("no chat node answers"))
    }

    async fn try_chat(&self, call: ChatCall, user: UserId, device: DeviceId) -> Result<(), Status> {
        let map = self.ctx.map.current();
        let node = map
            .any(Role::Chat)
            .ok_or_else(|| Status::unavailable("there is no chat node"))?;
        let mut client = ChatNodeClient::new(self.ctx.channels.get(&node.address)?);
        let (user_id, device_id) = (user.to_vec().into(), device.to_vec().into());
        let answer = async {
            match call {
                ChatCall::Link => client
                    .link_device(LinkDeviceRequest { user_id, device_id })
                    .await
                    .map(drop),
                ChatCall::Unlink => client
                    .unlink_device(UnlinkDeviceRequest { user_id, device_id })
                    .await
                    .map(drop),
            }
        };
        tokio::time::timeout(CHAT_CALL, answer)
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")))
    }

    /// Ends the device's streams, wherever they are.
    pub async fn close_device(&self, device: DeviceId, code: CloseCode) {
        let map = self.ctx.map.current();
        let calls = map.nodes(Role::Gateway).iter().map(|node| async move {
            if let Err(status) = self.close_on(node, device, code).await {
                metrics::peer_failure("close_devices");
                tracing::warn!(%device, gateway = node.name, code = ?status.code(), message = status.message(),
                    "gateway could not be told to close a device's streams");
            }
        });
        join_all(calls).await;
    }

    /// Tells every gateway that the user is kept out, or let in again.
    pub async fn suspension_changed(&self, user: UserId, suspended: bool, devices: &[DeviceId]) -> Told {
        let map = self.ctx.map.current();
        let request = SuspensionChangedRequest {
            user_id: user.to_vec().into(),
            suspended,
            device_ids: devices.iter().map(|device| device.to_vec().into()).collect(),
        };
        let calls = map.nodes(Role::Gateway).iter().map(|node| {
            let request = request.clone();
            async move { (node, self.suspension_on(node, request).await) }
        });
        let mut told = Told::default();
        for (node, answer) in join_all(calls).await {
            match answer {
                Ok(closed) => told.closed += closed,
                Err(status) => {
                    metrics::peer_failure("suspension_changed");
                    tracing::warn!(%user, gateway = node.name, code = ?status.code(), message = status.message(),
                        "gateway could not be told of a suspension");
                    told.missed.push(node.name.clone());
                }
            }
        }
        told
    }

    async fn suspension_on(&self, node: &Node, request: SuspensionChangedRequest) -> Result<u32, Status> {
        let mut client: GatewayNodeClient<Channel> =
            GatewayNodeClient::new(self.ctx.channels.get(&node.address)?);
        let answer = tokio::time::timeout(GATEWAY_CALL, client.suspension_changed(request))
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")))?;
        Ok(answer.into_inner().closed)
    }

    async fn close_on(&self, node: &Node, device: DeviceId, code: CloseCode) -> Result<(), Status> {
        let mut client: GatewayNodeClient<Channel> =
            GatewayNodeClient::new(self.ctx.channels.get(&node.address)?);
        let request = CloseDevicesRequest {
            device_ids: vec![device.to_vec().into()],
            code: code.into(),
        };
        tokio::time::timeout(GATEWAY_CALL, client.close_devices(request))
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")))
            .map(drop)
    }
}

/// Whether another attempt may succeed. `Unknown` and `Cancelled` are what a broken connection may look like.
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
