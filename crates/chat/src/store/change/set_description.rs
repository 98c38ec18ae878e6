//! The group gets another description.

use sqlx::PgConnection;

use super::{At, Statements};

/// Sets a group's description.
const SET_DESCRIPTION: &str = "UPDATE chats SET description = $2 WHERE chat_id = $1";

pub(super) struct SetDescription<'a>(pub &'a str);

impl Statements for SetDescription<'_> {
    async fn write(&self, db: &mut PgConnection, at: &At) -> sqlx::Result<()> {
        let statement = sqlx::query(SET_DESCRIPTION).bind(at.chat.0).bind(self.0);
        statement.execute(db).await.map(drop)
    }
}
