//! Stores entries. What the columns say of an entry stays when its content is erased, as far as it tells nothing of what
//! the entry said.

use rusqlite::{Connection, OptionalExtension, params};
use tern_proto::v1::{Erased, MessageKind};
use tern_types::{Seq, Timestamp, UserId};

use tern_client_core::model::Entry;

use super::gone::{Gone, erased_by_server};
use super::{contents, erase, rows};
use crate::error::ClientError;

type Result<T = (), E = ClientError> = std::result::Result<T, E>;

/// The part of a stored entry that matters when the entry comes again.
struct Known {
    ordinal: i64,
    content: Option<i64>,
    expires_at: Option<Timestamp>,
}

/// The values of an entry's columns that follow from its content.
struct Facts {
    kind: i32,
    target: Option<i64>,
    thread: Option<i64>,
    attached: bool,
    mention: bool,
    expires_at: Option<i64>,
}

impl Facts {
    /// Reads what an entry says. `me` is the device's person. Of an entry that is `gone`, less is told.
    fn of(entry: &Entry, me: Option<UserId>, gone: Option<Gone>) -> Self {
        let envelope = entry.message().and_then(|message| message.envelope.as_ref());
        let is_message = entry.kind() == Some(MessageKind::Message);
        let thread = envelope.map_or(0, |envelope| envelope.thread_root_seq);
        let in_thread = is_message && thread > 0 && gone.is_none_or(|gone| gone == Gone::Deleted);
        let attached = envelope.is_some_and(|envelope| !envelope.attachments.is_empty());
        Self {
            kind: rows::kind(entry),
            target: entry.target().map(Seq::to_i64),
            thread: in_thread.then(|| Seq(thread).to_i64()),
            attached: is_message && attached && gone.is_none(),
            mention: gone.is_none() && me.is_some_and(|me| entry.mentions(me)),
            expires_at: entry.expires_at().filter(|_| gone.is_none()).map(|at| at.0),
        }
    }
}

/// Stores an entry. The server's version of an entry replaces the one that was made from a send's result, which has no
/// ordinal. If the entry deletes a message, that message's content is erased.
pub(super) fn put(db: &Connection, entry: &Entry, me: Option<UserId>) -> Result {
    match known(db, entry)? {
        None => insert(db, entry, me, None, None)?,
        Some(known) if entry.ordinal == 0 && known.ordinal > 0 => {}
        Some(known) => replace(db, entry, me, &known)?,
    }
    erase::applied(db, entry)
}

fn known(db: &Connection, entry: &Entry) -> Result<Option<Known>> {
    let known = "SELECT ordinal, content, expires_at FROM entries WHERE chat = ?1 AND seq = ?2";
    let of = params![entry.chat.as_bytes(), entry.seq.to_i64()];
    let known = db.prepare_cached(known)?.query_row(of, |row| {
        Ok(Known {
            ordinal: row.get(0)?,
            content: row.get(1)?,
            expires_at: row.get::<_, Option<i64>>(2)?.map(Timestamp),
        })
    });
    Ok(known.optional()?)
}

/// Adds an entry, with this rowid if one is given. `text` is the id of its text in the index of the search.
pub(super) fn insert(
    db: &Connection,
    entry: &Entry,
    me: Option<UserId>,
    rowid: Option<i64>,
    text: Option<i64>,
) -> Result {
    let gone = erase::reason(db, entry)?;
    let content = match gone {
        Some(_) => None,
        None => Some(contents::put(db, &entry.encoded_content())?),
    };
    let facts = Facts::of(entry, me, gone);
    let insert = "INSERT INTO entries \
         (rowid, chat, seq, sent_at, sender, device, request, ordinal, counts, content, gone, kind, target, thread, \
          attached, mention, expires_at, text) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)";
    db.prepare_cached(insert)?.execute(params![
        rowid,
        entry.chat.as_bytes(),
        entry.seq.to_i64(),
        entry.sent_at.0,
        entry.sender.map(|id| *id.as_bytes()),
        entry.device.map(|id| *id.as_bytes()),
        entry.request.map(|id| *id.as_bytes()),
        ordinal(entry),
        entry.counts_as_unread(),
        content,
        gone.map_or(0, Gone::code),
        facts.kind,
        facts.target,
        facts.thread,
        facts.attached,
        facts.mention,
        facts.expires_at,
        text,
    ])?;
    Ok(())
}

/// Stores another version of an entry. What was erased stays erased.
fn replace(db: &Connection, entry: &Entry, me: Option<UserId>, known: &Known) -> Result {
    let place = (entry.chat.as_bytes(), entry.seq.to_i64());
    let put = "UPDATE entries SET ordinal = ?3 WHERE chat = ?1 AND seq = ?2";
    db.prepare_cached(put)?
        .execute(params![place.0, place.1, ordinal(entry)])?;
    let Some(before) = known.content else {
        return Ok(());
    };
    if let Some(erased) = erased_by_server(entry) {
        return replace_by_erased(db, entry, erased, known);
    }
    let content = entry.encoded_content();
    if contents::is(db, before, &content)? {
        return Ok(());
    }
    contents::overwrite(db, entry.chat, entry.seq)?;
    let facts = Facts::of(entry, me, None);
    let put = "UPDATE entries SET counts = ?3, content = ?4, kind = ?5, target = ?6, thread = ?7, attached = ?8, \
         mention = ?9, expires_at = ?10 WHERE chat = ?1 AND seq = ?2";
    db.prepare_cached(put)?.execute(params![
        place.0,
        place.1,
        entry.counts_as_unread(),
        contents::put(db, &content)?,
        facts.kind,
        facts.target,
        facts.thread,
        facts.attached,
        facts.mention,
        facts.expires_at,
    ])?;
    Ok(())
}

/// Erases a content that the server has no more: if it was deleted, or if it disappears from devices too. What the
/// server only did not keep stays.
fn replace_by_erased(db: &Connection, entry: &Entry, erased: &Erased, known: &Known) -> Result {
    let gone = match (erased.expired, known.expires_at) {
        (false, _) => Gone::Deleted,
        (true, Some(_)) => Gone::Vanished,
        (true, None) => return Ok(()),
    };
    match entry.kind() {
        Some(MessageKind::Message) => erase::erase(db, entry.chat, entry.seq, gone),
        _ => erase::one(db, entry.chat, entry.seq, gone),
    }
}

fn ordinal(entry: &Entry) -> i64 {
    i64::try_from(entry.ordinal).unwrap_or(i64::MAX)
}
