//! The only adapters from the wire.
//!
//! - [`link`]: the gateways' three streams
//! - [`node`]: calls from other nodes
//! - [`chats`], [`inbox`]: the public unary services, called through a gateway
//! - `parsed`: what their calls have in common; [`caller`]: in whose name a call acts; [`groups`]: making one; [`sends`]: a message;
//!   [`views`]: what callers see; [`read_marks`]: what owners know of them before the store does
//! - [`writes`]: commands to the shards, with one answer each
//! - [`admin`]: for operators' tools; [`message_trace`]: where one message is; [`cluster`]: the other nodes, asked
//! - [`message`]: what a device or back end wants to send, checked; [`message_receipts`]: who read one

pub mod admin;
pub mod caller;
pub mod chats;
pub mod cluster;
pub mod groups;
pub mod inbox;
pub mod link;
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

use crate::store::load::StoreError;

/// What a caller is told who has waited for the store for as long as one is kept waiting.
pub fn too_late() -> ApiError {
    crate::answer::to_error(&crate::state::Refusal::TOO_LATE)
}

/// What a caller is told when the store failed: to come again; the cause is for the log.
pub fn store_away(error: impl Into<StoreError>) -> ApiError {
    let error = error.into();
    tracing::warn!(%error, "cannot read from the store");
    match error {
        StoreError::Sql(_) => ApiError::unavailable("the store is away"),
        StoreError::Key(_) | StoreError::Unknown(..) => {
            ApiError::new(tern_proto::v1::ErrorReason::Internal, "the chat cannot be read")
        }
    }
}
