//! The service `AccountsAdmin`, which is the part of `tern.v1.Admin` that is about users.

use tern_proto::internal::accounts_admin_server::AccountsAdmin;
use tern_proto::{ApiError, parse, v1};
use tern_types::{Clock, UserId};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::users::MAX_EXTERNAL_ID_BYTES;
use super::{Service, open};
use crate::store::admin::{Account, AnyDevice};

/// The number of users in a page if the caller names none.
const PAGE: u32 = 100;
/// The most users in a page.
const MAX_PAGE: u32 = 1000;

#[tonic::async_trait]
impl AccountsAdmin for Service {
    async fn list_users(
        &self,
        request: Request<v1::ListUsersRequest>,
    ) -> Result<Response<v1::ListUsersResponse>, Status> {
        self.run(async {
            let (principal, request) = open(request)?;
            let after: Option<UserId> = parse::optional_id("page_token", &request.page_token)?;
            let limit = parse::page_size(request.page_size, PAGE, MAX_PAGE);
            let after = after.unwrap_or(UserId(Uuid::nil()));
            let users = self
                .accounts
                .list_accounts(&principal, after, limit, request.suspended_only)
                .await?;
            let last = users.last().filter(|_| users.len() >= limit as usize);
            let next_page_token = last.map(|last| last.user.id.to_string()).unwrap_or_default();
            Ok(v1::ListUsersResponse {
                users: users.into_iter().map(account_message).collect(),
                next_page_token,
            })
        })
        .await
    }

    async fn get_user(
        &self,
        request: Request<v1::GetUserRequest>,
    ) -> Result<Response<v1::GetUserResponse>, Status> {
        self.run(async {
            let (principal, request) = open(request)?;
            let user = parse::optional_id("user_id", &request.user_id)?;
            let external_id = parse::text("external_id", request.external_id, MAX_EXTERNAL_ID_BYTES)?;
            let external_id = (!external_id.is_empty()).then_some(external_id);
            if user.is_some() == external_id.is_some() {
                return Err(ApiError::invalid(
                    "user_id",
                    "or external_id is needed, and only one",
                ));
            }
            let (account, devices) = self
                .accounts
                .account(&principal, user, external_id.as_deref())
                .await?;
            Ok(v1::GetUserResponse {
                user: Some(account_message(account)),
                devices: devices.into_iter().map(device_message).collect(),
            })
        })
        .await
    }

    async fn suspend_user(
        &self,
        request: Request<v1::SuspendUserRequest>,
    ) -> Result<Response<v1::SuspendUserResponse>, Status> {
        self.run(async {
            let (principal, request) = open(request)?;
            let user = parse::id("user_id", &request.user_id)?;
            let (account, told) = self.accounts.suspend(&principal, user, Clock::wall()).await?;
            Ok(v1::SuspendUserResponse {
                user: Some(account_message(account)),
                closed: told.closed,
                gateways_missed: told.missed,
            })
        })
        .await
    }

    async fn resume_user(
        &self,
        request: Request<v1::ResumeUserRequest>,
    ) -> Result<Response<v1::ResumeUserResponse>, Status> {
        self.run(async {
            let (principal, request) = open(request)?;
            let user = parse::id("user_id", &request.user_id)?;
            let (account, told) = self.accounts.resume(&principal, user).await?;
            Ok(v1::ResumeUserResponse {
                user: Some(account_message(account)),
                gateways_missed: told.missed,
            })
        })
        .await
    }
}

fn account_message(account: Account) -> v1::AdminUser {
    v1::AdminUser {
        user_id: account.user.id.to_string(),
        external_id: account.user.external_id,
        display_name: account.user.display_name,
        created_at_ms: account.user.created_at.0,
        suspended_at_ms: account.suspended_at.unwrap_or_default().0,
    }
}

fn device_message(device: AnyDevice) -> v1::AdminDevice {
    v1::AdminDevice {
        device_id: device.device.id.to_string(),
        display_name: device.device.display_name,
        platform: device.device.platform,
        linked_at_ms: device.device.linked_at.0,
        active: device.active,
        revoked_at_ms: device.revoked_at.unwrap_or_default().0,
        tokens_issued_at_ms: device.tokens_issued_at.unwrap_or_default().0,
    }
}
