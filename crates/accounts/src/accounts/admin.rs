//! What operators see and do: users with their devices, suspensions.

use std::time::Duration;

use tern_node::principal::Principal;
use tern_proto::ApiError;
use tern_proto::v1::ErrorReason;
use tern_types::{DeviceId, Timestamp, UserId};

use super::Accounts;
use super::users::no_such_user;
use crate::config::MAX_ACCESS_TOKEN_TTL;
use crate::domain::access;
use crate::metrics;
use crate::peers::Told;
use crate::store::Tx;
use crate::store::admin::{Account, AnyDevice};

/// Who was suspended or revoked longer ago has no good access token any more: they live an hour at most, and clocks differ a little.
const TOKENS_LIVE: Duration = MAX_ACCESS_TOKEN_TTL.saturating_add(Duration::from_secs(300));

impl Accounts {
    /// A page of users, by id.
    pub async fn list_accounts(
        &self,
        principal: &Principal,
        after: UserId,
        limit: u32,
        suspended_only: bool,
    ) -> Result<Vec<Account>, ApiError> {
        access::administrate(principal)?;
        Ok(self.store.accounts(after, limit, suspended_only).await?)
    }

    /// A user by either id, with all devices.
    pub async fn account(
        &self,
        principal: &Principal,
        user: Option<UserId>,
        external_id: Option<&str>,
    ) -> Result<(Account, Vec<AnyDevice>), ApiError> {
        access::administrate(principal)?;
        let account = self
            .store
            .account(user, external_id)
            .await?
            .ok_or_else(no_such_user)?;
        let devices = self.store.all_devices(account.user.id).await?;
        Ok((account, devices))
    }

    /// Keeps the user out, and tells every gateway.
    pub async fn suspend(
        &self,
        principal: &Principal,
        user: UserId,
        now: Timestamp,
    ) -> Result<(Account, Told), ApiError> {
        access::administrate(principal)?;
        if !self.store.suspend(user, now).await? {
            return Err(no_such_user());
        }
        metrics::suspended(true);
        self.tell_gateways(user, true).await
    }

    /// Lets the user in again, and tells every gateway.
    pub async fn resume(&self, principal: &Principal, user: UserId) -> Result<(Account, Told), ApiError> {
        access::administrate(principal)?;
        if !self.store.resume(user).await? {
            return Err(no_such_user());
        }
        metrics::suspended(false);
        self.tell_gateways(user, false).await
    }

    async fn tell_gateways(&self, user: UserId, suspended: bool) -> Result<(Account, Told), ApiError> {
        let account = self
            .store
            .account(Some(user), None)
            .await?
            .ok_or_else(no_such_user)?;
        let devices = self.store.devices(user).await?;
        let devices: Vec<_> = devices.into_iter().map(|device| device.id).collect();
        let told = self.peers.suspension_changed(user, suspended, &devices).await;
        tracing::info!(%user, suspended, closed = told.closed, missed = told.missed.len(), "suspension changed");
        Ok((account, told))
    }

    /// Who is kept out and may have a good access token from before: suspended users and revoked devices.
    pub async fn recently_barred(&self, now: Timestamp) -> Result<(Vec<UserId>, Vec<DeviceId>), ApiError> {
        let since = now - TOKENS_LIVE;
        let (users, devices) =
            tokio::try_join!(self.store.suspended_since(since), self.store.revoked_since(since))?;
        Ok((users, devices))
    }

    /// USER_SUSPENDED for who is.
    pub(super) async fn check_suspended(&self, tx: &mut Tx, user: UserId) -> Result<(), ApiError> {
        if self.store.is_suspended(tx, user).await? {
            return Err(ApiError::new(ErrorReason::UserSuspended, "the user is suspended"));
        }
        Ok(())
    }
}
