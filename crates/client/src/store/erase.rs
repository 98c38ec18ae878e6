//! Erases what was deleted for everyone: a message's content, that of its edits, and the reactions to it. The entries
//! stay, with an `Erased` in the place of the content. On the disk nothing is left of it, because SQLite overwrites
//! what it deletes (`secure_delete`) and the store empties SQLite's journal afterwards.

use prost::Message as _;
use rusqlite::{Connection, OptionalExtension, params};
use tern_proto::v1::{EntryContent, MessageKind};
use tern_types::{ChatId, Seq};

use tern_client_core::engine::Change;
use tern_client_core::model::{Act, Entry, erased};

use super::rows;
use crate::error::ClientError;

type Result<T = (), E = ClientError> = std::result::Result<T, E>;

/// Returns whether a change erases something.
pub(super) fn erases(change: &Change) -> bool {
    matches!(change, Change::Entry(entry) if matches!(entry.act(), Act::Delete { .. }))
}

/// Returns the content that is stored in the place of the entry's own, because the message was deleted, or `None` if it
/// was not. That a message was deleted may be known before its entry comes: a page of history that was read before the
/// deletion may be stored after it.
pub(super) fn replacement(db: &Connection, entry: &Entry) -> Result<Option<EntryContent>> {
    let (message, kind) = match entry.act() {
        Act::Message => (entry.seq, MessageKind::Message),
        Act::Edit { target, .. } => (target, MessageKind::Edit),
        Act::React { target, .. } => (target, MessageKind::Reaction),
        Act::Delete { .. } | Act::Pin { .. } | Act::Erased | Act::Nothing => return Ok(None),
    };
    let deleted = is_deleted(db, entry.chat, message)?;
    Ok(deleted.then(|| erased(kind, entry.target())))
}

/// Erases what the store has of a message that this entry deletes.
pub(super) fn applied(db: &Connection, entry: &Entry) -> Result {
    match entry.act() {
        Act::Delete { target } => erase(db, entry.chat, target),
        _ => Ok(()),
    }
}

/// Erases the content of a message that was deleted, of its edits, and of the reactions to it.
pub(super) fn erase(db: &Connection, chat: ChatId, message: Seq) -> Result {
    let with_content = "SELECT seq, kind, NULL FROM entries WHERE chat = ?1 AND seq = ?2 AND kind = ?3 \
         UNION ALL \
         SELECT seq, kind, target FROM entries WHERE chat = ?1 AND target = ?2 AND kind IN (?4, ?5)";
    let mut statement = db.prepare_cached(with_content)?;
    let of = params![
        chat.as_bytes(),
        message.to_i64(),
        i32::from(MessageKind::Message),
        i32::from(MessageKind::Edit),
        i32::from(MessageKind::Reaction),
    ];
    let found = statement.query_map(of, |row| {
        let kind = MessageKind::try_from(row.get::<_, i32>(1)?).unwrap_or_default();
        let target = row.get::<_, Option<i64>>(2)?.map(Seq::from_i64);
        Ok((rows::seq(row, 0)?, kind, target))
    })?;
    let found = found.collect::<rusqlite::Result<Vec<_>>>()?;
    let put = "UPDATE entries SET content = ?1 WHERE chat = ?2 AND seq = ?3";
    let mut put = db.prepare_cached(put)?;
    for (seq, kind, target) in found {
        let content = erased(kind, target).encode_to_vec();
        put.execute(params![content, chat.as_bytes(), seq.to_i64()])?;
    }
    Ok(())
}

/// Returns whether the store has an entry that deletes this message.
fn is_deleted(db: &Connection, chat: ChatId, message: Seq) -> Result<bool> {
    let deletion = "SELECT 1 FROM entries WHERE chat = ?1 AND target = ?2 AND kind = ?3 LIMIT 1";
    let of = params![chat.as_bytes(), message.to_i64(), i32::from(MessageKind::Delete)];
    let mut statement = db.prepare_cached(deletion)?;
    Ok(statement.query_row(of, |_| Ok(())).optional()?.is_some())
}
