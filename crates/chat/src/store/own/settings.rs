//! Reads how a user keeps their chats: the settings of some chats, and what a list of chats needs to know of all.

use std::collections::HashMap;

use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};
use tern_chat_core::settings::{Kept, Settings};
use tern_store::Pools;
use tern_types::{ChatId, Seq, Timestamp, UserId};
use uuid::Uuid;

use crate::store::ReadError;
use crate::store::entries::sealer;
use crate::store::seal::{MasterKey, Sealer};

/// The most chats that a user may have pinned: more than a screen shows.
pub const MAX_PINNED: usize = 32;

/// Selects the settings of chats ($2) that the own log $1 has.
pub const OF_CHATS: &str = "
SELECT s.of_chat, s.muted_until, s.archived, s.pinned_at, s.marked_unread, s.marked_at, s.draft, s.mentions_only,
       s.seq
FROM unnest($2::uuid[]) AS w(of_chat)
CROSS JOIN LATERAL (SELECT * FROM chat_settings s WHERE s.chat_id = $1 AND s.of_chat = w.of_chat LIMIT 1) s";

/// Selects the seq of the last entry of an own log ($1).
pub const HEAD: &str = "SELECT head_seq FROM chat_heads WHERE chat_id = $1";

/// Selects the chats that are pinned, the last pinned first, at most $3. Those whose settings the own log ($1) has
/// changed after entry $2 are left out.
pub const PINS: &str = "
SELECT of_chat, pinned_at, archived FROM chat_settings
WHERE chat_id = $1 AND pinned_at > 0 AND seq <= $2 ORDER BY pinned_at DESC, of_chat DESC LIMIT $3";

/// Selects the chats in the archive of the own log $1.
pub const ARCHIVED: &str = "SELECT of_chat FROM chat_settings WHERE chat_id = $1 AND archived";

/// Selects the chats whose settings the own log ($1) has changed after entry $2.
pub const CHANGED: &str = "SELECT of_chat FROM chat_settings WHERE chat_id = $1 AND seq > $2";

/// A chat that is pinned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pin {
    /// The chat.
    pub chat: ChatId,
    /// The time at which it was pinned, by the wall clock.
    pub at: Timestamp,
    /// True if the chat is in the archive too.
    pub archived: bool,
}

/// The facts about all chats of a user that a list of chats needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// The seq of the own log up to which pins count. Chats whose settings were changed later count as not pinned.
    pub pinned_by: Seq,
    /// True if the archive is to be read.
    pub archive: bool,
    /// The seq of the own log after which changes are to be read; `None` for no changes.
    pub changed_after: Option<Seq>,
}

/// The answer to a [`Question`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lists {
    /// The seq of the own log's last entry, which was read before the rest; 0 if there is none.
    pub head: Seq,
    /// The chats that are pinned, the last pinned first.
    pub pins: Vec<Pin>,
    /// The chats in the archive, if they were asked for.
    pub archive: Vec<ChatId>,
    /// The chats with changed settings, if they were asked for.
    pub changed: Vec<ChatId>,
}

/// Reads what the own log of the user says about all chats. It asks the cell of the own log only.
pub async fn lists(pools: &Pools, user: UserId, question: Question) -> sqlx::Result<Lists> {
    let own = ChatId::own(user);
    pools.ask(own, |pool| read_lists(pool, own, question)).await
}

async fn read_lists(pool: PgPool, own: ChatId, question: Question) -> sqlx::Result<Lists> {
    let head: Option<i64> = sqlx::query_scalar(HEAD).bind(own.0).fetch_optional(&pool).await?;
    let Some(head) = head else {
        return Ok(Lists::default());
    };
    let pins: Vec<(Uuid, i64, bool)> = sqlx::query_as(PINS)
        .bind(own.0)
        // A chat that is pinned after the first page was read keeps its place by time on all pages of this list.
        .bind(question.pinned_by.to_i64().min(head))
        .bind(MAX_PINNED as i64)
        .fetch_all(&pool)
        .await?;
    let archive: Vec<Uuid> = if question.archive {
        sqlx::query_scalar(ARCHIVED).bind(own.0).fetch_all(&pool).await?
    } else {
        Vec::new()
    };
    let changed: Vec<Uuid> = match question.changed_after {
        Some(after) => {
            let changed = sqlx::query_scalar(CHANGED).bind(own.0).bind(after.to_i64());
            changed.fetch_all(&pool).await?
        }
        None => Vec::new(),
    };
    let pins = pins.into_iter().map(|(chat, at, archived)| Pin {
        chat: ChatId(chat),
        at: Timestamp(at),
        archived,
    });
    Ok(Lists {
        head: Seq::from_i64(head),
        pins: pins.collect(),
        archive: archive.into_iter().map(ChatId).collect(),
        changed: changed.into_iter().map(ChatId).collect(),
    })
}

/// Reads the settings of those of these chats whose settings the user has changed. It asks the cell of the user's own
/// log only.
pub async fn of_chats(
    pools: &Pools,
    master: &MasterKey,
    user: UserId,
    chats: impl IntoIterator<Item = ChatId>,
) -> Result<HashMap<ChatId, Kept>, ReadError> {
    let own = ChatId::own(user);
    let chats: Vec<Uuid> = chats.into_iter().map(|chat| chat.0).collect();
    if chats.is_empty() {
        return Ok(HashMap::new());
    }
    let question = |pool| async move {
        let rows = sqlx::query(OF_CHATS).bind(own.0).bind(chats);
        rows.fetch_all(&pool).await
    };
    let rows: Vec<PgRow> = pools.ask(own, question).await?;
    let mut cipher = None;
    let mut kept = HashMap::with_capacity(rows.len());
    for row in &rows {
        let draft: Option<Vec<u8>> = row.try_get("draft")?;
        if draft.is_some() && cipher.is_none() {
            cipher = Some(sealer(pools, master, own).await?);
        }
        let chat = ChatId(row.try_get("of_chat")?);
        kept.insert(chat, kept_row(row, own, chat, draft, cipher.as_ref())?);
    }
    Ok(kept)
}

/// Reads one row of [`OF_CHATS`], and opens its draft.
fn kept_row(
    row: &PgRow,
    own: ChatId,
    chat: ChatId,
    draft: Option<Vec<u8>>,
    cipher: Option<&Sealer>,
) -> Result<Kept, ReadError> {
    let draft = match draft.zip(cipher) {
        Some((sealed, cipher)) => cipher
            .open_draft(&sealed, own, chat)
            .map_err(|_| ReadError::Key(own))?,
        None => bytes::Bytes::new(),
    };
    Ok(Kept {
        settings: Settings {
            muted_until: Timestamp(row.try_get("muted_until")?),
            archived: row.try_get("archived")?,
            pinned_at: Timestamp(row.try_get("pinned_at")?),
            marked_unread: row.try_get("marked_unread")?,
            draft,
            mentions_only: row.try_get("mentions_only")?,
        },
        marked_at: Seq::from_i64(row.try_get("marked_at")?),
        seq: Seq::from_i64(row.try_get("seq")?),
    })
}
