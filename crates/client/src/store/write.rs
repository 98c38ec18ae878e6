//! Carries the engine's changes out in SQL.

use prost::Message;
use rusqlite::{Connection, params};
use tern_types::{RequestId, Seq, Timestamp, UserId};

use tern_client_core::engine::{Change, ChatRow};
use tern_client_core::model::{Credentials, Entry, FailureCode, QueuedMessage, SendState, StoreEpoch};

use super::rows::{self, FAILED, QUEUED, SENT};
use super::{Store, entries, erase, search};
use crate::error::ClientError;
use crate::search_text::SearchText;

/// The largest number of own messages that are sent again after the server's store was restored. Sending them takes
/// about a minute.
const MAX_RECENT: i64 = 1000;

type Result<T = (), E = ClientError> = std::result::Result<T, E>;

/// The circumstances in which changes are carried out.
pub(super) struct Manner<'a> {
    /// True if entries are stored.
    pub(super) keep_history: bool,
    /// The texts by which messages are found.
    pub(super) search: &'a SearchText,
    /// The device's person. `None`: the store does not know them yet.
    pub(super) me: Option<UserId>,
}

/// Carries out one change.
pub(super) fn change(db: &Connection, change: &Change, manner: &Manner<'_>) -> Result {
    match change {
        Change::Entry(entry) if manner.keep_history => {
            dequeue(db, entry)?;
            entries::put(db, entry, manner.me)?;
            search::stored(db, manner.search, entry)
        }
        // An earlier start may have kept history.
        Change::Entry(entry) => {
            dequeue(db, entry)?;
            erase::applied(db, entry)
        }
        Change::Chat(row) => put_chat(db, row),
        Change::Queue(message) => {
            discard(db, message.message.request)?;
            put_queued(db, message)
        }
        Change::Sent {
            request,
            chat,
            seq,
            sent_at,
        } => run(
            db,
            "UPDATE outbox SET state = ?1, chat = ?2, seq = ?3, sent_at = ?4 WHERE request = ?5",
            params![SENT, chat.as_bytes(), seq.to_i64(), sent_at.0, request.as_bytes()],
        ),
        Change::Failed {
            request,
            code,
            message,
            retry_at,
        } => fail(db, *request, *code, message, *retry_at),
        Change::Unqueue(request) => discard(db, *request),
        Change::Receipt { chat, user, mark } => run(
            db,
            "INSERT OR REPLACE INTO receipts (chat, user, delivered, read) VALUES (?1, ?2, ?3, ?4)",
            params![
                chat.as_bytes(),
                user.as_bytes(),
                mark.delivered.to_i64(),
                mark.read.to_i64()
            ],
        ),
        Change::NoReceipt { chat, user } => run(
            db,
            "DELETE FROM receipts WHERE chat = ?1 AND user = ?2",
            params![chat.as_bytes(), user.as_bytes()],
        ),
        Change::Hide { chat, seqs } => seqs.iter().try_for_each(|seq| {
            erase::hide(db, *chat, *seq)?;
            search::index(db, manner.search, *chat, *seq)
        }),
        Change::Credentials(credentials) => put_credentials(db, credentials),
        Change::Epoch(epoch) => put_meta(db, "epoch", epoch.as_bytes()),
        Change::Listed => put_meta(db, "listed", &[1]),
        Change::Reset { epoch, since } => {
            reset(db, *epoch, *since)?;
            search::clear(db, manner.search)
        }
    }
}

impl Store {
    /// Stores the identity and tokens of this device.
    pub fn put_credentials(&mut self, credentials: &Credentials) -> Result {
        self.commit(&[Change::Credentials(credentials.clone())])
    }

    /// Stores display names.
    pub fn put_names(&mut self, names: &[(UserId, String)]) -> Result {
        let transaction = self.connection.transaction()?;
        for (user, name) in names {
            let put = "INSERT OR REPLACE INTO names (user, name) VALUES (?1, ?2)";
            run(&transaction, put, params![user.as_bytes(), name])?;
        }
        Ok(transaction.commit()?)
    }
}

fn run(db: &Connection, sql: &str, params: impl rusqlite::Params) -> Result {
    db.prepare_cached(sql)?.execute(params)?;
    Ok(())
}

pub(super) fn put_meta(db: &Connection, key: &str, value: &[u8]) -> Result {
    run(
        db,
        "INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)",
        params![key, value],
    )
}

fn put_credentials(db: &Connection, credentials: &Credentials) -> Result {
    put_meta(db, "user", credentials.user.as_bytes())?;
    put_meta(db, "device", credentials.device.as_bytes())?;
    put_meta(db, "access_token", credentials.access_token.as_bytes())?;
    put_meta(
        db,
        "access_expires_at",
        &credentials.access_expires_at.0.to_be_bytes(),
    )?;
    put_meta(db, "refresh_token", credentials.refresh_token.as_bytes())
}

/// Deletes this device's message from the outbox if the entry is the one that it became.
fn dequeue(db: &Connection, entry: &Entry) -> Result {
    let Some(request) = entry.request else {
        return Ok(());
    };
    let applied = "DELETE FROM outbox WHERE request = ?1 AND state <> ?2 \
         AND ?3 = (SELECT value FROM meta WHERE key = 'device')";
    run(
        db,
        applied,
        params![request.as_bytes(), FAILED, entry.device.map(|id| *id.as_bytes())],
    )
}

fn put_chat(db: &Connection, row: &ChatRow) -> Result {
    let chat = &row.chat;
    run(
        db,
        &format!(
            "INSERT OR REPLACE INTO chats ({}) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, \
             ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29)",
            rows::CHAT_COLUMNS
        ),
        params![
            chat.id.as_bytes(),
            i32::from(chat.kind),
            chat.title,
            chat.peer.map(|id| *id.as_bytes()),
            chat.member_count,
            i32::from(chat.role),
            chat.head.to_i64(),
            chat.active_at.0,
            chat.read.to_i64(),
            chat.unread,
            chat.left,
            row.cursor.map(Seq::to_i64),
            row.known,
            row.confirmed_read.to_i64(),
            row.listed_head.to_i64(),
            row.listed_unread,
            row.own.to_i64(),
            chat.description,
            chat.policy.encode_to_vec(),
            chat.frozen,
            chat.retention.encode_to_vec(),
            chat.settings.encode_to_vec(),
            row.settings_seq.to_i64(),
            chat.join_request_count,
            chat.history_from_seq.to_i64(),
            chat.unread_mention_count,
            chat.first_unread_mention_seq.unwrap_or_default().to_i64(),
            row.listed_mentions,
            row.listed_first_mention.to_i64(),
        ],
    )
}

/// Notes that a message was refused for good. What was to be done to a message that was deleted is not kept.
fn fail(
    db: &Connection,
    request: RequestId,
    code: FailureCode,
    message: &str,
    retry_at: Option<Timestamp>,
) -> Result {
    let failed = "UPDATE outbox SET state = ?1, code = ?2, reason = ?3, retry_at = ?4 WHERE request = ?5";
    let retry_at = retry_at.map(|at| at.0);
    run(
        db,
        failed,
        params![FAILED, i32::from(code), message, retry_at, request.as_bytes()],
    )?;
    erase::refused(db, request)
}

/// Deletes a message from the outbox if it was refused.
fn discard(db: &Connection, request: RequestId) -> Result {
    let discard = "DELETE FROM outbox WHERE request = ?1 AND state = ?2";
    run(db, discard, params![request.as_bytes(), FAILED])
}

/// Adds a message to the end of the outbox, unless one with its request_id is there.
fn put_queued(db: &Connection, queued: &QueuedMessage) -> Result {
    let message = &queued.message;
    let peer = match message.to {
        tern_client_core::model::To::Peer(peer) => Some(*peer.as_bytes()),
        tern_client_core::model::To::Chat(_) => None,
    };
    let (state, code, reason, retry_at) = match &queued.state {
        SendState::Failed {
            code,
            message,
            retry_at,
        } => (
            FAILED,
            Some(i32::from(*code)),
            Some(message),
            retry_at.map(|at| at.0),
        ),
        _ => (QUEUED, None, None, None),
    };
    run(
        db,
        "INSERT OR IGNORE INTO outbox \
         (request, chat, peer, envelope, body, created_at, state, code, reason, retry_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        params![
            message.request.as_bytes(),
            queued.chat.as_bytes(),
            peer,
            message.envelope.encode_to_vec(),
            message.body.as_ref(),
            queued.created_at.0,
            state,
            code,
            reason,
            retry_at,
        ],
    )
}

/// Deletes everything that came from the server's former store. Own messages since `since`, which the restored store
/// may lack, go into the outbox again, before those that wait there, with their old request_ids. What was to be done to
/// an earlier message has failed, because its seq may stand for another message in the restored store.
fn reset(db: &Connection, epoch: StoreEpoch, since: Timestamp) -> Result {
    let waiting = super::read::outbox(db)?;
    let recent = super::read::own_recent(db, since, MAX_RECENT)?;
    for table in [
        "outbox", "entries", "contents", "hidden", "lost", "chats", "receipts",
    ] {
        db.execute(&format!("DELETE FROM {table}"), [])?;
    }
    for queued in recent.into_iter().chain(waiting) {
        put_queued(db, &without_target(queued))?;
    }
    run(db, "DELETE FROM meta WHERE key = 'listed'", [])?;
    put_meta(db, "epoch", epoch.as_bytes())
}

/// Returns the message as it is to wait for another store of the server. If it is about an earlier message, it has
/// failed.
fn without_target(queued: QueuedMessage) -> QueuedMessage {
    let failed = matches!(queued.state, SendState::Failed { .. });
    if failed || queued.message.act().target().is_none() {
        return queued;
    }
    let state = SendState::Failed {
        code: FailureCode::TargetNotFound,
        message: "the server's store was replaced".to_owned(),
        retry_at: None,
    };
    QueuedMessage { state, ..queued }
}
