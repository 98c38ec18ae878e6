//! The call by which a device says where it gets its pushes.

use tern_identity::principal::Principal;
use tern_proto::ApiError;
use tern_types::Timestamp;

use super::Accounts;
use super::tokens::revoked;
use crate::domain::access;
use crate::domain::push_tokens::PushToken;

impl Accounts {
    /// Stores where the calling device gets its pushes; `None`: it gets none. A token that another device has named
    /// becomes this one's. If two devices swap their tokens at the same moment, one of the calls fails with
    /// UNAVAILABLE.
    pub async fn set_push_token(
        &self,
        principal: &Principal,
        token: Option<&PushToken>,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let (user, device) = access::set_push_token(principal)?;
        self.check_device(principal).await?;
        let mut tx = self.store.begin().await?;
        // The device may have been revoked since it was checked.
        if !self.store.lock_device(&mut tx, user, device).await? {
            return Err(revoked());
        }
        match token {
            Some(token) => {
                self.store
                    .set_push_token(&mut tx, user, device, token, now)
                    .await?;
            }
            None => self.store.forget_push_token(&mut tx, device).await?,
        }
        self.store.commit(tx).await?;
        Ok(())
    }
}
