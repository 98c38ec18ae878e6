//! Reads messages as they are now: each with its last edit, its reactions, and whether it is pinned or was deleted. The
//! store has only the entries of the log; what later entries did to a message is put together when it is read.

use rusqlite::{OptionalExtension, Params, params};
use tern_proto::v1::MessageKind;
use tern_types::{ChatId, Seq};

use tern_client_core::model::{Entry, Message, Messages};

use super::Store;
use super::rows::{self, ENTRY_COLUMNS};
use crate::error::ClientError;

type Result<T, E = ClientError> = std::result::Result<T, E>;

impl Store {
    /// Returns at most `limit` messages, ascending by seq: the newest ones, or with `before` the newest ones below that
    /// seq.
    pub fn messages(&self, chat: ChatId, before: Option<Seq>, limit: usize) -> Result<Vec<Message>> {
        let sql = format!(
            "SELECT {ENTRY_COLUMNS} FROM entries WHERE chat = ?1 AND seq < ?2 AND kind = ?3 \
             ORDER BY seq DESC LIMIT ?4"
        );
        let before = before.map_or(i64::MAX, Seq::to_i64);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let kind = i32::from(MessageKind::Message);
        let mut entries = self.entries(&sql, params![chat.as_bytes(), before, kind, limit])?;
        entries.reverse();
        self.as_they_are(chat, &entries)
    }

    /// Returns one message, or `None` if the store does not have it.
    pub fn message(&self, chat: ChatId, seq: Seq) -> Result<Option<Message>> {
        let sql = format!("SELECT {ENTRY_COLUMNS} FROM entries WHERE chat = ?1 AND seq = ?2 AND kind = ?3");
        let kind = i32::from(MessageKind::Message);
        let mut statement = self.connection.prepare_cached(&sql)?;
        let of = params![chat.as_bytes(), seq.to_i64(), kind];
        let Some(entry) = statement.query_row(of, rows::entry).optional()? else {
            return Ok(None);
        };
        Ok(self.as_they_are(chat, &[entry])?.pop())
    }

    /// Returns the pinned messages of a chat that the store has, ascending by seq.
    pub fn pinned(&self, chat: ChatId) -> Result<Vec<Message>> {
        let pins = "SELECT DISTINCT target FROM entries WHERE chat = ?1 AND target NOT NULL AND kind = ?2 \
             ORDER BY target";
        let mut statement = self.connection.prepare_cached(pins)?;
        let of = params![chat.as_bytes(), i32::from(MessageKind::Pin)];
        let targets = statement.query_map(of, |row| rows::seq(row, 0))?;
        let targets = targets.collect::<rusqlite::Result<Vec<_>>>()?;
        let mut pinned = Vec::new();
        for target in targets {
            pinned.extend(self.message(chat, target)?.filter(|message| message.pinned));
        }
        Ok(pinned)
    }

    /// Makes messages of their entries, and applies what later entries did to them.
    fn as_they_are(&self, chat: ChatId, entries: &[Entry]) -> Result<Vec<Message>> {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return Ok(Vec::new());
        };
        let mut messages: Messages = entries.iter().collect();
        let sql = format!(
            "SELECT {ENTRY_COLUMNS} FROM entries WHERE chat = ?1 AND target BETWEEN ?2 AND ?3 ORDER BY seq"
        );
        let of = params![chat.as_bytes(), first.seq.to_i64(), last.seq.to_i64()];
        for act in self.entries(&sql, of)? {
            messages.add(&act);
        }
        Ok(messages.into_values().collect())
    }

    fn entries(&self, sql: &str, params: impl Params) -> Result<Vec<Entry>> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map(params, rows::entry)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}
