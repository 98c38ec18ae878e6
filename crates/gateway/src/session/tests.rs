//! The stream's protocol, one rule a test: opening, errors, tokens, heartbeats, draining, sends.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tern_proto::v1::{
    self, CloseCode, ErrorReason, SendErrorCode, send_message, send_result, server_event::Event as Kind,
};
use tern_proto::{ApiError, raw};
use tern_types::limits::{MAX_BODY_BYTES, MAX_SENDS_IN_FLIGHT};
use tern_types::{ChatId, DeviceId, RequestId, SessionId, Timestamp, UserId};

use super::*;

const START: Timestamp = Timestamp(1_700_000_000_000);
const HOUR: Duration = Duration::from_secs(3600);

/// A session with a clock and what it said.
struct Talk {
    session: Session,
    now: Timestamp,
    identity: Identity,
    said: Vec<Kind>,
    wants: Vec<Effect>,
    ended: Option<Option<ApiError>>,
}

fn talk() -> Talk {
    let identity = Identity {
        user: UserId::random(),
        device: DeviceId::random(),
        expires_at: START + HOUR,
    };
    let session = Session::new(SessionId(9), Settings::default(), START);
    Talk {
        session,
        now: START,
        identity,
        said: Vec::new(),
        wants: Vec::new(),
        ended: None,
    }
}

fn inbox() -> Inbox {
    Inbox {
        active: true,
        rows: Vec::new(),
        store_epoch: "epoch".into(),
    }
}

impl Talk {
    fn tell(mut self, event: Event<'_>) -> Self {
        for effect in self.session.apply(event, self.now) {
            match effect {
                Effect::Put(event) => {
                    self.said.extend(v1::ServerEvent::decode(event).unwrap().event);
                }
                Effect::End(error) => self.ended = Some(error),
                other => self.wants.push(other),
            }
        }
        self
    }

    fn item(self, item: Item) -> Self {
        self.tell(Event::Item(item))
    }

    fn open(self) -> Self {
        let token = Ok(self.identity);
        self.item(Item::Open {
            token,
            client_version: "test/1".into(),
            active: false,
        })
    }

    fn opened(self) -> Self {
        let mut talk = self
            .open()
            .tell(Event::Announced)
            .tell(Event::Mail(Mail::Inbox(inbox())));
        assert!(
            matches!(talk.said[..], [Kind::Opened(_), Kind::CaughtUp(_)]),
            "{:?}",
            talk.said
        );
        talk.said.clear();
        talk.wants.clear();
        talk
    }

    fn wait(mut self, time: Duration) -> Self {
        self.now = self.now + time;
        self.tell(Event::Tick)
    }

    fn send(self, change: impl FnOnce(&mut v1::SendMessage)) -> Self {
        let mut send = v1::SendMessage {
            request_id: RequestId::random().to_string(),
            to: Some(send_message::To::ChatId(
                ChatId::own(self.identity.user).to_string(),
            )),
            ..Default::default()
        };
        change(&mut send);
        self.item(Item::Send(send))
    }

    /// The code of the last event, which must be Closing, and the status' reason.
    fn end(&self) -> (CloseCode, Option<ErrorReason>, bool) {
        let Some(Kind::Closing(closing)) = self.said.last() else {
            panic!("not closed: {:?}", self.said)
        };
        let error = self.ended.clone().expect("ended");
        (
            closing.code(),
            error.map(|error| error.reason),
            closing.may_reconnect,
        )
    }

    fn refusal(&self) -> SendErrorCode {
        let Some(Kind::SendResult(result)) = self.said.last() else {
            panic!("no result: {:?}", self.said)
        };
        match &result.outcome {
            Some(send_result::Outcome::Error(error)) => error.code(),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn each_way_to_break_the_protocol_ends_the_stream_with_its_code() {
    use CloseCode as C;
    use ErrorReason as R;
    let expired = || Err(ApiError::new(R::TokenExpired, "expired"));
    let elsewhere = |talk: &Talk| Identity {
        device: DeviceId::random(),
        ..talk.identity
    };
    let cases: [(&str, Talk, (C, R, bool)); 20] = [
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
            "ack of no chat",
            talk().opened().item(Item::Ack(v1::Ack {
                chat_id: "'; DROP TABLE inbox; --".into(),
                seq: 1,
            })),
            (C::ProtocolError, R::ProtocolError, false),
        ),
        (
            "read mark of no chat",
            talk().opened().item(Item::MarkRead(v1::MarkRead {
                chat_id: String::new(),
                seq: 1,
            })),
            (C::ProtocolError, R::ProtocolError, false),
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

#[test]
fn rule_3_a_session_is_registered_first_and_then_reads_its_inbox() {
    let talk = talk().open();
    assert!(
        matches!(talk.wants[..], [Effect::Register { .. }]),
        "the inbox is read after the registration only"
    );
    assert!(!talk.session.takes_items());
    let chat = ChatId::own(talk.identity.user);
    let live = Mail::Live {
        chat,
        seq: 3,
        event: Bytes::from_static(b"x"),
    };
    let talk = talk.tell(Event::Mail(live)).tell(Event::Announced);
    assert!(talk.said.is_empty() && matches!(talk.wants[..], [Effect::Register { .. }, Effect::ReadInbox]));
    let talk = talk.tell(Event::Mail(Mail::Inbox(inbox())));
    let Some(Kind::Opened(opened)) = talk.said.first() else {
        panic!("{:?}", talk.said)
    };
    assert_eq!(
        (
            opened.store_epoch.as_str(),
            opened.window,
            opened.heartbeat_interval_ms
        ),
        ("epoch", 256, 180_000)
    );
    // What was pushed before Opened is read after it.
    assert!(
        matches!(talk.wants[2..], [Effect::Window { from: 3, .. }]),
        "{:?}",
        talk.wants
    );
}

#[test]
fn presence_being_away_delays_the_inbox_by_two_seconds_only_and_it_is_read_again_later() {
    let talk = talk()
        .open()
        .wait(Duration::from_secs(2))
        .tell(Event::Mail(Mail::Inbox(inbox())));
    assert!(matches!(talk.said[..], [Kind::Opened(_), Kind::CaughtUp(_)]));
    let talk = talk
        .wait(Duration::from_secs(3))
        .tell(Event::Flushed)
        .tell(Event::Announced);
    let reads = talk
        .wants
        .iter()
        .filter(|effect| matches!(effect, Effect::ReadInbox))
        .count();
    assert_eq!(reads, 2);
}

#[test]
fn a_session_that_presence_has_to_be_told_of_again_is_told_caught_up_again_after_what_waits() {
    let mut talk = talk().opened().wait(Duration::from_secs(3)).tell(Event::Flushed);
    talk.said.clear();
    let chat = ChatId::own(talk.identity.user);
    // An answer that is older than the announcement does not count.
    let mut talk = talk.tell(Event::Redrain);
    assert!(matches!(talk.wants[..], [Effect::ReadInbox]), "{:?}", talk.wants);
    talk = talk
        .tell(Event::Announced)
        .tell(Event::Mail(Mail::Inbox(inbox())));
    assert!(talk.said.is_empty(), "{:?}", talk.said);
    talk = talk.wait(Duration::from_secs(1));
    let row = InboxRow {
        chat,
        from: 1,
        age: Duration::ZERO,
    };
    talk = talk.tell(Event::Mail(Mail::Inbox(Inbox {
        rows: vec![row],
        ..inbox()
    })));
    assert!(talk.said.is_empty(), "{:?}", talk.said);
    let Some(Effect::Window { reference, .. }) = talk.wants.last() else {
        panic!("{:?}", talk.wants)
    };
    let window = Window {
        reference: *reference,
        chat,
        events: vec![raw::event(Kind::Entry(v1::Entry::default()))],
        seqs: vec![1],
        next: 2,
        done: true,
    };
    talk = talk.tell(Event::Mail(Mail::Window(window)));
    assert!(
        matches!(talk.said[..], [Kind::Entry(_), Kind::CaughtUp(_)]),
        "{:?}",
        talk.said
    );
    // Once.
    talk.said.clear();
    let talk = talk.tell(Event::Redrain).wait(Duration::from_secs(1));
    let talk = talk.tell(Event::Mail(Mail::Inbox(inbox())));
    assert!(talk.said.is_empty(), "{:?}", talk.said);
}

#[test]
fn what_is_settled_after_the_inbox_was_read_comes_after_caught_up_by_itself() {
    let talk = talk().opened();
    let chat = ChatId::own(talk.identity.user);
    let talk = talk.tell(Event::Mail(Mail::Wake { chat, from: 1, to: 1 }));
    assert!(
        matches!(talk.wants[..], [Effect::Window { from: 1, .. }]),
        "{:?}",
        talk.wants
    );
}

#[test]
fn a_token_is_renewed_in_place_or_the_stream_ends_a_minute_after_it() {
    let talk = talk().opened();
    let mut talk = keep_alive(talk, HOUR - Duration::from_secs(301));
    assert!(talk.said.is_empty(), "{:?}", talk.said);
    talk = talk.wait(Duration::from_secs(2));
    assert!(matches!(talk.said[..], [Kind::TokenExpiring(_)]));
    let token = Ok(Identity {
        expires_at: talk.now + HOUR,
        ..talk.identity
    });
    talk = talk.item(Item::Reauthenticate(token));
    assert!(matches!(talk.said.last(), Some(Kind::Reauthenticated(_))));
    talk = keep_alive(talk, HOUR - Duration::from_secs(10));
    assert!(talk.ended.is_none());
    talk = keep_alive(talk, Duration::from_secs(65));
    assert!(talk.ended.is_none(), "the minute after the end is not over");
    talk = keep_alive(talk, Duration::from_secs(10));
    assert_eq!(
        talk.end(),
        (CloseCode::Unauthenticated, Some(ErrorReason::TokenExpired), false)
    );
}

/// Lets time pass with the client's heartbeats, without their answers.
fn keep_alive(mut talk: Talk, time: Duration) -> Talk {
    let until = talk.now + time;
    while talk.now < until {
        let pause = until.since(talk.now).min(Duration::from_secs(100));
        talk = talk
            .wait(pause)
            .tell(Event::Frame)
            .item(Item::Heartbeat { token: 5 });
        talk.said.retain(|kind| !matches!(kind, Kind::HeartbeatAck(_)));
    }
    talk
}

#[test]
fn heartbeats_are_answered_at_once_and_three_missed_ones_end_the_stream() {
    let talk = talk().opened().item(Item::Heartbeat { token: 42 });
    let Some(Kind::HeartbeatAck(ack)) = talk.said.last() else {
        panic!("{:?}", talk.said)
    };
    assert_eq!((ack.token, ack.heartbeat_interval_ms), (42, 180_000));
    let talk = talk.item(Item::SetActive { active: true });
    let Some(Kind::HeartbeatAck(ack)) = talk.said.last() else {
        panic!("{:?}", talk.said)
    };
    assert_eq!(ack.heartbeat_interval_ms, 45_000);
    let talk = talk.wait(Duration::from_secs(134));
    assert!(talk.ended.is_none());
    assert_eq!(
        talk.wait(Duration::from_secs(1)).end(),
        (CloseCode::TimedOut, Some(ErrorReason::TimedOut), true)
    );
}

#[test]
fn the_server_speaks_when_it_has_been_silent_for_an_interval_and_ten_seconds() {
    let mut talk = talk().opened();
    for _ in 0..3 {
        talk = talk.wait(Duration::from_secs(63)).tell(Event::Frame);
    }
    assert!(talk.said.is_empty(), "after 189 s: {:?}", talk.said);
    let talk = talk.wait(Duration::from_secs(1));
    assert!(
        matches!(
            talk.said[..],
            [Kind::HeartbeatAck(v1::HeartbeatAck { token: 0, .. })]
        ),
        "{:?}",
        talk.said
    );
}

#[test]
fn a_draining_gateway_says_so_and_cuts_off_who_stays() {
    let (reconnect_after, close_after) = (Duration::from_secs(3), Duration::from_secs(8));
    let talk = talk().opened().tell(Event::Drain {
        reconnect_after,
        close_after,
    });
    assert!(matches!(
        talk.said[..],
        [Kind::Draining(v1::Draining {
            reconnect_after_ms: 3000
        })]
    ));
    let talk = talk.wait(Duration::from_secs(7)).send(|_| {});
    assert!(
        matches!(talk.wants[..], [Effect::Send { .. }]),
        "the old stream serves until then"
    );
    assert_eq!(
        talk.wait(Duration::from_secs(1)).end(),
        (CloseCode::Draining, Some(ErrorReason::Draining), true)
    );
}

#[test]
fn a_client_that_leaves_is_answered_first() {
    let talk = talk().opened().send(|_| {}).tell(Event::HalfClosed);
    assert!(talk.ended.is_none());
    let Some(Effect::Send { reference, .. }) = talk.wants.first().cloned() else {
        panic!("{:?}", talk.wants)
    };
    let event = raw::event(Kind::SendResult(v1::SendResult::default()));
    let talk = talk.tell(Event::Mail(Mail::Result {
        reference,
        event,
        placed: None,
    }));
    assert!(matches!(talk.said[..], [Kind::SendResult(_)]));
    assert!(matches!(talk.ended, Some(None)), "it ends well, without Closing");
}

#[test]
fn what_is_wrong_with_one_send_is_its_result_and_nothing_else() {
    type Change = fn(&mut v1::SendMessage);
    let cases: [(&str, Change, SendErrorCode); 7] = [
        (
            "no request_id",
            |send| send.request_id.clear(),
            SendErrorCode::Invalid,
        ),
        (
            "no UUID",
            |send| send.request_id = "x".repeat(100_000),
            SendErrorCode::Invalid,
        ),
        ("no address", |send| send.to = None, SendErrorCode::Invalid),
        (
            "no chat",
            |send| send.to = Some(send_message::To::ChatId("x".into())),
            SendErrorCode::Invalid,
        ),
        (
            "no peer",
            |send| send.to = Some(send_message::To::PeerUserId("x".into())),
            SendErrorCode::Invalid,
        ),
        (
            "a byte more",
            |send| send.body = vec![0; MAX_BODY_BYTES + 1].into(),
            SendErrorCode::TooLarge,
        ),
        (
            "large envelope",
            |send| {
                let traceparent = "x".repeat(9000);
                send.envelope = Some(v1::Envelope {
                    traceparent,
                    ..Default::default()
                });
            },
            SendErrorCode::TooLarge,
        ),
    ];
    for (name, change, code) in cases {
        let talk = talk().opened().send(change);
        assert_eq!(talk.refusal(), code, "{name}");
        assert!(talk.wants.is_empty() && talk.ended.is_none(), "{name}");
    }
    let talk = talk()
        .opened()
        .send(|send| send.body = vec![0; MAX_BODY_BYTES].into());
    assert!(
        matches!(talk.wants[..], [Effect::Send { .. }]),
        "the largest body passes"
    );
}

#[test]
fn a_peer_is_addressed_by_the_direct_chat_with_them() {
    let peer = UserId::random();
    let talk = talk()
        .opened()
        .send(|send| send.to = Some(send_message::To::PeerUserId(peer.to_string())));
    let Some(Effect::Send { send, .. }) = talk.wants.first() else {
        panic!("{:?}", talk.wants)
    };
    assert_eq!(
        (send.chat, send.peer),
        (ChatId::direct(talk.identity.user, peer), Some(peer))
    );
}

#[test]
fn sends_are_limited_in_flight_and_by_rate() {
    let mut talk = talk().opened();
    for _ in 0..MAX_SENDS_IN_FLIGHT {
        talk = talk.send(|_| {});
    }
    assert!(talk.said.is_empty());
    talk = talk.send(|_| {});
    assert_eq!(talk.refusal(), SendErrorCode::RateLimited);
    let in_flight: Vec<u64> = talk
        .wants
        .drain(..)
        .map(|want| match want {
            Effect::Send { reference, .. } => reference,
            other => panic!("{other:?}"),
        })
        .collect();
    for reference in in_flight {
        talk = talk.tell(Event::Mail(Mail::SendFailed { reference }));
        assert_eq!(talk.refusal(), SendErrorCode::Unavailable);
    }
    let burst = 200 - MAX_SENDS_IN_FLIGHT;
    for _ in 0..burst {
        talk = talk.send(|_| {});
    }
    assert_eq!(talk.wants.len(), burst);
    talk = talk.send(|_| {});
    assert_eq!(talk.refusal(), SendErrorCode::RateLimited);
    talk = talk.wait(Duration::from_millis(50)).send(|_| {});
    assert_eq!(talk.wants.len(), burst + 1);
}

#[test]
fn an_acknowledgement_is_written_only_where_there_is_a_row() {
    let chat = ChatId::direct(UserId::random(), UserId::random());
    let ack = |seq| {
        Item::Ack(v1::Ack {
            chat_id: chat.to_string(),
            seq,
        })
    };
    let live = |seq| {
        Event::Mail(Mail::Live {
            chat,
            seq,
            event: Bytes::new(),
        })
    };
    let mut talk = talk().opened().tell(live(1)).item(ack(1));
    assert!(
        matches!(
            talk.wants[..],
            [Effect::Ack {
                seq: 1,
                write: false,
                ..
            }]
        ),
        "{:?}",
        talk.wants
    );
    // Forwarded already: nothing is read, but the row has to go.
    talk = talk
        .tell(live(2))
        .tell(Event::Mail(Mail::Wake { chat, from: 2, to: 2 }))
        .item(ack(2))
        .item(ack(2));
    assert!(
        matches!(
            talk.wants[1..],
            [Effect::Ack {
                seq: 2,
                write: true,
                ..
            }]
        ),
        "{:?}",
        talk.wants
    );
    talk = talk.tell(live(3)).item(ack(3));
    assert_eq!(talk.wants.len(), 2, "one is written at a time");
    // The acknowledgement of 2 came after 3 was committed: the row stays for 3.
    talk = talk.tell(Event::Mail(Mail::AckWritten {
        chat,
        seq: 2,
        row_from: 3,
    }));
    assert!(
        matches!(
            talk.wants[2..],
            [Effect::Ack {
                seq: 3,
                write: true,
                ..
            }]
        ),
        "{:?}",
        talk.wants
    );
    talk = talk
        .tell(Event::Mail(Mail::AckWritten {
            chat,
            seq: 3,
            row_from: 0,
        }))
        .tell(live(4))
        .item(ack(4));
    assert!(
        matches!(
            talk.wants[3..],
            [Effect::Ack {
                seq: 4,
                write: false,
                ..
            }]
        ),
        "{:?}",
        talk.wants
    );
    // A row for what was acknowledged before: its owner did not know.
    talk = talk.tell(Event::Mail(Mail::Wake { chat, from: 4, to: 4 }));
    assert!(
        matches!(
            talk.wants[4..],
            [Effect::Ack {
                seq: 4,
                write: true,
                ..
            }]
        ),
        "{:?}",
        talk.wants
    );
}

#[test]
fn what_was_forwarded_and_not_acknowledged_is_sent_again_after_five_seconds() {
    let chat = ChatId::direct(UserId::random(), UserId::random());
    let live = |seq| {
        Event::Mail(Mail::Live {
            chat,
            seq,
            event: Bytes::new(),
        })
    };
    let talk = talk()
        .opened()
        .tell(live(1))
        .tell(live(2))
        .tell(Event::Mail(Mail::Wake { chat, from: 1, to: 2 }));
    let talk = talk.tell(Event::Flushed).wait(Duration::from_millis(4999));
    assert!(talk.wants.is_empty());
    let talk = talk.wait(Duration::from_millis(1));
    assert!(
        matches!(talk.wants[..], [Effect::Window { from: 1, .. }]),
        "{:?}",
        talk.wants
    );
    // Live pushes wait for it.
    let said = talk.said.len();
    assert_eq!(talk.tell(live(3)).said.len(), said);
}

#[test]
fn a_row_that_only_the_sweep_found_is_a_defect() {
    let chat = ChatId::direct(UserId::random(), UserId::random());
    let swept = |age| {
        let row = InboxRow {
            chat,
            from: 4,
            age: Duration::from_secs(age),
        };
        Event::Mail(Mail::Swept(Inbox {
            rows: vec![row],
            ..inbox()
        }))
    };
    let talk = talk().opened().tell(swept(9));
    assert!(talk.wants.is_empty(), "young rows are on their way");
    let talk = talk.tell(swept(11));
    assert!(
        matches!(
            talk.wants[..],
            [Effect::SweepFound { .. }, Effect::Window { from: 4, .. }]
        ),
        "{:?}",
        talk.wants
    );
    let talk = talk.tell(swept(70));
    assert_eq!(talk.wants.len(), 2, "now it is known");
}

#[test]
fn rule_8_a_slow_device_loses_live_pushes_and_reads_its_inbox_instead() {
    let chat = ChatId::direct(UserId::random(), UserId::random());
    let body = Bytes::from(vec![0; settings::LIVE_BELOW_BYTES / 4]);
    let live = |seq| {
        Event::Mail(Mail::Live {
            chat,
            seq,
            event: body.clone(),
        })
    };
    let mut talk = talk().opened().tell(Event::Flushed).wait(Duration::from_secs(1));
    let mut put = 0;
    for seq in 1..=6 {
        let effects = talk.session.apply(live(seq), talk.now);
        put += effects
            .iter()
            .filter(|effect| matches!(effect, Effect::Put(_)))
            .count();
    }
    assert_eq!(put, 4);
    let talk = talk.tell(Event::Flushed);
    assert!(matches!(talk.wants[..], [Effect::ReadInbox]), "{:?}", talk.wants);
}

#[test]
fn a_wake_that_overtakes_an_older_written_acknowledgement_is_not_forgotten() {
    let chat = ChatId::direct(UserId::random(), UserId::random());
    let ack = |seq| {
        Item::Ack(v1::Ack {
            chat_id: chat.to_string(),
            seq,
        })
    };
    let live = |seq| {
        Event::Mail(Mail::Live {
            chat,
            seq,
            event: Bytes::new(),
        })
    };
    let wake = |seq| {
        Event::Mail(Mail::Wake {
            chat,
            from: seq,
            to: seq,
        })
    };
    let written = |seq, row_from| Event::Mail(Mail::AckWritten { chat, seq, row_from });
    let mut talk = talk()
        .opened()
        .tell(live(1))
        .tell(wake(1))
        .item(ack(1))
        .tell(live(2));
    // The chat has moved: its new owner's wake is here before the old owner's answer.
    talk = talk.tell(wake(2)).tell(written(1, 0));
    talk.wants.clear();
    talk = talk.tell(written(1, 2)).item(ack(2));
    assert!(
        matches!(
            talk.wants[..],
            [Effect::Ack {
                seq: 2,
                write: true,
                ..
            }]
        ),
        "{:?}",
        talk.wants
    );
}

#[test]
fn fine_print_12_the_last_acknowledgement_is_sent_again_when_the_slot_moves() {
    let chat = ChatId::direct(UserId::random(), UserId::random());
    let ack = v1::Ack {
        chat_id: chat.to_string(),
        seq: 1,
    };
    let live = Mail::Live {
        chat,
        seq: 1,
        event: Bytes::new(),
    };
    let talk = talk().opened().tell(Event::Mail(live)).item(Item::Ack(ack));
    let before = talk.wants.len();
    let talk = talk.tell(Event::Moved(&|moved| moved == chat));
    assert!(
        matches!(talk.wants[before..], [Effect::Ack { seq: 1, .. }]),
        "{:?}",
        talk.wants
    );
}
