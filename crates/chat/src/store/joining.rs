//! Members join: whom a person may add to a group, and the statements that add them.

use std::collections::HashSet;

use sqlx::{PgConnection, Row};
use tern_types::{ChatId, RequestId, Seq, UserId};
use uuid::Uuid;

use tern_chat_core::Role;

/// Selects the users among $2 who have blocked the user $1.
pub const BLOCKERS: &str = "SELECT user_id FROM blocks WHERE user_id = ANY($2) AND blocked_id = $1";

/// Selects the users among $3 whom the user $2 may add to the group $1, and whether they are members already. A person
/// who has blocked $2 may not be added, and neither may one who left by themselves, which shows in that they sent the
/// entry that ended their newest interval of membership.
pub const ADDABLE: &str = "
SELECT a.user_id, EXISTS (SELECT FROM members m WHERE m.chat_id = $1 AND m.user_id = a.user_id AND m.left_seq IS NULL)
FROM unnest($3::uuid[]) AS a(user_id)
WHERE NOT EXISTS (SELECT FROM blocks b WHERE b.user_id = a.user_id AND b.blocked_id = $2)
  AND NOT EXISTS (
    SELECT FROM (
        SELECT m.left_seq FROM members m
        WHERE m.chat_id = $1 AND m.user_id = a.user_id ORDER BY m.joined_seq DESC LIMIT 1
    ) AS newest
    CROSS JOIN LATERAL (
        SELECT e.sender_user FROM messages e WHERE e.chat_id = $1 AND e.seq = newest.left_seq LIMIT 1
    ) AS ended
    WHERE ended.sender_user = a.user_id)";

/// Locks users in share mode against linking (`devices::LOCK_USER`). Adding a member and linking a device thereby
/// exclude each other, so that neither misses the other.
pub const SHARE_USERS: &str = "SELECT user_id FROM users WHERE user_id = ANY($1) ORDER BY user_id FOR SHARE";

/// Begins an interval of membership, with the devices that the user has at this moment.
pub const ADD_MEMBERS: &str = "
INSERT INTO members (chat_id, user_id, joined_seq, role, read_seq, devices)
SELECT $1, u, $3::int8, $4, $3::int8 - 1,
       ARRAY(SELECT device_id FROM devices d WHERE d.user_id = u AND d.active ORDER BY device_id)
FROM unnest($2::uuid[]) AS u";

/// Selects whether the request $3 of the user $2 is in the log of the chat $1. If it is, who may be added was decided
/// when it was committed.
pub const IS_PLACED: &str =
    "SELECT EXISTS (SELECT FROM messages WHERE chat_id = $1 AND sender_user = $2 AND request_id = $3)";

/// Returns whether the user's request is in the chat's log.
pub(crate) async fn is_placed(
    db: &mut PgConnection,
    chat: ChatId,
    user: UserId,
    request: RequestId,
) -> sqlx::Result<bool> {
    let placed = sqlx::query_scalar(IS_PLACED)
        .bind(chat.0)
        .bind(user.0)
        .bind(request.0);
    placed.fetch_one(db).await
}

/// Returns the users among `people` who have blocked `user`.
pub async fn blockers(
    db: &mut PgConnection,
    user: UserId,
    people: &[UserId],
) -> sqlx::Result<HashSet<UserId>> {
    let blockers = sqlx::query_scalar(BLOCKERS).bind(user.0).bind(ids(people));
    let blockers: Vec<Uuid> = blockers.fetch_all(db).await?;
    Ok(blockers.into_iter().map(UserId).collect())
}

/// Returns the users among `people` whom `user` may add to the group, and whether they are members already.
pub async fn addable(
    db: &mut PgConnection,
    chat: ChatId,
    user: UserId,
    people: &[UserId],
) -> sqlx::Result<Vec<(UserId, bool)>> {
    let rows = sqlx::query(ADDABLE)
        .bind(chat.0)
        .bind(user.0)
        .bind(ids(people))
        .fetch_all(db)
        .await?;
    rows.iter()
        .map(|row| Ok((UserId(row.try_get(0)?), row.try_get(1)?)))
        .collect()
}

/// Locks the users against linking until the transaction ends. `Some` is a user who does not exist.
pub async fn share_users(db: &mut PgConnection, users: &[UserId]) -> sqlx::Result<Option<UserId>> {
    let found: Vec<Uuid> = sqlx::query_scalar(SHARE_USERS)
        .bind(ids(users))
        .fetch_all(db)
        .await?;
    let found: HashSet<Uuid> = found.into_iter().collect();
    Ok(users.iter().copied().find(|user| !found.contains(&user.0)))
}

/// Adds members to a chat. The users must be locked by [`share_users`].
pub async fn add_members(
    db: &mut PgConnection,
    chat: ChatId,
    users: &[UserId],
    joined: Seq,
    role: Role,
) -> sqlx::Result<()> {
    let statement = sqlx::query(ADD_MEMBERS)
        .bind(chat.0)
        .bind(ids(users))
        .bind(joined.to_i64())
        .bind(role as i16);
    statement.execute(db).await.map(drop)
}

fn ids(people: &[UserId]) -> Vec<Uuid> {
    people.iter().map(|user| user.0).collect()
}
