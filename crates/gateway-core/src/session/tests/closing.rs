//! These tests hold each way in which a stream ends: the code of Closing, the status, and whether the client may
//! reconnect.

use std::time::Duration;

use proptest::prelude::*;
use tern_proto::ApiError;
use tern_proto::v1::{CloseCode as C, ErrorReason as R, server_event::Event as Kind};
use tern_types::{DeviceId, UserId};

use super::{HOUR, Talk, inbox, talk};
use crate::session::{CloseRequest, Effect, Event, Identity, Inbox, Item, Mail, Op};

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
            "unknown device",
            talk().open().tell(Event::Mail(Mail::Inbox(Inbox {
                active: false,
                unknown: true,
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

/// A thing that may happen to a session, and that ends it at once, later or not at all.
#[derive(Debug, Clone)]
enum Step {
    Open,
    /// The inbox that the session asked for comes. With `true` the device is revoked.
    Inbox(bool),
    Send,
    SendFails,
    HalfClosed,
    /// The gateway drains, and cuts the stream off after this many milliseconds.
    Drain(u64),
    BadFrame,
    Close(CloseRequest),
    Tick,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Open),
        4 => prop_oneof![9 => Just(false), 1 => Just(true)].prop_map(Step::Inbox),
        4 => Just(Step::Send),
        2 => Just(Step::SendFails),
        2 => Just(Step::HalfClosed),
        3 => (0u64..8000).prop_map(Step::Drain),
        1 => Just(Step::BadFrame),
        1 => Just(Step::Close(CloseRequest::Revoked)),
        4 => Just(Step::Tick),
    ]
}

impl Talk {
    fn take(mut self, step: &Step) -> Self {
        match step {
            Step::Open => self.open(),
            Step::Inbox(revoked) => {
                let asked = |want: &Effect| matches!(want, Effect::ReadInbox);
                let Some(asked) = self.wants.iter().position(asked) else {
                    return self;
                };
                self.wants.remove(asked);
                self.tell(Event::Mail(Mail::Inbox(Inbox {
                    active: !revoked,
                    ..inbox()
                })))
            }
            Step::Send => self.send(|_| {}),
            Step::SendFails => {
                let reference = |want: &Effect| match want {
                    Effect::Up(Op::Send { reference, .. }) => Some(*reference),
                    _ => None,
                };
                let Some(reference) = self.wants.iter().rev().find_map(reference) else {
                    return self;
                };
                self.tell(Event::Mail(Mail::SendFailed { reference }))
            }
            Step::HalfClosed => self.tell(Event::HalfClosed),
            Step::Drain(close_after) => self.tell(Event::Drain {
                reconnect_after: Duration::ZERO,
                close_after: Duration::from_millis(*close_after),
            }),
            Step::BadFrame => self.tell(Event::BadFrame("garbage")),
            Step::Close(request) => self.tell(Event::Close(*request)),
            Step::Tick => self.tell(Event::Tick),
        }
    }
}

proptest! {
    /// [`Talk::tell`] checks that no effect follows the end, so that a second end fails there.
    #[test]
    fn whatever_happens_a_session_ends_at_most_once_and_does_nothing_afterwards(
        opened in any::<bool>(),
        steps in proptest::collection::vec((0u64..6000, step()), 0..40),
    ) {
        let mut talk = if opened { talk().opened() } else { talk() };
        for (pause, step) in &steps {
            talk.now = talk.now + Duration::from_millis(*pause);
            talk = talk.take(step);
        }
        prop_assert_eq!(talk.session.has_ended(), talk.ended.is_some());
        let closing = talk.said.iter().filter(|kind| matches!(kind, Kind::Closing(_)));
        prop_assert_eq!(closing.count(), usize::from(matches!(talk.ended, Some(Some(_)))));
    }
}
