//! A live entry goes out as it comes if all entries below it went out. Otherwise the log is read.

use bytes::Bytes;
use tern_proto::raw;
use tern_proto::v1::{self, send_result, server_event::Event as Kind};
use tern_types::{ChatId, UserId};

use super::{Talk, ack, inbox_with_row, live, talk};
use crate::session::{Effect, Event, Mail};

fn chat() -> ChatId {
    ChatId::direct(UserId::random(), UserId::random())
}

/// Makes the result of an own send. No send was made here, so its reference is 0.
fn sent(chat: ChatId, seq: u64) -> Event<'static> {
    let sent = v1::Sent {
        chat_id: chat.to_string(),
        seq,
        sent_at_ms: 0,
    };
    Event::Mail(Mail::Result {
        reference: 0,
        event: raw::event(Kind::SendResult(v1::SendResult {
            outcome: Some(send_result::Outcome::Sent(sent)),
            ..Default::default()
        })),
        placed: Some((chat, seq)),
    })
}

fn entry(chat: ChatId, seq: u64) -> Bytes {
    let Event::Mail(Mail::Live { event, .. }) = live(chat, seq) else {
        unreachable!()
    };
    event
}

fn skipped(chat: ChatId, to_seq: u64) -> Bytes {
    raw::event(Kind::Skipped(v1::Skipped {
        chat_id: chat.to_string(),
        to_seq,
        reason: v1::SkipReason::NotAMember.into(),
    }))
}

impl Talk {
    /// Returns the seqs from which windows were asked for.
    fn windows(&self) -> Vec<u64> {
        let from = |effect: &Effect| match effect {
            Effect::Window { from, .. } => Some(*from),
            _ => None,
        };
        self.wants.iter().filter_map(from).collect()
    }
}

#[test]
fn a_live_entry_with_a_hole_below_it_is_read_from_the_hole_on() {
    let chat = chat();
    let talk = talk().opened().tell(live(chat, 4)).item(ack(chat, 4));
    let talk = talk.tell(live(chat, 5)).tell(live(chat, 7));
    assert_eq!(
        (talk.places(), talk.windows()),
        (vec!["4".into(), "5".into()], vec![6])
    );
    let talk = talk.window(chat, &[(6, entry(chat, 6)), (7, entry(chat, 7))], 8);
    let talk = talk.tell(live(chat, 8));
    assert_eq!(talk.places(), ["4", "5", "6", "7", "8"]);
    assert_eq!(talk.windows().len(), 1);
}

#[test]
fn where_the_device_stands_is_asked_of_the_store_when_the_stream_does_not_tell() {
    let chat = chat();
    let talk = talk().opened().tell(live(chat, 5)).tell(live(chat, 7));
    assert_eq!((talk.places(), talk.windows()), (vec!["5".to_owned()], vec![0]));
    // The device did not have the fourth entry either.
    let four = [4, 5, 6, 7].map(|seq| (seq, entry(chat, seq)));
    let talk = talk.window(chat, &four, 8).tell(live(chat, 9));
    assert_eq!(talk.places(), ["5", "4", "5", "6", "7"]);
    assert_eq!(talk.windows(), [0, 8]);
}

#[test]
fn who_is_added_again_is_read_to_from_where_they_stand_at_once() {
    let chat = chat();
    let added = |seq| Event::Mail(Mail::Added { chat, seq });
    let mut talk = talk().opened().tell(live(chat, 1)).item(ack(chat, 1));
    // The removal goes out live; the third entry is not the user's.
    talk = talk.tell(live(chat, 2)).tell(added(4));
    assert_eq!(talk.windows(), [3]);
    talk = talk.tell(live(chat, 5));
    let places = [(3, skipped(chat, 3)), (4, entry(chat, 4)), (5, entry(chat, 5))];
    talk = talk.window(chat, &places, 6);
    talk = talk.tell(live(chat, 6)).tell(added(8));
    assert_eq!(talk.windows(), [3, 7]);
    assert_eq!(talk.places(), ["1", "2", "skip 3", "4", "5", "6"]);
}

#[test]
fn who_is_added_is_read_to_from_the_stores_place_where_nothing_is_known() {
    let chat = chat();
    let added = Event::Mail(Mail::Added { chat, seq: 4 });
    let talk = talk().opened().tell(added);
    assert_eq!(talk.windows(), [0]);
    let talk = talk.window(chat, &[(3, skipped(chat, 3)), (4, entry(chat, 4))], 5);
    assert_eq!(talk.tell(live(chat, 5)).places(), ["skip 3", "4", "5"]);
}

#[test]
fn a_device_that_drops_an_early_result_gets_the_entry_at_once() {
    let chat = chat();
    let early = || {
        let talk = talk().opened().tell(live(chat, 1)).item(ack(chat, 1));
        let talk = talk.tell(sent(chat, 3)).tell(live(chat, 2)).tell(live(chat, 4));
        assert_eq!(talk.places(), ["1", "sent 3", "2", "4"]);
        assert!(talk.windows().is_empty());
        talk
    };
    let held = early().item(ack(chat, 4)).tell(live(chat, 5));
    assert!(held.windows().is_empty());
    let dropped = early().item(ack(chat, 2));
    assert_eq!(dropped.windows(), [3]);
}

#[test]
fn an_acknowledgement_below_what_went_out_first_shows_that_it_was_dropped() {
    let chat = chat();
    let talk = talk()
        .opened()
        .tell(live(chat, 5))
        .tell(live(chat, 6))
        .item(ack(chat, 3));
    assert_eq!(talk.windows(), [4]);
    assert_eq!(talk.item(ack(chat, 3)).windows(), [4], "once");
}

#[test]
fn an_entry_that_is_committed_while_an_empty_window_is_on_its_way_is_read_at_once() {
    let chat = chat();
    let talk = talk()
        .opened()
        .tell(Event::Mail(Mail::Inbox(inbox_with_row(chat, 4))));
    assert_eq!(talk.windows(), [4]);
    // The window was read before this entry was committed.
    let talk = talk.tell(live(chat, 4)).window(chat, &[], 4);
    assert_eq!(talk.windows(), [4, 4]);
    let talk = talk.window(chat, &[], 4);
    assert_eq!(talk.windows().len(), 2, "nothing new was said meanwhile");
}
