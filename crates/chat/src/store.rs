//! The store in Postgres, statement by statement.
//!
//! Everything that writes `inbox` locks the chat's `chat_heads` row first, in ascending order of chat_id, and reads
//! in a further statement: after waiting for a lock, only a new statement sees what the other transaction did.
//!
//! - [`commit`]: commits entries, by a compare-and-set of the head; [`change`]: an entry together with what it changes
//! - [`heads`]: locks chats; [`by_chat`]: work that can leave out locked chats
//! - [`settle`], [`ack`]: write the inbox
//! - [`load`]: loads a chat in one snapshot
//! - [`direct`], [`group`]: make direct chats and groups; [`joining`]: who may be added, and adds them; [`strangers`]: how many new strangers
//!   a person may meet
//! - [`entries`]: windows for devices, history for people
//! - [`listing`]: chats as their members see them
//! - [`devices`]: links a device to its user's chats, or revokes it
//! - [`written`]: who has written to whom
//! - [`inspect`]: the questions of operators
//! - [`seal`]: encrypts bodies at rest

pub mod ack;
pub mod by_chat;
pub mod change;
pub mod commit;
pub mod devices;
pub mod direct;
pub mod entries;
pub mod group;
pub mod heads;
pub mod inspect;
pub mod joining;
pub mod listing;
pub mod load;
pub mod seal;
pub mod settle;
pub mod strangers;
pub mod written;

use tern_types::ChatId;

/// Why something could not be read from the store.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    #[error("chat {0}: its key does not open with this master key")]
    Key(ChatId),
    #[error("chat {0}: the store has {1}, which this version does not know")]
    Unknown(ChatId, &'static str),
}
