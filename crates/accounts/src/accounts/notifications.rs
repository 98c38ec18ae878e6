//! The calls about when a user is notified. Push nodes read the settings when a push is due, so only the user's own
//! devices are told of a change.

use tern_identity::principal::Principal;
use tern_proto::ApiError;
use tern_types::UserId;

use super::Accounts;
use super::own_log::Changed;
use super::users::no_such_user;
use crate::domain::access;
use crate::domain::notifications::Notifications;

impl Accounts {
    /// Returns the user's settings, or `Err` with USER_NOT_FOUND if there is no such user.
    pub async fn notifications(
        &self,
        principal: &Principal,
        user: Option<UserId>,
    ) -> Result<Notifications, ApiError> {
        let user = access::read_privacy(principal, user)?;
        self.check_device(principal).await?;
        self.store.notifications(user).await?.ok_or_else(no_such_user)
    }

    /// Replaces the user's settings. Returns `Err` with USER_NOT_FOUND if there is no such user.
    pub async fn set_notifications(
        &self,
        principal: &Principal,
        user: Option<UserId>,
        settings: &Notifications,
    ) -> Result<(), ApiError> {
        let user = access::write_privacy(principal, user)?;
        self.check_device(principal).await?;
        let mut tx = self.store.begin().await?;
        if !self.store.lock_user(&mut tx, user).await? {
            return Err(no_such_user());
        }
        if self.store.set_notifications(&mut tx, user, settings).await? {
            self.note(&mut tx, user, Changed::Notifications).await?;
        }
        self.store.commit(tx).await?;
        self.tell_own_log(user).await;
        Ok(())
    }
}
