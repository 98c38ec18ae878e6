//! Remembers the entries of which an earlier version of this program has lost a part, until they were read again.

use rusqlite::{Connection, OptionalExtension, params};
use tern_types::{ChatId, Seq};

use super::{Store, rows};
use crate::error::ClientError;

type Result<T, E = ClientError> = std::result::Result<T, E>;

/// Notes that a part of an entry is lost.
pub(super) fn note(db: &Connection, chat: ChatId, seq: Seq) -> Result<()> {
    let note = "INSERT OR IGNORE INTO lost (chat, seq) VALUES (?1, ?2)";
    db.prepare_cached(note)?
        .execute(params![chat.as_bytes(), seq.to_i64()])?;
    Ok(())
}

impl Store {
    /// Returns the first entry of a chat of which a part is lost, or `None` if all entries are complete.
    pub fn first_lost(&self) -> Result<Option<(ChatId, Seq)>> {
        let first = "SELECT chat, seq FROM lost ORDER BY chat, seq LIMIT 1";
        let mut statement = self.connection.prepare_cached(first)?;
        let first = statement.query_row([], |row| Ok((ChatId(rows::id(row, 0)?), rows::seq(row, 1)?)));
        Ok(first.optional()?)
    }

    /// Returns which of these seqs of a chat are those of entries of which a part is lost.
    pub fn lost_of(&self, chat: ChatId, seqs: &[Seq]) -> Result<Vec<Seq>> {
        let is_lost = "SELECT 1 FROM lost WHERE chat = ?1 AND seq = ?2";
        let mut statement = self.connection.prepare_cached(is_lost)?;
        let mut lost = Vec::new();
        for seq in seqs {
            if statement.exists(params![chat.as_bytes(), seq.to_i64()])? {
                lost.push(*seq);
            }
        }
        Ok(lost)
    }

    /// Notes that the entries of a chat up to this seq are complete, or that the server does not have more of them.
    /// If `to` is `None`, it forgets all of the chat's.
    pub fn forget_lost(&mut self, chat: ChatId, to: Option<Seq>) -> Result<()> {
        let forget = "DELETE FROM lost WHERE chat = ?1 AND seq <= ?2";
        let to = to.map_or(i64::MAX, Seq::to_i64);
        self.connection
            .prepare_cached(forget)?
            .execute(params![chat.as_bytes(), to])?;
        Ok(())
    }
}
