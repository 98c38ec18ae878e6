//! Each way in which a stream ends: the Closing event, the status, and whether the client may reconnect.

use std::time::Duration;

use tern_proto::ApiError;
use tern_proto::v1::{CloseCode, ErrorReason};
use tern_types::{DeviceId, UserId};

use super::{HOUR, Talk, inbox, talk};
use crate::session::{CloseRequest, Event, Identity, Inbox, Item, Mail};

#[test]
fn each_way_to_break_the_protocol_ends_the_stream_with_its_code() {
    use CloseCode as C;
    use ErrorReason as R;
    let expired = || Err(ApiError::new(R::TokenExpired, "expired"));
    let elsewhere = |talk: &Talk| Identity {
        device: DeviceId::random(),
        ..talk.identity
    };
    let cases: [(&str, Talk, (C, R, bool)); 22] = [
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
            "second Open",
            talk().opened().open(),
            (C::ProtocolError, R::ProtocolError, false),
        ),
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
            "no Open",
            talk().wait(Duration::from_secs(10)),
            (C::TimedOut, R::TimedOut, true),
        ),
        (
            "the inbox cannot be read",
            talk().open().wait(Duration::from_secs(10)),
            (C::Unavailable, R::Unavailable, true),
        ),
        (
            "revoked device",
            talk().open().tell(Event::Mail(Mail::Inbox(Inbox {
                active: false,
                ..inbox()
            }))),
            (C::DeviceRevoked, R::DeviceRevoked, false),
        ),
        (
            "a token that names another user than the device's",
            talk().open().tell(Event::Mail(Mail::Inbox(Inbox {
                user: Some(UserId::random()),
                ..inbox()
            }))),
            (C::Unauthenticated, R::TokenInvalid, false),
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
        (
            "another device's token",
            {
                let talk = talk().opened();
                let token = Ok(elsewhere(&talk));
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
            "garbage",
            talk().opened().tell(Event::BadFrame("garbage")),
            (C::ProtocolError, R::ProtocolError, false),
        ),
        (
            "garbage before Open",
            talk().tell(Event::BadFrame("garbage")),
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
        (
            "another store",
            talk().opened().tell(Event::Mail(Mail::Swept(Inbox {
                store_epoch: "restored".into(),
                ..inbox()
            }))),
            (C::Unavailable, R::Unavailable, true),
        ),
    ];
    for (name, talk, (code, reason, may_reconnect)) in cases {
        assert_eq!(talk.end(), (code, Some(reason), may_reconnect), "{name}");
        let said = talk.said.len();
        let after = talk.item(Item::Heartbeat { token: 1 }).wait(HOUR * 24);
        assert_eq!(after.said.len(), said, "{name}: something was said after the end");
    }
}
