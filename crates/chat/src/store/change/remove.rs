//! A member is removed, or leaves.

use sqlx::PgConnection;
use tern_types::UserId;

use super::{At, Statements};

/// Ends an interval of membership with the entry that removed the member, which they still get (rule 7).
pub const REMOVE_MEMBER: &str =
    "UPDATE members SET left_seq = $3 WHERE chat_id = $1 AND user_id = $2 AND left_seq IS NULL";

pub(super) struct Remove(pub UserId);

impl Statements for Remove {
    async fn write(&self, db: &mut PgConnection, at: &At) -> sqlx::Result<()> {
        let statement = sqlx::query(REMOVE_MEMBER)
            .bind(at.chat.0)
            .bind(self.0.0)
            .bind(at.seq.to_i64());
        statement.execute(db).await.map(drop)
    }
}
