//! The user's own log says something new of a chat: its settings, or that messages are hidden. What the log says is also
//! in rows, which are written with the entry.

use std::time::Duration;

use sqlx::PgConnection;
use tern_types::{ChatId, Seq};

use tern_chat_core::change::own::{OwnChange, SettingsChange};
use tern_chat_core::chat::ChatKey;
use tern_chat_core::{ChangeRefusal, Refusal};

use super::{At, Statements};
use crate::store::own::settings::MAX_PINNED;
use crate::store::seal::Sealer;

/// The most messages of one chat that a user may have hidden. They are counted when more are hidden, which takes
/// milliseconds for as many as these.
pub const MAX_HIDDEN: usize = 10_000;

/// The refusal if the settings have changed since the caller read them. The caller reads them anew.
pub const OUTDATED: ChangeRefusal = ChangeRefusal::Common(Refusal::Unavailable {
    reason: "the settings have changed meanwhile",
    retry_after: Duration::ZERO,
});

/// Selects the seq of the entry that changed the settings of a chat ($2) in an own log ($1) last.
pub const SEEN: &str = "SELECT seq FROM chat_settings WHERE chat_id = $1 AND of_chat = $2";

/// Counts the chats that an own log ($1) has pinned, without the chat $2.
pub const OTHER_PINS: &str =
    "SELECT count(*) FROM chat_settings WHERE chat_id = $1 AND pinned_at > 0 AND of_chat <> $2";

/// Sets the settings of a chat ($2) in an own log ($1).
pub const SET: &str = "
INSERT INTO chat_settings (chat_id, of_chat, muted_until, archived, pinned_at, marked_unread, marked_at, draft, seq,
                           mentions_only)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
ON CONFLICT (chat_id, of_chat) DO UPDATE SET muted_until = excluded.muted_until, archived = excluded.archived,
    pinned_at = excluded.pinned_at, marked_unread = excluded.marked_unread, marked_at = excluded.marked_at,
    draft = excluded.draft, seq = excluded.seq, mentions_only = excluded.mentions_only";

/// Counts the messages of a chat ($2) that an own log ($1) has hidden, up to $3.
pub const HIDDEN: &str = "
SELECT count(*) FROM (SELECT FROM hidden_messages WHERE chat_id = $1 AND of_chat = $2 LIMIT $3) h";

/// Hides messages ($3) of a chat ($2) in an own log ($1).
pub const HIDE: &str = "
INSERT INTO hidden_messages (chat_id, of_chat, seq) SELECT $1::uuid, $2::uuid, s FROM unnest($3::int8[]) AS s
ON CONFLICT DO NOTHING";

/// The change, and the own log's data key.
pub(super) struct Own<'a>(pub &'a OwnChange, pub &'a ChatKey);

impl Statements for Own<'_> {
    /// Refuses settings that were computed from outdated ones, and what exceeds a bound. No row is locked: whatever
    /// changes these rows also moves the head of the own log, so that this commit would then conflict.
    async fn before(&self, db: &mut PgConnection, at: &At) -> sqlx::Result<Option<ChangeRefusal>> {
        match self.0 {
            OwnChange::Settings(change) => check_settings(db, at.chat, change).await,
            OwnChange::Hide { chat, seqs } => check_hidden(db, at.chat, *chat, seqs.len()).await,
            OwnChange::Note(_) => Ok(None),
        }
    }

    async fn write(&self, db: &mut PgConnection, at: &At) -> sqlx::Result<()> {
        match self.0 {
            OwnChange::Settings(change) => set(db, at, change, self.1).await,
            OwnChange::Hide { chat, seqs } => {
                let seqs: Vec<i64> = seqs.iter().map(|seq| seq.to_i64()).collect();
                let hide = sqlx::query(HIDE).bind(at.chat.0).bind(chat.0).bind(seqs);
                hide.execute(db).await.map(drop)
            }
            OwnChange::Note(_) => Ok(()),
        }
    }
}

async fn check_settings(
    db: &mut PgConnection,
    own: ChatId,
    change: &SettingsChange,
) -> sqlx::Result<Option<ChangeRefusal>> {
    let seen: Option<i64> = sqlx::query_scalar(SEEN)
        .bind(own.0)
        .bind(change.chat.0)
        .fetch_optional(&mut *db)
        .await?;
    if seen.map_or(Seq::ZERO, Seq::from_i64) != change.seen {
        return Ok(Some(OUTDATED));
    }
    if !change.settings.is_pinned() {
        return Ok(None);
    }
    let others: i64 = sqlx::query_scalar(OTHER_PINS)
        .bind(own.0)
        .bind(change.chat.0)
        .fetch_one(db)
        .await?;
    let most = MAX_PINNED;
    let what = "chats are pinned";
    Ok((others >= most as i64).then_some(ChangeRefusal::ListFull { most, what }))
}

async fn check_hidden(
    db: &mut PgConnection,
    own: ChatId,
    chat: ChatId,
    more: usize,
) -> sqlx::Result<Option<ChangeRefusal>> {
    let most = MAX_HIDDEN;
    let hidden: i64 = sqlx::query_scalar(HIDDEN)
        .bind(own.0)
        .bind(chat.0)
        .bind(most as i64)
        .fetch_one(db)
        .await?;
    let what = "messages of a chat are hidden";
    let full = usize::try_from(hidden).unwrap_or(most) + more > most;
    Ok(full.then_some(ChangeRefusal::ListFull { most, what }))
}

async fn set(db: &mut PgConnection, at: &At, change: &SettingsChange, key: &ChatKey) -> sqlx::Result<()> {
    let settings = &change.settings;
    let sealed = |draft: &[u8]| Sealer::new(key).seal_draft(draft, at.chat, change.chat);
    let draft: Option<Vec<u8>> = (!settings.draft.is_empty()).then(|| sealed(&settings.draft[..]));
    sqlx::query(SET)
        .bind(at.chat.0)
        .bind(change.chat.0)
        .bind(settings.muted_until.0)
        .bind(settings.archived)
        .bind(settings.pinned_at.0)
        .bind(settings.marked_unread)
        .bind(change.read.to_i64())
        .bind(draft)
        .bind(at.seq.to_i64())
        .bind(settings.mentions_only)
        .execute(db)
        .await
        .map(drop)
}
