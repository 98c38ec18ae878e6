//! These tests hold each way in which a stream ends: the code of Closing, the status, and whether the client may
//! reconnect.

use std::time::Duration;

use tern_proto::ApiError;
use tern_proto::v1::{CloseCode as C, ErrorReason as R};
use tern_types::{DeviceId, UserId};

use super::{HOUR, Talk, inbox, talk};
use crate::session::{CloseRequest, Event, Identity, Inbox, Item, Mail};

/// The code of Closing, the reason of the status, and whether the client may reconnect.
type Ending = (C, R, bool);

/// Checks that each stream has ended as it says, and that nothing is said on it afterwards.
fn check_endings<const N: usize>(cases: [(&str, Talk, Ending); N]) {
    for (name, talk, (code, reason, may_reconnect)) in cases {
        assert_eq!(talk.end(), (code, Some(reason), may_reconnect), "{name}");
        let said = talk.said.len();
        let after = talk.item(Item::Heartbeat { token: 1 }).wait(HOUR * 24);
        assert_eq!(after.said.len(), said, "{name}: something was said after the end");
    }
}

fn expired() -> Result<Identity, ApiError> {
    Err(ApiError::new(R::TokenExpired, "expired"))
}

#[test]
fn an_open_that_is_late_repeated_or_malformed_ends_the_stream() {
    check_endings([
        (
            "item before Open",
            talk().item(Item::Heartbeat { token: 1 }),
            (C::ProtocolError, R::ProtocolError, false),
        ),
        (
            "send before Open",
            talk().send(|_| {}),
            (C::ProtocolError, R::ProtocolError, false),
        ),
        (
            "half-closed before Open",
            talk().tell(Event::HalfClosed),
            (C::ProtocolError, R::ProtocolError, false),
        ),
        (
            "garbage before Open",
            talk().tell(Event::BadFrame("garbage")),
            (C::ProtocolError, R::ProtocolError, false),
        ),
        (
            "long client version",
            {
                let talk = talk();
                let token = Ok(talk.identity);
                talk.item(Item::Open {
                    token,
                    client_version: "x".repeat(129),
                    active: true,
                })
            },
            (C::ProtocolError, R::ProtocolError, false),
        ),
        (
            "second Open",
            talk().opened().open(),
            (C::ProtocolError, R::ProtocolError, false),
        ),
    ]);
}

#[test]
fn a_frame_that_cannot_be_read_and_items_without_end_end_the_stream() {
    check_endings([
        (
            "garbage",
            talk().opened().tell(Event::BadFrame("garbage")),
            (C::ProtocolError, R::ProtocolError, false),
        ),
        (
            "a frame too large",
            talk().opened().tell(Event::FrameTooLarge("large")),
            (C::ResourceExhausted, R::TooLarge, false),
        ),
        (
            "far too many items",
            (0..40_000).fold(talk().opened(), |talk, _| talk.item(Item::Unknown)),
            (C::ResourceExhausted, R::RateLimited, true),
        ),
    ]);
}

#[test]
fn a_token_that_is_expired_or_of_somebody_else_ends_the_stream() {
    check_endings([
        (
            "expired token",
            talk().item(Item::Open {
                token: expired(),
                client_version: String::new(),
                active: true,
            }),
            (C::Unauthenticated, R::TokenExpired, false),
        ),
        (
            "another device's token",
            {
                let talk = talk().opened();
                let elsewhere = Identity {
                    device: DeviceId::random(),
                    ..talk.identity
                };
                let token = Ok(elsewhere);
                talk.item(Item::Reauthenticate(token))
            },
            (C::Unauthenticated, R::TokenInvalid, false),
        ),
        (
            "an expired new token",
            talk().opened().item(Item::Reauthenticate(expired())),
            (C::Unauthenticated, R::TokenExpired, false),
        ),
        (
            "a token that names another user than the device's",
            talk().open().tell(Event::Mail(Mail::Inbox(Inbox {
                user: Some(UserId::random()),
                ..inbox()
            }))),
            (C::Unauthenticated, R::TokenInvalid, false),
        ),
    ]);
}

#[test]
fn a_stream_that_is_not_opened_in_time_ends() {
    check_endings([
        (
            "no Open",
            talk().wait(Duration::from_secs(10)),
            (C::TimedOut, R::TimedOut, true),
        ),
        (
            "the inbox cannot be read",
            talk().open().wait(Duration::from_secs(10)),
            (C::Unavailable, R::Unavailable, true),
        ),
    ]);
}

#[test]
fn a_device_that_is_revoked_or_replaced_is_closed_for_good() {
    check_endings([
        (
            "revoked device",
            talk().open().tell(Event::Mail(Mail::Inbox(Inbox {
                active: false,
                ..inbox()
            }))),
            (C::DeviceRevoked, R::DeviceRevoked, false),
        ),
        (
            "revoked while open",
            talk().opened().tell(Event::Close(CloseRequest::Revoked)),
            (C::DeviceRevoked, R::DeviceRevoked, false),
        ),
        (
            "replaced",
            talk().opened().tell(Event::Close(CloseRequest::Replaced)),
            (C::SessionReplaced, R::SessionReplaced, false),
        ),
    ]);
}

#[test]
fn the_stream_of_a_suspended_user_ends_whenever_the_suspension_is_found() {
    check_endings([
        (
            "suspended",
            talk().opened().tell(Event::Close(CloseRequest::Suspended)),
            (C::UserSuspended, R::UserSuspended, false),
        ),
        (
            "found suspended when it was to be opened",
            talk()
                .open()
                .tell(Event::Announced)
                .tell(Event::Mail(Mail::Inbox(Inbox {
                    suspended: true,
                    ..inbox()
                }))),
            (C::UserSuspended, R::UserSuspended, false),
        ),
        (
            "found suspended by the sweep",
            talk().opened().tell(Event::Mail(Mail::Swept(Inbox {
                suspended: true,
                ..inbox()
            }))),
            (C::UserSuspended, R::UserSuspended, false),
        ),
    ]);
}

#[test]
fn a_stream_ends_when_the_store_is_another() {
    check_endings([(
        "another store",
        talk().opened().tell(Event::Mail(Mail::Swept(Inbox {
            store_epoch: "restored".into(),
            ..inbox()
        }))),
        (C::Unavailable, R::Unavailable, true),
    )]);
}
