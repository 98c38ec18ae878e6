//! Brings the stores of earlier versions up to date.
//!
//! - Version 1 knew nothing of edits, deletions and pins, nor which message an entry is about.
//! - Version 2 knew nothing of the search.
//! - Version 3 stored contents without what it did not know of them, in a table whose rows SQLite moves.
//!
//! An earlier version does not open the store any more, because it would leave traces of what is erased.

use rusqlite::{Connection, OptionalExtension, params};
use tern_proto::v1::MessageKind;
use tern_types::{ChatId, DeviceId, RequestId, Timestamp, UserId};

use tern_client_core::model::{Entry, decoded};

use super::{ENTRIES, VERSION, entries, erase, lost, rows};
use crate::error::ClientError;

/// The number of entries that are in memory at once.
const PAGE: i64 = 1000;
/// The statements that add what version 3 lacks, and put the entries aside.
const ADD: &str = "ALTER TABLE chats ADD COLUMN description TEXT NOT NULL DEFAULT ''; \
     ALTER TABLE chats ADD COLUMN policy BLOB NOT NULL DEFAULT x''; \
     ALTER TABLE chats ADD COLUMN frozen INTEGER NOT NULL DEFAULT 0; \
     ALTER TABLE chats ADD COLUMN retention BLOB NOT NULL DEFAULT x''; \
     ALTER TABLE chats ADD COLUMN settings BLOB NOT NULL DEFAULT x''; \
     ALTER TABLE chats ADD COLUMN settings_seq INTEGER NOT NULL DEFAULT 0; \
     ALTER TABLE chats ADD COLUMN join_requests INTEGER NOT NULL DEFAULT 0; \
     ALTER TABLE chats ADD COLUMN history_from INTEGER NOT NULL DEFAULT 0; \
     ALTER TABLE chats ADD COLUMN mentions INTEGER NOT NULL DEFAULT 0; \
     ALTER TABLE chats ADD COLUMN first_mention INTEGER NOT NULL DEFAULT 0; \
     ALTER TABLE chats ADD COLUMN listed_mentions INTEGER NOT NULL DEFAULT 0; \
     ALTER TABLE chats ADD COLUMN listed_first_mention INTEGER NOT NULL DEFAULT 0; \
     ALTER TABLE outbox ADD COLUMN retry_at INTEGER; \
     DROP INDEX IF EXISTS entries_about; \
     ALTER TABLE entries RENAME TO entries_before;";
/// The statement that has all chats listed again, because the server says more of a chat than the store has.
const LIST_AGAIN: &str = "DELETE FROM meta WHERE key = 'listed'";

/// The key of the mark that the file may have traces of what an earlier version deleted.
const UNCLEAN: &str = "unclean";

type Result<T = (), E = ClientError> = std::result::Result<T, E>;

/// An entry of an earlier version, with its rowid and the id of its text in the index of the search.
struct Before {
    rowid: i64,
    text: Option<i64>,
    entry: Entry,
}

/// Brings a store of this version up to date. Each entry keeps its rowid, to which the mark of the search refers. What
/// was deleted and not understood is erased now, and what was not stored as a whole is noted, to be read again.
pub(super) fn from(version: i64, connection: &mut Connection) -> Result {
    let transaction = connection.transaction()?;
    transaction.execute_batch(ADD)?;
    transaction.execute_batch(ENTRIES)?;
    let me = "SELECT value FROM meta WHERE key = 'user'";
    let me = transaction.query_row(me, [], |row| rows::id(row, 0)).optional()?;
    let me = me.map(UserId);
    let mut after = 0;
    loop {
        let page = page(&transaction, version, after)?;
        let Some(last) = page.last() else { break };
        after = last.rowid;
        for before in &page {
            let entry = &before.entry;
            entries::insert(&transaction, entry, me, Some(before.rowid), before.text)?;
            erase::applied(&transaction, entry)?;
            if is_incomplete(version, entry) {
                lost::note(&transaction, entry.chat, entry.seq)?;
            }
        }
    }
    transaction.execute_batch("DROP TABLE entries_before")?;
    transaction.execute(LIST_AGAIN, [])?;
    let mark = "INSERT OR REPLACE INTO meta (key, value) VALUES (?1, x'01')";
    transaction.execute(mark, [UNCLEAN])?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    Ok(transaction.commit()?)
}

/// Returns whether this version has certainly not stored all of an entry: a content of a kind that it did not know, or
/// of version 1 a reaction or a pin that may take one back. That a message disappears is not told either, but each
/// message may lack that.
fn is_incomplete(version: i64, entry: &Entry) -> bool {
    let may_take_back = matches!(entry.kind(), Some(MessageKind::Reaction | MessageKind::Pin));
    entry.content.content.is_none() || (version == 1 && may_take_back)
}

/// Removes the traces of what an earlier version deleted: it makes the file anew. If there is no room for a new file,
/// the store is of use all the same, and the next start tries again. It does so too if the program is killed before the
/// end.
pub(super) fn clean(connection: &Connection) -> Result {
    let marked = "SELECT 1 FROM meta WHERE key = ?1";
    let marked = connection.query_row(marked, [UNCLEAN], |_| Ok(())).optional()?;
    if marked.is_none() {
        return Ok(());
    }
    if let Err(error) = connection.execute_batch("VACUUM") {
        tracing::warn!(%error, "free pages of the store not removed");
        return Ok(());
    }
    connection.execute("DELETE FROM meta WHERE key = ?1", [UNCLEAN])?;
    Ok(())
}

/// Returns the next entries above a rowid.
fn page(db: &Connection, version: i64, after: i64) -> Result<Vec<Before>> {
    let text = if version < 3 { "NULL" } else { "text" };
    let sql = format!(
        "SELECT rowid, {text}, chat, seq, sent_at, sender, device, request, ordinal, content FROM entries_before \
         WHERE rowid > ?1 ORDER BY rowid LIMIT ?2"
    );
    let mut statement = db.prepare(&sql)?;
    let rows = statement.query_map(params![after, PAGE], |row| {
        let content: Vec<u8> = row.get(9)?;
        let (content, unknown) = decoded(content.into()).map_err(|error| rows::undecodable(9, error))?;
        let entry = Entry {
            chat: ChatId(rows::id(row, 2)?),
            seq: rows::seq(row, 3)?,
            sent_at: Timestamp(row.get(4)?),
            sender: rows::optional_id(row, 5)?.map(UserId),
            device: rows::optional_id(row, 6)?.map(DeviceId),
            request: rows::optional_id(row, 7)?.map(RequestId),
            ordinal: rows::seq(row, 8)?.0,
            content,
            unknown,
        };
        Ok(Before {
            rowid: row.get(0)?,
            text: row.get(1)?,
            entry,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
