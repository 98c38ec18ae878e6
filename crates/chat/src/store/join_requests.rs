//! Requests to join a group, which its members answer. A row is one of a user: a request that waits or, for a while,
//! one that was refused.

use std::time::Duration;

use sqlx::PgExecutor;
use tern_store::{Pools, millis, postgres};
use tern_types::{ChatId, InviteId, Timestamp, UserId};
use uuid::Uuid;

use super::doors::lock;

/// The time after which a request that nobody has answered ends: a month, as for invitations by mail.
pub const REQUEST_FOR: Duration = Duration::from_secs(30 * 24 * 3600);
/// The time after a refusal for which the person's further requests do nothing. They are not told that they were
/// refused, so they would otherwise ask again at once.
pub const REFUSED_FOR: Duration = Duration::from_secs(24 * 3600);
/// The most requests that wait for one group: as many as somebody can be expected to look through.
pub const MAX_REQUESTS: i64 = 256;
/// The most refusals that are remembered for one group. Who was refused before the last of these may ask again earlier.
pub const MAX_REFUSALS: i64 = 1024;

/// Selects the request of the user $2, whether it waits or not.
pub const ONE: &str = concat!(
    "SELECT invite_id, ",
    millis!("requested_at"),
    ", ",
    millis!("refused_at"),
    " FROM join_requests WHERE chat_id = $1 AND user_id = $2"
);

/// Deletes the requests to join a chat that have waited since $2, or were refused by $3, and the refusals before the
/// newest $4.
pub const FORGET: &str = "
DELETE FROM join_requests WHERE chat_id = $1 AND (
    (refused_at IS NULL AND requested_at <= to_timestamp($2::int8 / 1000.0))
    OR refused_at <= to_timestamp($3::int8 / 1000.0)
    OR user_id IN (
        SELECT r.user_id FROM join_requests r WHERE r.chat_id = $1 AND r.refused_at IS NOT NULL
        ORDER BY r.refused_at DESC, r.user_id OFFSET $4
    )
)";

/// Inserts the request of the user $2, who came by the link $3 at $4, unless $5 requests wait.
pub const ASK: &str = "
INSERT INTO join_requests (chat_id, user_id, invite_id, requested_at)
SELECT $1::uuid, $2::uuid, $3::uuid, to_timestamp($4::int8 / 1000.0)
WHERE (SELECT count(*) FROM join_requests r WHERE r.chat_id = $1 AND r.refused_at IS NULL) < $5";

/// Selects the requests that wait and were made after $2, the oldest first, at most $3.
pub const WAITING: &str = concat!(
    "SELECT user_id, ",
    millis!("requested_at"),
    ", invite_id FROM join_requests
WHERE chat_id = $1 AND refused_at IS NULL AND requested_at > to_timestamp($2::int8 / 1000.0)
ORDER BY join_requests.requested_at, user_id LIMIT $3"
);

/// Selects whether a request of the user $2 waits that was made after $3.
pub const IS_WAITING: &str = "
SELECT EXISTS (SELECT FROM join_requests WHERE chat_id = $1 AND user_id = $2
               AND refused_at IS NULL AND requested_at > to_timestamp($3::int8 / 1000.0))";

/// Refuses the request of the user $2 at $3, if it was made after $4. One that was refused already stays as it is.
pub const REFUSE: &str = "
UPDATE join_requests SET refused_at = coalesce(refused_at, to_timestamp($3::int8 / 1000.0))
WHERE chat_id = $1 AND user_id = $2
    AND (refused_at IS NOT NULL OR requested_at > to_timestamp($4::int8 / 1000.0))";

/// Deletes the request of a user if it waits. A refusal stays, so that nobody shortens it.
pub const WITHDRAW: &str =
    "DELETE FROM join_requests WHERE chat_id = $1 AND user_id = $2 AND refused_at IS NULL";

/// Deletes the requests of users ($2), who are members now.
pub const END: &str = "DELETE FROM join_requests WHERE chat_id = $1 AND user_id = ANY($2)";

/// Deletes the requests of users ($2), whom somebody let in, and counts the uses of the links that they came by.
pub const ADMIT: &str = "
WITH ended AS (
    DELETE FROM join_requests WHERE chat_id = $1 AND user_id = ANY($2) RETURNING invite_id, refused_at
), uses AS (
    SELECT invite_id, count(*)::int4 AS uses FROM ended WHERE refused_at IS NULL GROUP BY invite_id
)
UPDATE invites i SET uses = i.uses + u.uses FROM uses u WHERE i.chat_id = $1 AND i.invite_id = u.invite_id";

/// The most members who are told of one request. In a group in which everybody may answer, all of them would be; the
/// others see the request when they list those that wait.
pub const MOST_TOLD: i64 = 64;

/// Selects the present members who may answer requests, those with the highest roles and of these the longest members
/// first, at most $2.
pub const ANSWERERS: &str = "
SELECT m.user_id FROM members m
WHERE m.chat_id = $1 AND m.left_seq IS NULL AND m.role >= (SELECT c.add_role FROM chats c WHERE c.chat_id = $1)
ORDER BY m.role DESC, m.joined_seq, m.user_id LIMIT $2";

/// A request that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// The user who asks.
    pub user: UserId,
    /// The time at which they asked.
    pub requested_at: Timestamp,
    /// The link that they came by.
    pub invite: InviteId,
}

/// The state of a user's request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// It has waited since this time.
    Waits(Timestamp),
    /// It was refused not long ago. The user is told that it waits.
    Refused,
    /// Too many others wait, so it was not made.
    Full,
}

/// Returns the state of the user's request, and the link that they came by; `None` if they may ask.
pub async fn state(
    db: impl PgExecutor<'_>,
    chat: ChatId,
    user: UserId,
    now: Timestamp,
) -> sqlx::Result<Option<(Asked, InviteId)>> {
    let row: Option<(Uuid, i64, Option<i64>)> = sqlx::query_as(ONE)
        .bind(chat.0)
        .bind(user.0)
        .fetch_optional(db)
        .await?;
    Ok(row.and_then(|(invite, requested_at, refused_at)| {
        let since = Timestamp(requested_at);
        let asked = match refused_at.map(Timestamp) {
            None => (since > now - REQUEST_FOR).then_some(Asked::Waits(since)),
            Some(refused) => (refused > now - REFUSED_FOR).then_some(Asked::Refused),
        };
        Some((asked?, InviteId(invite)))
    }))
}

/// Makes a request of the user, unless there is one. Forgets those of the chat that have ended.
pub async fn ask(
    pools: &Pools,
    chat: ChatId,
    user: UserId,
    invite: InviteId,
    now: Timestamp,
) -> sqlx::Result<Asked> {
    let mut tx = postgres::begin(pools.of(chat)).await?;
    lock(&mut tx, chat).await?;
    if let Some((asked, _)) = state(&mut *tx, chat, user, now).await? {
        return Ok(asked);
    }
    sqlx::query(FORGET)
        .bind(chat.0)
        .bind((now - REQUEST_FOR).0)
        .bind((now - REFUSED_FOR).0)
        .bind(MAX_REFUSALS)
        .execute(&mut *tx)
        .await?;
    let inserted = sqlx::query(ASK)
        .bind(chat.0)
        .bind(user.0)
        .bind(invite.0)
        .bind(now.0)
        .bind(MAX_REQUESTS)
        .execute(&mut *tx)
        .await?;
    if inserted.rows_affected() == 0 {
        return Ok(Asked::Full);
    }
    tx.commit().await?;
    Ok(Asked::Waits(now))
}

/// Reads the requests that wait, the oldest first.
pub async fn waiting(pools: &Pools, chat: ChatId, now: Timestamp) -> sqlx::Result<Vec<Request>> {
    let rows: Vec<(Uuid, i64, Uuid)> = sqlx::query_as(WAITING)
        .bind(chat.0)
        .bind((now - REQUEST_FOR).0)
        .bind(MAX_REQUESTS)
        .fetch_all(pools.of(chat))
        .await?;
    let requests = rows.into_iter().map(|(user, requested_at, invite)| Request {
        user: UserId(user),
        requested_at: Timestamp(requested_at),
        invite: InviteId(invite),
    });
    Ok(requests.collect())
}

/// Returns whether a request of the user waits.
pub async fn is_waiting(pools: &Pools, chat: ChatId, user: UserId, now: Timestamp) -> sqlx::Result<bool> {
    sqlx::query_scalar(IS_WAITING)
        .bind(chat.0)
        .bind(user.0)
        .bind((now - REQUEST_FOR).0)
        .fetch_one(pools.of(chat))
        .await
}

/// Refuses the user's request. Returns false if there is none. It does nothing to one that was refused already.
pub async fn refuse(pools: &Pools, chat: ChatId, user: UserId, now: Timestamp) -> sqlx::Result<bool> {
    let refused = sqlx::query(REFUSE)
        .bind(chat.0)
        .bind(user.0)
        .bind(now.0)
        .bind((now - REQUEST_FOR).0)
        .execute(pools.of(chat))
        .await?;
    Ok(refused.rows_affected() > 0)
}

/// Takes the user's request back. Returns false if none waits.
pub async fn withdraw(pools: &Pools, chat: ChatId, user: UserId) -> sqlx::Result<bool> {
    let withdrawn = sqlx::query(WITHDRAW).bind(chat.0).bind(user.0);
    let withdrawn = withdrawn.execute(pools.of(chat)).await?;
    Ok(withdrawn.rows_affected() > 0)
}

/// Ends the requests of these users, who are members now.
pub async fn end(db: impl PgExecutor<'_>, chat: ChatId, users: &[UserId]) -> sqlx::Result<()> {
    let users: Vec<Uuid> = users.iter().map(|user| user.0).collect();
    let statement = sqlx::query(END).bind(chat.0).bind(users);
    statement.execute(db).await.map(drop)
}

/// Ends the requests of these users, whom somebody has let in. If a user waited, they have joined by the link that they
/// came by.
pub async fn admit(db: impl PgExecutor<'_>, chat: ChatId, users: &[UserId]) -> sqlx::Result<()> {
    let users: Vec<Uuid> = users.iter().map(|user| user.0).collect();
    let statement = sqlx::query(ADMIT).bind(chat.0).bind(users);
    statement.execute(db).await.map(drop)
}

/// Returns present members who may answer requests: the first [`MOST_TOLD`] in the order of [`ANSWERERS`].
pub async fn answerers(pools: &Pools, chat: ChatId) -> sqlx::Result<Vec<UserId>> {
    let answerers = sqlx::query_scalar(ANSWERERS).bind(chat.0).bind(MOST_TOLD);
    let answerers: Vec<Uuid> = answerers.fetch_all(pools.of(chat)).await?;
    Ok(answerers.into_iter().map(UserId).collect())
}
