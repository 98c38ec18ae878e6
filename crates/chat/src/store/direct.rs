//! Makes direct chats, many in one transaction.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use sqlx::{PgConnection, PgPool};
use tern_store::postgres;
use tern_types::{ChatId, Clock, UserId};
use uuid::Uuid;

use tern_chat_core::chat::{ChatKey, ChatKind, Role, Snapshot};

use super::seal::MasterKey;
use super::{people, strangers};

/// Selects the chats among $1 that exist. A retry finds its chat here, and so locks nobody.
pub const EXISTING: &str =
    "SELECT c.chat_id FROM unnest($1::uuid[]) AS n(chat_id) JOIN chats c ON c.chat_id = n.chat_id";

/// Makes the chats. The people's devices ($8, $9) are arrays as text, and the people are locked against linking. Chats
/// are inserted in ascending order of chat_id, so that two nodes that make the same chats wait for each other in one
/// direction only. A chat that exists, or comes to exist meanwhile, stays as it is. The result has the chats that this
/// statement made, with their keys.
pub const MAKE: &str = "
WITH new AS (
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::bytea[], $8::text[], $9::text[])
        AS new(chat_id, creator, user_low, user_high, wrapped_key, devices_low, devices_high)
), made AS (
    INSERT INTO chats (chat_id, kind, created_by, user_low, user_high, wrapped_key)
    SELECT chat_id, $6, creator, user_low, user_high, wrapped_key FROM new ORDER BY chat_id
    ON CONFLICT DO NOTHING
    RETURNING chat_id, wrapped_key
), heads AS (
    INSERT INTO chat_heads (chat_id, head_seq, head_ordinal) SELECT chat_id, 0, 0 FROM made
), people AS (
    INSERT INTO members (chat_id, user_id, joined_seq, role, read_seq, devices)
    SELECT new.chat_id, person.user_id, 1, $7, 0, person.devices::uuid[]
    FROM new CROSS JOIN LATERAL
        (VALUES (new.user_low, new.devices_low), (new.user_high, new.devices_high)) AS person(user_id, devices)
    WHERE (new.chat_id IN (SELECT chat_id FROM made)) IS TRUE
)
SELECT chat_id, wrapped_key FROM made";

/// A direct chat to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewDirect {
    /// The id of the chat, which follows from the two people.
    pub chat: ChatId,
    /// The maker, then the other person.
    pub people: (UserId, UserId),
    /// The number of new strangers that the maker may meet within a day; `None`: any number.
    pub strangers: Option<usize>,
}

/// The result for one of the chats to be made.
#[derive(Debug)]
pub enum Made {
    /// The chat was made. The snapshot is the chat at the end of the transaction, before anybody has written to it.
    New(Box<Snapshot>),
    /// The chat exists already, or came to exist meanwhile.
    Before,
    /// One of the people does not exist.
    NobodyFound,
    /// Another transaction has locked one of the people, or the maker's count of strangers.
    Locked,
    /// One of the two has blocked the other: nothing was made.
    Blocked,
    /// The other person would exceed the number of new strangers that the maker may meet: nothing was made. There is
    /// room again after this time.
    Limited(Duration),
}

/// Makes the chats that do not exist, which must all be of the cell with this pool. There is one answer for each of
/// `new`, in its order.
pub async fn make(pool: &PgPool, master: &MasterKey, new: &[NewDirect]) -> sqlx::Result<Vec<Made>> {
    let mut tx = postgres::begin(pool).await?;
    let ids: Vec<Uuid> = new.iter().map(|new| new.chat.0).collect();
    let existing: Vec<Uuid> = sqlx::query_scalar(EXISTING).bind(ids).fetch_all(&mut *tx).await?;
    let existing: HashSet<Uuid> = existing.into_iter().collect();
    let uncounted = count_strangers(&mut tx, new, &existing).await?;
    let wanted = new.iter().filter(|new| !existing.contains(&new.chat.0));
    let wanted = wanted.filter(|new| !uncounted.contains(&new.people.0));
    let people: HashSet<UserId> = wanted.flat_map(|new| [new.people.0, new.people.1]).collect();
    let (free, locked) = if people.is_empty() {
        Default::default()
    } else {
        people::share_free(&mut tx, people).await?
    };
    let possible = |new: &&NewDirect| {
        let people = [new.people.0, new.people.1];
        !existing.contains(&new.chat.0)
            && !uncounted.contains(&new.people.0)
            && people.iter().all(|person| free.contains(person))
    };
    let is_locked = |new: &NewDirect| {
        let people = [new.people.0, new.people.1];
        let there = |person: &UserId| free.contains(person) || locked.contains(person);
        uncounted.contains(&new.people.0) || people.iter().all(there)
    };
    let pairs: Vec<_> = new.iter().filter(possible).map(|new| new.people).collect();
    let blocked = people::blocked(&mut *tx, &pairs).await?;
    let welcome = |new: &&NewDirect| possible(new) && !blocked.contains(&new.people);
    let limited = meet_strangers(&mut tx, new.iter().filter(welcome)).await?;
    let taken = |new: &&NewDirect| welcome(new) && !limited.contains_key(&new.people);
    let taken: Vec<_> = new.iter().filter(taken).collect();
    let mut made = insert(&mut tx, master, &taken).await?;
    tx.commit().await?;
    let outcome = |new: &NewDirect| match (made.remove(&new.chat), limited.get(&new.people)) {
        (Some(key), _) => {
            let snapshot = Snapshot::of_new_chat(ChatKind::Direct, new.ordered(), key);
            Made::New(Box::new(snapshot))
        }
        (None, _) if blocked.contains(&new.people) => Made::Blocked,
        (None, Some(after)) => Made::Limited(*after),
        (None, None) if existing.contains(&new.chat.0) || possible(&new) => Made::Before,
        (None, None) if is_locked(new) => Made::Locked,
        (None, None) => Made::NobodyFound,
    };
    Ok(new.iter().map(outcome).collect())
}

/// Locks the counts of strangers of all makers who have a limit, before any row is locked. Returns the makers whose
/// count another transaction has locked; it does not wait for those.
async fn count_strangers(
    db: &mut PgConnection,
    new: &[NewDirect],
    existing: &HashSet<Uuid>,
) -> sqlx::Result<HashSet<UserId>> {
    let wanted = new.iter().filter(|new| !existing.contains(&new.chat.0));
    let limited = wanted.filter(|new| new.strangers.is_some());
    let makers: HashSet<UserId> = limited.map(|new| new.people.0).collect();
    if makers.is_empty() {
        return Ok(makers);
    }
    let own = strangers::try_lock(db, &makers).await?;
    Ok(makers.difference(&own).copied().collect())
}

/// Counts the new strangers of these chats. Returns the pairs of maker and other person that exceed the maker's limit,
/// each with the time until there is room. The others are counted from now on.
async fn meet_strangers(
    db: &mut PgConnection,
    new: impl Iterator<Item = &NewDirect>,
) -> sqlx::Result<HashMap<(UserId, UserId), Duration>> {
    let mut pairs: HashMap<usize, Vec<(UserId, UserId)>> = HashMap::new();
    for new in new {
        if let Some(limit) = new.strangers {
            pairs.entry(limit).or_default().push(new.people);
        }
    }
    let mut limited = HashMap::new();
    for (limit, pairs) in pairs {
        limited.extend(strangers::meet(db, &pairs, limit, Clock::wall()).await?);
    }
    Ok(limited)
}

/// Inserts the chats, and returns the keys of those that this call made. If two transactions try to make the same chat,
/// the store has the key of only one of them.
async fn insert(
    db: &mut PgConnection,
    master: &MasterKey,
    new: &[&NewDirect],
) -> sqlx::Result<HashMap<ChatId, ChatKey>> {
    if new.is_empty() {
        return Ok(HashMap::new());
    }
    let devices = people::devices(db, new.iter().flat_map(|new| new.ordered())).await?;
    let mut keys: HashMap<ChatId, (ChatKey, Vec<u8>)> = HashMap::new();
    let (mut ids, mut creators, mut lows, mut highs, mut wrapped) = (vec![], vec![], vec![], vec![], vec![]);
    let (mut of_lows, mut of_highs) = (vec![], vec![]);
    for new in new {
        if keys.contains_key(&new.chat) {
            continue;
        }
        let key = master.new_chat_key(new.chat);
        let [low, high] = new.ordered();
        ids.push(new.chat.0);
        creators.push(new.people.0.0);
        lows.push(low.0);
        highs.push(high.0);
        wrapped.push(key.1.clone());
        of_lows.push(devices.array(low));
        of_highs.push(devices.array(high));
        keys.insert(new.chat, key);
    }
    let rows: Vec<(Uuid, Vec<u8>)> = sqlx::query_as(MAKE)
        .bind(ids)
        .bind(creators)
        .bind(lows)
        .bind(highs)
        .bind(wrapped)
        .bind(ChatKind::Direct as i16)
        .bind(Role::Member as i16)
        .bind(of_lows)
        .bind(of_highs)
        .fetch_all(db)
        .await?;
    let made = rows.into_iter().filter_map(|(chat, stored)| {
        let (key, wrapped) = keys.remove(&ChatId(chat))?;
        (wrapped == stored).then_some((ChatId(chat), key))
    });
    Ok(made.collect())
}

impl NewDirect {
    /// Returns the two people in ascending order of their ids.
    fn ordered(&self) -> [UserId; 2] {
        [self.people.0.min(self.people.1), self.people.0.max(self.people.1)]
    }
}
