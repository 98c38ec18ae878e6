//! The services on the wire: each call is parsed, handed to [`Accounts`], and its outcome put into words.
//!
//! - [`admin`]: for operators' tools

mod admin;

use std::sync::Arc;

use tern_node::principal::Principal;
use tern_proto::internal::accounts_node_server::AccountsNode;
use tern_proto::internal::{
    AuthenticateKeyRequest, AuthenticateKeyResponse, ListSuspendedRequest, ListSuspendedResponse,
    MayWatchRequest, MayWatchResponse,
};
use tern_proto::v1::auth_server::Auth;
use tern_proto::v1::devices_server::Devices;
use tern_proto::v1::users_server::Users;
use tern_proto::v1::{self, TokenPair};
use tern_proto::{ApiError, parse};
use tern_types::limits::MAX_NAME_BYTES;
use tern_types::{Timestamp, UserId};
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};

use crate::accounts::{Accounts, NewDevice, Pair};
use crate::domain::link::Asked;
use crate::store::devices::Device;
use crate::store::users::User;

/// Users of one BatchGetUsers: a page of a contact list.
const MAX_USERS: usize = 256;
/// Bytes of the app's own id of a user.
const MAX_EXTERNAL_ID_BYTES: usize = 256;
const MAX_DEVICE_NAME_BYTES: usize = 128;
const MAX_PLATFORM_BYTES: usize = 32;

/// All services of the role.
#[derive(Clone)]
pub struct Service {
    accounts: Arc<Accounts>,
    calls: TaskTracker,
}

impl Service {
    /// `calls` counts those under way.
    pub fn new(accounts: Arc<Accounts>, calls: TaskTracker) -> Self {
        Self { accounts, calls }
    }

    async fn run<T>(&self, call: impl Future<Output = Result<T, ApiError>>) -> Result<Response<T>, Status> {
        let _under_way = self.calls.token();
        Ok(Response::new(call.await?))
    }
}

#[tonic::async_trait]
impl Users for Service {
    async fn create_user(
        &self,
        request: Request<v1::CreateUserRequest>,
    ) -> Result<Response<v1::CreateUserResponse>, Status> {
        self.run(async {
            let (principal, request) = open(request)?;
            let external_id = parse::text("external_id", request.external_id, MAX_EXTERNAL_ID_BYTES)?;
            if external_id.is_empty() {
                return Err(ApiError::invalid("external_id", "must not be empty"));
            }
            let display_name = parse::text("display_name", request.display_name, MAX_NAME_BYTES)?;
            let (user, created) = self
                .accounts
                .create_user(&principal, external_id, display_name)
                .await?;
            Ok(v1::CreateUserResponse {
                user: Some(user_message(user)),
                created,
            })
        })
        .await
    }

    async fn update_user(
        &self,
        request: Request<v1::UpdateUserRequest>,
    ) -> Result<Response<v1::UpdateUserResponse>, Status> {
        self.run(async {
            let (principal, request) = open(request)?;
            let user = parse::id("user_id", &request.user_id)?;
            let display_name = parse::text("display_name", request.display_name, MAX_NAME_BYTES)?;
            let user = self.accounts.update_user(&principal, user, &display_name).await?;
            Ok(v1::UpdateUserResponse {
                user: Some(user_message(user)),
            })
        })
        .await
    }

    async fn batch_get_users(
        &self,
        request: Request<v1::BatchGetUsersRequest>,
    ) -> Result<Response<v1::BatchGetUsersResponse>, Status> {
        self.run(async {
            let (principal, request) = open(request)?;
            if request.user_ids.len() + request.external_ids.len() > MAX_USERS {
                return Err(ApiError::invalid(
                    "user_ids",
                    "and external_ids are at most 256 together",
                ));
            }
            let ids = request.user_ids.iter().map(|id| parse::id("user_ids", id));
            let ids = ids.collect::<Result<Vec<UserId>, _>>()?;
            let external_ids = request.external_ids.into_iter();
            let external_ids = external_ids.map(|id| parse::text("external_ids", id, MAX_EXTERNAL_ID_BYTES));
            let external_ids = external_ids.collect::<Result<Vec<_>, _>>()?;
            let users = self.accounts.users(&principal, &ids, &external_ids).await?;
            Ok(v1::BatchGetUsersResponse {
                users: users.into_iter().map(user_message).collect(),
            })
        })
        .await
    }

    async fn block(
        &self,
        _request: Request<v1::BlockRequest>,
    ) -> Result<Response<v1::BlockResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn unblock(
        &self,
        _request: Request<v1::UnblockRequest>,
    ) -> Result<Response<v1::UnblockResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn list_blocked(
        &self,
        _request: Request<v1::ListBlockedRequest>,
    ) -> Result<Response<v1::ListBlockedResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn set_contacts(
        &self,
        _request: Request<v1::SetContactsRequest>,
    ) -> Result<Response<v1::SetContactsResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn list_contacts(
        &self,
        _request: Request<v1::ListContactsRequest>,
    ) -> Result<Response<v1::ListContactsResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn get_privacy(
        &self,
        _request: Request<v1::GetPrivacyRequest>,
    ) -> Result<Response<v1::GetPrivacyResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }

    async fn set_privacy(
        &self,
        _request: Request<v1::SetPrivacyRequest>,
    ) -> Result<Response<v1::SetPrivacyResponse>, Status> {
        Err(Status::unimplemented("not yet"))
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
                display_name: parse::text("display_name", request.display_name, MAX_DEVICE_NAME_BYTES)?,
                platform: parse::text("platform", request.platform, MAX_PLATFORM_BYTES)?,
            };
            let new = NewDevice {
                user: parse::id("user_id", &request.user_id)?,
                request: parse::id("request_id", &request.request_id)?,
                asked,
            };
            let (device, tokens) = self
                .accounts
                .link_device(&principal, new, Timestamp::now())
                .await?;
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
                .revoke_device(&principal, device, Timestamp::now())
                .await?;
            Ok(v1::RevokeDeviceResponse {})
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
            let pair = self.accounts.refresh(&token, Timestamp::now()).await?;
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

    async fn list_suspended(
        &self,
        _request: Request<ListSuspendedRequest>,
    ) -> Result<Response<ListSuspendedResponse>, Status> {
        self.run(async {
            let users = self.accounts.recently_suspended(Timestamp::now()).await?;
            Ok(ListSuspendedResponse {
                user_ids: users.iter().map(|user| user.to_vec().into()).collect(),
            })
        })
        .await
    }

    async fn may_watch(
        &self,
        _request: Request<MayWatchRequest>,
    ) -> Result<Response<MayWatchResponse>, Status> {
        Err(Status::unimplemented("not yet"))
    }
}

fn open<T>(request: Request<T>) -> Result<(Principal, T), ApiError> {
    let principal = Principal::read(request.metadata())?;
    Ok((principal, request.into_inner()))
}

fn user_message(user: User) -> v1::User {
    v1::User {
        user_id: user.id.to_string(),
        external_id: user.external_id,
        display_name: user.display_name,
        created_at_ms: user.created_at.0,
    }
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
