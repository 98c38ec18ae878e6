//! Defines the error of every API: a reason that programs act on, and the gRPC status code that belongs to it.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::v1::ErrorReason;

/// The domain in `google.rpc.ErrorInfo`.
pub(crate) const DOMAIN: &str = "tern";

/// The time that clients wait before they retry, if nothing better is known.
pub const DEFAULT_RETRY: Duration = Duration::from_millis(500);

/// A failure of a call or stream, in the form in which the caller is told of it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The reason, for programs.
    pub reason: ErrorReason,
    /// The explanation, for people.
    pub message: String,
    /// The name of the wrong field, for INVALID_FIELD; otherwise `None`.
    pub field: Option<&'static str>,
    /// The time that the caller should wait before it retries, or `None` if a retry would not help or no time is known.
    pub retry_after: Option<Duration>,
    /// Additional metadata of ErrorInfo.
    pub metadata: Vec<(&'static str, String)>,
}

impl ApiError {
    /// Makes an error with a reason for programs and a message for people.
    pub fn new(reason: ErrorReason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            field: None,
            retry_after: None,
            metadata: Vec::new(),
        }
    }

    /// Makes an INVALID_FIELD error: the caller has to correct this field. The message is the field's name and the
    /// description, such as "title must be one line".
    pub fn invalid(field: &'static str, description: &str) -> Self {
        let message = format!("{field} {description}");
        Self {
            field: Some(field),
            ..Self::new(ErrorReason::InvalidField, message)
        }
    }

    /// Makes an UNAVAILABLE error for a temporary failure, such as a store that is away or a node that is moving. It
    /// asks the caller to retry after [`DEFAULT_RETRY`].
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self {
            retry_after: Some(DEFAULT_RETRY),
            ..Self::new(ErrorReason::Unavailable, message)
        }
    }

    /// Adds an entry to the metadata of ErrorInfo.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.metadata.push((key, value.into()));
        self
    }

    /// Sets how long the caller should wait before it retries.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// Returns the gRPC status code that belongs to the reason.
    pub fn code(&self) -> Code {
        use ErrorReason as R;
        match self.reason {
            R::Unspecified | R::Internal => Code::Internal,
            R::CredentialsMissing
            | R::TokenInvalid
            | R::TokenExpired
            | R::DeviceRevoked
            | R::ApiKeyInvalid
            | R::RefreshTokenInvalid
            | R::RefreshTokenReused
            | R::UserSuspended => Code::Unauthenticated,
            R::ScopeMissing
            | R::NotForDevices
            | R::DevicesOnly
            | R::RoleTooLow
            | R::NotTheSender
            | R::NotAllowed
            | R::NotAccepted
            | R::ChatFrozen => Code::PermissionDenied,
            R::InvalidField | R::ProtocolError | R::MediaTicket => Code::InvalidArgument,
            R::ChatNotFound
            | R::UserNotFound
            | R::ActingUserNotFound
            | R::DeviceNotFound
            | R::MessageNotFound
            | R::TargetNotFound
            | R::MediaNotFound
            | R::InviteNotFound
            | R::UploadNotFound => Code::NotFound,
            R::UploadIncomplete | R::UploadMismatch => Code::FailedPrecondition,
            R::QuotaExceeded => Code::ResourceExhausted,
            R::RequestIdReused => Code::AlreadyExists,
            R::GroupFull
            | R::TooManyDevices
            | R::NotAGroup
            | R::LastOwner
            | R::ListFull
            | R::TooLate
            | R::TooManyActs => Code::FailedPrecondition,
            R::TooLarge | R::RateLimited | R::StrangersLimited | R::SlowMode => Code::ResourceExhausted,
            R::SessionReplaced => Code::Aborted,
            R::MethodUnknown => Code::Unimplemented,
            R::Unavailable | R::Draining => Code::Unavailable,
            R::TimedOut => Code::DeadlineExceeded,
        }
    }
}

/// Returns the name of a reason in ErrorInfo, such as `TOKEN_EXPIRED`.
pub fn reason_name(reason: ErrorReason) -> &'static str {
    reason.as_str_name().trim_start_matches("ERROR_REASON_")
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        let metadata = error
            .metadata
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.clone()));
        let mut details = ErrorDetails::with_error_info(
            reason_name(error.reason),
            DOMAIN,
            metadata.collect::<std::collections::HashMap<_, _>>(),
        );
        if let Some(field) = error.field {
            details.add_bad_request_violation(field, &error.message);
        }
        if error.retry_after.is_some() {
            details.set_retry_info(error.retry_after);
        }
        Status::with_error_details(error.code(), error.message, details)
    }
}

/// Reads from a status how long to wait before the call is made again. Returns `None` if it does not say.
pub fn retry_after_of(status: &Status) -> Option<Duration> {
    status.get_details_retry_info().and_then(|info| info.retry_delay)
}

/// Returns whether a status has a reason, which may be one that only newer versions know.
pub fn has_reason(status: &Status) -> bool {
    status.get_details_error_info().is_some()
}

/// Reads the reason from a status. Returns `None` if the status has no reason that this version knows.
pub fn reason_of(status: &Status) -> Option<ErrorReason> {
    let info = status.get_details_error_info()?;
    ErrorReason::from_str_name(&format!("ERROR_REASON_{}", info.reason))
}
