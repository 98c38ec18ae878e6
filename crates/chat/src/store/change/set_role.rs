//! A member gets another role.

use sqlx::PgConnection;
use tern_types::UserId;

use tern_chat_core::Role;

use super::{At, Statements};

/// Sets a present member's role.
const SET_ROLE: &str =
    "UPDATE members SET role = $3 WHERE chat_id = $1 AND user_id = $2 AND left_seq IS NULL";

pub(super) struct SetRole(pub UserId, pub Role);

impl Statements for SetRole {
    async fn write(&self, db: &mut PgConnection, at: &At) -> sqlx::Result<()> {
        let statement = sqlx::query(SET_ROLE)
            .bind(at.chat.0)
            .bind(self.0.0)
            .bind(self.1 as i16);
        statement.execute(db).await.map(drop)
    }
}
