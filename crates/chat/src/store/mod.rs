//! Postgres, statement by statement. Everything that writes `inbox` locks the chat's `chat_heads` row first, in
//! ascending order of chat_id, and reads in a further statement: after waiting for a lock, only a new statement
//! sees what the other transaction did.
//!
//! - [`commit`]: entries and changes of members, by compare-and-set of the head
//! - [`heads`]: the locks of chats; [`by_chat`]: work that can leave out those that somebody holds
//! - [`settle`], [`ack`]: the inbox
//! - [`load`]: a chat in one snapshot; making a group
//! - [`direct`]: making direct chats; [`joining`]: who may be added to a group; [`strangers`]: how many one meets
//! - [`entries`]: windows for devices, history for people
//! - [`listing`]: chats as their members see them
//! - [`devices`]: a device joins or leaves its user's chats
//! - [`written`]: who has written to whom
//! - [`inspect`]: what operators ask
//! - [`seal`]: bodies at rest

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

/// Whether the statement failed for what was in it; otherwise the store, the connection or a lock is to blame, and the
/// same may succeed later.
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

/// Whether the store itself is out of reach, or going down or coming up; not this one statement.
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

/// A lock was waited for as long as the connection's `lock_timeout` says: somebody else holds it.
pub fn is_held(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else {
        return false;
    };
    error.code().is_some_and(|code| code == "55P03")
}

/// Deadlock or serialisation failure: the same statement again.
pub fn is_conflict(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else {
        return false;
    };
    error
        .code()
        .is_some_and(|code| code == "40P01" || code == "40001")
}

/// Milliseconds since the epoch from a timestamptz, in SQL.
macro_rules! millis {
    ($column:literal) => {
        concat!("(extract(epoch FROM ", $column, ") * 1000)::int8")
    };
}
pub(crate) use millis;
