//! An owner hands the group over.

use sqlx::PgConnection;
use tern_types::UserId;

use tern_chat_core::Role;

use super::set_role::SetRole;
use super::{At, Statements};

pub(super) struct HandOver {
    pub from: UserId,
    pub to: UserId,
}

impl Statements for HandOver {
    async fn write(&self, db: &mut PgConnection, at: &At) -> sqlx::Result<()> {
        SetRole(self.from, Role::Admin).write(db, at).await?;
        SetRole(self.to, Role::Owner).write(db, at).await
    }
}
