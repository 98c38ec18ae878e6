//! Stores the pictures of people. The picture of a group is part of its chat, and the chat node that owns the chat sets
//! it.

use tern_types::{MediaId, Timestamp, UserId};

use super::{Result, Store, at};

/// Sets a person's picture. The media counts as ticketed now, so that the collector, which may be looking for
/// references at this moment, leaves it alone. The statement changes nothing if the collector has marked the media
/// already, if the user has not uploaded it, or if there is no such user.
pub const SET: &str = concat!(
    "WITH kept AS (
         UPDATE media m SET ticketed_at = GREATEST(m.ticketed_at, ",
    at!("$3"),
    ") FROM media_uploaders u JOIN users p ON p.user_id = u.user_id
         WHERE m.media_id = $2 AND m.condemned_at IS NULL AND u.media_id = m.media_id AND u.user_id = $1
         RETURNING m.media_id, p.user_id
     )
     INSERT INTO user_pictures (user_id, media_id) SELECT user_id, media_id FROM kept
     ON CONFLICT (user_id) DO UPDATE SET media_id = excluded.media_id"
);

/// Removes a person's picture.
pub(crate) const REMOVE: &str = "DELETE FROM user_pictures WHERE user_id = $1";

impl Store {
    /// Sets the user's picture. Returns `false` if the media is not an upload of theirs or is about to be collected, or
    /// there is no such user.
    pub async fn set_picture(&self, user: UserId, media: MediaId, now: Timestamp) -> Result<bool> {
        let set = sqlx::query(SET).bind(user.0).bind(media.0).bind(now.0);
        Ok(set.execute(self.pools.people()).await?.rows_affected() > 0)
    }

    /// Removes the user's picture, if there is one.
    pub async fn remove_picture(&self, user: UserId) -> Result<()> {
        sqlx::query(REMOVE)
            .bind(user.0)
            .execute(self.pools.people())
            .await?;
        Ok(())
    }
}
