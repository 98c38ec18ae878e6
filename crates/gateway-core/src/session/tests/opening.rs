//! After Open the session is registered first, and then the inbox is read. CaughtUp follows.

use std::time::Duration;

use bytes::Bytes;
use tern_proto::raw;
use tern_proto::v1::{self, server_event::Event as Kind};
use tern_types::{ChatId, SessionId};

use super::{START, inbox, inbox_with_row, talk};
use crate::session::settings::{CAUGHT_UP_PAUSE, PARTIAL_PAUSE, SECOND_READING_AFTER};
use crate::session::{Effect, Event, Inbox, Mail, Session, Settings};

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
    // Entries that were pushed before Opened are read after it, with everything that lies below.
    assert!(
        matches!(talk.wants[2..], [Effect::Window { from: 0, .. }]),
        "{:?}",
        talk.wants
    );
}

/// An older chat node does not say the windows, and its inbox has zeros.
#[test]
fn opened_tells_what_may_be_done_to_messages_as_the_chat_node_says() {
    for (edit_window_s, delete_window_s) in [(900, 172_800), (0, 0)] {
        let read = Inbox {
            edit_window_s,
            delete_window_s,
            ..inbox()
        };
        let talk = talk()
            .open()
            .tell(Event::Announced)
            .tell(Event::Mail(Mail::Inbox(read)));
        let Some(Kind::Opened(opened)) = talk.said.first() else {
            panic!("{:?}", talk.said)
        };
        let acts = opened.limits.as_ref().and_then(|limits| limits.acts.as_ref());
        let expected = v1::ActLimits {
            edit_window_s,
            delete_window_s,
            max_reaction_bytes: 64,
            max_acts_per_person: 100,
        };
        assert_eq!(acts, Some(&expected));
    }
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

/// Presence is out of this gateway's reach, and does not notice that at once.
#[test]
fn the_inbox_of_a_session_that_presence_does_not_take_is_read_a_second_time() {
    let talk = talk().open().wait(Duration::from_secs(2));
    let mut talk = talk.tell(Event::Mail(Mail::Inbox(inbox()))).tell(Event::Flushed);
    talk.wants.clear();
    let talk = talk.wait(SECOND_READING_AFTER - Duration::from_millis(1));
    assert!(talk.wants.is_empty(), "{:?}", talk.wants);
    let talk = talk.wait(Duration::from_millis(1));
    assert!(matches!(talk.wants[..], [Effect::ReadInbox]), "{:?}", talk.wants);
    let chat = ChatId::own(talk.identity.user);
    let talk = talk.tell(Event::Mail(Mail::Inbox(inbox_with_row(chat, 4))));
    let talk = talk.wait(2 * SECOND_READING_AFTER);
    assert!(
        matches!(
            talk.wants[..],
            [Effect::ReadInbox, Effect::Window { from: 4, .. }]
        ),
        "the row is dealt with, and the inbox is not read again: {:?}",
        talk.wants
    );
}

#[test]
fn a_session_that_presence_has_to_be_told_of_again_is_told_caught_up_again_after_what_waits() {
    let mut talk = talk().opened().wait(Duration::from_secs(3)).tell(Event::Flushed);
    talk.said.clear();
    let chat = ChatId::own(talk.identity.user);
    // An inbox that was asked for before the announcement does not count.
    let mut talk = talk.tell(Event::Redrain);
    assert!(matches!(talk.wants[..], [Effect::ReadInbox]), "{:?}", talk.wants);
    talk = talk
        .tell(Event::Announced)
        .tell(Event::Mail(Mail::Inbox(inbox())));
    assert!(talk.said.is_empty(), "{:?}", talk.said);
    talk = talk.wait(Duration::from_secs(1));
    talk = talk.tell(Event::Mail(Mail::Inbox(inbox_with_row(chat, 1))));
    assert!(talk.said.is_empty(), "{:?}", talk.said);
    let entry = raw::event(Kind::Entry(v1::Entry::default()));
    talk = talk.window(chat, &[(1, entry)], 2);
    assert!(
        matches!(talk.said[..], [Kind::Entry(_), Kind::CaughtUp(_)]),
        "{:?}",
        talk.said
    );
    // CaughtUp comes once only.
    talk.said.clear();
    let talk = talk.tell(Event::Redrain).wait(Duration::from_secs(1));
    let talk = talk.tell(Event::Mail(Mail::Inbox(inbox())));
    assert!(talk.said.is_empty(), "{:?}", talk.said);
}

#[test]
fn what_a_part_of_the_store_did_not_tell_is_asked_for_again_before_caught_up() {
    let talk = talk().open().tell(Event::Announced);
    let chat = ChatId::own(talk.identity.user);
    let partial = Inbox {
        partial: true,
        ..inbox_with_row(chat, 1)
    };
    let talk = talk.tell(Event::Mail(Mail::Inbox(partial)));
    // The row that came is dealt with at once.
    let entry = raw::event(Kind::Entry(v1::Entry::default()));
    let talk = talk.window(chat, &[(1, entry)], 2);
    assert!(
        matches!(talk.said[..], [Kind::Opened(_), Kind::Entry(_)]),
        "{:?}",
        talk.said
    );
    let mut talk = talk.wait(PARTIAL_PAUSE * 3 / 2);
    assert!(matches!(talk.wants.pop(), Some(Effect::ReadInbox)));
    let talk = talk.tell(Event::Mail(Mail::Inbox(inbox())));
    assert!(
        matches!(
            talk.said[..],
            [Kind::Opened(_), Kind::Entry(_), Kind::CaughtUp(_)]
        ),
        "{:?}",
        talk.said
    );
}

#[test]
fn sessions_that_got_a_part_of_their_inboxes_together_do_not_ask_together_again() {
    let asks_after = |id, time| {
        let mut talk = talk();
        talk.session = Session::new(SessionId(id), Settings::default(), START);
        let partial = Inbox {
            partial: true,
            ..inbox()
        };
        let mut talk = talk.open().tell(Event::Announced);
        talk = talk.tell(Event::Mail(Mail::Inbox(partial)));
        talk.wants.clear();
        let talk = talk.wait(time);
        talk.wants
            .iter()
            .any(|effect| matches!(effect, Effect::ReadInbox))
    };
    let moment = Duration::from_millis(20);
    for (id, spread) in [
        (256, Duration::ZERO),
        (384, PARTIAL_PAUSE / 4),
        (511, PARTIAL_PAUSE / 2),
    ] {
        let due = PARTIAL_PAUSE + spread;
        assert!(!asks_after(id, due - moment) && asks_after(id, due), "{id}");
    }
}

#[test]
fn a_session_whose_receipts_were_lost_is_told_caught_up_again_but_not_all_the_time() {
    let mut talk = talk().opened().tell(Event::Flushed);
    for _ in 0..2 {
        talk.said.clear();
        talk = talk.tell(Event::ReceiptsLost);
        assert!(matches!(talk.said[..], [Kind::CaughtUp(_)]), "{:?}", talk.said);
        for _ in 0..3 {
            talk = talk.tell(Event::ReceiptsLost).wait(CAUGHT_UP_PAUSE / 4);
        }
        assert_eq!(talk.said.len(), 1, "{:?}", talk.said);
        talk = talk.wait(CAUGHT_UP_PAUSE / 4);
        assert!(matches!(talk.said[..], [_, Kind::CaughtUp(_)]), "{:?}", talk.said);
        talk = talk.wait(CAUGHT_UP_PAUSE);
        assert_eq!(talk.said.len(), 2, "once for all of them");
    }
}

#[test]
fn what_is_settled_after_the_inbox_was_read_comes_after_caught_up_by_itself() {
    let talk = talk().opened();
    let chat = ChatId::own(talk.identity.user);
    let talk = talk.tell(Event::Mail(Mail::Wake { chat, from: 1, to: 1 }));
    assert!(
        matches!(talk.wants[..], [Effect::Window { from: 0, .. }]),
        "{:?}",
        talk.wants
    );
}
