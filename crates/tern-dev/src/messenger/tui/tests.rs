//! Tests what keys and pasted texts do.

use tern_client::{Chat, Entry, Hit};
use tern_proto::v1::{self, ChatKind, entry_content::Content};
use tern_types::{RequestId, Seq, Timestamp, UserId};

use super::*;
use crate::messenger::desk::testing::{chat, offline};

async fn pressed(code: KeyCode, desk: &mut Desk, screen: &mut Screen) {
    let leave = press(KeyEvent::new(code, KeyModifiers::NONE), desk, screen).await;
    assert!(!leave, "{code:?}");
}

async fn pasted(text: &str, desk: &mut Desk, screen: &mut Screen) {
    let leave = take_key(TerminalEvent::Paste(text.to_owned()), desk, screen).await;
    assert!(!leave, "{text:?}");
}

/// Returns the bodies of the messages that wait to be sent.
async fn outbox(desk: &Desk) -> Vec<String> {
    let queued = desk.client.outbox().await.unwrap();
    let body = |body: &[u8]| String::from_utf8_lossy(body).into_owned();
    queued.iter().map(|queued| body(&queued.message.body)).collect()
}

#[tokio::test]
async fn keys_scroll_the_help_and_close_it() {
    let (mut desk, _events) = offline().await;
    let mut screen = Screen {
        help: Some(0),
        ..Screen::default()
    };
    let page = FIRST_PAGE - 1;
    for (code, from) in [
        (KeyCode::Down, 1),
        (KeyCode::PageDown, 1 + page),
        (KeyCode::Up, page),
        (KeyCode::PageUp, 0),
        (KeyCode::Up, 0),
    ] {
        pressed(code, &mut desk, &mut screen).await;
        assert_eq!(screen.help, Some(from), "{code:?}");
    }
    pressed(KeyCode::Esc, &mut desk, &mut screen).await;
    assert_eq!(screen.help, None);
}

#[tokio::test]
async fn pasted_lines_are_one_message_and_are_sent_with_enter_only() {
    let (mut desk, _events) = offline().await;
    let mut screen = Screen::default();
    desk.open_direct(UserId::random());
    pasted("one\r\ntwo\rthree", &mut desk, &mut screen).await;
    assert_eq!(outbox(&desk).await, [""; 0]);
    pressed(KeyCode::Enter, &mut desk, &mut screen).await;
    assert_eq!(outbox(&desk).await, ["one\ntwo\nthree"]);
}

#[tokio::test]
async fn who_was_removed_can_type_commands_only() {
    let (mut desk, _events) = offline().await;
    let mut screen = Screen::default();
    let group = ChatId::group(desk.view.me, RequestId::random());
    desk.view.set_chat(Chat {
        title: "lunch".to_owned(),
        head: Seq(1),
        read: Seq(1),
        left: true,
        ..chat(group, ChatKind::Group)
    });
    desk.view.open = Some(group);
    pressed(KeyCode::Char('h'), &mut desk, &mut screen).await;
    pasted("hello", &mut desk, &mut screen).await;
    assert!(screen.input.is_empty());
    for c in "/who".chars() {
        pressed(KeyCode::Char(c), &mut desk, &mut screen).await;
    }
    assert_eq!(screen.input.take(), "/who");
    let outcome = desk.submit("hello all the same").await;
    assert_eq!(outcome, Outcome::Kept("hello all the same".to_owned()));
    assert_eq!(outbox(&desk).await, [""; 0]);
}

/// Shows a message of the user in their chat with another person, which is opened.
fn show(desk: &mut Desk, text: &'static str) {
    let peer = UserId::random();
    desk.open_direct(peer);
    let message = v1::Message {
        body: text.into(),
        ..Default::default()
    };
    desk.view.add(Entry {
        chat: ChatId::direct(desk.view.me, peer),
        seq: Seq(1),
        sent_at: Timestamp(0),
        sender: Some(desk.view.me),
        device: Some(desk.client.device()),
        request: Some(RequestId::random()),
        ordinal: 1,
        content: v1::EntryContent {
            content: Some(Content::Message(message)),
            ..Default::default()
        },
        unknown: bytes::Bytes::new(),
    });
}

#[tokio::test]
async fn keys_begin_commands_for_the_selected_message_and_enter_carries_them_out() {
    let (mut desk, _events) = offline().await;
    let mut screen = Screen::default();
    show(&mut desk, "helo");
    pressed(KeyCode::Char('e'), &mut desk, &mut screen).await;
    assert_eq!(screen.input.take(), "e", "no message is selected");
    for (key, command) in [
        ('e', "/edit helo"),
        ('r', "/reply "),
        ('t', "/thread "),
        ('+', "/react "),
        ('p', "/pin"),
        ('d', "/delete"),
        ('h', "/hide"),
        ('T', "/thread"),
        ('x', "x"),
    ] {
        pressed(KeyCode::Up, &mut desk, &mut screen).await;
        assert_eq!(desk.view.selected, Some(Seq(1)));
        pressed(KeyCode::Char(key), &mut desk, &mut screen).await;
        assert_eq!(screen.input.take(), command);
        pressed(KeyCode::Esc, &mut desk, &mut screen).await;
        assert_eq!(desk.view.selected, None);
    }
    pressed(KeyCode::Up, &mut desk, &mut screen).await;
    pressed(KeyCode::Char('e'), &mut desk, &mut screen).await;
    pressed(KeyCode::Backspace, &mut desk, &mut screen).await;
    for c in "lo".chars() {
        pressed(KeyCode::Char(c), &mut desk, &mut screen).await;
    }
    pressed(KeyCode::Enter, &mut desk, &mut screen).await;
    assert_eq!(outbox(&desk).await, ["hello"]);
    assert_eq!(desk.view.selected, None);
}

#[tokio::test]
async fn enter_goes_to_the_message_that_is_selected_in_the_list() {
    let (mut desk, _events) = offline().await;
    let mut screen = Screen::default();
    show(&mut desk, "hello");
    let chat = desk.view.open.unwrap();
    let message = desk.view.message(chat, Seq(1)).unwrap();
    let hit = Hit {
        message: message.clone(),
        text: "hello".to_owned(),
        places: Vec::new(),
    };
    let found = Update::Found {
        title: "found",
        hits: vec![hit.clone(), hit],
    };
    take_update(found, &mut desk, &mut screen);
    pressed(KeyCode::Down, &mut desk, &mut screen).await;
    assert_eq!(screen.list.as_ref().and_then(|list| list.selected), Some(1));
    pressed(KeyCode::Enter, &mut desk, &mut screen).await;
    assert_eq!(screen.list, None);
    let shown = loop {
        match desk.update().await {
            Some(Update::Show { chat, seq, .. }) => break (chat, seq),
            other => assert!(other.is_some()),
        }
    };
    assert_eq!(shown, (chat, Seq(1)));

    let found = |entries| Update::Show {
        chat,
        seq: Seq(1),
        around: vec![message.clone()],
        entries,
    };
    take_update(found(Vec::new()), &mut desk, &mut screen);
    assert_eq!((screen.list.is_some(), desk.view.selected), (true, None));
    take_update(found(vec![message.entry.clone()]), &mut desk, &mut screen);
    assert_eq!((screen.list.is_some(), desk.view.selected), (false, Some(Seq(1))));
}

#[tokio::test]
async fn nothing_of_a_message_that_is_deleted_stays_in_the_list() {
    let (mut desk, _events) = offline().await;
    let mut screen = Screen::default();
    show(&mut desk, "hello");
    let chat = desk.view.open.unwrap();
    let message = desk.view.message(chat, Seq(1)).unwrap();
    let deletion = v1::Envelope {
        kind: v1::MessageKind::Delete.into(),
        target_seq: 1,
        ..Default::default()
    };
    let deletion = Entry {
        seq: Seq(2),
        content: v1::EntryContent {
            content: Some(Content::Message(v1::Message {
                envelope: Some(deletion),
                ..Default::default()
            })),
            ..Default::default()
        },
        ..message.entry.clone()
    };
    let hit = Hit {
        message,
        text: "hello".to_owned(),
        places: Vec::new(),
    };
    let found = Update::Found {
        title: "found",
        hits: vec![hit],
    };
    take_update(found, &mut desk, &mut screen);
    assert!(format!("{:?}", screen.list).contains("hello"));
    take_events(Event::Entry(deletion.clone()), &mut None, &mut desk, &mut screen);
    let list = format!("{:?}", screen.list);
    assert!(list.contains("deleted") && !list.contains("hello"), "{list}");

    screen.list = Some(List::new(
        "too far back for the screen",
        vec!["hello".to_owned()],
        false,
    ));
    take_events(Event::Entry(deletion), &mut None, &mut desk, &mut screen);
    assert_eq!(screen.list, None);
}

/// Presses the keys of a text, one after the other.
async fn typed(text: &str, desk: &mut Desk, screen: &mut Screen) {
    for c in text.chars() {
        pressed(KeyCode::Char(c), desk, screen).await;
    }
}

#[tokio::test]
async fn what_was_begun_waits_in_its_chat_and_a_command_goes_along() {
    let (mut desk, _events) = offline().await;
    let mut screen = Screen::default();
    desk.open_direct(UserId::random());
    desk.open_direct(UserId::random());
    let chat = desk.view.open;
    typed("hel", &mut desk, &mut screen).await;
    pressed(KeyCode::Tab, &mut desk, &mut screen).await;
    assert_ne!(desk.view.open, chat);
    assert!(screen.input.is_empty());
    pressed(KeyCode::Tab, &mut desk, &mut screen).await;
    assert_eq!((desk.view.open, screen.input.take()), (chat, "hel".to_owned()));
    typed("/who", &mut desk, &mut screen).await;
    pressed(KeyCode::Tab, &mut desk, &mut screen).await;
    assert_eq!(screen.input.take(), "/who");
}

#[tokio::test]
async fn a_text_stays_when_the_message_that_it_answers_is_deleted_meanwhile() {
    let (mut desk, _events) = offline().await;
    let mut screen = Screen::default();
    show(&mut desk, "hello");
    let message = desk.view.target(None, false).unwrap();
    pressed(KeyCode::Up, &mut desk, &mut screen).await;
    typed("ryes", &mut desk, &mut screen).await;
    desk.view.hide(message.entry.chat, &[message.entry.seq]);
    pressed(KeyCode::Enter, &mut desk, &mut screen).await;
    assert_eq!(outbox(&desk).await, [""; 0]);
    assert_eq!(
        (screen.input.take(), desk.view.selected),
        ("yes".to_owned(), None)
    );
}

#[tokio::test]
async fn the_message_of_somebody_else_is_not_offered_to_be_edited() {
    let (mut desk, _events) = offline().await;
    let mut screen = Screen::default();
    show(&mut desk, "hello");
    let mut theirs = desk.view.target(None, false).unwrap().entry;
    theirs.sender = Some(UserId::random());
    desk.view.add(theirs);
    pressed(KeyCode::Up, &mut desk, &mut screen).await;
    pressed(KeyCode::Char('e'), &mut desk, &mut screen).await;
    assert!(screen.input.is_empty());
    assert!(screen.notice.is_some_and(|(text, _)| text.contains("who wrote")));
}

#[tokio::test]
async fn a_thread_is_shown_until_esc_goes_back() {
    let (mut desk, _events) = offline().await;
    let mut screen = Screen::default();
    show(&mut desk, "hello");
    pressed(KeyCode::Up, &mut desk, &mut screen).await;
    pressed(KeyCode::Char('T'), &mut desk, &mut screen).await;
    pressed(KeyCode::Enter, &mut desk, &mut screen).await;
    assert_eq!(desk.view.thread, Some(Seq(1)));
    pressed(KeyCode::Up, &mut desk, &mut screen).await;
    pressed(KeyCode::Esc, &mut desk, &mut screen).await;
    assert_eq!((desk.view.thread, desk.view.selected), (Some(Seq(1)), None));
    pressed(KeyCode::Esc, &mut desk, &mut screen).await;
    assert_eq!(desk.view.thread, None);
}

#[tokio::test]
async fn lines_to_read_stay_until_esc() {
    let (mut desk, _events) = offline().await;
    let mut screen = Screen::default();
    let (title, lines) = ("invite links", vec!["tern:…".to_owned()]);
    take_update(Update::Lines { title, lines }, &mut desk, &mut screen);
    assert!(format!("{:?}", screen.list).contains("tern:…"));
    pressed(KeyCode::Esc, &mut desk, &mut screen).await;
    assert_eq!(screen.list, None);
}
