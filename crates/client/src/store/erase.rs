//! Erases what is not to be on this device any more: messages that were deleted for everyone, that have disappeared, or
//! that the person has deleted for themselves, with the content of their edits and the reactions to them. The entries
//! stay, and an `Erased` is read in the place of each content. What the server has refused to do to the message leaves
//! the outbox, because an edit repeats most of the message. On the disk nothing is left of it: contents and indexed texts
//! are overwritten where they are (`entries.sql` says why they are nowhere else), and the store empties SQLite's journal
//! afterwards.

use rusqlite::{Connection, OptionalExtension, params};
use tern_proto::v1::MessageKind;
use tern_types::{ChatId, RequestId, Seq};

use tern_client_core::engine::Change;
use tern_client_core::model::{Act, Entry};

use super::contents;
use super::gone::{Gone, erased_by_server};
use super::rows::{self, FAILED, OUTBOX_COLUMNS};
use crate::error::ClientError;

type Result<T = (), E = ClientError> = std::result::Result<T, E>;

/// Returns whether a change may erase a message, or what was done to one.
pub(super) fn erases_messages(change: &Change) -> bool {
    match change {
        Change::Entry(entry) => {
            matches!(entry.act(), Act::Delete { .. }) || erased_by_server(entry).is_some()
        }
        Change::Hide { .. } => true,
        _ => false,
    }
}

/// Returns whether a change may erase something from the outbox only.
pub(super) fn erases_sends(change: &Change) -> bool {
    matches!(change, Change::Failed { .. })
}

/// Returns why the content of an entry is not stored, or `None` if it is. That a message is gone may be known before its
/// entry comes: a page of history that was read before the deletion may be stored after it.
pub(super) fn reason(db: &Connection, entry: &Entry) -> Result<Option<Gone>> {
    let by_server = erased_by_server(entry);
    let by_server = by_server.map(|erased| {
        if erased.expired {
            Gone::Vanished
        } else {
            Gone::Deleted
        }
    });
    let message = match entry.kind() {
        Some(MessageKind::Unspecified | MessageKind::Message) => entry.seq,
        Some(MessageKind::Edit | MessageKind::Reaction) => match entry.target() {
            Some(target) => target,
            None => return Ok(by_server),
        },
        Some(MessageKind::Delete | MessageKind::Pin) | None => return Ok(by_server),
    };
    let deleted = is_deleted(db, entry.chat, message)?.then_some(Gone::Deleted);
    let hidden = is_hidden(db, entry.chat, message)?.then_some(Gone::Hidden);
    let with_message = if message == entry.seq {
        None
    } else {
        gone(db, entry.chat, message)?
    };
    Ok(by_server.max(deleted).max(hidden).max(with_message))
}

/// Erases what the store has of a message that this entry deletes.
pub(super) fn applied(db: &Connection, entry: &Entry) -> Result {
    match entry.act() {
        Act::Delete { target } => erase(db, entry.chat, target, Gone::Deleted),
        _ => Ok(()),
    }
}

/// Erases a message that the person has deleted for themselves, and notes it, in case that the message comes later.
pub(super) fn hide(db: &Connection, chat: ChatId, message: Seq) -> Result {
    let hide = "INSERT OR IGNORE INTO hidden (chat, seq) VALUES (?1, ?2)";
    db.prepare_cached(hide)?
        .execute(params![chat.as_bytes(), message.to_i64()])?;
    erase(db, chat, message, Gone::Hidden)
}

/// Erases the content of a message, of its edits, and of the reactions to it.
pub(super) fn erase(db: &Connection, chat: ChatId, message: Seq, gone: Gone) -> Result {
    let with_content = "SELECT seq FROM entries WHERE chat = ?1 AND seq = ?2 AND kind = ?3 \
         UNION ALL \
         SELECT seq FROM entries WHERE chat = ?1 AND target = ?2 AND kind IN (?4, ?5)";
    let mut statement = db.prepare_cached(with_content)?;
    let of = params![
        chat.as_bytes(),
        message.to_i64(),
        i32::from(MessageKind::Message),
        i32::from(MessageKind::Edit),
        i32::from(MessageKind::Reaction),
    ];
    let found = statement.query_map(of, |row| rows::seq(row, 0))?;
    for seq in found.collect::<rusqlite::Result<Vec<_>>>()? {
        one(db, chat, seq, gone)?;
    }
    forget_refused(db, chat, message)
}

/// Erases the content of one entry. A deleted message still disappears when its time has come, and is still a part of
/// its thread.
pub(super) fn one(db: &Connection, chat: ChatId, seq: Seq, gone: Gone) -> Result {
    contents::overwrite(db, chat, seq)?;
    let put = "UPDATE entries SET content = NULL, gone = max(gone, ?3), attached = 0, mention = 0, \
         thread = CASE WHEN ?3 = ?4 THEN thread END, expires_at = CASE WHEN ?3 = ?4 THEN expires_at END \
         WHERE chat = ?1 AND seq = ?2";
    let (gone, deleted) = (gone.code(), Gone::Deleted.code());
    db.prepare_cached(put)?
        .execute(params![chat.as_bytes(), seq.to_i64(), gone, deleted])?;
    Ok(())
}

/// Deletes from the outbox what the server has refused to do to a message that is gone.
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

/// Deletes a send from the outbox that was just refused, if it is about a message that is gone.
pub(super) fn refused(db: &Connection, request: RequestId) -> Result {
    let send = format!("SELECT {OUTBOX_COLUMNS} FROM outbox WHERE request = ?1");
    let mut send = db.prepare_cached(&send)?;
    let Some(queued) = send.query_row([request.as_bytes()], rows::queued).optional()? else {
        return Ok(());
    };
    let Some(message) = queued.message.act().target() else {
        return Ok(());
    };
    let chat = queued.chat;
    let is_gone =
        is_deleted(db, chat, message)? || is_hidden(db, chat, message)? || gone(db, chat, message)?.is_some();
    if is_gone { forget(db, request) } else { Ok(()) }
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

/// Returns whether the person has deleted this message for themselves.
fn is_hidden(db: &Connection, chat: ChatId, message: Seq) -> Result<bool> {
    let hidden = "SELECT 1 FROM hidden WHERE chat = ?1 AND seq = ?2";
    let of = params![chat.as_bytes(), message.to_i64()];
    let mut statement = db.prepare_cached(hidden)?;
    Ok(statement.query_row(of, |_| Ok(())).optional()?.is_some())
}

/// Returns why the content of a stored message was erased, or `None` if it was not, or if the message is not stored.
fn gone(db: &Connection, chat: ChatId, message: Seq) -> Result<Option<Gone>> {
    let gone = "SELECT gone FROM entries WHERE chat = ?1 AND seq = ?2 AND kind = ?3";
    let of = params![chat.as_bytes(), message.to_i64(), i32::from(MessageKind::Message)];
    let mut statement = db.prepare_cached(gone)?;
    let code = statement.query_row(of, |row| row.get::<_, i64>(0)).optional()?;
    Ok(code.and_then(Gone::from_code))
}
