//! Has the statements for Postgres, and a function for each.
//!
//! Every transaction that writes `inbox` first locks the chats' `chat_heads` rows, in ascending order of cell and
//! chat_id, and reads in a further statement: after waiting for a lock, only a new statement sees what the other
//! transaction did.
//!
//! A function fails if its statement fails; [`tern_store::error`] decides what that means for the caller. A function
//! that opens keys or bodies, or that reads stored numbers such as roles, fails with a [`ReadError`].
//!
//! - [`commit`]: commits entries, by a compare-and-set of the head; [`change`]: commits an entry together with what it
//!   changes
//! - [`heads`]: locks the heads of chats; [`by_chat`]: does work on many chats, and can leave out locked ones
//! - [`acts`]: reads how much people have done to messages; [`erasing`]: erases what was done to those that are deleted
//! - [`settle`], [`ack`], [`withdraw`]: write the inbox
//! - [`load`]: loads a chat in one snapshot; [`last_messages`]: reads what slow mode depends on
//! - [`direct`], [`group`]: make direct chats and groups; [`joining`]: decides who may be added to a group, and adds
//!   them; [`strangers`]: limits how many new strangers a person may meet
//! - [`doors`]: reads a group as those meet it who come from outside; [`invites`]: makes and uses invite links;
//!   [`join_requests`]: keeps who asks to join
//! - [`entries`]: reads windows of logs for devices, and history for people; [`readable`]: says which parts of a log
//!   these may read; [`history`]: reads messages as they are now; [`timeline`]: reads those of all chats of a user
//! - [`listing`]: reads chats as their members see them; [`lists`]: lists those of a user, with what is pinned first;
//!   [`inboxes`]: reads what waits for devices
//! - [`devices`]: links a device to its user's chats, or revokes it
//! - [`own`]: makes users' own logs, and reads what they say of chats
//! - [`people`]: reads and locks users, devices, blocks and contacts; [`written`]: finds out who has written to whom
//! - [`inspect`]: answers the questions of operators
//! - [`retention`]: reads how long chats keep messages; [`trim`]: erases what is not kept
//! - [`seal`]: encrypts bodies at rest

pub mod ack;
pub mod acts;
pub mod by_chat;
pub mod change;
pub mod commit;
pub mod devices;
pub mod direct;
pub mod doors;
pub mod entries;
pub mod erasing;
pub mod group;
pub mod heads;
pub mod history;
pub mod inboxes;
pub mod inspect;
pub mod invites;
pub mod join_requests;
pub mod joining;
pub mod last_messages;
pub mod listing;
pub mod lists;
pub mod load;
pub mod own;
pub mod people;
mod policy;
pub mod readable;
pub mod retention;
pub mod seal;
pub mod settle;
pub mod strangers;
mod targets;
pub mod timeline;
pub mod trim;
pub mod withdraw;
pub mod written;

use tern_store::StoreError;
use tern_types::ChatId;

/// The reason why something could not be read from the store.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The statement failed.
    #[error("{0}: {cause}", cause = of_statement(.0))]
    Store(#[from] StoreError),
    /// The chat's data key does not open with this master key, or a body does not open with the data key.
    #[error("chat {0}: its key does not open with this master key")]
    Key(ChatId),
    /// The store has a value of this chat that this version does not know, for example a role.
    #[error("chat {0}: the store has {1}, which this version does not know")]
    Unknown(ChatId, &'static str),
}

impl From<sqlx::Error> for ReadError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Returns the error of the statement, for logs.
fn of_statement(error: &StoreError) -> &sqlx::Error {
    match error {
        StoreError::Away(cause) | StoreError::Fault(cause) => cause,
    }
}
