//! Members join: whom a person may add to a group, and the statements that add them.

use sqlx::{PgConnection, PgExecutor, Row};
use tern_types::{ChatId, Clock, RequestId, Seq, UserId};
use uuid::Uuid;

use tern_chat_core::Role;
use tern_chat_core::policy::JoinerHistory;

use super::join_requests::REQUEST_FOR;
use super::people::{self, Devices};

/// Selects the users among $2 who may be added to the group $1, and whether they are members already: those who have
/// asked to join since $4, and of the others those who did not leave by themselves and have not blocked the caller
/// ($3). A user left by themselves if they sent the entry that ended their newest interval of membership.
pub const ADDABLE: &str = "
SELECT a.user_id, EXISTS (SELECT FROM members m WHERE m.chat_id = $1 AND m.user_id = a.user_id AND m.left_seq IS NULL)
FROM unnest($2::uuid[], $3::bool[]) AS a(user_id, blocks)
WHERE EXISTS (
    SELECT FROM join_requests r WHERE r.chat_id = $1 AND r.user_id = a.user_id
        AND r.refused_at IS NULL AND r.requested_at > to_timestamp($4::int8 / 1000.0)
) OR NOT a.blocks AND NOT EXISTS (
    SELECT FROM (
        SELECT m.left_seq FROM members m
        WHERE m.chat_id = $1 AND m.user_id = a.user_id ORDER BY m.joined_seq DESC LIMIT 1
    ) AS newest
    CROSS JOIN LATERAL (
        SELECT e.sender_user FROM messages e WHERE e.chat_id = $1 AND e.seq = newest.left_seq LIMIT 1
    ) AS ended
    WHERE ended.sender_user = a.user_id)";

/// Selects whether somebody else ended the newest interval of membership of the user $2. If the entry that ended it is
/// gone, nobody knows, and it counts as somebody else's: an admin can still let the user in.
pub const WAS_REMOVED: &str = "
SELECT EXISTS (
    SELECT FROM (
        SELECT m.left_seq FROM members m
        WHERE m.chat_id = $1 AND m.user_id = $2 ORDER BY m.joined_seq DESC LIMIT 1
    ) AS newest
    WHERE newest.left_seq IS NOT NULL
        AND (SELECT e.sender_user FROM messages e WHERE e.chat_id = $1 AND e.seq = newest.left_seq LIMIT 1)
            IS DISTINCT FROM $2)";

/// Begins an interval of membership of users ($2), each with their devices ($5), an array as text. $6 is the first seq
/// that it lets them read, if they may read something from before it.
pub const ADD_MEMBERS: &str = "
INSERT INTO members (chat_id, user_id, joined_seq, role, read_seq, devices, history_seq)
SELECT $1, u.user_id, $3::int8, $4, $3::int8 - 1, u.devices::uuid[], $6::int8
FROM unnest($2::uuid[], $5::text[]) AS u(user_id, devices)";

/// Selects what new members of a chat may read of the time before.
pub const JOINER_HISTORY: &str = "SELECT joiner_history FROM chats WHERE chat_id = $1";

/// Selects whether the request $3 of the user $2 is in the log of the chat $1. If it is, who may be added was decided
/// when it was committed.
pub const IS_PLACED: &str =
    "SELECT EXISTS (SELECT FROM messages WHERE chat_id = $1 AND sender_user = $2 AND request_id = $3)";

/// Returns whether the user's request is in the chat's log.
pub(crate) async fn is_placed(
    db: impl PgExecutor<'_>,
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

/// Returns whether the user was a member of the chat and somebody else removed them.
pub(crate) async fn was_removed(db: impl PgExecutor<'_>, chat: ChatId, user: UserId) -> sqlx::Result<bool> {
    let removed = sqlx::query_scalar(WAS_REMOVED).bind(chat.0).bind(user.0);
    removed.fetch_one(db).await
}

/// Returns the users among `people` whom `user` may add to the group, and whether they are members already. A person
/// who has blocked `user` may not be added, and neither may one who left by themselves, unless they ask to join.
pub async fn addable(
    db: &mut PgConnection,
    chat: ChatId,
    user: UserId,
    people: &[UserId],
) -> sqlx::Result<Vec<(UserId, bool)>> {
    let blockers = people::blockers(db, user, people).await?;
    let ids: Vec<Uuid> = people.iter().map(|person| person.0).collect();
    let blocks: Vec<bool> = people.iter().map(|person| blockers.contains(person)).collect();
    let rows = sqlx::query(ADDABLE)
        .bind(chat.0)
        .bind(ids)
        .bind(blocks)
        .bind((Clock::wall() - REQUEST_FOR).0)
        .fetch_all(db)
        .await?;
    rows.iter()
        .map(|row| Ok((UserId(row.try_get(0)?), row.try_get(1)?)))
        .collect()
}

/// Adds members to a chat, with these devices of theirs. They may read what the chat's policy says of the time before. The
/// caller holds the lock of the chat's head, so that the policy is the one by which its owner made the entry at `joined`.
pub async fn add_members(
    db: &mut PgConnection,
    chat: ChatId,
    users: &[UserId],
    devices: &Devices,
    joined: Seq,
    role: Role,
) -> sqlx::Result<()> {
    let history = JoinerHistory::from_number(
        sqlx::query_scalar(JOINER_HISTORY)
            .bind(chat.0)
            .fetch_one(&mut *db)
            .await?,
    );
    let first = Some(history.first(joined)).filter(|first| *first < joined);
    let arrays: Vec<String> = users.iter().map(|user| devices.array(*user)).collect();
    let statement = sqlx::query(ADD_MEMBERS)
        .bind(chat.0)
        .bind(users.iter().map(|user| user.0).collect::<Vec<Uuid>>())
        .bind(joined.to_i64())
        .bind(role as i16)
        .bind(arrays)
        .bind(first.map(Seq::to_i64));
    statement.execute(db).await.map(drop)
}
