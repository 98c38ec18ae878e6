//! Makes the statuses that clients are told of unary calls that went wrong on their way to a node and back.

use std::error::Error;

use bytes::Bytes;
use tern_proto::ApiError;
use tern_proto::error::has_reason;
use tern_proto::v1::ErrorReason;
use tern_types::limits::MAX_REQUEST_BYTES;
use tonic::{Code, Status};

/// The start of the message of tonic's INTERNAL status if a node cannot decode the request, which is the caller's
/// fault.
const UNDECODABLE: &str = "failed to decode Protobuf message";

/// Returns the status that a client is told if a node's call failed: code, message and details of the node's status,
/// without its metadata. It is UNAVAILABLE with RetryInfo if the node did not answer, INVALID_ARGUMENT if the node
/// could not decode the request, and RESOURCE_EXHAUSTED if a message was over its limit. A status without a reason
/// comes from something between the nodes or from a library at the node, and becomes UNAVAILABLE or INTERNAL.
pub fn told(status: Status) -> Status {
    if status.source().is_some() {
        tracing::info!(code = ?status.code(), message = status.message(), "a node did not answer");
        return ApiError::unavailable("the node did not answer").into();
    }
    match status.code() {
        Code::Internal if status.message().starts_with(UNDECODABLE) => malformed(),
        // This is the status of a decoder, here or at the node, for a message that is over its limit.
        Code::OutOfRange => too_large(),
        code if has_reason(&status) => {
            Status::with_details(code, status.message(), Bytes::copy_from_slice(status.details()))
        }
        Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded => {
            ApiError::unavailable("the node did not answer").into()
        }
        code => {
            tracing::warn!(
                ?code,
                message = status.message(),
                "a node answered without a reason"
            );
            ApiError::new(ErrorReason::Internal, "the node answered without a reason").into()
        }
    }
}

/// Returns the status for a method that this gateway, or the node that was asked, does not have.
pub fn unknown_method() -> Status {
    ApiError::new(ErrorReason::MethodUnknown, "this server has no such method").into()
}

/// Returns the status that a client is told if its request cannot be read.
pub fn unreadable(status: Status) -> Status {
    match status.code() {
        Code::OutOfRange => too_large(),
        // This is tonic's status for a frame that is cut off, or for something that is no frame.
        Code::Internal => malformed(),
        _ => status,
    }
}

fn too_large() -> Status {
    let message = format!("a request has at most {MAX_REQUEST_BYTES} bytes");
    ApiError::new(ErrorReason::TooLarge, message).into()
}

/// Returns the status for a request that is not an encoded message of the method.
pub fn malformed() -> Status {
    ApiError::new(
        ErrorReason::ProtocolError,
        "the request is not the method's message",
    )
    .into()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tern_proto::error::reason_of;
    use tonic_types::{ErrorDetails, StatusExt as _};

    use super::*;

    #[test]
    fn whatever_a_node_answers_the_client_is_told_a_reason() {
        use ErrorReason as R;
        let undecodable = format!("{UNDECODABLE}: invalid wire type");
        let cases = [
            (
                Status::internal(undecodable),
                Code::InvalidArgument,
                R::ProtocolError,
            ),
            (
                Status::out_of_range("too large"),
                Code::ResourceExhausted,
                R::TooLarge,
            ),
            (
                Status::unavailable("no grpc-status"),
                Code::Unavailable,
                R::Unavailable,
            ),
            (
                Status::cancelled("it took too long"),
                Code::Unavailable,
                R::Unavailable,
            ),
            (
                Status::deadline_exceeded("it took too long"),
                Code::Unavailable,
                R::Unavailable,
            ),
            (Status::unknown("?"), Code::Internal, R::Internal),
            (Status::invalid_argument("an id"), Code::Internal, R::Internal),
            (
                ApiError::new(R::ChatNotFound, "no such chat").into(),
                Code::NotFound,
                R::ChatNotFound,
            ),
        ];
        for (status, code, reason) in cases {
            let told = told(status.clone());
            assert_eq!(
                (told.code(), reason_of(&told)),
                (code, Some(reason)),
                "{status:?}"
            );
        }
    }

    #[test]
    fn a_reason_of_a_newer_node_is_passed_on() {
        let details =
            ErrorDetails::with_error_info("OF_THE_FUTURE", "tern", HashMap::<String, String>::new());
        let status = Status::with_error_details(Code::Aborted, "not yet", details);
        let told = told(status.clone());
        assert_eq!(
            (told.code(), told.message(), told.details()),
            (status.code(), status.message(), status.details())
        );
    }
}
