//! Tests how messages are shown that were edited, deleted, pinned or answered, or to which people have reacted.

use super::*;

/// Returns an entry of the user with this number that does something to an earlier message.
fn done(seq: u64, number: u128, kind: MessageKind, target: u64, body: &str) -> Entry {
    entry(seq, user(number), kind, target, body)
}

/// Returns an entry of the user with this number that takes something back.
fn taken_back(seq: u64, number: u128, kind: MessageKind, target: u64, body: &str) -> Entry {
    let mut entry = done(seq, number, kind, target, body);
    if let Some(Content::Message(message)) = &mut entry.content.content {
        message.envelope.get_or_insert_default().take_back = true;
    }
    entry
}

/// Returns a view in which Bob has written "hello" with the seq 1, and after which these entries have come.
fn after(entries: impl IntoIterator<Item = Entry>) -> View {
    let mut view = view(3);
    view.open = Some(CHAT);
    view.add(said(1, user(2), "hello"));
    entries.into_iter().for_each(|entry| view.add(entry));
    view
}

fn shown(view: &View) -> Vec<String> {
    view.lines(CHAT).iter().map(Line::shown).collect()
}

#[test]
fn an_edited_message_says_so_and_is_one_line() {
    let view = after([
        done(2, 2, MessageKind::Edit, 1, "hallo"),
        done(3, 3, MessageKind::Edit, 1, "forged"),
    ]);
    assert_eq!(shown(&view), ["hallo (edited)"]);
    assert_eq!(view.lines(CHAT)[0].at, NOW, "it keeps its place and time");
}

#[test]
fn of_a_deleted_message_it_is_said_who_deleted_it_if_that_was_not_the_sender() {
    for (number, text) in [
        (1, "You deleted this message"),
        (2, "This message was deleted"),
        (3, "This message was deleted by Carol"),
    ] {
        let view = after([
            done(2, 3, MessageKind::Reaction, 1, "👍"),
            done(3, number, MessageKind::Delete, 1, ""),
        ]);
        assert_eq!(shown(&view), [text]);
        assert!(view.lines(CHAT)[0].deleted);
        assert_eq!(view.message(CHAT, Seq(1)).unwrap().entry.text(), None);
    }
    let mut view = after([]);
    let own = said(2, user(1), "mine");
    view.add(own);
    view.add(done(3, 1, MessageKind::Delete, 2, ""));
    assert_eq!((tick(&view), view.own_message(CHAT, 1)), (None, None));
}

#[test]
fn equal_reactions_are_shown_together_with_their_number() {
    let like = |seq, number| done(seq, number, MessageKind::Reaction, 1, "👍");
    let cases = [
        (vec![like(2, 3)], "hello  [👍 Carol]"),
        (vec![like(2, 3), like(3, 2)], "hello  [👍 2]"),
        (vec![like(2, 3), like(3, 1)], "hello  [👍 2, you too]"),
        (
            vec![like(2, 3), done(3, 1, MessageKind::Reaction, 1, "🐟")],
            "hello  [👍 Carol]  [🐟 you]",
        ),
        (
            vec![like(2, 3), taken_back(3, 3, MessageKind::Reaction, 1, "👍")],
            "hello",
        ),
        (
            vec![done(2, 3, MessageKind::Reaction, 1, "\u{1b}[31m!")],
            "hello  [[31m! Carol]",
        ),
    ];
    for (entries, text) in cases {
        assert_eq!(shown(&after(entries)), [text]);
    }
}

#[test]
fn a_pinned_message_is_marked_until_it_is_pinned_no_more() {
    let pin = done(2, 3, MessageKind::Pin, 1, "");
    let unpin = taken_back(3, 3, MessageKind::Pin, 1, "");
    assert_eq!(shown(&after([pin.clone()])), ["📌 hello"]);
    assert_eq!(shown(&after([pin, unpin])), ["hello"]);
}

#[test]
fn an_answer_repeats_the_first_line_of_what_it_answers() {
    let answer = |seq, to: u64| {
        let mut answer = said(seq, user(3), "yes");
        if let Some(Content::Message(message)) = &mut answer.content.content {
            message.envelope.get_or_insert_default().reply_to_seq = to;
        }
        answer
    };
    let long = format!("{}\nand more", "x".repeat(100));
    let view = after([
        answer(2, 1),
        said(3, user(1), &long),
        answer(4, 3),
        answer(5, 99),
        done(6, 2, MessageKind::Delete, 1, ""),
    ]);
    let quotes: Vec<_> = view.lines(CHAT).into_iter().map(|line| line.quote).collect();
    let cut = format!("you: {}…", "x".repeat(59));
    let expected = [
        None,
        Some("Bob: This message was deleted"),
        None,
        Some(cut.as_str()),
        Some("an earlier message"),
    ];
    assert_eq!(quotes, expected.map(|quote| quote.map(str::to_owned)));
}

fn waiting(view: &mut View, message: Outgoing, state: SendState) {
    view.queue(QueuedMessage {
        message,
        chat: CHAT,
        created_at: NOW,
        state,
    });
}

#[test]
fn what_waits_to_be_done_to_a_message_is_shown_there_and_what_was_refused_beside_it() {
    let mut view = after([]);
    let like = Outgoing::reaction(CHAT, Seq(1), "👍", false);
    waiting(&mut view, like.clone(), SendState::Queued);
    assert_eq!(shown(&view), ["hello  [👍 you]"]);
    let refused = SendState::Failed {
        code: v1::SendErrorCode::TargetNotFound,
        message: String::new(),
        retry_at: None,
    };
    let request = like.request;
    view.apply(
        &Event::Send {
            request,
            chat: CHAT,
            state: refused,
        },
        NOW,
    );
    assert_eq!(shown(&view), ["hello", "(reaction to “hello”) 👍"]);
    let unsent = view.unsent(CHAT, request);
    assert_eq!(unsent.as_deref(), Some("(reaction to “hello”) 👍"));
    assert_eq!(view.unsent(CHAT, RequestId::random()), None);
    assert_eq!(
        tick(&view),
        Some(Tick::Failed("there is no such message any more".to_owned()))
    );
}

#[test]
fn what_was_done_to_a_message_is_told_in_a_line() {
    let entries = [
        done(2, 3, MessageKind::Reaction, 1, "👍"),
        taken_back(3, 3, MessageKind::Reaction, 1, "👍"),
        done(4, 2, MessageKind::Edit, 1, "hallo"),
        done(5, 3, MessageKind::Pin, 1, ""),
        done(6, 3, MessageKind::Reaction, 99, "👍"),
    ];
    let view = after(entries.clone());
    let told: Vec<_> = entries.iter().map(|entry| view.deed(entry)).collect();
    let expected = [
        Some("Carol reacted 👍 to #1 “hallo”"),
        Some("Carol took 👍 back from #1 “hallo”"),
        Some("Bob edited #1: hallo"),
        Some("Carol pinned #1 “hallo”"),
        None,
    ];
    assert_eq!(told, expected.map(|text| text.map(str::to_owned)));
    let deletion = done(7, 2, MessageKind::Delete, 1, "");
    let view = after(entries.into_iter().chain([deletion.clone()]));
    assert_eq!(view.deed(&deletion).as_deref(), Some("Bob deleted #1"));
    assert_eq!(view.deed(&said(8, user(2), "a message")), None);
}

#[test]
fn the_selection_goes_from_message_to_message_and_leaves_out_the_deleted() {
    let mut view = after([
        said(2, user(1), "deleted"),
        done(3, 1, MessageKind::Delete, 2, ""),
        removed(4, 3),
        said(5, user(1), "newest"),
    ]);
    let mut selected = |down: bool| {
        let more = view.select(down);
        (view.selected.map(|seq| seq.0), more)
    };
    assert_eq!(selected(true), (None, true), "there is nothing below");
    assert_eq!(selected(false), (Some(5), true));
    assert_eq!(selected(false), (Some(1), true));
    assert_eq!(selected(false), (Some(1), false), "there is nothing above");
    assert_eq!(selected(true), (Some(5), true));
    assert_eq!(selected(true), (None, true));
}
