//! [`CallError`] is the failure of a call or of a stream, as the engine is told of it.

use std::time::Duration;

use tern_proto::error::{reason_of, retry_after_of};
use tern_proto::v1::ErrorReason;
use tern_proto::{Code, Status};

/// The failure of a unary call or of a stream.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message} ({code:?}, {reason:?})")]
pub struct CallError {
    /// The gRPC status code.
    pub code: Code,
    /// The reason that the server gave. UNSPECIFIED: the server gave none, or the failure does not come from it (there
    /// was no connection, a proxy answered …).
    pub reason: ErrorReason,
    /// The explanation, for a developer to read.
    pub message: String,
    /// The time that the server asks to wait before the next attempt.
    pub retry_after: Option<Duration>,
}

impl CallError {
    /// Makes an UNAVAILABLE that the client itself found, without a reason.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self {
            code: Code::Unavailable,
            reason: ErrorReason::Unspecified,
            message: message.into(),
            retry_after: None,
        }
    }

    /// Returns whether the same call may succeed later.
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
        // A broken connection shows as UNKNOWN or CANCELLED with a transport error as its source.
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
