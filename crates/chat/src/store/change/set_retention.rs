//! The chat keeps its messages for another time, or they disappear after another time.

use sqlx::PgConnection;
use tern_types::Clock;

use tern_chat_core::retention::{Mode, Retention};

use super::{At, Statements};

/// Sets what a chat's members chose for how long messages are kept, and when the trimmer looks at the chat.
const SET_RETENTION: &str = "
UPDATE chats SET retention_mode = $2, keep_s = $3, disappear_after_s = $4, trim_at = to_timestamp($5::int8 / 1000.0)
WHERE chat_id = $1";

pub(super) struct SetRetention(pub Retention);

impl Statements for SetRetention {
    async fn write(&self, db: &mut PgConnection, at: &At) -> sqlx::Result<()> {
        // It looks at once, unless all is kept for ever.
        let trim_at = (self.0.mode != Mode::Forever).then(|| Clock::wall().0);
        let seconds = |seconds: u32| i32::try_from(seconds).unwrap_or(i32::MAX);
        let statement = sqlx::query(SET_RETENTION)
            .bind(at.chat.0)
            .bind(self.0.mode.number())
            .bind(seconds(self.0.mode.keep_s()))
            .bind(seconds(self.0.disappear_after_s))
            .bind(trim_at);
        statement.execute(db).await.map(drop)
    }
}
