//! Open: first registered, then read.

use std::time::Duration;

use bytes::Bytes;
use tern_proto::v1::server_event::Event as Kind;
use tern_types::ChatId;

use super::{inbox, talk};
use crate::session::{Effect, Event, Mail};

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
