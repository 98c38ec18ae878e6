//! The group gets another policy.

use sqlx::PgConnection;

use tern_chat_core::policy::Policy;

use super::{At, Statements};

/// Sets a group's policy: the roles that may send ($2), add members ($3) and change what the group shows ($4), slow mode
/// in seconds ($5), and what new members may read ($6).
const SET_POLICY: &str = "
UPDATE chats SET send_role = $2, add_role = $3, edit_role = $4, slow_mode_s = $5, joiner_history = $6 WHERE chat_id = $1";

pub(super) struct SetPolicy(pub Policy);

impl Statements for SetPolicy {
    async fn write(&self, db: &mut PgConnection, at: &At) -> sqlx::Result<()> {
        let policy = &self.0;
        let statement = sqlx::query(SET_POLICY)
            .bind(at.chat.0)
            .bind(policy.send_role as i16)
            .bind(policy.add_role as i16)
            .bind(policy.edit_role as i16)
            .bind(i32::try_from(policy.slow_mode).unwrap_or(i32::MAX))
            .bind(policy.joiner_history.number());
        statement.execute(db).await.map(drop)
    }
}
