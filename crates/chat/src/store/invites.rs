//! Invite links of groups: makes, lists, revokes and uses them, and says what a link offers to a user.

use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, PgExecutor, Row};
use tern_store::{Pools, millis, postgres};
use tern_types::{ChatId, InviteId, Timestamp, UserId};
use uuid::Uuid;

use tern_chat_core::Role;

use super::doors::lock;
use super::{joining, people};

/// The most links of a group that are in force. An admin can still look through them.
pub const MAX_INVITES: i64 = 64;
/// The number of links that have ended and are kept for each group. A request that is repeated finds its link among
/// them, and so does not make it anew. The link that was made first is forgotten first.
pub const KEPT_ENDED: i64 = 64;

/// The condition that a link is in force at a time, a parameter in milliseconds since 1970.
macro_rules! in_force {
    ($now:literal) => {
        concat!(
            "(revoked_at IS NULL AND (expires_at IS NULL OR expires_at > to_timestamp(",
            $now,
            "::int8 / 1000.0)) AND (max_uses = 0 OR uses < max_uses))"
        )
    };
}

/// The columns of a link, as [`invite`] reads them.
macro_rules! columns {
    () => {
        concat!(
            "invite_id, created_by, ",
            millis!("created_at"),
            " AS created_at, ",
            millis!("expires_at"),
            " AS expires_at, max_uses, uses, needs_approval"
        )
    };
}

/// Selects who made a link that is in force at $3, and whether it needs approval.
macro_rules! offer {
    () => {
        concat!(
            "
SELECT created_by, needs_approval FROM invites WHERE chat_id = $1 AND invite_id = $2 AND ",
            in_force!("$3")
        )
    };
}

/// Selects one link, whether it is in force or not.
pub const ONE: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM invites WHERE chat_id = $1 AND invite_id = $2"
);

/// Deletes the links of a chat that are not in force at $2, but for the $3 that were made last.
pub const FORGET: &str = concat!(
    "
DELETE FROM invites WHERE chat_id = $1 AND invite_id IN (
    SELECT invite_id FROM invites WHERE chat_id = $1 AND NOT ",
    in_force!("$2"),
    " ORDER BY created_at DESC, invite_id OFFSET $3
)"
);

/// Inserts a link ($2) that is made at $4, unless $8 links of the chat are in force.
pub const MAKE: &str = concat!(
    "
INSERT INTO invites (chat_id, invite_id, created_by, created_at, expires_at, max_uses, needs_approval)
SELECT $1::uuid, $2::uuid, $3::uuid, to_timestamp($4::int8 / 1000.0), to_timestamp($5::int8 / 1000.0),
       $6::int4, $7::boolean
WHERE (SELECT count(*) FROM invites WHERE chat_id = $1 AND ",
    in_force!("$4"),
    ") < $8"
);

/// Selects the links of a chat that are in force at $2, the newest first, at most $4. With $3 it is those that this
/// user made.
pub const LIST: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM invites WHERE chat_id = $1 AND ",
    in_force!("$2"),
    " AND ($3::uuid IS NULL OR created_by = $3::uuid) ORDER BY invites.created_at DESC, invite_id LIMIT $4"
);

/// Ends a link that is in force at $3.
pub const REVOKE: &str = concat!(
    "UPDATE invites SET revoked_at = to_timestamp($3::int8 / 1000.0) WHERE chat_id = $1 AND invite_id = $2 AND ",
    in_force!("$3")
);

/// Ends the links that a user ($2) made, at the time $3.
pub const REVOKE_ALL: &str = concat!(
    "UPDATE invites SET revoked_at = to_timestamp($3::int8 / 1000.0) WHERE chat_id = $1 AND created_by = $2 AND ",
    in_force!("$3")
);

/// Selects what a link offers.
pub const OFFER: &str = offer!();

/// Selects what a link offers, and locks it, so that no more people use it than may. A statement that has waited for
/// the lock looks again whether the link is in force.
pub const LOCK_OFFER: &str = concat!(offer!(), " FOR NO KEY UPDATE");

/// Counts that somebody has joined by the link.
pub const USE: &str = "UPDATE invites SET uses = uses + 1 WHERE chat_id = $1 AND invite_id = $2";

/// Selects the present members of a chat who have the role $2.
pub const OF_ROLE: &str = "
SELECT user_id FROM members WHERE chat_id = $1 AND left_seq IS NULL AND role = $2 ORDER BY user_id";

/// An invite link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invite {
    /// The id of the link.
    pub id: InviteId,
    /// The user who made the link, or [`UserId::SYSTEM`].
    pub created_by: UserId,
    /// The time at which the link was made.
    pub created_at: Timestamp,
    /// The time at which the link ends; `None` if it does not end by itself.
    pub expires_at: Option<Timestamp>,
    /// The number of people who may join by it. 0: any number.
    pub max_uses: u32,
    /// The number of people who have joined by it.
    pub uses: u32,
    /// True if those who come by it have to be approved.
    pub needs_approval: bool,
}

/// A link to be made.
#[derive(Debug, Clone, Copy)]
pub struct NewInvite {
    /// The group.
    pub chat: ChatId,
    /// The id of the link, which follows from who asks for it and from the request.
    pub id: InviteId,
    /// The user who makes it, or [`UserId::SYSTEM`].
    pub created_by: UserId,
    /// The time after which it ends. Zero: never.
    pub expires_after: Duration,
    /// The number of people who may join by it: what an `int4` holds. 0: any number.
    pub max_uses: u32,
    /// True if those who come by it have to be approved.
    pub needs_approval: bool,
}

/// The result of [`make`].
#[derive(Debug, PartialEq, Eq)]
pub enum Made {
    /// The link is there. The same request may have made it before.
    There(Invite),
    /// The request_id was used before to make another link.
    RequestIdReused,
    /// The group has [`MAX_INVITES`] links in force.
    Full,
}

/// The effect that a link has for a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The user may do nothing, because the link is not in force or a block is in the way.
    Closed,
    /// The user may ask to join.
    Asks,
    /// The user may join.
    Open,
}

impl NewInvite {
    /// Returns what the request that made `before` gets now.
    fn again(&self, before: Invite) -> Made {
        let lasts = before
            .expires_at
            .map_or(Duration::ZERO, |at| at.since(before.created_at));
        let same = lasts == self.expires_after
            && before.max_uses == self.max_uses
            && before.needs_approval == self.needs_approval;
        if same {
            Made::There(before)
        } else {
            Made::RequestIdReused
        }
    }
}

/// Returns what the request to make the link gets if it was made before, and otherwise `None`.
pub async fn before(db: impl PgExecutor<'_>, new: &NewInvite) -> sqlx::Result<Option<Made>> {
    let row = sqlx::query(ONE).bind(new.chat.0).bind(new.id.0);
    let row = row.fetch_optional(db).await?;
    let before = row.map(|row| invite(&row)).transpose()?;
    Ok(before.map(|before| new.again(before)))
}

/// Makes a link, and forgets older ones that have ended.
pub async fn make(pools: &Pools, new: &NewInvite, now: Timestamp) -> sqlx::Result<Made> {
    let mut tx = postgres::begin(pools.of(new.chat)).await?;
    lock(&mut tx, new.chat).await?;
    if let Some(made) = before(&mut *tx, new).await? {
        return Ok(made);
    }
    sqlx::query(FORGET)
        .bind(new.chat.0)
        .bind(now.0)
        .bind(KEPT_ENDED)
        .execute(&mut *tx)
        .await?;
    let expires_at = (!new.expires_after.is_zero()).then(|| now + new.expires_after);
    let inserted = sqlx::query(MAKE)
        .bind(new.chat.0)
        .bind(new.id.0)
        .bind(new.created_by.0)
        .bind(now.0)
        .bind(expires_at.map(|at| at.0))
        .bind(i32::try_from(new.max_uses).unwrap_or(i32::MAX))
        .bind(new.needs_approval)
        .bind(MAX_INVITES)
        .execute(&mut *tx)
        .await?;
    if inserted.rows_affected() == 0 {
        return Ok(Made::Full);
    }
    tx.commit().await?;
    Ok(Made::There(Invite {
        id: new.id,
        created_by: new.created_by,
        created_at: now,
        expires_at,
        max_uses: new.max_uses,
        uses: 0,
        needs_approval: new.needs_approval,
    }))
}

/// Reads the links of the chat that are in force, the newest first: all, or those that `by` made.
pub async fn list(
    pools: &Pools,
    chat: ChatId,
    by: Option<UserId>,
    now: Timestamp,
) -> sqlx::Result<Vec<Invite>> {
    let rows = sqlx::query(LIST)
        .bind(chat.0)
        .bind(now.0)
        .bind(by.map(|user| user.0))
        .bind(MAX_INVITES)
        .fetch_all(pools.of(chat))
        .await?;
    rows.iter().map(invite).collect()
}

/// Returns who made the link, and whether it needs approval; `None` if it is not in force.
pub async fn offer(
    db: impl PgExecutor<'_>,
    chat: ChatId,
    invite: InviteId,
    now: Timestamp,
) -> sqlx::Result<Option<(UserId, bool)>> {
    select_offer(db, OFFER, chat, invite, now).await
}

/// Ends the link. It does nothing if the link is not in force.
pub async fn revoke(pools: &Pools, chat: ChatId, invite: InviteId, now: Timestamp) -> sqlx::Result<()> {
    let statement = sqlx::query(REVOKE).bind(chat.0).bind(invite.0).bind(now.0);
    statement.execute(pools.of(chat)).await.map(drop)
}

/// Returns what the link lets the user do, who is no member. It reads the same however the answer turns out, so that
/// the time it takes does not tell one reason from another.
pub async fn way(
    pools: &Pools,
    chat: ChatId,
    invite: InviteId,
    user: UserId,
    now: Timestamp,
) -> sqlx::Result<Way> {
    let mut tx = postgres::snapshot(pools.of(chat)).await?;
    let offered = offer(&mut *tx, chat, invite, now).await?;
    let maker = offered.map_or(UserId::SYSTEM, |(maker, _)| maker);
    let hosts = hosts(&mut tx, chat, maker).await?;
    let barred = bars(&mut tx, &hosts, user).await?;
    let removed = joining::was_removed(&mut *tx, chat, user).await?;
    tx.commit().await?;
    Ok(match offered {
        None => Way::Closed,
        Some(_) if barred => Way::Closed,
        Some((_, needs_approval)) if needs_approval || removed => Way::Asks,
        Some(_) => Way::Open,
    })
}

/// Locks the link until the transaction ends, and returns what [`offer`] does.
pub(super) async fn lock_offer(
    db: &mut PgConnection,
    chat: ChatId,
    invite: InviteId,
    now: Timestamp,
) -> sqlx::Result<Option<(UserId, bool)>> {
    select_offer(db, LOCK_OFFER, chat, invite, now).await
}

/// Ends the links that this user made.
pub(super) async fn end_of(
    db: &mut PgConnection,
    chat: ChatId,
    maker: UserId,
    now: Timestamp,
) -> sqlx::Result<()> {
    let statement = sqlx::query(REVOKE_ALL).bind(chat.0).bind(maker.0).bind(now.0);
    statement.execute(db).await.map(drop)
}

/// Counts that somebody has joined by the link, which is locked.
pub(super) async fn count_use(db: &mut PgConnection, chat: ChatId, invite: InviteId) -> sqlx::Result<()> {
    let statement = sqlx::query(USE).bind(chat.0).bind(invite.0);
    statement.execute(db).await.map(drop)
}

/// Returns the people of whom a block is in the way of a link: its maker, and the group's owners.
pub(super) async fn hosts(db: &mut PgConnection, chat: ChatId, maker: UserId) -> sqlx::Result<Vec<UserId>> {
    let owners = sqlx::query_scalar(OF_ROLE).bind(chat.0).bind(Role::Owner as i16);
    let owners: Vec<Uuid> = owners.fetch_all(db).await?;
    let mut hosts: Vec<UserId> = owners.into_iter().map(UserId).collect();
    if !hosts.contains(&maker) {
        hosts.push(maker);
    }
    Ok(hosts)
}

/// Returns whether one of these hosts has blocked the user, or the user one of them.
pub(super) async fn bars(db: &mut PgConnection, hosts: &[UserId], user: UserId) -> sqlx::Result<bool> {
    let pairs: Vec<(UserId, UserId)> = hosts.iter().map(|host| (user, *host)).collect();
    Ok(!people::blocked(db, &pairs).await?.is_empty())
}

async fn select_offer(
    db: impl PgExecutor<'_>,
    statement: &'static str,
    chat: ChatId,
    invite: InviteId,
    now: Timestamp,
) -> sqlx::Result<Option<(UserId, bool)>> {
    let offered: Option<(Uuid, bool)> = sqlx::query_as(statement)
        .bind(chat.0)
        .bind(invite.0)
        .bind(now.0)
        .fetch_optional(db)
        .await?;
    Ok(offered.map(|(maker, needs_approval)| (UserId(maker), needs_approval)))
}

/// Reads a link from its columns.
fn invite(row: &PgRow) -> sqlx::Result<Invite> {
    let number = |column: &str| -> sqlx::Result<u32> {
        let number: i32 = row.try_get(column)?;
        Ok(u32::try_from(number).unwrap_or(0))
    };
    Ok(Invite {
        id: InviteId(row.try_get("invite_id")?),
        created_by: UserId(row.try_get("created_by")?),
        created_at: Timestamp(row.try_get("created_at")?),
        expires_at: row.try_get::<Option<i64>, _>("expires_at")?.map(Timestamp),
        max_uses: number("max_uses")?,
        uses: number("uses")?,
        needs_approval: row.try_get("needs_approval")?,
    })
}
