//! The gRPC services, which are the only adapters from the wire.
//!
//! - [`gateway_link`]: serves the three streams of the gateways' links
//! - [`node`]: serves the calls from other nodes
//! - [`chats`], [`groups_service`], [`inbox`]: serve the public unary calls, which come through a gateway
//! - `parsed`, `policy`: parse the fields that their requests have in common, and a group's policy; [`caller`]: finds the user that a call acts as;
//!   [`groups`]: makes groups; [`sends`]: sends a message; [`views`]: converts chats for their readers; [`read_marks`]:
//!   asks owners for read marks that the store does not have yet
//! - [`invites`]: handles the calls about invite links and requests to join
//! - [`own_log`]: changes users' own logs, and makes them
//! - [`writes`]: sends commands to the shards, each of which gets one answer
//! - [`admin`]: serves the admin calls; [`message_trace`]: shows where one message is; [`cluster`]: asks the other
//!   nodes
//! - [`message`]: makes an entry of a message that a device or back end sends; [`message_receipts`]: counts and lists
//!   who received and read one

pub mod admin;
pub mod caller;
pub mod chats;
pub mod cluster;
pub mod gateway_link;
pub mod groups;
pub mod groups_service;
pub mod inbox;
pub mod invites;
pub mod message;
pub mod message_receipts;
pub mod message_trace;
pub mod node;
pub mod own_log;
mod parsed;
mod policy;
pub mod read_marks;
pub mod sends;
pub mod views;
pub mod writes;

use tern_proto::ApiError;
use tern_proto::v1::ErrorReason;

use crate::store::ReadError;

/// Returns the error of a call that has waited for the store for as long as a caller is kept waiting.
pub fn too_late() -> ApiError {
    crate::answer::to_error(&tern_chat_core::Refusal::TOO_LATE)
}

/// Returns the error of a call for which the store failed, and logs the cause. If a statement failed,
/// [`StoreError`](tern_store::StoreError) decides: the caller should send the call again if the store is away or
/// another transaction was in the way. A statement that is wrong, and a chat's data that cannot be read, are internal
/// errors.
pub fn store_failed(error: impl Into<ReadError>) -> ApiError {
    match error.into() {
        ReadError::Store(error) => error.into(),
        error @ (ReadError::Key(_) | ReadError::Unknown(..)) => {
            tracing::warn!(%error, "cannot read from the store");
            ApiError::new(ErrorReason::Internal, "the chat cannot be read")
        }
    }
}

#[cfg(test)]
mod tests {
    use tern_types::ChatId;
    use tonic::Code;

    use super::*;

    #[test]
    fn only_a_failure_that_passes_asks_for_another_try() {
        let chat = ChatId(uuid::Uuid::nil());
        let cases: [(ReadError, Code, bool); 5] = [
            (sqlx::Error::PoolTimedOut.into(), Code::Unavailable, true),
            (sqlx::Error::WorkerCrashed.into(), Code::Unavailable, true),
            (sqlx::Error::RowNotFound.into(), Code::Internal, false),
            (ReadError::Key(chat), Code::Internal, false),
            (ReadError::Unknown(chat, "a role"), Code::Internal, false),
        ];
        for (error, code, again) in cases {
            let name = format!("{error:?}");
            let answer = store_failed(error);
            assert_eq!(
                (answer.code(), answer.retry_after.is_some()),
                (code, again),
                "{name}"
            );
        }
    }
}
