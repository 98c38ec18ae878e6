//! Decides who may download and forward a media.

use sqlx::Row;
use sqlx::postgres::PgRow;
use tern_store::Gathered;
use tern_types::{ChatId, MediaId, Timestamp, UserId};
use uuid::Uuid;

use super::uploads::bytes;
use super::{Media, Result, Store, at};
use crate::domain::declared::Declared;

/// The right by which somebody asks for a media.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Through {
    /// An entry of this chat refers to the media, or it is the group's picture.
    Chat(ChatId),
    /// The media is an upload of the user's own.
    OwnUpload,
    /// The media is the picture of this user.
    PictureOf(UserId),
}

/// Returns whether a user exists.
pub const HAS_USER: &str = "SELECT EXISTS (SELECT FROM users WHERE user_id = $1)";

/// Selects whether a present member $1 of the chat $3 may read the media $2: an entry of the chat refers to it that lies
/// in what one of the member's intervals lets them read (rule 7), or it is the group's picture.
pub const IN_CHAT: &str = "
SELECT EXISTS (SELECT FROM members WHERE chat_id = $3 AND user_id = $1 AND left_seq IS NULL)
  AND (EXISTS (SELECT FROM media_refs r JOIN members i ON i.chat_id = r.chat_id AND i.user_id = $1
               WHERE r.chat_id = $3 AND r.media_id = $2
                 AND r.seq >= coalesce(i.history_seq, i.joined_seq) AND (i.left_seq IS NULL OR r.seq <= i.left_seq))
       OR EXISTS (SELECT FROM chats WHERE chat_id = $3 AND picture = $2))";

/// Reads a media.
pub const MEDIA: &str =
    "SELECT media_id, length, content_type, object_key, content_id FROM media WHERE media_id = $1";

/// Reads a media that the user has uploaded.
pub const OWN: &str = "
SELECT m.media_id, m.length, m.content_type, m.object_key, m.content_id
FROM media m JOIN media_uploaders u ON u.media_id = m.media_id AND u.user_id = $1
WHERE m.media_id = $2 AND m.condemned_at IS NULL";

/// Reads the picture of the user $3 for a person, unless one of the two has blocked the other. The last column is true if
/// the person is that user or among that user's contacts. Others may read it only if they [`SHARE_A_CHAT`].
pub const PICTURE_OF: &str = "
SELECT m.media_id, m.length, m.content_type, m.object_key, m.content_id,
       $1 = $3 OR EXISTS (SELECT FROM contacts c WHERE c.user_id = $3 AND c.contact_id = $1)
FROM media m JOIN user_pictures p ON p.media_id = m.media_id AND p.user_id = $3
WHERE m.media_id = $2
  AND ($1 = $3
       OR NOT EXISTS (SELECT FROM blocks b WHERE b.user_id = $3 AND b.blocked_id = $1)
          AND NOT EXISTS (SELECT FROM blocks b WHERE b.user_id = $1 AND b.blocked_id = $3))";

/// Selects whether two people are present members of the same chat.
pub const SHARE_A_CHAT: &str = "
SELECT EXISTS (SELECT FROM members a JOIN members b ON b.chat_id = a.chat_id
               WHERE a.user_id = $1 AND a.left_seq IS NULL AND b.user_id = $2 AND b.left_seq IS NULL)";

/// Finds the media with a content, and whether the user has uploaded it. A media that the collector has marked is not
/// `canonical`, and so is not found.
pub const STORED_FOR: &str = "
SELECT m.media_id,
       EXISTS (SELECT FROM media_uploaders u WHERE u.media_id = m.media_id AND u.user_id = $1)
FROM media m WHERE m.content_id = $2 AND m.length = $3 AND m.content_type = $4 AND m.canonical";

/// Selects whether the user may download the media $2 through one of their chats.
pub const IN_ANY_CHAT: &str = "
SELECT EXISTS (SELECT FROM members n JOIN media_refs r ON r.chat_id = n.chat_id AND r.media_id = $2
               WHERE n.user_id = $1 AND n.left_seq IS NULL AND r.seq >= coalesce(n.history_seq, n.joined_seq))";

/// Notes that a ticket is about to be given, so that the collector leaves the media alone until that ticket has ended.
/// It changes nothing if the collector has marked the media already.
pub const TICKET: &str = concat!(
    "UPDATE media SET ticketed_at = GREATEST(ticketed_at, ",
    at!("$2"),
    ") WHERE media_id = $1 AND condemned_at IS NULL"
);

impl Store {
    /// Returns whether the user exists.
    pub async fn has_user(&self, user: UserId) -> Result<bool> {
        let found = sqlx::query_scalar(HAS_USER).bind(user.0);
        Ok(found.fetch_one(self.pools.people()).await?)
    }

    /// Returns the media, or `None` if the user may not read it by this right.
    pub(crate) async fn readable(
        &self,
        user: UserId,
        media: MediaId,
        through: Through,
    ) -> Result<Option<Media>> {
        let row = match through {
            Through::Chat(chat) => {
                let granted = sqlx::query_scalar(IN_CHAT)
                    .bind(user.0)
                    .bind(media.0)
                    .bind(chat.0);
                if !granted.fetch_one(self.pools.of(chat)).await? {
                    return Ok(None);
                }
                let row = sqlx::query(MEDIA).bind(media.0);
                row.fetch_optional(self.pools.people()).await?
            }
            Through::OwnUpload => {
                let row = sqlx::query(OWN).bind(user.0).bind(media.0);
                row.fetch_optional(self.pools.people()).await?
            }
            Through::PictureOf(owner) => self.picture_of(user, media, owner).await?,
        };
        row.map(|row| read(&row)).transpose()
    }

    /// Returns the row of the picture of `owner`, or `None` if the user may not see it.
    async fn picture_of(&self, user: UserId, media: MediaId, owner: UserId) -> Result<Option<PgRow>> {
        let picture = sqlx::query(PICTURE_OF).bind(user.0).bind(media.0).bind(owner.0);
        let Some(picture) = picture.fetch_optional(self.pools.people()).await? else {
            return Ok(None);
        };
        if picture.try_get(5)? {
            return Ok(Some(picture));
        }
        let in_cell = |pool| async move {
            let shared = sqlx::query_scalar(SHARE_A_CHAT).bind(user.0).bind(owner.0);
            shared.fetch_one(&pool).await
        };
        let Gathered { answers, partial } = self.pools.gather(in_cell).await?;
        if answers.contains(&true) {
            Ok(Some(picture))
        } else if partial {
            // The two may share a chat of the cell that did not answer.
            Err(sqlx::Error::PoolTimedOut.into())
        } else {
            Ok(None)
        }
    }

    /// Returns the media with this content that the user has uploaded before or may download, or `None` if there is
    /// none.
    pub async fn stored_for(&self, user: UserId, declared: &Declared) -> Result<Option<MediaId>> {
        let found: Option<(Uuid, bool)> = sqlx::query_as(STORED_FOR)
            .bind(user.0)
            .bind(declared.content_id().to_vec())
            .bind(bytes(declared.length))
            .bind(&declared.content_type)
            .fetch_optional(self.pools.people())
            .await?;
        let Some((id, uploaded)) = found else {
            return Ok(None);
        };
        let in_cell = |pool| async move {
            let in_chat = sqlx::query_scalar(IN_ANY_CHAT).bind(user.0).bind(id);
            in_chat.fetch_one(&pool).await
        };
        // If a cell does not answer, the file is uploaded although it may be stored already, which costs little.
        let readable = uploaded || self.pools.gather(in_cell).await?.answers.contains(&true);
        Ok(readable.then_some(MediaId(id)))
    }

    /// Notes that a ticket is about to be given. Returns `false` if the collector has marked or deleted the media.
    pub async fn ticket(&self, media: MediaId, now: Timestamp) -> Result<bool> {
        let done = sqlx::query(TICKET).bind(media.0).bind(now.0);
        Ok(done.execute(self.pools.people()).await?.rows_affected() > 0)
    }
}

fn read(row: &PgRow) -> Result<Media> {
    Ok(Media {
        id: MediaId(row.try_get(0)?),
        length: u64::try_from(row.try_get::<i64, _>(1)?).unwrap_or(0),
        content_type: row.try_get(2)?,
        object_key: row.try_get(3)?,
        content_id: row.try_get(4)?,
    })
}
