//! The index of the search: the texts of messages as they are now, in FTS5. It is written in the transaction that writes
//! the entries. An edit replaces a text, and a deletion takes it out of the index.
//!
//! - `text`: prepares texts for the index, and what a person types for FTS5

mod text;

use std::ops::Range;

use rusqlite::{Connection, OptionalExtension, params};
use tern_proto::v1::MessageKind;
use tern_types::{ChatId, Seq, Timestamp};

use tern_client_core::model::{Act, Entry, Message, Messages};

use super::contents::ENTRIES;
use super::rows::{self, ENTRY_COLUMNS};
use super::{Store, anew};
use crate::error::ClientError;
use crate::search_text::SearchText;

/// The statements that make the index.
const SCHEMA: &str = include_str!("search.sql");
/// The statements that delete the index.
const DROP: &str = "DROP TABLE search; DROP TABLE texts; UPDATE entries SET text = NULL WHERE text NOT NULL;";
/// The key of the rowid up to which entries may not be in the index yet. It is missing if all are.
const UNINDEXED: &str = "search_unindexed";
/// The key of the mark that the index may have traces of erased texts.
const TRACES: &str = "search_traces";
/// The largest index that is written anew after each commit that erases something, in bytes: that of about 30,000
/// messages, which takes some 30 ms. The traces in a larger one are removed at the next start.
pub(super) const SMALL: i64 = 4 * 1024 * 1024;
/// The tables of FTS5 that have the words of the index, each with its columns.
const INDEX_TABLES: [(&str, &str); 2] = [("search_data", "id, block"), ("search_idx", "segid, term, pgno")];
/// The number of messages that one call of [`Store::index_older`] puts into the index: some milliseconds of work, for
/// which the rest of the client waits.
const BATCH: usize = 200;
/// The largest number of hits that one call returns.
const MAX_HITS: usize = 256;

type Result<T = (), E = ClientError> = std::result::Result<T, E>;

/// A message that a search has found.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// The message as it is now. Its entry has the chat and the seq.
    pub message: Message,
    /// The text by which the message was found.
    pub text: String,
    /// The places of the words in `text`, in bytes, ascending. It is empty if the text is not the one in the index
    /// any more, because another version of the app put it there.
    pub places: Vec<Range<usize>>,
}

/// The place of a hit among all others: the time, the chat and the seq of its message.
pub type Place = (Timestamp, ChatId, Seq);

impl Hit {
    /// Returns the hit's place among all others.
    pub(crate) fn place(&self) -> Place {
        let entry = &self.message.entry;
        (entry.sent_at, entry.chat, entry.seq)
    }
}

impl Store {
    /// Sets the texts by which messages are found. Makes the index if it is wanted and there is none, and deletes it if
    /// it is not wanted. Until the first call, and in a store without history, nothing is indexed.
    pub fn set_search(&mut self, search: &SearchText) -> Result {
        let wanted = search.is_on() && self.keep_history;
        let exists = "SELECT 1 FROM sqlite_schema WHERE name = 'search'";
        let exists = self.connection.query_row(exists, [], |_| Ok(())).optional()?;
        match (wanted, exists.is_some()) {
            (true, false) => self.make_index()?,
            (false, true) => self.drop_index()?,
            (true, true) | (false, false) => {}
        }
        self.search = if wanted { search.clone() } else { SearchText::Off };
        if wanted && self.meta(TRACES)?.is_some() {
            self.remove_traces(i64::MAX);
            self.empty_journal();
        }
        Ok(())
    }

    fn make_index(&mut self) -> Result {
        let transaction = self.connection.transaction()?;
        transaction.execute_batch(SCHEMA)?;
        let newest: Option<i64> =
            transaction.query_row("SELECT max(rowid) FROM entries", [], |row| row.get(0))?;
        if let Some(newest) = newest {
            put_unindexed(&transaction, newest)?;
        }
        Ok(transaction.commit()?)
    }

    fn drop_index(&mut self) -> Result {
        let transaction = self.connection.transaction()?;
        transaction.execute_batch(DROP)?;
        forget_unindexed(&transaction)?;
        forget_traces(&transaction)?;
        transaction.commit()?;
        self.empty_journal();
        Ok(())
    }

    /// Returns whether some messages may not be in the index yet, because they were stored before it was made.
    pub fn has_unindexed(&self) -> Result<bool> {
        Ok(self.search.is_on() && self.unindexed()?.is_some())
    }

    fn unindexed(&self) -> Result<Option<i64>> {
        let Some(bytes) = self.meta(UNINDEXED)? else {
            return Ok(None);
        };
        let damaged = |_| ClientError::Corrupt("the mark of the search is damaged");
        let bytes: [u8; 8] = bytes.try_into().map_err(damaged)?;
        Ok(Some(i64::from_be_bytes(bytes)))
    }

    /// Puts some messages that were stored before the index was made into it, those that were stored last first.
    /// Returns whether more of them are left. What was done is committed, so that an interruption loses nothing.
    pub fn index_older(&mut self) -> Result<bool> {
        if !self.search.is_on() {
            return Ok(false);
        }
        let Some(newest) = self.unindexed()? else {
            return Ok(false);
        };
        let transaction = self.connection.transaction()?;
        let page = messages_down_from(&transaction, newest)?;
        for (_, chat, seq) in &page {
            index(&transaction, &self.search, *chat, *seq)?;
        }
        let last = page.last().filter(|_| page.len() == BATCH);
        match last {
            Some((last, ..)) => put_unindexed(&transaction, last - 1)?,
            None => forget_unindexed(&transaction)?,
        }
        let more = last.is_some();
        transaction.commit()?;
        Ok(more)
    }

    /// Returns at most `limit` messages in which all words occur, the newest first: those of one chat by their seqs, or
    /// without a chat those of all chats by their times. The last word may be the beginning of one. With `before` they
    /// are those below this place.
    pub fn search(
        &self,
        words: &str,
        chat: Option<ChatId>,
        before: Option<Place>,
        limit: usize,
    ) -> Result<Vec<Hit>> {
        if !self.search.is_on() {
            return Err(ClientError::Config("the search is off".to_owned()));
        }
        let Some(query) = text::query(words) else {
            return Ok(Vec::new());
        };
        let limit = i64::try_from(limit.min(MAX_HITS)).unwrap_or(i64::MAX);
        let found = match chat {
            Some(chat) => self.found_in(&query, chat, before, limit)?,
            None => self.found(&query, before, limit)?,
        };
        let mut hits = Vec::with_capacity(found.len());
        for (id, chat, seq) in found {
            let Some(message) = self.message(chat, seq)? else {
                continue;
            };
            let text = self.search.of(&message.entry).unwrap_or_default();
            let places = text::places(&text, &self.marked(&query, id)?);
            hits.push(Hit {
                message,
                text,
                places,
            });
        }
        Ok(hits)
    }

    /// Finds texts of one chat. FTS5 comes first in the join, because it would be asked anew for each text otherwise.
    fn found_in(
        &self,
        query: &str,
        chat: ChatId,
        before: Option<Place>,
        limit: i64,
    ) -> Result<Vec<(i64, ChatId, Seq)>> {
        let sql = "SELECT texts.id, texts.chat, texts.seq FROM search CROSS JOIN texts ON texts.id = search.rowid \
             WHERE search MATCH ?1 AND texts.chat = ?2 AND texts.seq < ?3 ORDER BY texts.seq DESC LIMIT ?4";
        let below = before.map_or(i64::MAX, |(_, _, seq)| seq.to_i64());
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map(params![query, chat.as_bytes(), below, limit], text_row)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Finds texts of all chats.
    fn found(&self, query: &str, before: Option<Place>, limit: i64) -> Result<Vec<(i64, ChatId, Seq)>> {
        let sql = "SELECT texts.id, texts.chat, texts.seq FROM search CROSS JOIN texts ON texts.id = search.rowid \
             WHERE search MATCH ?1 AND (texts.sent_at, texts.chat, texts.seq) < (?2, ?3, ?4) \
             ORDER BY texts.sent_at DESC, texts.chat DESC, texts.seq DESC LIMIT ?5";
        let (at, chat, seq) = before.map_or((i64::MAX, None, 0), |(at, chat, seq)| {
            (at.0, Some(*chat.as_bytes()), seq.to_i64())
        });
        let chat = chat.unwrap_or_default();
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map(params![query, at, chat, seq, limit], text_row)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Returns an indexed text in which the words that were found are marked.
    fn marked(&self, query: &str, id: i64) -> Result<String> {
        let sql = "SELECT highlight(search, 0, ?3, ?4) FROM search WHERE search MATCH ?1 AND rowid = ?2";
        let mut statement = self.connection.prepare_cached(sql)?;
        let (begin, end) = (text::BEGIN.to_string(), text::END.to_string());
        Ok(statement.query_row(params![query, id, begin, end], |row| row.get(0))?)
    }
}

/// Notes the rowid up to which entries may not be in the index yet.
fn put_unindexed(db: &Connection, newest: i64) -> Result {
    let put = "INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)";
    db.execute(put, params![UNINDEXED, newest.to_be_bytes()])?;
    Ok(())
}

/// Notes that all entries are in the index, or that there is no index.
fn forget_unindexed(db: &Connection) -> Result {
    db.execute("DELETE FROM meta WHERE key = ?1", [UNINDEXED])?;
    Ok(())
}

/// Notes that erased texts may leave traces in the index.
pub(super) fn note_traces(db: &Connection, search: &SearchText) -> Result {
    if search.is_on() {
        let note = "INSERT OR REPLACE INTO meta (key, value) VALUES (?1, x'01')";
        db.execute(note, [TRACES])?;
    }
    Ok(())
}

/// Notes that the index has no traces of erased texts, or that there is no index.
fn forget_traces(db: &Connection) -> Result {
    db.execute("DELETE FROM meta WHERE key = ?1", [TRACES])?;
    Ok(())
}

/// Removes the traces of erased texts from the index if there may be some and it has at most so many bytes. FTS5 takes
/// words out of its tables, but the rows of these tables leave traces, so the tables are written anew. It is done after
/// the commit, in which FTS5 writes them.
pub(super) fn remove_traces(connection: &mut Connection, at_most: i64) -> Result {
    let marked = "SELECT 1 FROM meta WHERE key = ?1";
    if !connection.prepare_cached(marked)?.exists([TRACES])? {
        return Ok(());
    }
    let transaction = connection.transaction()?;
    let size = "SELECT coalesce(sum(length(block)), 0) FROM search_data";
    let size: i64 = transaction.query_row(size, [], |row| row.get(0))?;
    if size > at_most {
        return Ok(());
    }
    for (table, columns) in INDEX_TABLES {
        anew::write(&transaction, table, columns)?;
    }
    forget_traces(&transaction)?;
    Ok(transaction.commit()?)
}

/// Brings the index up to date after an entry was stored.
pub(super) fn stored(db: &Connection, search: &SearchText, entry: &Entry) -> Result {
    match entry.act() {
        Act::Message | Act::Erased => index(db, search, entry.chat, entry.seq),
        Act::Edit { target, .. } | Act::Delete { target } => index(db, search, entry.chat, target),
        Act::React { .. } | Act::Pin { .. } | Act::Nothing => match (entry.kind(), entry.target()) {
            // It was an edit.
            (Some(MessageKind::Edit), Some(target)) => index(db, search, entry.chat, target),
            _ => Ok(()),
        },
    }
}

/// Empties the index, because all entries were deleted.
pub(super) fn clear(db: &Connection, search: &SearchText) -> Result {
    if !search.is_on() {
        return Ok(());
    }
    db.execute("INSERT INTO search (search) VALUES ('delete-all')", [])?;
    db.execute("DELETE FROM texts", [])?;
    forget_unindexed(db)
}

/// Indexes a message as it is now. If it is gone, or is not stored, it is taken out of the index.
pub(super) fn index(db: &Connection, search: &SearchText, chat: ChatId, seq: Seq) -> Result {
    if !search.is_on() {
        return Ok(());
    }
    let Some((entry, known)) = as_it_is(db, chat, seq)? else {
        return Ok(());
    };
    let text = search.of(&entry).map(|text| text::prepared(&text));
    let text = text.filter(|text| !text.trim().is_empty());
    if let Some(id) = known {
        let mut indexed = db.prepare_cached("SELECT text FROM texts WHERE id = ?1")?;
        let indexed: String = indexed.query_row([id], |row| row.get(0))?;
        if text.as_ref() == Some(&indexed) {
            return Ok(());
        }
        let take_out = "INSERT INTO search (search, rowid, text) VALUES ('delete', ?1, ?2)";
        db.prepare_cached(take_out)?.execute(params![id, indexed])?;
        let overwrite = "UPDATE texts SET text = ?1 WHERE id = ?2";
        db.prepare_cached(overwrite)?
            .execute(params![" ".repeat(indexed.len()), id])?;
    }
    let id = text.map(|text| put_in(db, &entry, &text)).transpose()?;
    if id != known {
        let refer = "UPDATE entries SET text = ?1 WHERE chat = ?2 AND seq = ?3";
        db.prepare_cached(refer)?
            .execute(params![id, chat.as_bytes(), seq.to_i64()])?;
    }
    Ok(())
}

/// Puts the text of a message into the index, and returns its id.
fn put_in(db: &Connection, entry: &Entry, text: &str) -> Result<i64> {
    let keep = "INSERT INTO texts (chat, seq, sent_at, text) VALUES (?1, ?2, ?3, ?4)";
    let of = params![entry.chat.as_bytes(), entry.seq.to_i64(), entry.sent_at.0, text];
    db.prepare_cached(keep)?.execute(of)?;
    let id = db.last_insert_rowid();
    let put_in = "INSERT INTO search (rowid, text) VALUES (?1, ?2)";
    db.prepare_cached(put_in)?.execute(params![id, text])?;
    Ok(id)
}

/// Returns the entry of a message with the content of its last edit, and the id of its text in the index. Returns
/// `None` if it is not stored. The content of a deleted one is an Erased.
fn as_it_is(db: &Connection, chat: ChatId, seq: Seq) -> Result<Option<(Entry, Option<i64>)>> {
    let message =
        format!("SELECT {ENTRY_COLUMNS}, text FROM {ENTRIES} WHERE chat = ?1 AND seq = ?2 AND kind = ?3");
    let mut message = db.prepare_cached(&message)?;
    let of = params![chat.as_bytes(), seq.to_i64(), i32::from(MessageKind::Message)];
    let message = message.query_row(of, |row| {
        Ok((
            rows::entry(row)?,
            row.get::<_, Option<i64>>(rows::ENTRY_COLUMN_COUNT)?,
        ))
    });
    let Some((entry, known)) = message.optional()? else {
        return Ok(None);
    };
    // They are sorted here, because for an ORDER BY SQLite would read the whole chat in the order of its seqs.
    let edits =
        format!("SELECT {ENTRY_COLUMNS} FROM {ENTRIES} WHERE chat = ?1 AND target = ?2 AND kind = ?3");
    let mut edits = db.prepare_cached(&edits)?;
    let of = params![chat.as_bytes(), seq.to_i64(), i32::from(MessageKind::Edit)];
    let edits = edits.query_map(of, rows::entry)?;
    let mut edits = edits.collect::<rusqlite::Result<Vec<_>>>()?;
    if edits.is_empty() {
        return Ok(Some((entry, known)));
    }
    edits.sort_by_key(|edit| edit.seq);
    let messages: Messages = std::iter::once(&entry).chain(&edits).collect();
    // A message that has vanished, or was hidden, is shown no more: then the entry itself says so.
    let shown = messages.into_values().next().map(|message| message.entry);
    Ok(Some((shown.unwrap_or(entry), known)))
}

/// Returns up to [`BATCH`] messages with a rowid of at most `newest`, each with its rowid, in descending order.
fn messages_down_from(db: &Connection, newest: i64) -> Result<Vec<(i64, ChatId, Seq)>> {
    let sql =
        "SELECT rowid, chat, seq FROM entries WHERE rowid <= ?1 AND kind = ?2 ORDER BY rowid DESC LIMIT ?3";
    let mut statement = db.prepare_cached(sql)?;
    let batch = i64::try_from(BATCH).unwrap_or(i64::MAX);
    let kind = i32::from(MessageKind::Message);
    let rows = statement.query_map(params![newest, kind, batch], text_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Reads a number, a chat and a seq.
fn text_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<(i64, ChatId, Seq)> {
    Ok((row.get(0)?, ChatId(rows::id(row, 1)?), rows::seq(row, 2)?))
}
