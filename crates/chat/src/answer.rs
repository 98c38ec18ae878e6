//! Converts outcomes for the two kinds of callers: an item for a gateway's link, a status for a unary call.

use std::time::Duration;

use tern_proto::internal::{self, down_item::Item};
use tern_proto::v1::{self, ErrorReason, SendErrorCode, send_result};
use tern_proto::{ApiError, raw};
use tern_types::{ChatId, RequestId, Seq, SessionId, Timestamp};

use tern_chat_core::{Outcome, Refusal};

/// The refusal of a command that did not reach the chat's owner.
const MOVING: Refusal = Refusal::Unavailable {
    reason: "the chat is moving to another node",
    retry_after: tern_proto::error::DEFAULT_RETRY,
};

/// The time after which a device sends a message again to a chat that cannot be read. The message stays in its outbox,
/// because it can be sent once an operator has repaired the cause, which takes longer than a store is away.
const UNREADABLE_RETRY: Duration = Duration::from_secs(60);

/// Converts an outcome to the answer to an item of a gateway's link. `map_version` is the version of this node's map;
/// the gateway finds the owner by it if this node is not the owner.
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

/// Converts an outcome to the answer to a send on a stream.
fn send_result(request: RequestId, outcome: &Outcome) -> v1::SendResult {
    let outcome = match outcome {
        Outcome::Placed { chat, seq, sent_at } => send_result::Outcome::Sent(placed(*chat, *seq, *sent_at)),
        Outcome::Refused(refusal) => send_result::Outcome::Error(send_error(refusal)),
        Outcome::NotOwner | Outcome::Unchanged | Outcome::AckWritten { .. } => {
            send_result::Outcome::Error(send_error(&MOVING))
        }
    };
    v1::SendResult {
        request_id: request.to_string(),
        outcome: Some(outcome),
    }
}

/// Converts an outcome to the answer to a send by a unary call. `Err` if the send was refused or did not reach the
/// chat's owner.
pub fn sent(outcome: &Outcome) -> Result<v1::Sent, ApiError> {
    match outcome {
        Outcome::Placed { chat, seq, sent_at } => Ok(placed(*chat, *seq, *sent_at)),
        Outcome::Refused(refusal) => Err(to_error(refusal)),
        Outcome::NotOwner | Outcome::Unchanged | Outcome::AckWritten { .. } => Err(to_error(&MOVING)),
    }
}

fn placed(chat: ChatId, seq: Seq, sent_at: Timestamp) -> v1::Sent {
    v1::Sent {
        chat_id: chat.to_string(),
        seq: seq.0,
        sent_at_ms: sent_at.0,
    }
}

/// Returns the code of a refusal, for devices and metrics.
pub fn send_error_code(refusal: &Refusal) -> SendErrorCode {
    match refusal {
        Refusal::NotAMember => SendErrorCode::NotAMember,
        Refusal::PeerNotFound | Refusal::UserNotFound(_) => SendErrorCode::PeerNotFound,
        Refusal::NotAccepted => SendErrorCode::NotAccepted,
        Refusal::StrangersLimited { .. } => SendErrorCode::StrangersLimited,
        Refusal::RequestIdReused => SendErrorCode::RequestIdReused,
        Refusal::RoleTooLow => SendErrorCode::NotAllowed,
        Refusal::NotAGroup | Refusal::GroupFull | Refusal::LastOwner => SendErrorCode::Invalid,
        Refusal::Invalid(..) | Refusal::TooMany { .. } => SendErrorCode::Invalid,
        Refusal::MediaTicket => SendErrorCode::MediaTicket,
        Refusal::Unreadable | Refusal::Unavailable { .. } => SendErrorCode::Unavailable,
    }
}

fn send_error(refusal: &Refusal) -> v1::SendError {
    let code = send_error_code(refusal);
    let retry_after = match refusal {
        Refusal::Unavailable { retry_after, .. } | Refusal::StrangersLimited { retry_after } => *retry_after,
        Refusal::Unreadable => UNREADABLE_RETRY,
        _ => Duration::ZERO,
    };
    v1::SendError {
        code: code.into(),
        message: refusal.to_string(),
        retry_after_ms: u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX),
    }
}

/// Converts the refusal of a unary call to its error.
pub fn to_error(refusal: &Refusal) -> ApiError {
    let reason = match refusal {
        Refusal::NotAMember => ErrorReason::ChatNotFound,
        Refusal::PeerNotFound | Refusal::UserNotFound(_) => ErrorReason::UserNotFound,
        Refusal::RequestIdReused => ErrorReason::RequestIdReused,
        Refusal::NotAccepted => ErrorReason::NotAccepted,
        Refusal::StrangersLimited { .. } => ErrorReason::StrangersLimited,
        Refusal::RoleTooLow => ErrorReason::RoleTooLow,
        Refusal::NotAGroup => ErrorReason::NotAGroup,
        Refusal::GroupFull => ErrorReason::GroupFull,
        Refusal::LastOwner => ErrorReason::LastOwner,
        Refusal::Invalid(field, problem) => return ApiError::invalid(field, problem),
        Refusal::TooMany { field, most } => {
            return ApiError::invalid(field, &format!("must be at most {most}"));
        }
        Refusal::MediaTicket => ErrorReason::MediaTicket,
        Refusal::Unreadable => ErrorReason::Internal,
        Refusal::Unavailable { .. } => ErrorReason::Unavailable,
    };
    let error = ApiError::new(reason, refusal.to_string());
    match refusal {
        Refusal::Unavailable { retry_after, .. } | Refusal::StrangersLimited { retry_after } => {
            error.retry_after(*retry_after)
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use tern_types::UserId;
    use tonic::Code;
    use uuid::Uuid;

    use super::*;

    /// The cases are the rows of the table at `Chats.SendMessage` in the protos.
    #[test]
    fn what_a_stream_answers_as_an_error_is_a_status_of_its_reason_in_a_unary_call() {
        use ErrorReason as R;
        use SendErrorCode as E;
        let nobody = UserId(Uuid::nil());
        let (field, most) = ("body", 1);
        let many = Refusal::TooMany { field, most };
        let cases = [
            (
                Code::NotFound,
                vec![
                    (Refusal::NotAMember, E::NotAMember, R::ChatNotFound),
                    (Refusal::PeerNotFound, E::PeerNotFound, R::UserNotFound),
                    (Refusal::UserNotFound(nobody), E::PeerNotFound, R::UserNotFound),
                ],
            ),
            (
                Code::PermissionDenied,
                vec![
                    (Refusal::NotAccepted, E::NotAccepted, R::NotAccepted),
                    (Refusal::RoleTooLow, E::NotAllowed, R::RoleTooLow),
                ],
            ),
            (
                Code::AlreadyExists,
                vec![(Refusal::RequestIdReused, E::RequestIdReused, R::RequestIdReused)],
            ),
            (
                Code::InvalidArgument,
                vec![
                    (Refusal::MediaTicket, E::MediaTicket, R::MediaTicket),
                    (Refusal::Invalid("body", "is bad"), E::Invalid, R::InvalidField),
                    (many, E::Invalid, R::InvalidField),
                ],
            ),
            (
                Code::Unavailable,
                vec![(Refusal::STORE_AWAY, E::Unavailable, R::Unavailable)],
            ),
            (
                Code::Internal,
                vec![(Refusal::Unreadable, E::Unavailable, R::Internal)],
            ),
        ];
        let cases = cases
            .into_iter()
            .flat_map(|(code, cases)| cases.into_iter().map(move |case| (code, case)));
        for (code, (refusal, on_a_stream, reason)) in cases {
            assert_eq!(send_error_code(&refusal), on_a_stream, "{refusal:?}");
            let error = sent(&Outcome::Refused(refusal.clone())).expect_err("it was refused");
            assert_eq!((error.code(), error.reason), (code, reason), "{refusal:?}");
            let transient = code == Code::Unavailable;
            assert_eq!(error.retry_after.is_some(), transient, "{refusal:?}");
            let field = matches!(refusal, Refusal::Invalid(..) | Refusal::TooMany { .. }).then_some("body");
            assert_eq!(error.field, field, "{refusal:?}");
        }
        let moving = sent(&Outcome::NotOwner).expect_err("nobody took it");
        assert_eq!(
            (moving.code(), moving.retry_after.is_some()),
            (Code::Unavailable, true)
        );
    }
}
