//! A member is removed, or leaves.

use sqlx::PgConnection;
use tern_types::{Clock, UserId};

use super::{At, Statements};
use crate::store::invites;

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
        statement.execute(&mut *db).await?;
        if at.actor == self.0 {
            return Ok(());
        }
        // The links of a member whom somebody else removed end, so that the member lets nobody in any more.
        invites::end_of(db, at.chat, self.0, Clock::wall()).await
    }
}
