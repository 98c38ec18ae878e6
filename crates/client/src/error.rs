//! The errors that the SDK returns to the app.

use rusqlite::ErrorCode;

pub use tern_client_core::CallError;

use crate::notification_key::OpenError;

impl From<rusqlite::Error> for ClientError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::InUse,
            _ => Self::Store(error),
        }
    }
}

/// A failure of the SDK's own calls.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// SQLite failed.
    #[error("local store: {0}")]
    Store(rusqlite::Error),
    /// Another client has the store open.
    #[error("another program has this device open")]
    InUse,
    /// The store cannot be used, for the reason named here: it is damaged, a newer version made it, or the thread that
    /// worked on it panicked.
    #[error("local store: {0}")]
    Corrupt(&'static str),
    /// A setting is invalid or missing, or the store cannot be made where it says.
    #[error("{0}")]
    Config(String),
    /// A unary call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The message is over the limits of every server. Nothing of it was stored.
    #[error("{0}")]
    TooLarge(String),
    /// The outbox has no room for the message. Nothing of it was stored.
    #[error("the outbox is full")]
    OutboxFull,
    /// This device does not have the message, or the message was deleted.
    #[error("there is no such message on this device")]
    NoSuchMessage,
    /// A notification cannot be opened.
    #[error(transparent)]
    Notification(#[from] OpenError),
    /// The client has ended.
    #[error("the client has stopped")]
    Stopped,
}
