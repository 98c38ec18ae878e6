//! Reads a group as those meet it who make a link into it, come by one, or answer who asks to join.

use sqlx::{PgConnection, Row};
use tern_store::Pools;
use tern_types::{ChatId, UserId};

use tern_chat_core::chat::{ChatKey, ChatKind, Role};

use super::ReadError;
use super::listing::role;
use super::seal::MasterKey;

/// Selects a chat as somebody ($2) meets it who makes a link into it or comes by one.
pub const DOOR: &str = "
SELECT c.kind, c.title, c.description, c.frozen, c.add_role, c.wrapped_key, me.role,
       (SELECT count(*) FROM members o WHERE o.chat_id = c.chat_id AND o.left_seq IS NULL) AS member_count
FROM chats c
LEFT JOIN LATERAL (
    SELECT m.role FROM members m WHERE m.chat_id = c.chat_id AND m.user_id = $2 AND m.left_seq IS NULL LIMIT 1
) AS me ON true
WHERE c.chat_id = $1";

/// Locks what bounds the links of a chat and the requests to join it: two transactions that add some follow each other.
pub const LOCK: &str = "SELECT chat_id FROM chats WHERE chat_id = $1 FOR NO KEY UPDATE";

/// A chat as somebody meets it who makes a link into it or comes by one.
#[derive(Debug)]
pub struct Door {
    /// True for a group. Other chats have no links.
    pub is_group: bool,
    /// The title.
    pub title: String,
    /// The description.
    pub description: String,
    /// True if the operator froze the chat.
    pub frozen: bool,
    /// The number of present members.
    pub member_count: u32,
    /// The role of the user; `None` if they are no member.
    pub role: Option<Role>,
    /// The lowest role that may add members.
    pub add_role: Role,
    /// The chat's data key.
    pub key: ChatKey,
}

/// Reads the chat as `user` meets it; `None` if there is no such chat.
pub async fn door(
    pools: &Pools,
    master: &MasterKey,
    chat: ChatId,
    user: UserId,
) -> Result<Option<Door>, ReadError> {
    let row = sqlx::query(DOOR).bind(chat.0).bind(user.0);
    let Some(row) = row.fetch_optional(pools.of(chat)).await? else {
        return Ok(None);
    };
    let known = |number| role(number).ok_or(ReadError::Unknown(chat, "a role"));
    let wrapped: Vec<u8> = row.try_get("wrapped_key")?;
    Ok(Some(Door {
        is_group: row.try_get::<i16, _>("kind")? == ChatKind::Group as i16,
        title: row.try_get("title")?,
        description: row.try_get("description")?,
        frozen: row.try_get("frozen")?,
        member_count: u32::try_from(row.try_get::<i64, _>("member_count")?).unwrap_or(0),
        role: row.try_get::<Option<i16>, _>("role")?.map(known).transpose()?,
        add_role: known(row.try_get("add_role")?)?,
        key: master.unwrap(chat, &wrapped).map_err(|_| ReadError::Key(chat))?,
    }))
}

/// Locks what bounds the links of a chat and the requests to join it, until the transaction ends.
pub(super) async fn lock(db: &mut PgConnection, chat: ChatId) -> sqlx::Result<()> {
    sqlx::query(LOCK).bind(chat.0).execute(db).await.map(drop)
}
