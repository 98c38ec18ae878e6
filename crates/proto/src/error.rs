//! The error of every API: a reason that programs act on, mapped to a gRPC status in one place.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::v1::ErrorReason;

/// Domain in `google.rpc.ErrorInfo`.
pub const DOMAIN: &str = "tern";

/// How long clients wait before trying again when nothing better is known.
pub const DEFAULT_RETRY: Duration = Duration::from_millis(500);

/// A failure of one call or stream, as its caller is told of it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    pub reason: ErrorReason,
    pub message: String,
    /// INVALID_FIELD: the field.
    pub field: Option<&'static str>,
    pub retry_after: Option<Duration>,
    /// Further metadata of ErrorInfo.
    pub metadata: Vec<(&'static str, String)>,
}

impl ApiError {
    pub fn new(reason: ErrorReason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            field: None,
            retry_after: None,
            metadata: Vec::new(),
        }
    }

    /// A field that the caller has to mend.
    pub fn invalid(field: &'static str, description: &str) -> Self {
        let message = format!("{field} {description}");
        Self {
            field: Some(field),
            ..Self::new(ErrorReason::InvalidField, message)
        }
    }

    /// Something that passes: the store is away, a node is moving.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self {
            retry_after: Some(DEFAULT_RETRY),
            ..Self::new(ErrorReason::Unavailable, message)
        }
    }

    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.metadata.push((key, value.into()));
        self
    }

    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// The gRPC status code that the reason stands for.
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
            | R::NotAccepted => Code::PermissionDenied,
            R::InvalidField | R::ProtocolError | R::MediaTicket => Code::InvalidArgument,
            R::ChatNotFound
            | R::UserNotFound
            | R::ActingUserNotFound
            | R::DeviceNotFound
            | R::MessageNotFound
            | R::MediaNotFound
            | R::UploadNotFound => Code::NotFound,
            R::UploadIncomplete | R::UploadMismatch => Code::FailedPrecondition,
            R::QuotaExceeded => Code::ResourceExhausted,
            R::RequestIdReused => Code::AlreadyExists,
            R::GroupFull | R::TooManyDevices | R::NotAGroup | R::LastOwner | R::ListFull => {
                Code::FailedPrecondition
            }
            R::TooLarge | R::RateLimited | R::StrangersLimited => Code::ResourceExhausted,
            R::SessionReplaced => Code::Aborted,
            R::Unavailable | R::Draining => Code::Unavailable,
            R::TimedOut => Code::DeadlineExceeded,
        }
    }
}

/// The name of a reason as ErrorInfo carries it.
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

/// The reason in a status, where there is one of ours.
pub fn reason_of(status: &Status) -> Option<ErrorReason> {
    let info = status.get_details_error_info()?;
    ErrorReason::from_str_name(&format!("ERROR_REASON_{}", info.reason))
}
