//! Tests the lines and texts that the view shows after events.

mod changes;
mod happenings;
mod kept;
mod search;
mod threads;
mod vanish;

use tern_client::Outgoing;
use tern_proto::v1::{self, MessageKind};
use uuid::Uuid;

use super::*;
use crate::messenger::clock;
use crate::messenger::desk::testing::chat;

const NOW: Timestamp = Timestamp(1_700_000_000_000);
const CHAT: ChatId = ChatId(Uuid::from_u128(1));

fn user(number: u128) -> UserId {
    UserId(Uuid::from_u128(number))
}

fn view(members: u32) -> View {
    let mut view = View::new(user(1), DeviceId(Uuid::from_u128(11)));
    let kind = if members == 2 {
        ChatKind::Direct
    } else {
        ChatKind::Group
    };
    let peer = (members == 2).then(|| user(2));
    view.set_chat(Chat {
        title: "lunch\u{1b}[31m".into(),
        peer,
        member_count: members,
        active_at: NOW,
        ..chat(CHAT, kind)
    });
    view.set_names([(user(2), "Bob".to_owned()), (user(3), "Carol".to_owned())].into());
    view
}

fn entry(seq: u64, sender: UserId, kind: MessageKind, target: u64, body: &str) -> Entry {
    let envelope = v1::Envelope {
        kind: kind.into(),
        target_seq: target,
        ..Default::default()
    };
    let message = v1::Message {
        envelope: Some(envelope),
        body: body.to_owned().into_bytes().into(),
    };
    Entry {
        chat: CHAT,
        seq: Seq(seq),
        sent_at: NOW,
        sender: Some(sender),
        device: Some(DeviceId(Uuid::from_u128(sender.0.as_u128() + 10))),
        request: Some(RequestId(Uuid::from_u128(u128::from(seq)))),
        ordinal: seq,
        content: v1::EntryContent {
            content: Some(Content::Message(message)),
            ..Default::default()
        },
        unknown: bytes::Bytes::new(),
    }
}

fn said(seq: u64, sender: UserId, body: &str) -> Entry {
    entry(seq, sender, MessageKind::Message, 0, body)
}

fn receipt(view: &mut View, number: u128, delivered: u64, read: u64) {
    let mark = Mark {
        delivered: Seq(delivered),
        read: Seq(read),
    };
    view.apply(
        &Event::Receipt {
            chat: CHAT,
            user: user(number),
            mark,
        },
        NOW,
    );
}

/// Queues a message of one's own, and returns its request_id.
fn queued(view: &mut View) -> RequestId {
    let message = Outgoing::new(CHAT, "hi");
    let request = message.request;
    view.queue(QueuedMessage {
        message,
        chat: CHAT,
        created_at: NOW,
        state: SendState::Queued,
    });
    request
}

fn tick(view: &View) -> Option<Tick> {
    view.lines(CHAT).pop().and_then(|line| line.tick)
}

#[test]
fn ticks_go_from_waiting_to_read() {
    let mut view = view(2);
    let request = queued(&mut view);
    assert_eq!(tick(&view), Some(Tick::Waiting));
    view.apply(
        &Event::Send {
            request,
            chat: CHAT,
            state: SendState::Sent {
                seq: Seq(1),
                sent_at: NOW,
            },
        },
        NOW,
    );
    assert_eq!(tick(&view), Some(Tick::Sent));
    view.apply(
        &Event::Entry(Entry {
            request: Some(request),
            ..said(1, user(1), "hi")
        }),
        NOW,
    );
    assert_eq!((view.lines(CHAT).len(), tick(&view)), (1, Some(Tick::Sent)));
    receipt(&mut view, 2, 1, 0);
    assert_eq!(tick(&view), Some(Tick::Delivered));
    receipt(&mut view, 2, 1, 1);
    assert_eq!(tick(&view), Some(Tick::Read));
}

#[test]
fn in_a_group_ticks_wait_for_everybody_and_details_say_who() {
    let mut view = view(3);
    view.add(said(1, user(1), "hi"));
    receipt(&mut view, 2, 1, 1);
    assert_eq!(tick(&view), Some(Tick::Sent));
    receipt(&mut view, 3, 1, 0);
    assert_eq!(tick(&view), Some(Tick::Delivered));
    assert_eq!(
        view.details(CHAT),
        Some((Seq(1), "read by 1 of 2 (Bob) · delivered to Carol".to_owned()))
    );
}

#[test]
fn in_a_large_group_readers_are_counted() {
    let mut view = view(41);
    view.add(said(1, user(1), "hi"));
    for reader in 2..14 {
        receipt(&mut view, reader, 1, 1);
    }
    for other in 14..24 {
        receipt(&mut view, other, 1, 0);
    }
    let details = view.details(CHAT);
    assert_eq!(
        details,
        Some((Seq(1), "read by 12 of 40 · delivered to 10 more".to_owned()))
    );
}

#[test]
fn whom_a_message_reached_is_said_name_by_name() {
    let mut view = view(4);
    for (seq, sender, text) in [(1, 1, "first"), (2, 2, "theirs"), (3, 1, "second")] {
        view.add(said(seq, user(sender), text));
    }
    assert_eq!(view.own_message(CHAT, 1), Some(Seq(3)));
    assert_eq!(view.own_message(CHAT, 2), Some(Seq(1)));
    assert_eq!(
        (view.own_message(CHAT, 3), view.own_message(CHAT, 0)),
        (None, None)
    );
    let receipts = tern_client::MessageReceipts {
        read: vec![user(2)],
        delivered: Vec::new(),
        waiting: vec![user(3)],
    };
    let text = view.reached(CHAT, Seq(1), &receipts);
    assert_eq!(text, "“first”: read by 1 of 2 · read: Bob · not yet: Carol");
}

#[test]
fn who_writes_is_said_until_they_do_no_more() {
    let mut view = view(4);
    let mut typing = |number, typing| {
        let (chat, user) = (CHAT, user(number));
        view.apply(&Event::Typing { chat, user, typing }, NOW);
        view.typing(CHAT)
    };
    assert_eq!(typing(2, true).as_deref(), Some("Bob is typing …"));
    assert_eq!(typing(3, true).as_deref(), Some("Bob, Carol are typing …"));
    assert_eq!(typing(4, true).as_deref(), Some("3 people are typing …"));
    assert_eq!((typing(4, false), typing(3, false), typing(2, false)).2, None);
}

#[test]
fn reactions_are_folded_into_their_message_and_unknown_kinds_left_out() {
    let mut view = view(3);
    let mut unknown = said(4, user(2), "from the future");
    let Some(Content::Message(message)) = &mut unknown.content.content else {
        panic!()
    };
    message.envelope.get_or_insert_default().kind = 99;
    for entry in [
        said(1, user(2), "hello"),
        entry(2, user(1), MessageKind::Reaction, 1, "👍"),
        entry(3, user(1), MessageKind::Reaction, 99, "lost"),
        unknown,
    ] {
        view.add(entry);
    }
    let lines: Vec<_> = view
        .lines(CHAT)
        .into_iter()
        .map(|line| (line.text, line.reactions))
        .collect();
    assert_eq!(lines, [("hello".to_owned(), vec!["👍 you".to_owned()])]);
}

#[test]
fn what_others_write_cannot_steer_the_terminal() {
    let mut view = view(3);
    view.add(said(1, user(2), "a\u{1b}]0;title\u{7}b\u{202e}c\r\nd\te"));
    assert_eq!(view.lines(CHAT)[0].text, "a]0;titlebc\nd e");
    assert_eq!(view.title(CHAT), "lunch[31m");
}

#[test]
fn a_refused_message_says_why() {
    let mut view = view(2);
    let request = queued(&mut view);
    let (code, message) = (v1::SendErrorCode::NotAMember, "gone".to_owned());
    view.apply(
        &Event::Send {
            request,
            chat: CHAT,
            state: SendState::Failed {
                code,
                message,
                retry_at: Some(NOW),
            },
        },
        NOW,
    );
    assert_eq!(
        tick(&view),
        Some(Tick::Failed(format!(
            "you are not in this chat any more (again from {})",
            clock::time(NOW)
        )))
    );
}

#[test]
fn a_chat_is_found_by_its_number_and_by_its_title() {
    let view = view(2);
    assert_eq!(view.chat_named("1"), Some(CHAT));
    assert_eq!(view.chat_named("bob"), Some(CHAT));
    assert_eq!(
        (
            view.chat_named("0"),
            view.chat_named("2"),
            view.chat_named("dave")
        ),
        (None, None, None)
    );
}

#[test]
fn a_direct_chat_shows_online_or_last_seen_and_nothing_of_who_hides_it() {
    let mut view = view(2);
    let (peer, now) = (user(2), NOW);
    view.room(CHAT).chat = Some(Chat {
        peer: Some(peer),
        kind: ChatKind::Direct,
        ..view.rooms[&CHAT].chat.clone().unwrap()
    });
    assert_eq!(view.on_screen(), [peer]);
    let yesterday = now - std::time::Duration::from_secs(24 * 3600);
    let cases = [
        (Presence::Online, Some("online".to_owned())),
        (
            Presence::LastSeen(now),
            Some(format!("last seen today {}", clock::time(now))),
        ),
        (
            Presence::LastSeen(yesterday),
            Some(format!("last seen yesterday {}", clock::time(yesterday))),
        ),
        (Presence::LastSeen(Timestamp(0)), None),
        (Presence::Hidden, None),
    ];
    for (presence, expected) in cases {
        view.apply(&Event::Presence { user: peer, presence }, now);
        assert_eq!(view.presence(CHAT, now), expected, "{presence:?}");
    }
    view.apply(
        &Event::Presence {
            user: peer,
            presence: Presence::Online,
        },
        now,
    );
    let reason = "gone".to_owned();
    view.apply(
        &Event::Disconnected {
            reason,
            retry_in: None,
        },
        now,
    );
    assert!(!view.is_online(peer), "nobody tells of anybody then");
}

#[test]
fn a_message_of_the_system_is_shown_as_such() {
    let mut view = view(2);
    let notice = Entry {
        sender: None,
        device: None,
        ..entry(1, user(2), MessageKind::Message, 0, "closed on Monday")
    };
    view.apply(&Event::Entry(notice), NOW);
    let lines = view.lines(CHAT);
    assert_eq!(
        (lines[0].who, lines[0].text.as_str()),
        (None, "the system: closed on Monday")
    );
    assert_eq!(lines[0].tick, None);
}

fn removed(seq: u64, number: u128) -> Entry {
    let removed = v1::MemberRemoved {
        user_id: user(number).to_string(),
        ..Default::default()
    };
    Entry {
        content: v1::EntryContent {
            content: Some(Content::MemberRemoved(removed)),
            ..Default::default()
        },
        ..said(seq, user(1), "")
    }
}

#[test]
fn who_was_removed_counts_among_nobodys_readers() {
    let mut view = view(3);
    view.room(CHAT).members = [1, 2, 3].map(user).into();
    view.apply(&Event::Entry(said(1, user(1), "hi")), NOW);
    receipt(&mut view, 2, 1, 1);
    receipt(&mut view, 3, 1, 0);
    let details = |view: &View| view.details(CHAT).map(|(_, text)| text);
    assert_eq!(
        details(&view).as_deref(),
        Some("read by 1 of 2 (Bob) · delivered to Carol")
    );
    view.apply(&Event::Entry(removed(2, 3)), NOW);
    // Carol's receipt arrives after she was removed.
    receipt(&mut view, 3, 1, 1);
    assert_eq!(details(&view).as_deref(), Some("read by 1 of 1 (Bob)"));
    let ticks = |view: &View| view.lines(CHAT).first().and_then(|line| line.tick.clone());
    assert_eq!(ticks(&view), Some(Tick::Read));
    view.apply(&Event::Entry(removed(3, 2)), NOW);
    assert_eq!((details(&view), ticks(&view)), (None, Some(Tick::Sent)));
}

#[test]
fn who_was_removed_themselves_is_told_of_all_others() {
    for loaded in [true, false] {
        let mut view = view(3);
        if loaded {
            view.room(CHAT).members = [1, 2, 3].map(user).into();
        }
        view.apply(&Event::Entry(said(1, user(1), "hi")), NOW);
        view.apply(&Event::Entry(removed(2, 1)), NOW);
        let mut chat = view.rooms[&CHAT].chat.clone().unwrap();
        (chat.member_count, chat.left) = (2, true);
        view.apply(&Event::Chat(chat), NOW);
        receipt(&mut view, 2, 1, 1);
        let ticks = |view: &View| view.lines(CHAT).first().and_then(|line| line.tick.clone());
        assert_eq!(ticks(&view), Some(Tick::Sent), "{loaded}");
        receipt(&mut view, 3, 1, 1);
        assert_eq!(ticks(&view), Some(Tick::Read), "{loaded}");
        let details = view.details(CHAT).map(|(_, text)| text);
        assert_eq!(
            details.as_deref(),
            Some("read by 2 of 2 (Bob, Carol)"),
            "{loaded}"
        );
    }
}

#[test]
fn a_refused_message_can_be_found_and_forgotten() {
    let mut view = view(2);
    let requests: Vec<RequestId> = ["one", "two"]
        .into_iter()
        .map(|text| {
            let message = Outgoing::new(CHAT, text);
            let request = message.request;
            let (code, why) = (v1::SendErrorCode::TooLarge, String::new());
            view.queue(QueuedMessage {
                message,
                chat: CHAT,
                created_at: NOW,
                state: SendState::Failed {
                    code,
                    message: why,
                    retry_at: None,
                },
            });
            request
        })
        .collect();
    let failed = |view: &View, nth| view.failed(CHAT, nth).map(|queued| queued.message.request);
    assert_eq!(failed(&view, 1), Some(requests[1]));
    assert_eq!(failed(&view, 2), Some(requests[0]));
    assert_eq!((failed(&view, 0), failed(&view, 3)), (None, None));
    view.forget(CHAT, requests[1]);
    assert_eq!((failed(&view, 1), view.lines(CHAT).len()), (Some(requests[0]), 1));
}

#[test]
fn who_scrolls_up_finds_everything_and_new_messages_do_not_fill_the_memory() {
    let mut view = view(2);
    let most = MAX_SHOWN as u64;
    let from = |seq| entry(seq, user(2), MessageKind::Message, 0, "hello");
    for seq in 1001..=1000 + most {
        view.add(from(seq));
    }
    let oldest = |view: &View| view.rooms[&CHAT].entries.first_key_value().map(|(seq, _)| seq.0);
    for seq in (901..=1000).rev() {
        view.add(from(seq));
    }
    assert_eq!(oldest(&view), Some(901));
    view.add(from(1001 + most));
    assert_eq!(oldest(&view), Some(902), "one comes and one goes");
}
