//! The group gets another title.

use sqlx::PgConnection;

use super::{At, Statements};

/// Sets a group's title.
const SET_TITLE: &str = "UPDATE chats SET title = $2 WHERE chat_id = $1";

pub(super) struct SetTitle<'a>(pub &'a str);

impl Statements for SetTitle<'_> {
    async fn write(&self, db: &mut PgConnection, at: &At) -> sqlx::Result<()> {
        let statement = sqlx::query(SET_TITLE).bind(at.chat.0).bind(self.0);
        statement.execute(db).await.map(drop)
    }
}
