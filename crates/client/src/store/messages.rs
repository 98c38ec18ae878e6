//! Reads messages as they are now: each with its last edit, its reactions, and whether it is pinned or was deleted. The
//! store has only the entries of the log; what later entries did to a message is put together when it is read.

use rusqlite::types::Value;
use rusqlite::{OptionalExtension, Params, params};
use tern_proto::v1::MessageKind;
use tern_types::{ChatId, Seq};

use tern_client_core::model::{Entry, Message, Messages, Only};

use super::Store;
use super::contents::ENTRIES;
use super::gone::Gone;
use super::rows::{self, ENTRY_COLUMNS};
use crate::error::ClientError;

/// The condition that a message is in a thread. SQLite looks the thread up by it, instead of reading the chat.
const IN_THREAD: &str = "seq IN (SELECT seq FROM entries WHERE chat = ?1 AND thread = ?6)";

type Result<T, E = ClientError> = std::result::Result<T, E>;

impl Store {
    /// Returns at most `limit` messages, ascending by seq: the newest ones, or with `before` the newest ones below that
    /// seq.
    pub fn messages(&self, chat: ChatId, before: Option<Seq>, limit: usize) -> Result<Vec<Message>> {
        self.page(chat, "?6 IS NULL", Value::Null, before, limit)
    }

    /// Returns the same as [`Self::messages`], of the messages that `only` chooses.
    pub fn messages_only(
        &self,
        chat: ChatId,
        only: Only,
        before: Option<Seq>,
        limit: usize,
    ) -> Result<Vec<Message>> {
        let (filter, value) = match only {
            Only::Thread(root) => (IN_THREAD, Value::Integer(root.to_i64())),
            Only::Sender(user) => ("sender = ?6", Value::Blob(user.to_vec())),
            Only::WithAttachments => ("attached = ?6", Value::Integer(1)),
            Only::Pinned => return self.pinned_before(chat, before, limit),
        };
        self.page(chat, filter, value, before, limit)
    }

    /// Returns a page of the messages of which a condition holds. The condition names the value as `?6`.
    fn page(
        &self,
        chat: ChatId,
        filter: &str,
        value: Value,
        before: Option<Seq>,
        limit: usize,
    ) -> Result<Vec<Message>> {
        let sql = format!(
            "SELECT {ENTRY_COLUMNS} FROM {ENTRIES} \
             WHERE chat = ?1 AND seq < ?2 AND kind = ?3 AND gone <= ?4 AND {filter} ORDER BY seq DESC LIMIT ?5"
        );
        let before = before.map_or(i64::MAX, Seq::to_i64);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let (kind, shown) = (i32::from(MessageKind::Message), Gone::Deleted.code());
        let of = params![chat.as_bytes(), before, kind, shown, limit, value];
        let mut entries = self.entries(&sql, of)?;
        entries.reverse();
        self.as_they_are(chat, &entries)
    }

    fn pinned_before(&self, chat: ChatId, before: Option<Seq>, limit: usize) -> Result<Vec<Message>> {
        let mut pinned = self.pinned(chat)?;
        pinned.retain(|message| before.is_none_or(|before| message.entry.seq < before));
        Ok(pinned.split_off(pinned.len().saturating_sub(limit)))
    }

    /// Returns one message, or `None` if the store does not have it.
    pub fn message(&self, chat: ChatId, seq: Seq) -> Result<Option<Message>> {
        let sql = format!("SELECT {ENTRY_COLUMNS} FROM {ENTRIES} WHERE chat = ?1 AND seq = ?2 AND kind = ?3");
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
            "SELECT {ENTRY_COLUMNS} FROM {ENTRIES} WHERE chat = ?1 AND target BETWEEN ?2 AND ?3 ORDER BY seq"
        );
        let of = params![chat.as_bytes(), first.seq.to_i64(), last.seq.to_i64()];
        for act in self.entries(&sql, of)? {
            messages.add(&act);
        }
        for (root, replies) in self.reply_counts(chat, first.seq, last.seq)? {
            messages.set_reply_count(root, replies);
        }
        Ok(messages.into_values().collect())
    }

    /// Returns how many messages of each thread are stored that begins with one of these messages.
    fn reply_counts(&self, chat: ChatId, first: Seq, last: Seq) -> Result<Vec<(Seq, u32)>> {
        let replies = "SELECT thread, count(*) FROM entries WHERE chat = ?1 AND thread BETWEEN ?2 AND ?3 \
             GROUP BY thread";
        let mut statement = self.connection.prepare_cached(replies)?;
        let of = params![chat.as_bytes(), first.to_i64(), last.to_i64()];
        let counts = statement.query_map(of, |row| Ok((rows::seq(row, 0)?, row.get::<_, u32>(1)?)))?;
        Ok(counts.collect::<rusqlite::Result<_>>()?)
    }

    fn entries(&self, sql: &str, params: impl Params) -> Result<Vec<Entry>> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let rows = statement.query_map(params, rows::entry)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}
