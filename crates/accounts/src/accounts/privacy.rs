//! The calls about blocks, contacts, and settings of who sees what.
//!
//! A change is stored first and then spread: gateways check again who may be watched, the owner of the direct chat learns
//! of a block, and the user's own log of what has changed. If spreading fails, the caller repeats the whole call, for
//! storing the same again changes nothing.

use tern_identity::principal::Principal;
use tern_proto::ApiError;
use tern_proto::v1::ErrorReason;
use tern_types::{Timestamp, UserId};

use super::Accounts;
use super::own_log::Changed;
use super::users::no_such_user;
use crate::domain::access;
use crate::domain::privacy::{MAX_BLOCKED, MAX_CONTACTS, Privacy};
use crate::store::blocks::Place;

/// A change of a user's contacts.
#[derive(Clone, Debug, Default)]
pub struct ContactChange {
    /// People to add.
    pub add: Vec<UserId>,
    /// People to remove. A person who is in both lists is removed.
    pub remove: Vec<UserId>,
    /// True if all present contacts are removed first.
    pub replace: bool,
}

impl Accounts {
    /// Blocks somebody. When it returns, no message passes between the two in their direct chat any more. Returns `Err`
    /// with USER_NOT_FOUND if one of them does not exist, and with LIST_FULL if the user has blocked 10,000 other
    /// people already.
    pub async fn block(
        &self,
        principal: &Principal,
        user: Option<UserId>,
        blocked: UserId,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let user = self.blocker(principal, user, blocked).await?;
        // A transaction must not wait for a second connection of the pool, so this is asked before it. Users are not
        // deleted.
        if !self.store.user_exists(blocked).await? {
            return Err(no_such_user());
        }
        let mut tx = self.store.begin().await?;
        if !self.store.lock_user(&mut tx, user).await? {
            return Err(no_such_user());
        }
        if self.store.count_other_blocks(&mut tx, user, blocked).await? >= MAX_BLOCKED {
            return Err(list_full(format!("at most {MAX_BLOCKED} people are blocked")));
        }
        if self.store.insert_block(&mut tx, user, blocked, now).await? {
            self.note(&mut tx, user, Changed::Blocked(blocked)).await?;
        }
        self.store.commit(tx).await?;
        self.spread_block(user, blocked).await
    }

    /// Ends a block. Returns `Err` with USER_NOT_FOUND if one of the two does not exist.
    pub async fn unblock(
        &self,
        principal: &Principal,
        user: Option<UserId>,
        blocked: UserId,
    ) -> Result<(), ApiError> {
        let user = self.blocker(principal, user, blocked).await?;
        if !self.store.user_exists(blocked).await? {
            return Err(no_such_user());
        }
        let mut tx = self.store.begin().await?;
        if !self.store.lock_user(&mut tx, user).await? {
            return Err(no_such_user());
        }
        if self.store.delete_block(&mut tx, user, blocked).await? {
            self.note(&mut tx, user, Changed::Unblocked(blocked)).await?;
        }
        self.store.commit(tx).await?;
        self.spread_block(user, blocked).await
    }

    /// Returns the user for whom the caller may change blocks, or `Err` if the caller may not, or the user would block
    /// themselves.
    async fn blocker(
        &self,
        principal: &Principal,
        user: Option<UserId>,
        blocked: UserId,
    ) -> Result<UserId, ApiError> {
        let user = access::write_privacy(principal, user)?;
        if user == blocked {
            return Err(ApiError::invalid("blocked_user_id", "is the user"));
        }
        self.check_device(principal).await?;
        Ok(user)
    }

    /// Tells gateways, the owner of the direct chat, and the user's own log of a block that was made or ended.
    async fn spread_block(&self, user: UserId, blocked: UserId) -> Result<(), ApiError> {
        let (told, changed) = tokio::join!(
            self.spread_privacy(user),
            self.peers.blocks_changed(user, blocked)
        );
        told.and(changed)
    }

    /// Tells gateways of the user's settings, and the user's own log of what has changed. It reads the settings from the
    /// store after the change, not from the call, so that after two concurrent changes the gateways are told the newest
    /// state last.
    async fn spread_privacy(&self, user: UserId) -> Result<(), ApiError> {
        let privacy = self.store.privacy(user).await?.ok_or_else(no_such_user)?;
        let told = self.peers.privacy_changed(user, privacy.read_receipts_off);
        tokio::join!(told, self.tell_own_log(user));
        Ok(())
    }

    /// Returns at most `limit` people whom the user has blocked, the newest first, beginning after `after`.
    pub async fn blocked(
        &self,
        principal: &Principal,
        user: Option<UserId>,
        after: Option<Place>,
        limit: u32,
    ) -> Result<Vec<Place>, ApiError> {
        let user = self.reader(principal, user).await?;
        Ok(self.store.blocks(user, after, limit).await?)
    }

    /// Changes the user's contacts, and returns how many there are now. People who do not exist are left out. Returns
    /// `Err` with USER_NOT_FOUND if there is no such user, and with LIST_FULL if there would be more than 10,000
    /// contacts.
    pub async fn set_contacts(
        &self,
        principal: &Principal,
        user: Option<UserId>,
        change: ContactChange,
    ) -> Result<usize, ApiError> {
        let user = access::write_privacy(principal, user)?;
        self.check_device(principal).await?;
        let mut tx = self.store.begin().await?;
        if !self.store.lock_user(&mut tx, user).await? {
            return Err(no_such_user());
        }
        let cleared = if change.replace {
            self.store.clear_contacts(&mut tx, user).await?
        } else {
            0
        };
        let others: Vec<UserId> = change.add.into_iter().filter(|id| *id != user).collect();
        let added = self.store.insert_contacts(&mut tx, user, &others).await?;
        let removed = self.store.delete_contacts(&mut tx, user, &change.remove).await?;
        let count = self.store.count_contacts(&mut tx, user).await?;
        if count > MAX_CONTACTS {
            return Err(list_full(format!("a user has at most {MAX_CONTACTS} contacts")));
        }
        if cleared + added + removed > 0 {
            self.note(&mut tx, user, Changed::Contacts).await?;
        }
        self.store.commit(tx).await?;
        self.spread_privacy(user).await?;
        Ok(count)
    }

    /// Returns at most `limit` contacts in the order of their ids, beginning after `after`.
    pub async fn contacts(
        &self,
        principal: &Principal,
        user: Option<UserId>,
        after: Option<UserId>,
        limit: u32,
    ) -> Result<Vec<UserId>, ApiError> {
        let user = self.reader(principal, user).await?;
        Ok(self.store.contacts(user, after, limit).await?)
    }

    /// Returns the user's settings, or `Err` with USER_NOT_FOUND if there is no such user.
    pub async fn privacy(&self, principal: &Principal, user: Option<UserId>) -> Result<Privacy, ApiError> {
        let user = access::read_privacy(principal, user)?;
        self.check_device(principal).await?;
        self.store.privacy(user).await?.ok_or_else(no_such_user)
    }

    /// Replaces the user's settings. Returns `Err` with USER_NOT_FOUND if there is no such user.
    pub async fn set_privacy(
        &self,
        principal: &Principal,
        user: Option<UserId>,
        privacy: Privacy,
    ) -> Result<(), ApiError> {
        let user = access::write_privacy(principal, user)?;
        self.check_device(principal).await?;
        let mut tx = self.store.begin().await?;
        if !self.store.lock_user(&mut tx, user).await? {
            return Err(no_such_user());
        }
        if self.store.set_privacy(&mut tx, user, privacy).await? {
            self.note(&mut tx, user, Changed::Privacy).await?;
        }
        self.store.commit(tx).await?;
        self.spread_privacy(user).await
    }

    /// Returns the user whose lists the caller may read, or `Err` with USER_NOT_FOUND if there is no such user.
    async fn reader(&self, principal: &Principal, user: Option<UserId>) -> Result<UserId, ApiError> {
        let user = access::read_privacy(principal, user)?;
        self.check_device(principal).await?;
        if !self.store.user_exists(user).await? {
            return Err(no_such_user());
        }
        Ok(user)
    }
}

fn list_full(message: String) -> ApiError {
    ApiError::new(ErrorReason::ListFull, message)
}
