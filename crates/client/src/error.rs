//! The errors that the SDK returns to the app.

use rusqlite::ErrorCode;

pub use tern_client_core::CallError;

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
    #[error("local store: {0}")]
    Store(rusqlite::Error),
    #[error("another program has this device open")]
    InUse,
    #[error("local store: {0}")]
    Corrupt(&'static str),
    #[error("{0}")]
    Config(String),
    #[error(transparent)]
    Call(#[from] CallError),
    /// The message is over the limits of every server. Nothing of it was stored.
    #[error("{0}")]
    TooLarge(String),
    #[error("the outbox is full")]
    OutboxFull,
    #[error("the client has stopped")]
    Stopped,
}
