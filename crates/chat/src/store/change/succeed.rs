//! The last owner is removed, or leaves, and another member is the owner.

use sqlx::PgConnection;
use tern_types::UserId;

use tern_chat_core::Role;

use super::remove::Remove;
use super::set_role::SetRole;
use super::{At, Statements};

pub(super) struct Succeed {
    pub owner: UserId,
    pub heir: UserId,
}

impl Statements for Succeed {
    async fn write(&self, db: &mut PgConnection, at: &At) -> sqlx::Result<()> {
        Remove(self.owner).write(db, at).await?;
        SetRole(self.heir, Role::Owner).write(db, at).await
    }
}
