//! The contents of entries, in a table whose rows SQLite never moves, so that nothing is left of one that is overwritten.

use rusqlite::{Connection, params};
use tern_types::{ChatId, Seq};

use crate::error::ClientError;

/// The entries together with their contents, as a statement names them.
pub(super) const ENTRIES: &str = "entries LEFT JOIN contents ON contents.id = entries.content";

type Result<T = (), E = ClientError> = std::result::Result<T, E>;

/// Adds a content, and returns its id.
pub(super) fn put(db: &Connection, bytes: &[u8]) -> Result<i64> {
    let put = "INSERT INTO contents (bytes) VALUES (?1)";
    db.prepare_cached(put)?.execute([bytes])?;
    Ok(db.last_insert_rowid())
}

/// Returns whether the content with this id has these bytes.
pub(super) fn is(db: &Connection, id: i64, bytes: &[u8]) -> Result<bool> {
    let is = "SELECT bytes = ?2 FROM contents WHERE id = ?1";
    Ok(db
        .prepare_cached(is)?
        .query_row(params![id, bytes], |row| row.get(0))?)
}

/// Overwrites the content of an entry in its place, if the entry has one.
pub(super) fn overwrite(db: &Connection, chat: ChatId, seq: Seq) -> Result {
    let overwrite = "UPDATE contents SET bytes = zeroblob(length(bytes)) \
         WHERE id = (SELECT content FROM entries WHERE chat = ?1 AND seq = ?2)";
    db.prepare_cached(overwrite)?
        .execute(params![chat.as_bytes(), seq.to_i64()])?;
    Ok(())
}
