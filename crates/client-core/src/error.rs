//! The failure of a call or a stream, as the engine is told of it.

use std::time::Duration;

use tern_proto::error::{reason_of, retry_after_of};
use tern_proto::v1::ErrorReason;
use tern_proto::{Code, Status};

/// The failure of a unary call or of a stream.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message} ({code:?}, {reason:?})")]
pub struct CallError {
    pub code: Code,
    /// UNSPECIFIED: the failure does not come from the server (no connection, a proxy …).
    pub reason: ErrorReason,
    /// For a developer to read.
    pub message: String,
    /// The server asks not to try again before this time has passed.
    pub retry_after: Option<Duration>,
}

impl CallError {
    /// An UNAVAILABLE that the client itself found.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self {
            code: Code::Unavailable,
            reason: ErrorReason::Unspecified,
            message: message.into(),
            retry_after: None,
        }
    }

    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(
            self.code,
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled
        ) || (self.code == Code::ResourceExhausted && self.reason == ErrorReason::RateLimited)
    }
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        let reason = reason_of(&status).unwrap_or_default();
        // A broken connection surfaces as UNKNOWN or CANCELLED with a transport error behind it.
        let transport = reason == ErrorReason::Unspecified && std::error::Error::source(&status).is_some();
        let code = if transport && status.code() == Code::Unknown {
            Code::Unavailable
        } else {
            status.code()
        };
        Self {
            code,
            reason,
            message: status.message().to_owned(),
            retry_after: retry_after_of(&status),
        }
    }
}
