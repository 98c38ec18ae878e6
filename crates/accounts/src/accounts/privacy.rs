//! Who blocks whom, who are whose contacts, who shares what.
//!
//! A change is stored first, then spread: gateways check anew who may be watched, and the owner of the direct chat learns of a
//! block. A call whose spreading fails is repeated as a whole: storing the same again changes nothing.

use tern_node::principal::Principal;
use tern_proto::ApiError;
use tern_proto::v1::ErrorReason;
use tern_types::{Timestamp, UserId};

use super::Accounts;
use super::users::no_such_user;
use crate::domain::access;
use crate::domain::privacy::{MAX_BLOCKED, MAX_CONTACTS, Privacy};
use crate::store::blocks::Place;

/// What becomes of a user's contacts.
#[derive(Clone, Debug, Default)]
pub struct ContactChange {
    pub add: Vec<UserId>,
    /// Who is in both is removed.
    pub remove: Vec<UserId>,
    /// The list is emptied first.
    pub replace: bool,
}

impl Accounts {
    /// No message passes between the two any more, in their direct chat, when it returns.
    pub async fn block(
        &self,
        principal: &Principal,
        user: Option<UserId>,
        blocked: UserId,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let user = self.blocker(principal, user, blocked).await?;
        let mut tx = self.store.begin().await?;
        if !self.store.lock_user(&mut tx, user).await? || !self.store.user_exists(blocked).await? {
            return Err(no_such_user());
        }
        if self.store.count_other_blocks(&mut tx, user, blocked).await? >= MAX_BLOCKED {
            return Err(list_full("at most 10,000 people are blocked"));
        }
        self.store.insert_block(&mut tx, user, blocked, now).await?;
        self.store.commit(tx).await?;
        self.spread_block(user, blocked).await
    }

    pub async fn unblock(
        &self,
        principal: &Principal,
        user: Option<UserId>,
        blocked: UserId,
    ) -> Result<(), ApiError> {
        let user = self.blocker(principal, user, blocked).await?;
        if !self.store.user_exists(user).await? || !self.store.user_exists(blocked).await? {
            return Err(no_such_user());
        }
        self.store.delete_block(user, blocked).await?;
        self.spread_block(user, blocked).await
    }

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

    async fn spread_block(&self, user: UserId, blocked: UserId) -> Result<(), ApiError> {
        let (told, changed) = tokio::join!(
            self.spread_privacy(user),
            self.peers.blocks_changed(user, blocked)
        );
        told.and(changed)
    }

    /// As it is now, not as this call left it: of two changes at once, the gateways keep what they are told last.
    async fn spread_privacy(&self, user: UserId) -> Result<(), ApiError> {
        let privacy = self.store.privacy(user).await?.ok_or_else(no_such_user)?;
        self.peers.privacy_changed(user, privacy.read_receipts_off).await;
        Ok(())
    }

    /// At most `limit` whom the user has blocked, the newest first, from behind `after`.
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

    /// How many contacts the user has now.
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
        if change.replace {
            self.store.clear_contacts(&mut tx, user).await?;
        }
        let others: Vec<UserId> = change.add.into_iter().filter(|id| *id != user).collect();
        self.store.insert_contacts(&mut tx, user, &others).await?;
        self.store.delete_contacts(&mut tx, user, &change.remove).await?;
        let count = self.store.count_contacts(&mut tx, user).await?;
        if count > MAX_CONTACTS {
            return Err(list_full("a user has at most 10,000 contacts"));
        }
        self.store.commit(tx).await?;
        self.spread_privacy(user).await?;
        Ok(count)
    }

    /// At most `limit` contacts, in the order of their ids, from behind `after`.
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

    /// The user's settings.
    pub async fn privacy(&self, principal: &Principal, user: Option<UserId>) -> Result<Privacy, ApiError> {
        let user = access::read_privacy(principal, user)?;
        self.check_device(principal).await?;
        self.store.privacy(user).await?.ok_or_else(no_such_user)
    }

    pub async fn set_privacy(
        &self,
        principal: &Principal,
        user: Option<UserId>,
        privacy: Privacy,
    ) -> Result<(), ApiError> {
        let user = access::write_privacy(principal, user)?;
        self.check_device(principal).await?;
        if !self.store.set_privacy(user, privacy).await? {
            return Err(no_such_user());
        }
        self.spread_privacy(user).await
    }

    /// Whose lists are read: of somebody who exists.
    async fn reader(&self, principal: &Principal, user: Option<UserId>) -> Result<UserId, ApiError> {
        let user = access::read_privacy(principal, user)?;
        self.check_device(principal).await?;
        if !self.store.user_exists(user).await? {
            return Err(no_such_user());
        }
        Ok(user)
    }
}

fn list_full(message: &str) -> ApiError {
    ApiError::new(ErrorReason::ListFull, message)
}
