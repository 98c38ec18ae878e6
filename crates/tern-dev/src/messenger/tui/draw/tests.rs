//! Tests the screens that are drawn.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use tern_client::{Chat, Entry, Event, Mark, Outgoing, QueuedMessage, SendState};
use tern_proto::v1::{self, ChatKind, MessageKind};
use tern_types::{ChatId, DeviceId, Seq, Timestamp};
use uuid::Uuid;

use super::*;
use crate::messenger::desk::testing::chat;
use crate::messenger::tui::input::Input;

const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn user(number: u128) -> UserId {
    UserId(Uuid::from_u128(number))
}

fn direct(peer: u128, unread: u32) -> Chat {
    Chat {
        peer: Some(user(peer)),
        head: Seq(1),
        active_at: NOW - std::time::Duration::from_secs(u64::from(unread)),
        unread,
        ..chat(ChatId::direct(user(1), user(peer)), ChatKind::Direct)
    }
}

/// Returns a view in which Alice chats with Bob and has not read Carol's messages.
fn view() -> View {
    let mut view = View::new(user(1), DeviceId(Uuid::from_u128(11)));
    let bob = direct(2, 0);
    view.open = Some(bob.id);
    let bodies = [
        "a message that is so long that it does not fit on one line",
        "sent",
    ];
    for body in bodies {
        let message = Outgoing::new(bob.id, body);
        let state = SendState::Queued;
        view.queue(QueuedMessage {
            message,
            chat: bob.id,
            created_at: NOW,
            state,
        });
    }
    view.set_chat(bob);
    view.set_chat(direct(3, 7));
    view.set_names([(user(2), "Bob".to_owned()), (user(3), "Carol".to_owned())].into());
    view.apply(
        &Event::Connected {
            session: "s".into(),
            gateway: "https://tern.example/".into(),
        },
        NOW,
    );
    view.apply(&Event::CaughtUp, NOW);
    view.apply(
        &Event::Receipt {
            chat: direct(2, 0).id,
            user: user(2),
            mark: Mark::default(),
        },
        NOW,
    );
    view
}

fn drawn(view: &View, width: u16, height: u16, help: Option<usize>) -> String {
    let mut screen = Screen {
        input: Input::default(),
        notice: None,
        help,
        page: 0,
        ..Screen::default()
    };
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| super::screen(frame, view, &mut screen))
        .unwrap();
    let buffer = terminal.backend().buffer();
    let row = |y: u16| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..height).map(|y| row(y).trim_end().to_owned() + "\n").collect()
}

#[test]
fn chats_messages_and_the_connection_are_shown() {
    let shown = drawn(&view(), 80, 14, None);
    for text in [
        "Bob",
        "Carol",
        " 7",
        "you        a message that is so long",
        "sent ◷",
        "message to Bob",
        "● https://tern.example/",
    ] {
        assert!(shown.contains(text), "no {text:?} in\n{shown}");
    }
    assert!(!shown.contains("not connected"), "{shown}");
}

#[test]
fn help_covers_the_timeline() {
    assert!(drawn(&view(), 100, 24, Some(0)).contains("/group \"lunch club\" bob carol"));
}

#[test]
fn no_size_of_a_terminal_is_too_small_or_too_large() {
    let view = view();
    for (width, height) in [
        (1, 1),
        (2, 40),
        (40, 2),
        (5, 5),
        (30, 8),
        (69, 3),
        (70, 4),
        (500, 200),
    ] {
        for help in [None, Some(0), Some(1000)] {
            drawn(&view, width, height, help);
        }
    }
}

#[test]
fn a_long_title_is_cut_to_what_fits() {
    for (text, width, cut_text) in [
        ("short", 10, "short"),
        ("much too long", 6, "much …"),
        ("日本語です", 5, "日本…"),
    ] {
        assert_eq!(cut(text, width), cut_text);
    }
}

#[test]
fn who_was_removed_has_no_open_composer() {
    let mut view = view();
    let mut group = direct(2, 0);
    (group.kind, group.peer, group.left) = (ChatKind::Group, None, true);
    group.title = "lunch".to_owned();
    view.set_chat(group);
    let shown = drawn(&view, 80, 14, None);
    assert!(shown.contains("you are not in this group any more"), "{shown}");
    assert!(shown.contains("you are no member any more"), "{shown}");
    assert!(!shown.contains("message to"), "{shown}");
}

#[test]
fn an_ended_connection_is_a_state_and_says_how_to_go_on() {
    let mut view = view();
    view.connection = Connection::Ended("the operator keeps you out for now; /connect tries again");
    let shown = drawn(&view, 100, 14, None);
    assert!(
        shown.contains("not connected: the operator keeps you out for now; /connect tries again"),
        "{shown}"
    );
    assert!(
        shown.contains("you        a message that is so long"),
        "all stays on the screen\n{shown}"
    );
}

#[test]
fn a_lost_connection_is_a_state_and_says_when_it_is_tried_again() {
    let mut view = view();
    let lost = Event::Disconnected {
        reason: "transport error".to_owned(),
        retry_in: Some(std::time::Duration::from_secs(3600)),
    };
    view.apply(&lost, Clock::monotonic());
    let shown = drawn(&view, 120, 14, None);
    for text in [
        "not connected: the server cannot be reached · again in 3",
        "you        a message that is so long",
        "message to Bob",
    ] {
        assert!(shown.contains(text), "no {text:?} in\n{shown}");
    }
}

#[test]
fn a_refused_message_says_what_can_be_done() {
    let mut view = view();
    let chat = view.open.unwrap();
    assert!(view.failed(chat, 1).is_none());
    let message = Outgoing::new(chat, "too much");
    let (code, text) = (tern_proto::v1::SendErrorCode::NotAccepted, "x".to_owned());
    view.queue(QueuedMessage {
        message,
        chat,
        created_at: NOW,
        state: SendState::Failed {
            code,
            message: text,
            retry_at: None,
        },
    });
    let shown = drawn(&view, 120, 14, None);
    assert!(
        shown.contains("not sent: no messages pass between the two of you · /retry or /discard"),
        "{shown}"
    );
    for width in [40, 80] {
        let shown = drawn(&view, width, 24, None);
        for word in ["not sent:", "the two", "/retry", "/discard"] {
            assert!(shown.contains(word), "{width}: no {word:?} in\n{shown}");
        }
    }
}

/// Returns a message of Bob, with which the chat of [`view`] begins when it is added.
fn message(seq: u64, envelope: v1::Envelope, body: &'static str) -> Entry {
    let message = v1::Message {
        envelope: Some(envelope),
        body: body.into(),
    };
    Entry {
        chat: ChatId::direct(user(1), user(2)),
        seq: Seq(seq),
        sent_at: NOW,
        sender: Some(user(2)),
        device: None,
        request: None,
        ordinal: seq,
        content: v1::EntryContent {
            content: Some(v1::entry_content::Content::Message(message)),
            ..Default::default()
        },
        unknown: bytes::Bytes::new(),
    }
}

fn about(kind: MessageKind, target_seq: u64) -> v1::Envelope {
    v1::Envelope {
        kind: kind.into(),
        target_seq,
        ..Default::default()
    }
}

/// Returns a view in which Bob has written a message, and answered, edited, pinned and deleted others.
fn changed() -> View {
    let mut view = view();
    let answer = |kind, target_seq| v1::Envelope {
        reply_to_seq: 1,
        ..about(kind, target_seq)
    };
    for entry in [
        message(1, v1::Envelope::default(), "who comes?"),
        message(2, answer(MessageKind::Message, 0), "I"),
        message(3, answer(MessageKind::Edit, 2), "I do"),
        message(4, about(MessageKind::Reaction, 1), "👍"),
        message(5, about(MessageKind::Pin, 1), ""),
        message(6, v1::Envelope::default(), "oops"),
        message(7, about(MessageKind::Delete, 6), ""),
    ] {
        view.add(entry);
    }
    view
}

#[test]
fn what_was_done_to_messages_is_drawn_with_them() {
    let shown = drawn(&changed(), 100, 20, None);
    for text in [
        "Bob        📌",
        "who comes?  [👍",
        "Bob        ┃ Bob: who comes?",
        "           I do (edited)",
        "This message was deleted",
    ] {
        assert!(shown.contains(text), "no {text:?} in\n{shown}");
    }
    assert!(!shown.contains("oops"), "{shown}");
}

#[test]
fn the_selected_message_is_on_the_screen_and_the_keys_for_it_are_named() {
    let mut view = changed();
    // The timeline has fewer lines than the chat.
    let shown = drawn(&view, 100, 8, None);
    assert!(!shown.contains("who comes?  ["), "{shown}");
    view.selected = Some(Seq(1));
    let shown = drawn(&view, 100, 8, None);
    assert!(shown.contains("who comes?  ["), "{shown}");
    assert!(shown.contains("#1 · r: reply · t: thread · +: react"), "{shown}");
    for (width, keys) in [
        (40, "r:reply +:react p:pin d:del h:hide #1"),
        (80, "d: delete · h: hide · Esc"),
    ] {
        let shown = drawn(&view, width, 12, None);
        assert!(shown.contains(keys), "{width}: {shown}");
    }
    assert!(drawn(&view, 200, 12, None).contains("https://tern.example/   #1 · r: reply"));
}

#[test]
fn only_an_own_message_is_offered_to_be_edited() {
    let mut view = view();
    view.add(Entry {
        sender: Some(user(1)),
        ..message(1, v1::Envelope::default(), "mine")
    });
    view.selected = Some(Seq(1));
    for (width, keys) in [
        (40, "r:reply e:edit p:pin d:del h:hide #1"),
        (200, "t: thread · e: edit · +: react"),
    ] {
        let shown = drawn(&view, width, 12, None);
        assert!(shown.contains(keys), "{width}: {shown}");
    }
}

#[test]
fn the_list_says_how_chats_are_kept_and_folds_the_archive() {
    let mut view = view();
    let mut carol = direct(3, 7);
    carol.unread_mention_count = 2;
    (carol.settings.muted_until_ms, carol.settings.pinned_at_ms) = (i64::MAX, 1);
    view.set_chat(carol);
    let mut archived = direct(4, 0);
    archived.settings.archived = true;
    let (dave, archived_chat) = (user(4), archived.id);
    view.set_chat(archived);
    let mut marked = direct(5, 0);
    marked.settings.marked_unread = true;
    marked.settings.draft = b"so far".to_vec().into();
    view.set_chat(marked);
    view.set_names([(dave, "Dave".to_owned()), (user(5), "Erin".to_owned())].into());
    for width in [80, 200] {
        let shown = drawn(&view, width, 14, None);
        let row = |name: &str| {
            let row = shown.lines().find(|line| line.contains(name));
            row.and_then(|row| row.split('│').next())
                .unwrap_or_default()
                .to_owned()
        };
        for (name, signs) in [("Carol", vec!["📌", "🔕", "@2 7"]), ("Erin", vec!["✎", "•"])] {
            for sign in signs {
                assert!(row(name).contains(sign), "{width}: no {sign:?} in\n{shown}");
            }
        }
        let first = shown.find("Carol").zip(shown.find("Erin"));
        assert!(first.is_some_and(|(carol, erin)| carol < erin), "{shown}");
        assert!(
            shown.contains("▸ archived (1)") && !shown.contains("Dave"),
            "{width}: {shown}"
        );
    }
    view.open = Some(archived_chat);
    let shown = drawn(&view, 80, 14, None);
    assert!(
        shown.contains("▾ archived (1)") && shown.contains("Dave"),
        "{shown}"
    );
}

#[test]
fn the_header_says_what_is_special_about_a_chat() {
    let mut view = view();
    let mut group = chat(direct(2, 0).id, ChatKind::Group);
    group.title = "lunch".to_owned();
    group.retention.disappear_after_s = 3600;
    group.join_request_count = 2;
    view.set_chat(group.clone());
    assert!(
        drawn(&view, 40, 14, None).contains("# lunch · ⏱ 1 h"),
        "at 40 columns"
    );
    for width in [80, 200] {
        let shown = drawn(&view, width, 14, None);
        assert!(shown.contains("# lunch · ⏱ 1 h · 2 ask to join"), "{shown}");
    }
    group.frozen = true;
    view.set_chat(group.clone());
    let shown = drawn(&view, 80, 14, None);
    for text in ["# lunch · frozen by the operator", "the operator froze this chat"] {
        assert!(shown.contains(text), "no {text:?} in\n{shown}");
    }
    assert!(!shown.contains("message to"), "{shown}");
    (group.frozen, group.policy.send_role) = (false, v1::Role::Admin.into());
    view.set_chat(group);
    view.thread = Some(Seq(1));
    let shown = drawn(&view, 80, 14, None);
    for text in ["a thread in lunch · Esc: back", "only admins write here"] {
        assert!(shown.contains(text), "no {text:?} in\n{shown}");
    }
}
