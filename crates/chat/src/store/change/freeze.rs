//! The chat is frozen, or is no longer.

use sqlx::PgConnection;

use super::{At, Statements};

/// Sets whether a chat is frozen.
const FREEZE: &str = "UPDATE chats SET frozen = $2 WHERE chat_id = $1";

pub(super) struct Freeze(pub bool);

impl Statements for Freeze {
    async fn write(&self, db: &mut PgConnection, at: &At) -> sqlx::Result<()> {
        let statement = sqlx::query(FREEZE).bind(at.chat.0).bind(self.0);
        statement.execute(db).await.map(drop)
    }
}
