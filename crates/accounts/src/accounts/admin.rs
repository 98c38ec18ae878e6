//! The calls by which operators look at users and their devices, and suspend and resume users.

use std::time::Duration;

use tern_identity::principal::Principal;
use tern_identity::token::ACCEPTED_FOR;
use tern_proto::ApiError;
use tern_proto::v1::ErrorReason;
use tern_types::{DeviceId, Timestamp, UserId};

use super::Accounts;
use super::users::no_such_user;
use crate::domain::access;
use crate::metrics;
use crate::peers::Told;
use crate::store::Tx;
use crate::store::admin::{Account, AnyDevice};

/// The time after a suspension or revocation for which an older access token may still be accepted somewhere. It
/// includes four minutes for a wrong clock at the node that stored the time.
const TOKENS_LIVE: Duration = ACCEPTED_FOR.saturating_add(Duration::from_secs(240));

impl Accounts {
    /// Returns at most `limit` users with ids above `after`, in the order of their ids.
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

    /// Returns the user with either of these ids, with all devices, or `Err` with USER_NOT_FOUND if there is none.
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

    /// Suspends the user and tells every gateway. Returns `Err` with USER_NOT_FOUND if there is no such user.
    pub async fn suspend(
        &self,
        principal: &Principal,
        user: UserId,
        now: Timestamp,
    ) -> Result<(Account, Told), ApiError> {
        access::administrate(principal)?;
        if self.store.suspend(user, now).await? {
            metrics::suspended(true);
        }
        self.tell_gateways(user, true).await
    }

    /// Lets a suspended user in again and tells every gateway. Returns `Err` with USER_NOT_FOUND if there is no such
    /// user.
    pub async fn resume(&self, principal: &Principal, user: UserId) -> Result<(Account, Told), ApiError> {
        access::administrate(principal)?;
        if self.store.resume(user).await? {
            metrics::suspended(false);
        }
        self.tell_gateways(user, false).await
    }

    /// Tells every gateway of a suspension or its end, also of one that was so before: the call is repeated if gateways
    /// were missed. Returns `Err` with USER_NOT_FOUND if there is no such user.
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

    /// Returns the users who were suspended and the devices that were revoked so recently that they may still have an
    /// access token that has not expired.
    pub async fn recently_barred(&self, now: Timestamp) -> Result<(Vec<UserId>, Vec<DeviceId>), ApiError> {
        let since = now - TOKENS_LIVE;
        let (users, devices) =
            tokio::try_join!(self.store.suspended_since(since), self.store.revoked_since(since))?;
        Ok((users, devices))
    }

    /// Checks that the user is not suspended. Returns `Err` with USER_SUSPENDED if the user is.
    pub(super) async fn check_suspended(&self, tx: &mut Tx, user: UserId) -> Result<(), ApiError> {
        if self.store.is_suspended(tx, user).await? {
            return Err(ApiError::new(ErrorReason::UserSuspended, "the user is suspended"));
        }
        Ok(())
    }
}
