//! Brings the stores of earlier versions up to date.

use rusqlite::{Connection, OptionalExtension, params};
use tern_proto::v1::MessageKind;
use tern_types::{ChatId, Seq};

use tern_client_core::model::Entry;

use super::rows::{self, ENTRY_COLUMNS};
use super::{VERSION, erase};
use crate::error::ClientError;

/// The number of entries that are in memory at once.
const PAGE: i64 = 1000;
/// The statements that add what version 1 lacks.
const ADD_TARGETS: &str = "ALTER TABLE entries ADD COLUMN kind INTEGER NOT NULL DEFAULT 0; \
     ALTER TABLE entries ADD COLUMN target INTEGER; \
     CREATE INDEX entries_about ON entries (chat, target) WHERE target NOT NULL;";

/// The statement that adds what version 2 lacks. `Store::set_search` makes the rest.
const ADD_TEXTS: &str = "ALTER TABLE entries ADD COLUMN text INTEGER;";

/// The key of the mark that free pages of the file may have what version 1 deleted, which did not overwrite it.
const UNCLEAN: &str = "unclean";

type Result<T = (), E = ClientError> = std::result::Result<T, E>;

/// Brings a store of version 1 up to date. That version kept each entry, but knew nothing of edits, deletions and pins,
/// nor which message an entry is about. What was deleted in the meantime is erased now.
pub(super) fn from_1(connection: &mut Connection) -> Result {
    let transaction = connection.transaction()?;
    transaction.execute_batch(ADD_TARGETS)?;
    transaction.execute_batch(ADD_TEXTS)?;
    let mut deleted: Vec<(ChatId, Seq)> = Vec::new();
    let mut after = 0;
    loop {
        let page = page(&transaction, after)?;
        let Some((last, _)) = page.last() else { break };
        after = *last;
        for (row, entry) in &page {
            put_target(&transaction, *row, entry)?;
            if entry.kind() == Some(MessageKind::Delete) {
                deleted.extend(entry.target().map(|target| (entry.chat, target)));
            }
        }
    }
    for (chat, message) in deleted {
        erase::erase(&transaction, chat, message)?;
    }
    let mark = "INSERT INTO meta (key, value) VALUES (?1, x'01')";
    transaction.execute(mark, [UNCLEAN])?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    Ok(transaction.commit()?)
}

/// Removes the free pages of a store that was of version 1. If there is no room for a new file, the store is of use all
/// the same, and the next start tries again. It does so too if the program is killed before the end.
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

/// Brings a store of version 2 up to date, which knew nothing of the search. That version does not open the store any
/// more, because it would leave deleted messages in the index.
pub(super) fn from_2(connection: &mut Connection) -> Result {
    let transaction = connection.transaction()?;
    transaction.execute_batch(ADD_TEXTS)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    Ok(transaction.commit()?)
}

/// Returns the next entries above a rowid, each with its own.
fn page(db: &Connection, after: i64) -> Result<Vec<(i64, Entry)>> {
    let sql = format!("SELECT {ENTRY_COLUMNS}, rowid FROM entries WHERE rowid > ?1 ORDER BY rowid LIMIT ?2");
    let mut statement = db.prepare_cached(&sql)?;
    let rows = statement.query_map(params![after, PAGE], |row| {
        Ok((row.get::<_, i64>(rows::ENTRY_COLUMN_COUNT)?, rows::entry(row)?))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn put_target(db: &Connection, row: i64, entry: &Entry) -> Result {
    let put = "UPDATE entries SET kind = ?1, target = ?2 WHERE rowid = ?3";
    let (kind, target) = (rows::kind(entry), entry.target().map(Seq::to_i64));
    db.prepare_cached(put)?.execute(params![kind, target, row])?;
    Ok(())
}
