//! Counts the new strangers to whom a person writes for the first time, or whom they add to a group. The number within
//! a day is limited, for all of the person's devices together. A message to a chat that exists is not counted, and so
//! does no work here.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use sqlx::{PgConnection, Row};
use tern_store::{Pools, millis};
use tern_types::strangers::{STRANGER_FOR, admit, until_room};
use tern_types::{Timestamp, UserId};

use super::{people, written};

/// Locks the counts with these keys ($1) until the transaction ends, and returns the keys that it locked. It
/// leaves out those that another transaction has locked, because a transaction for many people must wait for
/// nobody. It must come before any row is locked. An advisory lock belongs to one server. The statement names
/// the table `tern.store` so that on a Citus cluster it always runs on the server that has this table,
/// whichever node is asked.
pub(crate) const TRY_LOCK: &str =
    "SELECT k FROM tern.store, unnest($1::int8[]) AS k WHERE single AND pg_try_advisory_xact_lock(k)";

/// Locks the count of one person, and waits for it.
pub const LOCK: &str = "SELECT pg_advisory_xact_lock($1) FROM tern.store WHERE single";

/// Selects the strangers that these people ($1) met after $2 (milliseconds since 1970), and deletes those that they met
/// earlier.
pub const DAY: &str = concat!(
    "
WITH gone AS (
    DELETE FROM met_strangers WHERE user_id = ANY($1) AND met_at <= to_timestamp($2::int8 / 1000.0)
)
SELECT user_id, met_id, ",
    millis!("met_at"),
    " FROM met_strangers WHERE user_id = ANY($1) AND met_at > to_timestamp($2::int8 / 1000.0)"
);

/// Counts strangers as met at $3 (milliseconds since 1970).
pub const MEET: &str = "
INSERT INTO met_strangers (user_id, met_id, met_at)
SELECT user_id, met_id, to_timestamp($3::int8 / 1000.0) FROM unnest($1::uuid[], $2::uuid[]) AS m(user_id, met_id)
ORDER BY user_id, met_id ON CONFLICT DO NOTHING";

/// Locks the counts of these people, and waits for nobody. Returns the people whose counts it locked.
pub async fn try_lock(db: &mut PgConnection, people: &HashSet<UserId>) -> sqlx::Result<HashSet<UserId>> {
    let keys: Vec<i64> = people.iter().map(|user| key(*user)).collect();
    let locked: Vec<i64> = sqlx::query_scalar(TRY_LOCK).bind(keys).fetch_all(db).await?;
    let locked: HashSet<i64> = locked.into_iter().collect();
    let locked = people.iter().copied().filter(|user| locked.contains(&key(*user)));
    Ok(locked.collect())
}

/// Locks the counts of these people, and waits for each. The order of the keys is ascending, so that two transactions
/// do not wait for each other.
pub async fn lock(db: &mut PgConnection, people: &HashSet<UserId>) -> sqlx::Result<()> {
    let mut keys: Vec<i64> = people.iter().map(|user| key(*user)).collect();
    keys.sort_unstable();
    for key in keys {
        sqlx::query(LOCK).bind(key).execute(&mut *db).await?;
    }
    Ok(())
}

/// Counts the new strangers in these pairs. A pair is a person and somebody to whom they write for the first
/// time; the two must have no chat yet. A person may meet `limit` new strangers within a day, and their count
/// must be locked. Returns the pairs that exceed the limit, each with the time until there is room. The
/// others are counted from now on.
pub async fn meet(
    db: &mut PgConnection,
    pairs: &[(UserId, UserId)],
    limit: usize,
    now: Timestamp,
) -> sqlx::Result<HashMap<(UserId, UserId), Duration>> {
    // These pairs have no chat yet, so the other person cannot have written in it.
    let mut strangers = people::no_contacts(&mut *db, pairs).await?;
    let mut refused = HashMap::new();
    if strangers.is_empty() {
        return Ok(refused);
    }
    let mut asked: HashMap<UserId, Vec<UserId>> = HashMap::new();
    for (user, other) in pairs.iter().filter(|pair| strangers.remove(pair)) {
        asked.entry(*user).or_default().push(*other);
    }
    let day = day(db, asked.keys().copied(), now).await?;
    let mut new = Vec::new();
    for (user, others) in asked {
        let day = day.get(&user).map(Vec::as_slice).unwrap_or_default();
        let admission = admit(day, &others, limit, now);
        new.extend(admission.new.into_iter().map(|other| (user, other)));
        let limited = admission.limited.into_iter();
        refused.extend(limited.map(|other| ((user, other), admission.retry_after)));
    }
    note(db, &new, now).await?;
    Ok(refused)
}

/// Counts the new ones among several strangers whom one person adds, all or none. The person's count must be locked.
/// The inner `Err` says that they are too many, and after which time they fit.
pub(crate) async fn meet_all(
    db: &mut PgConnection,
    user: UserId,
    strangers: &[UserId],
    limit: usize,
    now: Timestamp,
) -> sqlx::Result<Result<(), Duration>> {
    if strangers.is_empty() {
        return Ok(Ok(()));
    }
    let day = day(db, [user], now).await?.remove(&user).unwrap_or_default();
    let admission = admit(&day, strangers, limit, now);
    if !admission.limited.is_empty() {
        let more = admission.new.len() + admission.limited.len();
        return Ok(Err(until_room(&day, more, limit, now)));
    }
    let new: Vec<_> = admission.new.into_iter().map(|other| (user, other)).collect();
    note(db, &new, now).await?;
    Ok(Ok(()))
}

/// Returns the strangers to `user` among `others`, in their order and each once: those who exist, do not have the user
/// among their contacts, and have not written to the user in their direct chat. Their chats are in all cells, so no
/// transaction about one chat can ask this.
pub async fn among(pools: &Pools, user: UserId, others: &[UserId]) -> sqlx::Result<Vec<UserId>> {
    let pairs: Vec<_> = others.iter().map(|other| (user, *other)).collect();
    let mut found = people::no_contacts(pools.people(), &pairs).await?;
    let strangers: Vec<UserId> = found.iter().map(|(_, other)| *other).collect();
    for other in written::have_written(pools, user, &strangers).await? {
        found.remove(&(user, other));
    }
    let strangers = others.iter().copied();
    Ok(strangers.filter(|other| found.remove(&(user, *other))).collect())
}

/// Returns the strangers that each of these people met within the last day, and when.
async fn day(
    db: &mut PgConnection,
    people: impl IntoIterator<Item = UserId>,
    now: Timestamp,
) -> sqlx::Result<HashMap<UserId, Vec<(UserId, Timestamp)>>> {
    let people: Vec<_> = people.into_iter().map(|user| user.0).collect();
    let rows = sqlx::query(DAY)
        .bind(people)
        .bind((now - STRANGER_FOR).0)
        .fetch_all(db)
        .await?;
    let mut day: HashMap<UserId, Vec<_>> = HashMap::new();
    for row in rows {
        let met = (UserId(row.try_get(1)?), Timestamp(row.try_get(2)?));
        day.entry(UserId(row.try_get(0)?)).or_default().push(met);
    }
    Ok(day)
}

/// Counts these strangers as met now. Each pair is a person and the stranger.
async fn note(db: &mut PgConnection, new: &[(UserId, UserId)], now: Timestamp) -> sqlx::Result<()> {
    if new.is_empty() {
        return Ok(());
    }
    let (users, met): (Vec<_>, Vec<_>) = new.iter().map(|(user, met)| (user.0, met.0)).unzip();
    let insert = sqlx::query(MEET).bind(users).bind(met).bind(now.0);
    insert.execute(db).await?;
    Ok(())
}

/// Returns the key of a person's lock. Ids are random, so two people seldom share a key; if they do, they wait for each
/// other.
fn key(user: UserId) -> i64 {
    let (high, low) = user.0.as_u64_pair();
    (high ^ low).cast_signed()
}
