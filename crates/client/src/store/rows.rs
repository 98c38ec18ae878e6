//! Converts rows of SQLite to the client's values, and lists the columns that these rows need.

use bytes::Bytes;
use prost::{DecodeError, Message};
use rusqlite::Row;
use tern_proto::v1;
use tern_types::{ChatId, DeviceId, RequestId, Seq, Timestamp, UserId};
use uuid::Uuid;

use tern_client_core::engine::ChatRow;
use tern_client_core::model::{
    Chat, Entry, Outgoing, QueuedMessage, SendState, To, decoded, erased, vanished,
};

use super::gone::Gone;

/// The columns that [`entry`] reads, in its order, of [`super::contents::ENTRIES`].
pub(super) const ENTRY_COLUMNS: &str =
    "chat, seq, sent_at, sender, device, request, ordinal, bytes, kind, target, gone";
/// The number of columns that [`entry`] reads.
pub(super) const ENTRY_COLUMN_COUNT: usize = 11;
/// The columns that [`chat`] reads, in its order.
pub(super) const CHAT_COLUMNS: &str = "chat, kind, title, peer, member_count, role, head, active_at, read, unread, \
     is_left, cursor, known, confirmed_read, listed_head, listed_unread, own, description, policy, frozen, retention, \
     settings, settings_seq, join_requests, history_from, mentions, first_mention, listed_mentions, \
     listed_first_mention";
/// The columns that [`queued`] reads, in its order.
pub(super) const OUTBOX_COLUMNS: &str =
    "request, chat, peer, envelope, body, created_at, state, seq, sent_at, code, reason, retry_at";

/// The outbox's state of a message that has no result yet.
pub(super) const QUEUED: i64 = 0;
/// The outbox's state of a message that is in the log, but not in this device's copy of it.
pub(super) const SENT: i64 = 1;
/// The outbox's state of a message that the server has refused.
pub(super) const FAILED: i64 = 2;

pub(super) fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let bytes: Option<Vec<u8>> = row.get(7)?;
    let (content, unknown) = match bytes {
        Some(bytes) => decoded(bytes.into()).map_err(|error| undecodable(7, error))?,
        None => (erased_content(row)?, Bytes::new()),
    };
    Ok(Entry {
        chat: ChatId(id(row, 0)?),
        seq: seq(row, 1)?,
        sent_at: Timestamp(row.get(2)?),
        sender: optional_id(row, 3)?.map(UserId),
        device: optional_id(row, 4)?.map(DeviceId),
        request: optional_id(row, 5)?.map(RequestId),
        ordinal: seq(row, 6)?.0,
        content,
        unknown,
    })
}

/// Makes the content of an entry whose content was erased.
fn erased_content(row: &Row<'_>) -> rusqlite::Result<v1::EntryContent> {
    let kind = v1::MessageKind::try_from(row.get::<_, i32>(8)?).unwrap_or_default();
    let target = row.get::<_, Option<i64>>(9)?.map(Seq::from_i64);
    Ok(match Gone::from_code(row.get(10)?) {
        Some(Gone::Vanished | Gone::Hidden) => vanished(kind, target),
        Some(Gone::Deleted) | None => erased(kind, target),
    })
}

/// Returns the value of the column `kind`: the number of the entry's [`v1::MessageKind`], or 0 if it is no message.
pub(super) fn kind(entry: &Entry) -> i32 {
    entry.kind().unwrap_or_default().into()
}

pub(super) fn chat(row: &Row<'_>) -> rusqlite::Result<ChatRow> {
    let chat = Chat {
        id: ChatId(id(row, 0)?),
        kind: v1::ChatKind::try_from(row.get::<_, i32>(1)?).unwrap_or_default(),
        title: row.get(2)?,
        description: row.get(17)?,
        peer: optional_id(row, 3)?.map(UserId),
        member_count: row.get(4)?,
        role: v1::Role::try_from(row.get::<_, i32>(5)?).unwrap_or_default(),
        head: seq(row, 6)?,
        active_at: Timestamp(row.get(7)?),
        read: seq(row, 8)?,
        unread: row.get(9)?,
        left: row.get(10)?,
        policy: message(row, 18)?,
        frozen: row.get(19)?,
        retention: message(row, 20)?,
        settings: message(row, 21)?,
        join_request_count: row.get(23)?,
        history_from_seq: seq(row, 24)?,
        unread_mention_count: row.get(25)?,
        first_unread_mention_seq: Some(seq(row, 26)?).filter(|seq| *seq > Seq::ZERO),
    };
    Ok(ChatRow {
        chat,
        cursor: row.get::<_, Option<i64>>(11)?.map(Seq::from_i64),
        known: row.get(12)?,
        confirmed_read: seq(row, 13)?,
        listed_head: seq(row, 14)?,
        listed_unread: row.get(15)?,
        own: seq(row, 16)?,
        settings_seq: seq(row, 22)?,
        listed_mentions: row.get(27)?,
        listed_first_mention: seq(row, 28)?,
    })
}

pub(super) fn queued(row: &Row<'_>) -> rusqlite::Result<QueuedMessage> {
    let chat = ChatId(id(row, 1)?);
    let to = optional_id(row, 2)?.map_or(To::Chat(chat), |peer| To::Peer(UserId(peer)));
    let state = match row.get::<_, i64>(6)? {
        SENT => SendState::Sent {
            seq: seq(row, 7)?,
            sent_at: Timestamp(row.get(8)?),
        },
        FAILED => SendState::Failed {
            code: v1::SendErrorCode::try_from(row.get::<_, i32>(9)?).unwrap_or_default(),
            message: row.get(10)?,
            retry_at: row.get::<_, Option<i64>>(11)?.map(Timestamp),
        },
        _ => SendState::Queued,
    };
    Ok(QueuedMessage {
        message: Outgoing {
            request: RequestId(id(row, 0)?),
            to,
            envelope: message(row, 3)?,
            body: Bytes::from(row.get::<_, Vec<u8>>(4)?),
        },
        chat,
        created_at: Timestamp(row.get(5)?),
        state,
    })
}

pub(super) fn id(row: &Row<'_>, column: usize) -> rusqlite::Result<Uuid> {
    row.get::<_, [u8; 16]>(column).map(Uuid::from_bytes)
}

pub(super) fn optional_id(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Uuid>> {
    Ok(row.get::<_, Option<[u8; 16]>>(column)?.map(Uuid::from_bytes))
}

pub(super) fn seq(row: &Row<'_>, column: usize) -> rusqlite::Result<Seq> {
    row.get(column).map(Seq::from_i64)
}

fn message<M: Message + Default>(row: &Row<'_>, column: usize) -> rusqlite::Result<M> {
    let bytes: Vec<u8> = row.get(column)?;
    M::decode(bytes.as_slice()).map_err(|error| undecodable(column, error))
}

pub(super) fn undecodable(column: usize, error: DecodeError) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Blob, Box::new(error))
}
