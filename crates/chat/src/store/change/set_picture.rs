//! The group gets another picture, or none.

use sqlx::PgConnection;
use tern_types::MediaId;

use super::{At, Statements};

/// Sets a group's picture. Media nodes also let members read it by this column: a member who joined later does not
/// get the entry that set it, and so not the entry's reference.
const SET_PICTURE: &str = "UPDATE chats SET picture = $2 WHERE chat_id = $1";

pub(super) struct SetPicture(pub Option<MediaId>);

impl Statements for SetPicture {
    async fn write(&self, db: &mut PgConnection, at: &At) -> sqlx::Result<()> {
        let statement = sqlx::query(SET_PICTURE)
            .bind(at.chat.0)
            .bind(self.0.map(|media| media.0));
        statement.execute(db).await.map(drop)
    }
}
