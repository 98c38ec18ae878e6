//! These tests hold what keeps a stream alive and what ends it in good order: tokens, heartbeats, draining, leaving.

use std::time::Duration;

use tern_proto::raw;
use tern_proto::v1::{self, CloseCode, ErrorReason, server_event::Event as Kind};
use tern_types::Timestamp;

use super::{HOUR, Talk, talk};
use crate::session::{CloseRequest, Effect, Event, Identity, Item, Mail, Op};

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

/// Lets time pass while the client sends heartbeats, and drops their answers.
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
        matches!(talk.wants[..], [Effect::Up(Op::Send { .. })]),
        "the old stream serves until then"
    );
    assert_eq!(
        talk.wait(Duration::from_secs(1)).end(),
        (CloseCode::Draining, Some(ErrorReason::Draining), true)
    );
}

#[test]
fn a_session_that_is_closed_when_its_time_is_up_ends_once_and_for_the_reason_of_the_close() {
    let (reconnect_after, close_after) = (Duration::from_secs(3), Duration::from_secs(8));
    let drained = || {
        talk().opened().tell(Event::Drain {
            reconnect_after,
            close_after,
        })
    };
    let left = || talk().opened().send(|_| {}).tell(Event::HalfClosed);
    for mut talk in [drained(), left()] {
        talk.said.clear();
        talk.now = talk.now + close_after;
        let talk = talk.tell(Event::Close(CloseRequest::Revoked));
        assert_eq!(
            talk.end(),
            (CloseCode::DeviceRevoked, Some(ErrorReason::DeviceRevoked), false)
        );
        assert_eq!(talk.said.len(), 1, "one Closing: {:?}", talk.said);
    }
}

#[test]
fn a_client_that_leaves_is_answered_first() {
    let talk = talk().opened().send(|_| {}).tell(Event::HalfClosed);
    assert!(talk.ended.is_none());
    let Some(Effect::Up(Op::Send { reference, .. })) = talk.wants.first().cloned() else {
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
fn a_step_of_the_wall_clock_neither_ends_a_stream_nor_prolongs_its_token() {
    for step in [-3_600_000, 3_600_000] {
        let mut talk = talk().opened();
        let wall = Timestamp(talk.now.0 + step);
        talk.session.wall_is(wall, talk.now);
        talk = talk.item(Item::Heartbeat { token: 1 });
        let Some(Kind::HeartbeatAck(ack)) = talk.said.last() else {
            panic!("{:?}", talk.said)
        };
        assert_eq!(
            ack.server_time_ms, wall.0,
            "devices are told what the wall clock shows"
        );
        talk = keep_alive(talk, HOUR - Duration::from_secs(400));
        assert!(
            talk.ended.is_none()
                && !talk
                    .said
                    .iter()
                    .any(|kind| matches!(kind, Kind::TokenExpiring(_)))
        );

        // The end of the next token is computed by the wall clock as it is set now.
        let token = Ok(Identity {
            expires_at: Timestamp(talk.now.0 + step) + HOUR,
            ..talk.identity
        });
        talk = talk.item(Item::Reauthenticate(token));
        talk = keep_alive(talk, HOUR - Duration::from_secs(10));
        assert!(talk.ended.is_none(), "{step}: {:?}", talk.said);
        talk = keep_alive(talk, Duration::from_secs(80));
        assert_eq!(talk.end().1, Some(ErrorReason::TokenExpired), "{step}");
    }
}
