//! The store in Postgres, statement by statement.
//!
//! Everything that writes `inbox` locks the chat's `chat_heads` row first, in ascending order of chat_id, and reads
//! in a further statement: after waiting for a lock, only a new statement sees what the other transaction did.
//!
//! - [`commit`]: commits entries and changes of groups, by a compare-and-set of the head
//! - [`heads`]: locks chats; [`by_chat`]: work that can leave out locked chats
//! - [`settle`], [`ack`]: write the inbox
//! - [`load`]: loads a chat in one snapshot, and makes groups
//! - [`direct`]: makes direct chats; [`joining`]: who may be added to a group; [`strangers`]: how many new strangers
//!   a person may meet
//! - [`entries`]: windows for devices, history for people
//! - [`listing`]: chats as their members see them
//! - [`devices`]: links a device to its user's chats, or revokes it
//! - [`written`]: who has written to whom
//! - [`inspect`]: the questions of operators
//! - [`seal`]: encrypts bodies at rest

pub mod ack;
pub mod by_chat;
pub mod commit;
pub mod devices;
pub mod direct;
pub mod entries;
pub mod heads;
pub mod inspect;
pub mod joining;
pub mod listing;
pub mod load;
pub mod seal;
pub mod settle;
pub mod strangers;
pub mod written;

use sqlx::error::ErrorKind;
use tern_types::ChatId;

/// Why something could not be read from the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    #[error("chat {0}: its key does not open with this master key")]
    Key(ChatId),
    #[error("chat {0}: the store has {1}, which this version does not know")]
    Unknown(ChatId, &'static str),
}

/// Whether the statement failed because of its content. Otherwise the cause is the store, the connection or a lock,
/// and the same statement may succeed later.
pub fn is_refusal(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else {
        return matches!(error, sqlx::Error::Encode(_));
    };
    let constraint = !matches!(error.kind(), ErrorKind::Other);
    // Class 22: data exception; class 23: constraint; class 54: a program limit.
    let class = error
        .code()
        .is_some_and(|code| ["22", "23", "54"].iter().any(|class| code.starts_with(class)));
    constraint || class
}

/// Whether the store itself is out of reach, shutting down or starting, and not only this statement failed.
pub fn is_away(error: &sqlx::Error) -> bool {
    match error {
        // Class 08: connection; class 53: out of resources; 57P: shut down, crashed, starting.
        sqlx::Error::Database(error) => error
            .code()
            .is_some_and(|code| ["08", "53", "57P"].iter().any(|class| code.starts_with(class))),
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) => true,
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => true,
        _ => false,
    }
}

/// Whether the statement waited for a lock for as long as the connection's `lock_timeout` says, because another
/// transaction holds it.
pub fn is_held(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else {
        return false;
    };
    error.code().is_some_and(|code| code == "55P03")
}

/// Whether a deadlock or a serialisation failure ended the statement, so that it should be run again.
pub fn is_conflict(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else {
        return false;
    };
    error
        .code()
        .is_some_and(|code| code == "40P01" || code == "40001")
}

/// The SQL for a timestamptz as milliseconds since the Unix epoch.
macro_rules! millis {
    ($column:literal) => {
        concat!("(extract(epoch FROM ", $column, ") * 1000)::int8")
    };
}
pub(crate) use millis;
