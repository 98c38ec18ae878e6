//! Outcomes as the two kinds of callers get them: an item of a link, or a status.

use tern_proto::internal::{self, down_item::Item};
use tern_proto::v1::{self, ErrorReason, SendErrorCode, send_result};
use tern_proto::{ApiError, raw};
use tern_types::{RequestId, SessionId};

use crate::state::{Outcome, Refusal};

/// The answer to an item of a link.
pub fn to_link(
    reference: u64,
    session: SessionId,
    request: RequestId,
    outcome: &Outcome,
    map_version: i64,
) -> internal::DownItem {
    let session = session.0;
    let item = match outcome {
        Outcome::AckWritten { chat, seq, row } => Item::AckWritten(internal::AckWritten {
            r#ref: reference,
            session,
            chat_id: chat.to_vec().into(),
            seq: seq.0,
            row_from_seq: row.map_or(0, |row| row.0),
        }),
        Outcome::NotOwner => Item::NotOwner(internal::NotOwner {
            r#ref: reference,
            session,
            map_version,
        }),
        outcome => {
            let (chat_id, seq) = match outcome {
                Outcome::Placed { chat, seq, .. } => (chat.to_vec().into(), seq.0),
                _ => Default::default(),
            };
            let event = raw::event(v1::server_event::Event::SendResult(send_result(request, outcome)));
            Item::Result(internal::Result {
                r#ref: reference,
                session,
                event,
                chat_id,
                seq,
            })
        }
    };
    internal::DownItem { item: Some(item) }
}

/// The answer to a send.
pub fn send_result(request: RequestId, outcome: &Outcome) -> v1::SendResult {
    let outcome = match outcome {
        Outcome::Placed { chat, seq, sent_at } => send_result::Outcome::Sent(v1::Sent {
            chat_id: chat.to_string(),
            seq: seq.0,
            sent_at_ms: sent_at.0,
        }),
        Outcome::Refused(refusal) => send_result::Outcome::Error(send_error(refusal)),
        Outcome::NotOwner | Outcome::Unchanged | Outcome::AckWritten { .. } => {
            send_result::Outcome::Error(send_error(&Refusal::Unavailable {
                reason: "the chat is moving to another node",
                retry_after: tern_proto::error::DEFAULT_RETRY,
            }))
        }
    };
    v1::SendResult {
        request_id: request.to_string(),
        outcome: Some(outcome),
    }
}

/// Why a send was refused, for devices and metrics.
pub fn send_error_code(refusal: &Refusal) -> SendErrorCode {
    match refusal {
        Refusal::NotAMember => SendErrorCode::NotAMember,
        Refusal::PeerNotFound | Refusal::UserNotFound(_) => SendErrorCode::PeerNotFound,
        Refusal::NotAccepted => SendErrorCode::NotAccepted,
        Refusal::RequestIdReused => SendErrorCode::RequestIdReused,
        Refusal::RoleTooLow => SendErrorCode::NotAllowed,
        Refusal::NotAGroup | Refusal::GroupFull | Refusal::LastOwner | Refusal::Invalid(_) => {
            SendErrorCode::Invalid
        }
        Refusal::MediaTicket => SendErrorCode::MediaTicket,
        Refusal::TooLarge(_) => SendErrorCode::TooLarge,
        Refusal::Unavailable { .. } => SendErrorCode::Unavailable,
    }
}

fn send_error(refusal: &Refusal) -> v1::SendError {
    let code = send_error_code(refusal);
    let retry_after = match refusal {
        Refusal::Unavailable { retry_after, .. } => {
            u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX)
        }
        _ => 0,
    };
    v1::SendError {
        code: code.into(),
        message: refusal.to_string(),
        retry_after_ms: retry_after,
    }
}

/// The status of a unary call that was refused.
pub fn to_error(refusal: &Refusal) -> ApiError {
    let reason = match refusal {
        Refusal::NotAMember => ErrorReason::ChatNotFound,
        Refusal::PeerNotFound | Refusal::UserNotFound(_) => ErrorReason::UserNotFound,
        Refusal::RequestIdReused => ErrorReason::RequestIdReused,
        // Only sends get it, whose answers are typed.
        Refusal::NotAccepted | Refusal::RoleTooLow => ErrorReason::RoleTooLow,
        Refusal::NotAGroup => ErrorReason::NotAGroup,
        Refusal::GroupFull => ErrorReason::GroupFull,
        Refusal::LastOwner => ErrorReason::LastOwner,
        Refusal::Invalid(_) => ErrorReason::InvalidField,
        Refusal::MediaTicket => ErrorReason::MediaTicket,
        Refusal::TooLarge(_) => ErrorReason::TooLarge,
        Refusal::Unavailable { .. } => ErrorReason::Unavailable,
    };
    let error = ApiError::new(reason, refusal.to_string());
    match refusal {
        Refusal::Unavailable { retry_after, .. } => error.retry_after(*retry_after),
        _ => error,
    }
}
