//! The gRPC services: each call is parsed, handed to [`Accounts`], and its result turned into a message.
//!
//! - [`users`] has the calls about users, blocks, contacts and settings, [`admin`] those of operators' tools, and this
//!   file the others

mod admin;
mod users;

use std::sync::Arc;

use tern_identity::principal::Principal;
use tern_proto::internal::accounts_node_server::AccountsNode;
use tern_proto::internal::{
    AuthenticateKeyRequest, AuthenticateKeyResponse, ListBarredRequest, ListBarredResponse, MaySeeRequest,
    MaySeeResponse, MayWatchRequest, MayWatchResponse,
};
use tern_proto::v1::auth_server::Auth;
use tern_proto::v1::devices_server::Devices;
use tern_proto::v1::{self, TokenPair};
use tern_proto::{ApiError, parse};
use tern_types::{Clock, UserId};
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};

use crate::accounts::{Accounts, NewDevice, Pair};
use crate::domain::linking::Asked;
use crate::domain::push_tokens::PushToken;
use crate::store::devices::Device;

/// The most people in one MayWatch or MaySee, which is as many as one stream may watch.
const MAX_WATCHED: usize = 256;
/// The longest name of a device in UTF-8 bytes.
const MAX_DEVICE_NAME_BYTES: usize = 128;
/// The longest name of a platform in UTF-8 bytes.
const MAX_PLATFORM_BYTES: usize = 32;

/// All services of the role.
#[derive(Clone)]
pub struct Service {
    accounts: Arc<Accounts>,
    calls: TaskTracker,
}

impl Service {
    /// Makes the services. `calls` counts the calls under way.
    pub fn new(accounts: Arc<Accounts>, calls: TaskTracker) -> Self {
        Self { accounts, calls }
    }

    async fn run<T>(&self, call: impl Future<Output = Result<T, ApiError>>) -> Result<Response<T>, Status> {
        let _under_way = self.calls.token();
        Ok(Response::new(call.await?))
    }
}

#[tonic::async_trait]
impl Devices for Service {
    async fn link_device(
        &self,
        request: Request<v1::LinkDeviceRequest>,
    ) -> Result<Response<v1::LinkDeviceResponse>, Status> {
        self.run(async {
            let (principal, request) = open(request)?;
            let asked = Asked {
                display_name: parse::name("display_name", request.display_name, MAX_DEVICE_NAME_BYTES)?,
                platform: parse::name("platform", request.platform, MAX_PLATFORM_BYTES)?,
            };
            let new = NewDevice {
                user: parse::id("user_id", &request.user_id)?,
                request: parse::id("request_id", &request.request_id)?,
                asked,
            };
            let (device, tokens) = self.accounts.link_device(&principal, new, Clock::wall()).await?;
            Ok(v1::LinkDeviceResponse {
                device: Some(device_message(device)),
                tokens: Some(pair_message(tokens)),
            })
        })
        .await
    }

    async fn list_devices(
        &self,
        request: Request<v1::ListDevicesRequest>,
    ) -> Result<Response<v1::ListDevicesResponse>, Status> {
        self.run(async {
            let (principal, request) = open(request)?;
            let user = parse::optional_id("user_id", &request.user_id)?;
            let devices = self.accounts.devices(&principal, user).await?;
            Ok(v1::ListDevicesResponse {
                devices: devices.into_iter().map(device_message).collect(),
            })
        })
        .await
    }

    async fn revoke_device(
        &self,
        request: Request<v1::RevokeDeviceRequest>,
    ) -> Result<Response<v1::RevokeDeviceResponse>, Status> {
        self.run(async {
            let (principal, request) = open(request)?;
            let device = parse::id("device_id", &request.device_id)?;
            self.accounts
                .revoke_device(&principal, device, Clock::wall())
                .await?;
            Ok(v1::RevokeDeviceResponse {})
        })
        .await
    }

    async fn set_push_token(
        &self,
        request: Request<v1::SetPushTokenRequest>,
    ) -> Result<Response<v1::SetPushTokenResponse>, Status> {
        self.run(async {
            let (principal, request) = open(request)?;
            let token = request.token.map(PushToken::read).transpose()?;
            self.accounts
                .set_push_token(&principal, token.as_ref(), Clock::wall())
                .await?;
            Ok(v1::SetPushTokenResponse {})
        })
        .await
    }
}

#[tonic::async_trait]
impl Auth for Service {
    async fn refresh_token(
        &self,
        request: Request<v1::RefreshTokenRequest>,
    ) -> Result<Response<v1::RefreshTokenResponse>, Status> {
        self.run(async {
            let token = request.into_inner().refresh_token;
            let pair = self.accounts.refresh(&token, Clock::wall()).await?;
            Ok(v1::RefreshTokenResponse {
                tokens: Some(pair_message(pair)),
            })
        })
        .await
    }
}

#[tonic::async_trait]
impl AccountsNode for Service {
    async fn authenticate_key(
        &self,
        request: Request<AuthenticateKeyRequest>,
    ) -> Result<Response<AuthenticateKeyResponse>, Status> {
        self.run(async {
            let holder = self
                .accounts
                .authenticate_key(&request.into_inner().api_key)
                .await?;
            Ok(AuthenticateKeyResponse {
                key_id: holder.key_id,
                scopes: holder.scopes,
            })
        })
        .await
    }

    async fn list_barred(
        &self,
        _request: Request<ListBarredRequest>,
    ) -> Result<Response<ListBarredResponse>, Status> {
        self.run(async {
            let (users, devices) = self.accounts.recently_barred(Clock::wall()).await?;
            Ok(ListBarredResponse {
                user_ids: node_ids(&users),
                device_ids: devices.iter().map(|device| device.to_vec().into()).collect(),
            })
        })
        .await
    }

    async fn may_see(&self, request: Request<MaySeeRequest>) -> Result<Response<MaySeeResponse>, Status> {
        self.run(async {
            let request = request.into_inner();
            if request.watcher_ids.len() > MAX_WATCHED {
                return Err(too_many("watcher_ids"));
            }
            let person = node_id("user_id", &request.user_id)?;
            let watchers = request.watcher_ids.iter().map(|id| node_id("watcher_ids", id));
            let watchers = watchers.collect::<Result<Vec<_>, _>>()?;
            let seeing = self.accounts.may_see(person, &watchers).await?;
            Ok(MaySeeResponse {
                watcher_ids: node_ids(&seeing),
            })
        })
        .await
    }

    async fn may_watch(
        &self,
        request: Request<MayWatchRequest>,
    ) -> Result<Response<MayWatchResponse>, Status> {
        self.run(async {
            let request = request.into_inner();
            if request.user_ids.len() > MAX_WATCHED {
                return Err(too_many("user_ids"));
            }
            let watcher = node_id("watcher_id", &request.watcher_id)?;
            let people = request.user_ids.iter().map(|id| node_id("user_ids", id));
            let people = people.collect::<Result<Vec<_>, _>>()?;
            let watchable = self.accounts.may_watch(watcher, &people, Clock::wall()).await?;
            Ok(MayWatchResponse {
                visible: node_ids(&watchable.visible),
                limited: node_ids(&watchable.limited),
                retry_after_ms: i64::try_from(watchable.retry_after.as_millis()).unwrap_or(i64::MAX),
            })
        })
        .await
    }
}

fn node_id(field: &'static str, bytes: &[u8]) -> Result<UserId, ApiError> {
    UserId::from_slice(bytes).map_err(|_| ApiError::invalid(field, "must be 16 bytes"))
}

fn node_ids<B: From<Vec<u8>>>(users: &[UserId]) -> Vec<B> {
    users.iter().map(|user| user.to_vec().into()).collect()
}

fn open<T>(request: Request<T>) -> Result<(Principal, T), ApiError> {
    let principal = Principal::read(request.metadata())?;
    Ok((principal, request.into_inner()))
}

fn device_message(device: Device) -> v1::Device {
    v1::Device {
        device_id: device.id.to_string(),
        user_id: device.user.to_string(),
        display_name: device.display_name,
        platform: device.platform,
        linked_at_ms: device.linked_at.0,
    }
}

fn pair_message(pair: Pair) -> TokenPair {
    TokenPair {
        access_token: pair.access,
        access_expires_at_ms: pair.access_expires_at.0,
        refresh_token: pair.refresh,
    }
}

fn too_many(field: &'static str) -> ApiError {
    ApiError::invalid(field, &format!("are at most {MAX_WATCHED}"))
}
