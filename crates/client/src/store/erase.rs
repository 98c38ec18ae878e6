//! Erases what was deleted for everyone: a message's content, that of its edits, and the reactions to it. The entries
//! stay, with an `Erased` in the place of the content. What the server has refused to do to the message leaves the
//! outbox, because an edit repeats most of the message. On the disk nothing is left of it, because SQLite overwrites
//! what it deletes (`secure_delete`) and the store empties SQLite's journal afterwards.

use prost::Message as _;
use rusqlite::{Connection, OptionalExtension, params};
use tern_proto::v1::{EntryContent, MessageKind};
use tern_types::{ChatId, RequestId, Seq};

use tern_client_core::engine::Change;
use tern_client_core::model::{Act, Entry, erased};

use super::rows::{self, FAILED, OUTBOX_COLUMNS};
use crate::error::ClientError;

type Result<T = (), E = ClientError> = std::result::Result<T, E>;

/// Returns whether a change may erase something.
pub(super) fn erases(change: &Change) -> bool {
    match change {
        Change::Entry(entry) => matches!(entry.act(), Act::Delete { .. }),
        Change::Failed { .. } => true,
        _ => false,
    }
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
    forget_refused(db, chat, message)
}

/// Deletes from the outbox what the server has refused to do to a message that was deleted.
fn forget_refused(db: &Connection, chat: ChatId, message: Seq) -> Result {
    let refused = format!("SELECT {OUTBOX_COLUMNS} FROM outbox WHERE chat = ?1 AND state = ?2");
    let mut refused = db.prepare_cached(&refused)?;
    let refused = refused.query_map(params![chat.as_bytes(), FAILED], rows::queued)?;
    for queued in refused.collect::<rusqlite::Result<Vec<_>>>()? {
        if queued.message.act().target() == Some(message) {
            forget(db, queued.message.request)?;
        }
    }
    Ok(())
}

/// Deletes a send from the outbox that was just refused, if it is about a message that was deleted.
pub(super) fn refused(db: &Connection, request: RequestId) -> Result {
    let send = format!("SELECT {OUTBOX_COLUMNS} FROM outbox WHERE request = ?1");
    let mut send = db.prepare_cached(&send)?;
    let Some(queued) = send.query_row([request.as_bytes()], rows::queued).optional()? else {
        return Ok(());
    };
    match queued.message.act().target() {
        Some(message) if is_deleted(db, queued.chat, message)? => forget(db, request),
        _ => Ok(()),
    }
}

fn forget(db: &Connection, request: RequestId) -> Result {
    let forget = "DELETE FROM outbox WHERE request = ?1";
    db.prepare_cached(forget)?.execute([request.as_bytes()])?;
    Ok(())
}

/// Returns whether the store has an entry that deletes this message.
fn is_deleted(db: &Connection, chat: ChatId, message: Seq) -> Result<bool> {
    let deletion = "SELECT 1 FROM entries WHERE chat = ?1 AND target = ?2 AND kind = ?3 LIMIT 1";
    let of = params![chat.as_bytes(), message.to_i64(), i32::from(MessageKind::Delete)];
    let mut statement = db.prepare_cached(deletion)?;
    Ok(statement.query_row(of, |_| Ok(())).optional()?.is_some())
}
