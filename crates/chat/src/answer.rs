//! Converts outcomes for the two kinds of callers: an item for a gateway's link, a status for a unary call.

use std::time::Duration;

use bytes::Bytes;
use tern_proto::internal::{self, down_item::Item};
use tern_proto::v1::{self, ErrorReason, SendErrorCode, send_result};
use tern_proto::{ApiError, raw};
use tern_types::{RequestId, SessionId};

use tern_chat_core::{ChangeRefusal, Outcome, Place, Refusal};

/// The time after which a device sends a message again to a chat that cannot be read. The message stays in its outbox,
/// because it can be sent once an operator has repaired the cause, which takes longer than a store is away.
const UNREADABLE_RETRY: Duration = Duration::from_secs(60);

/// Converts an outcome to the answer to an item of a gateway's link. `map_version` is the version of this node's map;
/// the gateway finds the owner by it if this node is not the owner. Returns `None` if the item gets no answer: a
/// gateway repeats an acknowledgement that is not confirmed (fine print 12), and changes and marks that are answered
/// come by unary calls only.
pub fn to_link(
    reference: u64,
    session: SessionId,
    request: RequestId,
    outcome: &Outcome,
    map_version: i64,
) -> Option<internal::DownItem> {
    let session = session.0;
    let item = match outcome {
        Outcome::Sent(sent) => Item::Result(internal::Result {
            r#ref: reference,
            session,
            event: raw::event(v1::server_event::Event::SendResult(send_result(request, sent))),
            chat_id: sent
                .as_ref()
                .map_or_else(|_| Bytes::new(), |place| place.chat.to_vec().into()),
            seq: sent.as_ref().map_or(0, |place| place.seq.0),
        }),
        Outcome::Acked(Ok(written)) => Item::AckWritten(internal::AckWritten {
            r#ref: reference,
            session,
            chat_id: written.chat.to_vec().into(),
            seq: written.seq.0,
            row_from_seq: written.row.map_or(0, |row| row.0),
        }),
        Outcome::NotOwner => Item::NotOwner(internal::NotOwner {
            r#ref: reference,
            session,
            map_version,
        }),
        Outcome::Acked(Err(_)) | Outcome::Changed(_) | Outcome::Noted(_) => return None,
    };
    Some(internal::DownItem { item: Some(item) })
}

/// Makes the answer to a message on a stream.
fn send_result(request: RequestId, sent: &Result<Place, Refusal>) -> v1::SendResult {
    let outcome = match sent {
        Ok(place) => send_result::Outcome::Sent(placed(*place)),
        Err(refusal) => send_result::Outcome::Error(send_error(refusal)),
    };
    v1::SendResult {
        request_id: request.to_string(),
        outcome: Some(outcome),
    }
}

/// Makes the answer to a message by a unary call. `Err` if the message was refused.
pub fn sent(sent: Result<Place, Refusal>) -> Result<v1::Sent, ApiError> {
    sent.map(placed).map_err(|refusal| to_error(&refusal))
}

fn placed(place: Place) -> v1::Sent {
    v1::Sent {
        chat_id: place.chat.to_string(),
        seq: place.seq.0,
        sent_at_ms: place.sent_at.0,
    }
}

/// Returns the code of a message's refusal, for devices and metrics.
pub fn send_error_code(refusal: &Refusal) -> SendErrorCode {
    match refusal {
        Refusal::NotAMember => SendErrorCode::NotAMember,
        Refusal::PeerNotFound => SendErrorCode::PeerNotFound,
        Refusal::NotAccepted => SendErrorCode::NotAccepted,
        Refusal::StrangersLimited { .. } => SendErrorCode::StrangersLimited,
        Refusal::RequestIdReused => SendErrorCode::RequestIdReused,
        Refusal::TargetNotFound => SendErrorCode::TargetNotFound,
        Refusal::NotAllowed => SendErrorCode::NotAllowed,
        Refusal::TooOld => SendErrorCode::TooLate,
        Refusal::TooManyActs => SendErrorCode::TooManyActs,
        Refusal::Frozen => SendErrorCode::ChatFrozen,
        Refusal::RoleTooLow => SendErrorCode::RoleTooLow,
        Refusal::SlowMode { .. } => SendErrorCode::SlowMode,
        Refusal::Invalid(..) | Refusal::TooMany { .. } => SendErrorCode::Invalid,
        Refusal::MediaTicket => SendErrorCode::MediaTicket,
        Refusal::Unreadable | Refusal::Unavailable { .. } => SendErrorCode::Unavailable,
    }
}

fn send_error(refusal: &Refusal) -> v1::SendError {
    let code = send_error_code(refusal);
    let retry_after = match refusal {
        Refusal::Unavailable { retry_after, .. }
        | Refusal::StrangersLimited { retry_after }
        | Refusal::SlowMode { retry_after } => *retry_after,
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
        Refusal::PeerNotFound => ErrorReason::UserNotFound,
        Refusal::RequestIdReused => ErrorReason::RequestIdReused,
        Refusal::TargetNotFound => ErrorReason::TargetNotFound,
        Refusal::NotAllowed => ErrorReason::NotAllowed,
        Refusal::TooOld => ErrorReason::TooLate,
        Refusal::TooManyActs => ErrorReason::TooManyActs,
        Refusal::Frozen => ErrorReason::ChatFrozen,
        Refusal::RoleTooLow => ErrorReason::RoleTooLow,
        Refusal::SlowMode { .. } => ErrorReason::SlowMode,
        Refusal::NotAccepted => ErrorReason::NotAccepted,
        Refusal::StrangersLimited { .. } => ErrorReason::StrangersLimited,
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
        Refusal::Unavailable { retry_after, .. }
        | Refusal::StrangersLimited { retry_after }
        | Refusal::SlowMode { retry_after } => error.retry_after(*retry_after),
        _ => error,
    }
}

/// Converts the refusal of a change of a group to the error of its unary call.
pub fn change_to_error(refusal: &ChangeRefusal) -> ApiError {
    let reason = match refusal {
        ChangeRefusal::UserNotFound(_) => ErrorReason::UserNotFound,
        ChangeRefusal::RoleTooLow => ErrorReason::RoleTooLow,
        ChangeRefusal::NotAGroup => ErrorReason::NotAGroup,
        ChangeRefusal::GroupFull => ErrorReason::GroupFull,
        ChangeRefusal::LastOwner => ErrorReason::LastOwner,
        ChangeRefusal::InviteNotFound => ErrorReason::InviteNotFound,
        ChangeRefusal::ListFull { .. } => ErrorReason::ListFull,
        ChangeRefusal::Common(refusal) => return to_error(refusal),
    };
    ApiError::new(reason, refusal.to_string())
}

#[cfg(test)]
mod tests {
    use tern_chat_core::WrittenAck;
    use tern_types::{ChatId, Seq, UserId};
    use tonic::Code;
    use uuid::Uuid;

    use super::*;

    /// A refusal with the code and the reason that it becomes.
    type Case = (Refusal, SendErrorCode, ErrorReason);

    /// Returns the refusals by the status that each becomes in a unary call.
    fn cases() -> [(Code, Vec<Case>); 8] {
        use ErrorReason as R;
        use SendErrorCode as E;
        let (field, most) = ("body", 1);
        let many = Refusal::TooMany { field, most };
        let retry_after = Duration::from_secs(1);
        let not_found = vec![
            (Refusal::NotAMember, E::NotAMember, R::ChatNotFound),
            (Refusal::PeerNotFound, E::PeerNotFound, R::UserNotFound),
            (Refusal::TargetNotFound, E::TargetNotFound, R::TargetNotFound),
        ];
        let denied = vec![
            (Refusal::NotAccepted, E::NotAccepted, R::NotAccepted),
            (Refusal::NotAllowed, E::NotAllowed, R::NotAllowed),
            (Refusal::Frozen, E::ChatFrozen, R::ChatFrozen),
            (Refusal::RoleTooLow, E::RoleTooLow, R::RoleTooLow),
        ];
        let precondition = vec![
            (Refusal::TooOld, E::TooLate, R::TooLate),
            (Refusal::TooManyActs, E::TooManyActs, R::TooManyActs),
        ];
        let reused = vec![(Refusal::RequestIdReused, E::RequestIdReused, R::RequestIdReused)];
        let invalid = vec![
            (Refusal::MediaTicket, E::MediaTicket, R::MediaTicket),
            (Refusal::Invalid("body", "is bad"), E::Invalid, R::InvalidField),
            (many, E::Invalid, R::InvalidField),
        ];
        let away = vec![(Refusal::STORE_AWAY, E::Unavailable, R::Unavailable)];
        let unreadable = vec![(Refusal::Unreadable, E::Unavailable, R::Internal)];
        let (strangers, slow) = (
            Refusal::StrangersLimited { retry_after },
            Refusal::SlowMode { retry_after },
        );
        let exhausted = vec![
            (strangers, E::StrangersLimited, R::StrangersLimited),
            (slow, E::SlowMode, R::SlowMode),
        ];
        [
            (Code::NotFound, not_found),
            (Code::PermissionDenied, denied),
            (Code::FailedPrecondition, precondition),
            (Code::AlreadyExists, reused),
            (Code::InvalidArgument, invalid),
            (Code::Unavailable, away),
            (Code::Internal, unreadable),
            (Code::ResourceExhausted, exhausted),
        ]
    }

    /// The reasons are those that the comment on `Chats.SendMessage` in the protos says. Those that only gateways answer
    /// are left out.
    #[test]
    fn what_a_stream_answers_as_an_error_is_a_status_of_its_reason_in_a_unary_call() {
        let cases = cases()
            .into_iter()
            .flat_map(|(code, cases)| cases.into_iter().map(move |case| (code, case)));
        for (code, (refusal, on_a_stream, reason)) in cases {
            assert_eq!(send_error_code(&refusal), on_a_stream, "{refusal:?}");
            let error = sent(Err(refusal.clone())).expect_err("it was refused");
            assert_eq!((error.code(), error.reason), (code, reason), "{refusal:?}");
            let transient = matches!(code, Code::Unavailable | Code::ResourceExhausted);
            assert_eq!(error.retry_after.is_some(), transient, "{refusal:?}");
            let field = matches!(refusal, Refusal::Invalid(..) | Refusal::TooMany { .. }).then_some("body");
            assert_eq!(error.field, field, "{refusal:?}");
        }
    }

    #[test]
    fn the_refusal_of_a_change_is_the_status_of_its_reason() {
        use ErrorReason as R;
        let user = UserId(Uuid::nil());
        let text = "no user has the id 00000000-0000-0000-0000-000000000000";
        let unknown = change_to_error(&ChangeRefusal::UserNotFound(user));
        assert_eq!(
            (unknown.reason, unknown.message.as_str()),
            (R::UserNotFound, text)
        );
        let (most, what) = (32, "chats are pinned");
        let full = ChangeRefusal::ListFull { most, what };
        let cases = [
            (full, R::ListFull, Code::FailedPrecondition),
            (ChangeRefusal::RoleTooLow, R::RoleTooLow, Code::PermissionDenied),
            (ChangeRefusal::NotAGroup, R::NotAGroup, Code::FailedPrecondition),
            (ChangeRefusal::GroupFull, R::GroupFull, Code::FailedPrecondition),
            (ChangeRefusal::LastOwner, R::LastOwner, Code::FailedPrecondition),
            (ChangeRefusal::InviteNotFound, R::InviteNotFound, Code::NotFound),
            (Refusal::NotAMember.into(), R::ChatNotFound, Code::NotFound),
            (Refusal::STORE_AWAY.into(), R::Unavailable, Code::Unavailable),
        ];
        for (refusal, reason, code) in cases {
            let error = change_to_error(&refusal);
            assert_eq!((error.reason, error.code()), (reason, code), "{refusal:?}");
            assert_eq!(error.message, refusal.to_string());
            let transient = code == Code::Unavailable;
            assert_eq!(error.retry_after.is_some(), transient, "{refusal:?}");
        }
    }

    #[test]
    fn a_link_gets_no_answer_to_what_only_unary_calls_ask_for() {
        let answer = |outcome| {
            let request = RequestId(Uuid::nil());
            let item = to_link(1, SessionId(2), request, &outcome, 3);
            item.and_then(|item| item.item)
        };
        let chat = ChatId(Uuid::nil());
        let written = WrittenAck {
            chat,
            seq: Seq(3),
            row: Some(Seq(4)),
        };
        assert!(matches!(
            answer(Outcome::Acked(Ok(written))),
            Some(Item::AckWritten(ack)) if (ack.seq, ack.row_from_seq) == (3, 4)
        ));
        assert!(matches!(
            answer(Outcome::NotOwner),
            Some(Item::NotOwner(not_owner)) if not_owner.map_version == 3
        ));
        assert!(matches!(
            answer(Outcome::Sent(Err(Refusal::NotAccepted))),
            Some(Item::Result(result)) if result.chat_id.is_empty() && result.seq == 0
        ));
        for outcome in [
            Outcome::Acked(Err(Refusal::STORE_AWAY)),
            Outcome::Changed(Ok(None)),
            Outcome::Noted(Ok(())),
        ] {
            assert_eq!(answer(outcome), None);
        }
    }
}
