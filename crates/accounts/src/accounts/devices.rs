//! The calls that link, list and revoke devices.

use std::time::Duration;

use tern_identity::principal::Principal;
use tern_proto::ApiError;
use tern_proto::v1::CloseCode;
use tern_types::{DeviceId, RequestId, Timestamp, UserId};

use super::own_log::Changed;
use super::users::no_such_user;
use super::{Accounts, Pair, no_such_device};
use crate::domain::access;
use crate::domain::linking::{self, Asked, Link};
use crate::metrics;
use crate::store::devices::{Device, Revoked};

/// The time after which any accounts node finishes a revocation that it finds unfinished. Normally the call that began
/// a revocation also finishes it.
const RESUME_AFTER: Duration = Duration::from_secs(30);
/// The most revocations that one round resumes. Each of them is a transaction on a chat node.
const RESUMED_AT_ONCE: i64 = 16;

/// A request to link a device.
#[derive(Clone, Debug)]
pub struct NewDevice {
    /// The user whose device it becomes.
    pub user: UserId,
    /// The id by which a retry of the request is recognised.
    pub request: RequestId,
    /// The name and platform that the app gives the device.
    pub asked: Asked,
}

impl Accounts {
    /// Links a device and issues its tokens. A repeated request returns the same device with its present refresh token,
    /// and continues where the first one was cut short.
    pub async fn link_device(
        &self,
        principal: &Principal,
        new: NewDevice,
        now: Timestamp,
    ) -> Result<(Device, Pair), ApiError> {
        access::link_devices(principal)?;
        let (device, pending) = self.begin_link(&new, now).await?;
        if pending {
            self.peers.link_device(new.user, device).await?;
            // The chat node has noted that the device is linked.
            self.tell_own_log(new.user).await;
        }
        let tokens = self.first_tokens(device, now).await?;
        let device = self.store.device(device).await?.ok_or_else(no_such_device)?;
        metrics::linked();
        tracing::info!(user = %device.user, device = %device.id, again = !pending, "device linked");
        Ok((device, tokens))
    }

    /// Finds or makes the device of this request. The returned flag says whether the device has yet to join its
    /// user's chats.
    async fn begin_link(&self, new: &NewDevice, now: Timestamp) -> Result<(DeviceId, bool), ApiError> {
        let mut tx = self.store.begin().await?;
        if !self.store.lock_user(&mut tx, new.user).await? {
            return Err(no_such_user());
        }
        self.check_suspended(&mut tx, new.user).await?;
        // Nobody goes on with a request after that time, so the devices of those that never succeeded end here.
        let ended = now - linking::REPEATABLE;
        self.store.forget_pending(&mut tx, new.user, ended).await?;
        let before = self.store.link_before(&mut tx, new.user, new.request).await?;
        let known = before.as_ref().map(|before| before.device);
        let others = self
            .store
            .count_others(&mut tx, new.user, known, now - linking::PENDING_COUNTS)
            .await?;
        let begun = match linking::decide(before.as_ref(), &new.asked, others, now)? {
            Link::New => {
                let device = Device {
                    id: DeviceId::random(),
                    user: new.user,
                    display_name: new.asked.display_name.clone(),
                    platform: new.asked.platform.clone(),
                    linked_at: now,
                };
                self.store.insert_device(&mut tx, &device, new.request).await?;
                (device.id, true)
            }
            Link::Resume(device) => {
                self.store.resume_device(&mut tx, device, now).await?;
                (device, true)
            }
            Link::Again(device) => (device, false),
        };
        self.store.commit(tx).await?;
        Ok(begun)
    }

    /// Returns the user's active devices, the oldest first, or `Err` with USER_NOT_FOUND if there is no such user.
    pub async fn devices(
        &self,
        principal: &Principal,
        user: Option<UserId>,
    ) -> Result<Vec<Device>, ApiError> {
        let user = access::list_devices(principal, user)?;
        self.check_device(principal).await?;
        let devices = self.store.devices(user).await?;
        if devices.is_empty() && !self.store.user_exists(user).await? {
            return Err(no_such_user());
        }
        Ok(devices)
    }

    /// Revokes a device for good. Calling it again changes nothing, but finishes what was left unfinished. Returns
    /// `Err` with DEVICE_NOT_FOUND if the caller may not revoke such a device or there is none.
    pub async fn revoke_device(
        &self,
        principal: &Principal,
        device: DeviceId,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let of = access::revoke_devices(principal)?;
        let itself = matches!(principal, Principal::Device { device: caller, .. } if *caller == device);
        if !itself {
            self.check_device(principal).await?;
        }
        let revoked = self.begin_revocation(device, of, "asked", now).await?;
        self.spread_revocation(device, revoked, now).await
    }

    /// Marks the device as revoked. This takes effect at once: its refresh tokens are no longer exchanged, it cannot
    /// open a stream any more, and it gets no more pushes. Returns `Err` with DEVICE_NOT_FOUND if there is no such
    /// device, or it is not a device of the user `of`.
    pub(super) async fn begin_revocation(
        &self,
        device: DeviceId,
        of: Option<UserId>,
        cause: &'static str,
        now: Timestamp,
    ) -> Result<Revoked, ApiError> {
        let mut tx = self.store.begin().await?;
        let revoked = self
            .store
            .revoke(&mut tx, device, of, now)
            .await?
            .ok_or_else(no_such_device)?;
        self.store.forget_push_token(&mut tx, device).await?;
        if revoked.now {
            let changed = Changed::DeviceRevoked(device);
            self.note(&mut tx, revoked.user, changed).await?;
        }
        self.store.commit(tx).await?;
        if revoked.now {
            metrics::revoked(cause);
            tracing::info!(user = %revoked.user, %device, cause, "device revoked");
        }
        Ok(revoked)
    }

    /// Closes the streams of a revoked device, removes it from its user's chats, and tells the user's other devices.
    pub(super) async fn spread_revocation(
        &self,
        device: DeviceId,
        revoked: Revoked,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let close = self.peers.close_device(device, CloseCode::DeviceRevoked);
        if revoked.unlinked {
            close.await;
            return Ok(());
        }
        let ((), unlinked, ()) = tokio::join!(
            close,
            self.finish_revocation(revoked.user, device, now),
            self.tell_own_log(revoked.user)
        );
        unlinked
    }

    /// Removes the device from its user's chats, and stores that this is done.
    async fn finish_revocation(
        &self,
        user: UserId,
        device: DeviceId,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        self.peers.unlink_device(user, device).await?;
        self.store.set_unlinked(device, now).await?;
        Ok(())
    }

    /// Finishes revocations that began more than 30 s ago and whose call did not finish them. A revocation that cannot be
    /// finished does not hold up the others. Returns the first error if the store is away or a revocation is still not
    /// finished; the next round continues.
    pub async fn resume_revocations(&self, now: Timestamp) -> Result<(), ApiError> {
        let unfinished = self
            .store
            .unfinished_revocations(now - RESUME_AFTER, RESUMED_AT_ONCE)
            .await?;
        let mut outcome = Ok(());
        for (user, device) in unfinished {
            self.peers.close_device(device, CloseCode::DeviceRevoked).await;
            let finished = self.finish_revocation(user, device, now).await;
            if finished.is_ok() {
                metrics::revocation_resumed();
                tracing::info!(%user, %device, "revocation finished");
            }
            outcome = outcome.and(finished);
        }
        outcome
    }
}
