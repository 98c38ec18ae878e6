//! Makes the statuses that clients are told of unary calls that went wrong on their way to a node and back.

use std::error::Error;

use bytes::Bytes;
use tern_proto::ApiError;
use tern_proto::v1::ErrorReason;
use tern_types::limits::MAX_REQUEST_BYTES;
use tonic::{Code, Status};

/// The start of the message of tonic's INTERNAL status if a node cannot decode the request, which is the caller's
/// fault.
const UNDECODABLE: &str = "failed to decode Protobuf message";

/// Returns the status that a client is told if a node's call failed: code, message and details of the node's status,
/// without its metadata. It is UNAVAILABLE with RetryInfo if the node did not answer, INVALID_ARGUMENT if the node
/// could not decode the request, and RESOURCE_EXHAUSTED if a message was over its limit.
pub fn told(status: Status) -> Status {
    if status.source().is_some() {
        tracing::info!(code = ?status.code(), message = status.message(), "a node did not answer");
        return ApiError::unavailable("the node did not answer").into();
    }
    if status.code() == Code::Internal && status.message().starts_with(UNDECODABLE) {
        return malformed();
    }
    // This is the status of a decoder, here or at the node, for a message that is over its limit.
    if status.code() == Code::OutOfRange {
        return too_large();
    }
    Status::with_details(
        status.code(),
        status.message(),
        Bytes::copy_from_slice(status.details()),
    )
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
