//! The gRPC services, which are the only adapters from the wire.
//!
//! - [`gateway_link`]: the three streams of the gateways' links
//! - [`node`]: calls from other nodes
//! - [`chats`], [`inbox`]: the public unary services, called through a gateway
//! - `parsed`: what their requests have in common; [`caller`]: the user that a call acts as; [`groups`]: makes
//!   groups; [`sends`]: sends a message; [`views`]: what callers see; [`read_marks`]: what owners know of it before
//!   the store does
//! - [`writes`]: commands to the shards, with one answer each
//! - [`admin`]: the admin service; [`message_trace`]: where one message is; [`cluster`]: asks the other nodes
//! - [`message`]: checks what a device or back end wants to send; [`message_receipts`]: who received and read one

pub mod admin;
pub mod caller;
pub mod chats;
pub mod cluster;
pub mod gateway_link;
pub mod groups;
pub mod inbox;
pub mod message;
pub mod message_receipts;
pub mod message_trace;
pub mod node;
mod parsed;
pub mod read_marks;
pub mod sends;
pub mod views;
pub mod writes;

use tern_proto::ApiError;

use crate::store::ReadError;

/// The error of a call that has waited for the store for as long as a caller is kept waiting.
pub fn too_late() -> ApiError {
    crate::answer::to_error(&tern_chat_core::Refusal::TOO_LATE)
}

/// The error of a call for which the store failed: the caller should send it again. The cause is logged here.
pub fn store_away(error: impl Into<ReadError>) -> ApiError {
    let error = error.into();
    tracing::warn!(%error, "cannot read from the store");
    match error {
        ReadError::Sql(_) => ApiError::unavailable("the store is away"),
        ReadError::Key(_) | ReadError::Unknown(..) => {
            ApiError::new(tern_proto::v1::ErrorReason::Internal, "the chat cannot be read")
        }
    }
}
