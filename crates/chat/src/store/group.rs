//! Makes groups. One transaction writes the chat, its members and its first entry. It need not go through the shard,
//! because a chat that did not exist has no entries that the shard could have ordered before.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use sqlx::{PgConnection, PgExecutor};
use tern_chat_core::chat::{ChatKind, Role};
use tern_chat_core::content;
use tern_chat_core::entry::NewEntry;
use tern_store::{Pools, postgres};
use tern_types::{ChatId, Clock, Seq, Slot, Timestamp, UserId};

use super::ReadError;
use super::joining::add_members;
use super::seal::{MasterKey, Sealer};
use super::{people, strangers};

/// Inserts a group, unless the chat exists.
pub(crate) const NEW_CHAT: &str = "
INSERT INTO chats (chat_id, kind, title, created_by, wrapped_key)
VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";

/// Inserts the head of a group that has its first entry.
pub(crate) const NEW_HEAD: &str =
    "INSERT INTO chat_heads (chat_id, head_seq, head_ordinal) VALUES ($1, 1, 0)";

/// Inserts a group's first entry.
pub(crate) const FIRST_ENTRY: &str = "
INSERT INTO messages (chat_id, seq, ordinal, kind, sender_user, sender_device, request_id, fingerprint, body, sent_at)
VALUES ($1, 1, 0, $2, $3, $4, $5, $6, $7, to_timestamp($8 / 1000.0))";

/// Inserts the unsettled row of a group's first entry.
pub(crate) const FIRST_UNSETTLED: &str = "INSERT INTO unsettled (chat_id, from_seq, slot) VALUES ($1, 1, $2)";

/// Selects the fingerprint of the request that made a group, and the group's wrapped key.
pub const CREATED: &str = "
SELECT m.fingerprint, c.wrapped_key FROM messages m JOIN chats c ON c.chat_id = m.chat_id
WHERE m.chat_id = $1 AND m.seq = 1";

/// Sets the role of a member, for the group's owner.
pub(crate) const SET_OWNER: &str = "UPDATE members SET role = $3 WHERE chat_id = $1 AND user_id = $2";

/// The result of [`create`].
#[derive(Debug, PartialEq, Eq)]
pub enum Created {
    /// The group was made.
    New {
        /// The members besides the owner.
        members: Vec<UserId>,
        /// The first entry of the group's log.
        entry: Arc<NewEntry>,
        /// The time of the first entry.
        sent_at: Timestamp,
    },
    /// The same request made the group before.
    Before,
    /// The request_id was used before to make a group with other content.
    RequestIdReused,
    /// No user has this id.
    UserNotFound(UserId),
    /// Another transaction has locked one of the users. Nothing was made.
    Locked,
    /// The members are too many new strangers for the owner. There is room for them after this time.
    Limited(Duration),
}

/// A group to be made.
pub struct NewGroup<'a> {
    /// The id of the group.
    pub chat: ChatId,
    /// The group's title.
    pub title: &'a str,
    /// The user who makes the group, and becomes its owner.
    pub owner: UserId,
    /// The members that are asked for, besides the owner and without repetitions. Those who have blocked the owner
    /// are left out.
    pub members: &'a [UserId],
    /// The first entry: `ChatCreated` with all of `members`.
    pub entry: &'a NewEntry,
    /// The number of new strangers that the owner may meet within a day; `None`: any number.
    pub strangers: Option<usize>,
}

/// Makes a group with its first entry, which is unsettled like every new entry.
pub async fn create(pools: &Pools, master: &MasterKey, group: &NewGroup<'_>) -> Result<Created, ReadError> {
    // A retry finds the group that it made, even if some of the members may not be added any more.
    if let Some(before) = group.before(pools.of(group.chat), master).await? {
        return Ok(before);
    }
    let strangers = match group.strangers {
        Some(_) => strangers::among(pools, group.owner, group.members).await?,
        None => Vec::new(),
    };
    let mut tx = postgres::begin(pools.of(group.chat)).await?;
    if group.strangers.is_some() {
        strangers::lock(&mut tx, &HashSet::from([group.owner])).await?;
    }
    let with_owner = |members: &[UserId]| -> Vec<UserId> {
        std::iter::once(group.owner)
            .chain(members.iter().copied())
            .collect()
    };
    if let Some(refused) = lock_people(&mut tx, &with_owner(group.members)).await? {
        return Ok(refused);
    }
    let (members, entry) = group.without_blockers(&mut tx).await?;
    if let Some(limit) = group.strangers {
        let new: Vec<UserId> = strangers
            .into_iter()
            .filter(|user| members.contains(user))
            .collect();
        let met = strangers::meet_all(&mut tx, group.owner, &new, limit, Clock::wall()).await?;
        if let Err(after) = met {
            return Ok(Created::Limited(after));
        }
    }
    let members_with_owner = with_owner(&members);
    let devices = people::devices(&mut tx, members_with_owner.iter().copied()).await?;
    let Some(sealer) = group.insert(&mut tx, master).await? else {
        // Another transaction has made the chat meanwhile, for the same request.
        let before = group.before(&mut *tx, master).await?;
        return Ok(before.unwrap_or(Created::RequestIdReused));
    };
    let joined = Seq(1);
    add_members(
        &mut tx,
        group.chat,
        &members_with_owner,
        &devices,
        joined,
        Role::Member,
    )
    .await?;
    sqlx::query(SET_OWNER)
        .bind(group.chat.0)
        .bind(group.owner.0)
        .bind(Role::Owner as i16)
        .execute(&mut *tx)
        .await?;
    let sent_at = Clock::wall();
    group.insert_first(&mut tx, &entry, &sealer, sent_at).await?;
    tx.commit().await?;
    Ok(Created::New {
        members,
        entry: Arc::new(entry),
        sent_at,
    })
}

/// Locks the people against linking, and waits for nobody. Returns the answer if one of them does not exist or is locked
/// by another transaction, and otherwise `None`.
async fn lock_people(db: &mut PgConnection, people: &[UserId]) -> sqlx::Result<Option<Created>> {
    let (free, locked) = people::share_free(db, people.iter().copied().collect()).await?;
    let known = |user: &&UserId| free.contains(user) || locked.contains(user);
    if let Some(unknown) = people.iter().find(|user| !known(user)) {
        return Ok(Some(Created::UserNotFound(*unknown)));
    }
    Ok((!locked.is_empty()).then_some(Created::Locked))
}

impl NewGroup<'_> {
    /// Returns the answer if the group exists already, and otherwise `None`. The first entry has the fingerprint of the
    /// request, or that under the group's key, as the next version will store it.
    async fn before(
        &self,
        db: impl PgExecutor<'_>,
        master: &MasterKey,
    ) -> Result<Option<Created>, ReadError> {
        let before: Option<(Vec<u8>, Vec<u8>)> = sqlx::query_as(CREATED)
            .bind(self.chat.0)
            .fetch_optional(db)
            .await?;
        let Some((stored, wrapped)) = before else {
            return Ok(None);
        };
        let own = self.entry.fingerprint;
        if stored == own {
            return Ok(Some(Created::Before));
        }
        let key = master.unwrap(self.chat, &wrapped);
        let key = key.map_err(|_| ReadError::Key(self.chat))?;
        let same = stored == content::keyed(own, &key.0);
        Ok(Some(if same {
            Created::Before
        } else {
            Created::RequestIdReused
        }))
    }

    /// Returns the members without those who have blocked the owner, and an entry that names only them. The entry's
    /// fingerprint is still that of all members that were asked for, so that a retry matches it.
    async fn without_blockers(&self, db: &mut PgConnection) -> sqlx::Result<(Vec<UserId>, NewEntry)> {
        let blockers = people::blockers(db, self.owner, self.members).await?;
        let welcome = self.members.iter().copied();
        let members: Vec<UserId> = welcome.filter(|user| !blockers.contains(user)).collect();
        let mut entry = self.entry.clone();
        if !blockers.is_empty() {
            entry.content = content::of_creation(self.title, &members);
        }
        Ok((members, entry))
    }

    /// Inserts the first entry, and its unsettled row.
    async fn insert_first(
        &self,
        db: &mut PgConnection,
        entry: &NewEntry,
        sealer: &Sealer,
        sent_at: Timestamp,
    ) -> sqlx::Result<()> {
        sqlx::query(FIRST_ENTRY)
            .bind(self.chat.0)
            .bind(entry.kind.number())
            .bind(entry.sender.0)
            .bind(entry.device.0)
            .bind(entry.request.0)
            .bind(entry.fingerprint.to_vec())
            .bind(sealer.seal(&entry.content, self.chat, entry.sender, entry.request))
            .bind(sent_at.0)
            .execute(&mut *db)
            .await?;
        let slot = Slot::of_chat(self.chat).number() as i16;
        let unsettled = sqlx::query(FIRST_UNSETTLED).bind(self.chat.0).bind(slot);
        unsettled.execute(db).await.map(drop)
    }

    /// Inserts the chat and its head, and returns the cipher of its new key. `None` if the chat exists already.
    async fn insert(&self, db: &mut PgConnection, master: &MasterKey) -> sqlx::Result<Option<Sealer>> {
        let (key, wrapped) = master.new_chat_key(self.chat);
        let inserted = sqlx::query(NEW_CHAT)
            .bind(self.chat.0)
            .bind(ChatKind::Group as i16)
            .bind(self.title)
            .bind(self.owner.0)
            .bind(wrapped)
            .execute(&mut *db)
            .await?;
        if inserted.rows_affected() == 0 {
            return Ok(None);
        }
        sqlx::query(NEW_HEAD).bind(self.chat.0).execute(db).await?;
        Ok(Some(Sealer::new(&key)))
    }
}

/// Returns the distinct users in the order of their first appearance, without `except`.
pub fn distinct(users: Vec<UserId>, except: UserId) -> Vec<UserId> {
    let mut seen = HashSet::from([except]);
    users.into_iter().filter(|user| seen.insert(*user)).collect()
}
