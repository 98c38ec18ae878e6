//! Reads the state that the driver starts with, and the chats, entries and names that the app asks for.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};
use tern_proto::v1::MessageKind;
use tern_types::{ChatId, DeviceId, Seq, Timestamp, UserId};
use uuid::Uuid;

use tern_client_core::engine::{ChatRow, Stored, StoredChat};
use tern_client_core::model::{Chat, Credentials, Entry, Mark, Outgoing, QueuedMessage, SendState, To};

use super::Store;
use super::contents::ENTRIES;
use super::rows::{self, CHAT_COLUMNS, ENTRY_COLUMNS, OUTBOX_COLUMNS};
use crate::error::ClientError;

type Result<T, E = ClientError> = std::result::Result<T, E>;

impl Store {
    /// Returns this device's identity and tokens, or `None` if the store has never had a device.
    pub fn credentials(&self) -> Result<Option<Credentials>> {
        let Some(user) = self.meta_id("user")? else {
            return Ok(None);
        };
        let missing = || ClientError::Corrupt("tokens are missing");
        Ok(Some(Credentials {
            user: UserId(user),
            device: DeviceId(self.meta_id("device")?.ok_or_else(missing)?),
            access_token: self.meta_text("access_token")?.ok_or_else(missing)?,
            access_expires_at: Timestamp(i64::from_be_bytes(
                self.meta("access_expires_at")?
                    .and_then(|bytes| bytes.try_into().ok())
                    .ok_or_else(missing)?,
            )),
            refresh_token: self.meta_text("refresh_token")?.ok_or_else(missing)?,
        }))
    }

    /// Returns everything that the engine starts with.
    pub fn load(&self) -> Result<Stored> {
        let mut chats = Vec::new();
        for mut row in self.chat_rows()? {
            if !self.keep_history {
                // There are no entries to count. Their number up to the cursor stands for a listing at the cursor.
                row.listed_unread = row.chat.unread;
                row.listed_head = row.listed_head.max(row.cursor.unwrap_or_default());
                row.listed_mentions = row.chat.unread_mention_count;
                row.listed_first_mention = row.chat.first_unread_mention_seq.unwrap_or_default();
            }
            chats.push(self.with_unread(row)?);
        }
        Ok(Stored {
            epoch: self.meta_id("epoch")?,
            listed: self.meta("listed")?.is_some(),
            chats,
            outbox: self.outbox()?,
            receipts: self.all_receipts()?,
            next_expiry: self.next_expiry()?,
            hidden_ahead: self.hidden_ahead()?,
        })
    }

    /// Returns all chats, the most recently active first. The person's own log is no chat.
    pub fn chats(&self) -> Result<Vec<Chat>> {
        let own_log = self.me()?.map(ChatId::own);
        let chats = self.chat_rows()?.into_iter().map(|row| row.chat);
        Ok(chats.filter(|chat| Some(chat.id) != own_log).collect())
    }

    /// Returns the device's person, or `None` if the store has never had a device.
    pub(super) fn me(&self) -> Result<Option<UserId>> {
        Ok(self.meta_id("user")?.map(UserId))
    }

    /// Returns one chat, or `None` if it is not known.
    pub fn chat(&self, chat: ChatId) -> Result<Option<Chat>> {
        let sql = format!("SELECT {CHAT_COLUMNS} FROM chats WHERE chat = ?1");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let row = statement.query_row([chat.as_bytes()], rows::chat).optional()?;
        Ok(row.map(|row| row.chat))
    }

    /// Returns at most `limit` entries, ascending by seq: the newest ones, or with `before` the newest ones below that
    /// seq.
    pub fn history(&self, chat: ChatId, before: Option<Seq>, limit: usize) -> Result<Vec<Entry>> {
        let sql = format!(
            "SELECT {ENTRY_COLUMNS} FROM {ENTRIES} WHERE chat = ?1 AND seq < ?2 ORDER BY seq DESC LIMIT ?3"
        );
        let before = before.map_or(i64::MAX, Seq::to_i64);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut statement = self.connection.prepare_cached(&sql)?;
        let rows = statement.query_map(params![chat.as_bytes(), before, limit], rows::entry)?;
        let mut entries = rows.collect::<rusqlite::Result<Vec<_>>>()?;
        entries.reverse();
        Ok(entries)
    }

    /// Returns the seq of the oldest entry of the chat that is stored, or `None` if none is.
    pub fn oldest(&self, chat: ChatId) -> Result<Option<Seq>> {
        let oldest = "SELECT min(seq) FROM entries WHERE chat = ?1";
        let mut statement = self.connection.prepare_cached(oldest)?;
        let seq: Option<i64> = statement.query_row([chat.as_bytes()], |row| row.get(0))?;
        Ok(seq.map(Seq::from_i64))
    }

    /// Returns the messages that have no entry in the log yet, in the order of writing. Refused messages are among
    /// them.
    pub fn outbox(&self) -> Result<Vec<QueuedMessage>> {
        outbox(&self.connection)
    }

    /// Returns how far the other members of a chat have received and read it.
    pub fn receipts(&self, chat: ChatId) -> Result<HashMap<UserId, Mark>> {
        let all = "SELECT user, delivered, read FROM receipts WHERE chat = ?1";
        let mut statement = self.connection.prepare_cached(all)?;
        let rows = statement.query_map([chat.as_bytes()], |row| {
            let mark = Mark {
                delivered: rows::seq(row, 1)?,
                read: rows::seq(row, 2)?,
            };
            Ok((UserId(rows::id(row, 0)?), mark))
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Returns all display names that this device knows.
    pub fn names(&self) -> Result<HashMap<UserId, String>> {
        let mut statement = self.connection.prepare_cached("SELECT user, name FROM names")?;
        let rows = statement.query_map([], |row| Ok((UserId(rows::id(row, 0)?), row.get(1)?)))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    fn chat_rows(&self) -> Result<Vec<ChatRow>> {
        let sql = format!("SELECT {CHAT_COLUMNS} FROM chats ORDER BY active_at DESC");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let rows = statement.query_map([], rows::chat)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Returns a chat with the seqs of the stored entries that are unread and that the server did not count when it
    /// listed the chat. They are above the read mark and above the head of that time, up to the cursor.
    fn with_unread(&self, row: ChatRow) -> Result<StoredChat> {
        let sql = "SELECT seq, mention FROM entries WHERE chat = ?1 AND seq > ?2 AND seq <= ?3 AND counts \
             ORDER BY seq";
        let from = row.chat.read.max(row.listed_head).to_i64();
        let to = row.cursor.unwrap_or_default().to_i64();
        let mut statement = self.connection.prepare_cached(sql)?;
        let of = params![row.chat.id.as_bytes(), from, to];
        let found = statement.query_map(of, |row| Ok((rows::seq(row, 0)?, row.get::<_, bool>(1)?)))?;
        let found = found.collect::<rusqlite::Result<Vec<_>>>()?;
        let mentions = found.iter().filter(|(_, mention)| *mention);
        Ok(StoredChat {
            mentions: mentions.map(|(seq, _)| *seq).collect(),
            unread: found.iter().map(|(seq, _)| *seq).collect(),
            row,
        })
    }

    /// Returns the messages above the cursors of their chats that the person has deleted for themselves.
    fn hidden_ahead(&self) -> Result<Vec<(ChatId, Seq)>> {
        let ahead = "SELECT hidden.chat, hidden.seq FROM hidden LEFT JOIN chats ON chats.chat = hidden.chat \
             WHERE hidden.seq > coalesce(chats.cursor, 0)";
        let mut statement = self.connection.prepare_cached(ahead)?;
        let rows = statement.query_map([], |row| Ok((ChatId(rows::id(row, 0)?), rows::seq(row, 1)?)))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    fn all_receipts(&self) -> Result<Vec<(ChatId, UserId, Mark)>> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT chat, user, delivered, read FROM receipts")?;
        let rows = statement.query_map([], |row| {
            let mark = Mark {
                delivered: rows::seq(row, 2)?,
                read: rows::seq(row, 3)?,
            };
            Ok((ChatId(rows::id(row, 0)?), UserId(rows::id(row, 1)?), mark))
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    pub(super) fn meta(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let get = "SELECT value FROM meta WHERE key = ?1";
        Ok(self
            .connection
            .prepare_cached(get)?
            .query_row([key], |row| row.get(0))
            .optional()?)
    }

    fn meta_id(&self, key: &str) -> Result<Option<Uuid>> {
        let bytes = self.meta(key)?;
        bytes
            .map(|bytes| Uuid::from_slice(&bytes).map_err(|_| ClientError::Corrupt("an id is damaged")))
            .transpose()
    }

    fn meta_text(&self, key: &str) -> Result<Option<String>> {
        let bytes = self.meta(key)?;
        bytes
            .map(|bytes| String::from_utf8(bytes).map_err(|_| ClientError::Corrupt("a text is damaged")))
            .transpose()
    }
}

pub(super) fn outbox(db: &Connection) -> Result<Vec<QueuedMessage>> {
    let mut statement =
        db.prepare_cached(&format!("SELECT {OUTBOX_COLUMNS} FROM outbox ORDER BY position"))?;
    let rows = statement.query_map([], rows::queued)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Returns the newest `limit` messages that this device has sent since `since`, in the order of sending, made ready to
/// be sent again. What the device did to earlier messages is not among them.
pub(super) fn own_recent(db: &Connection, since: Timestamp, limit: i64) -> Result<Vec<QueuedMessage>> {
    let mut statement = db.prepare(&format!(
        "SELECT {ENTRY_COLUMNS} FROM {ENTRIES} WHERE device = (SELECT value FROM meta WHERE key = 'device') \
         AND request NOT NULL AND sent_at >= ?1 AND kind = ?3 ORDER BY sent_at DESC, seq DESC LIMIT ?2"
    ))?;
    let kind = i32::from(MessageKind::Message);
    let rows = statement.query_map(params![since.0, limit, kind], rows::entry)?;
    let entries = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    let mut peer_of = db.prepare("SELECT peer FROM chats WHERE chat = ?1 AND peer NOT NULL")?;
    let mut recent = Vec::new();
    for entry in entries.into_iter().rev() {
        let peer = peer_of
            .query_row([entry.chat.as_bytes()], |row| rows::id(row, 0))
            .optional()?;
        recent.extend(again(entry, peer.map(UserId)));
    }
    Ok(recent)
}

/// Turns an entry into a message to be sent, or returns `None` if it is no message, was erased, or has no request_id.
/// In a direct chat the message is addressed to the other person, since the server's restored store may not have the
/// chat yet.
fn again(entry: Entry, peer: Option<UserId>) -> Option<QueuedMessage> {
    let message = entry.message()?.clone();
    Some(QueuedMessage {
        message: Outgoing {
            request: entry.request?,
            to: peer.map_or(To::Chat(entry.chat), To::Peer),
            envelope: message.envelope.unwrap_or_default(),
            body: message.body,
        },
        chat: entry.chat,
        created_at: entry.sent_at,
        state: SendState::Queued,
    })
}
