//! Tests how messages that were found are shown.

use tern_client::Hit;

use super::*;

/// Returns the hit for a message of the chat whose text has the word at this place.
fn hit(view: &View, seq: u64, place: std::ops::Range<usize>) -> Hit {
    let message = view.message(CHAT, Seq(seq)).unwrap();
    Hit {
        text: message.entry.text().unwrap_or_default().into_owned(),
        places: vec![place],
        message,
    }
}

#[test]
fn hits_are_numbered_and_name_the_chat_unless_it_is_open() {
    let mut view = view(2);
    view.add(said(1, user(2), "tea at\nfive?"));
    view.add(said(2, user(1), "no tea"));
    view.found = vec![hit(&view, 2, 3..6), hit(&view, 1, 0..3)];
    let at = format!("today {}", clock::time(NOW));
    let expected = |place: &str| {
        [
            format!("1. [{at} #2] {place}you: no tea"),
            format!("2. [{at} #1] {place}Bob: tea at five?"),
        ]
    };
    assert_eq!(view.found_lines(NOW), expected("(Bob) "));
    view.open = Some(CHAT);
    assert_eq!(view.found_lines(NOW), expected(""));
}

#[test]
fn a_hit_that_is_deleted_loses_its_text_and_the_others_keep_their_numbers() {
    let mut view = view(2);
    view.open = Some(CHAT);
    view.add(said(1, user(2), "tea at five?"));
    view.add(said(2, user(1), "no tea"));
    view.found = vec![hit(&view, 2, 3..6), hit(&view, 1, 0..3)];
    let deletion = entry(3, user(1), MessageKind::Delete, 2, "");
    view.apply(&Event::Entry(deletion), NOW);
    let at = format!("today {}", clock::time(NOW));
    let expected = [
        format!("1. [{at} #2] you: This message was deleted"),
        format!("2. [{at} #1] Bob: tea at five?"),
    ];
    assert_eq!(view.found_lines(NOW), expected);
}

#[test]
fn a_message_is_shown_between_its_neighbours() {
    let mut view = view(2);
    view.open = Some(CHAT);
    for seq in 1..=3 {
        view.add(said(seq, user(2), &format!("message {seq}\nwith two lines")));
    }
    view.add(entry(4, user(2), MessageKind::Delete, 3, ""));
    let around: Vec<_> = (1..=3).filter_map(|seq| view.message(CHAT, Seq(seq))).collect();
    let at = format!("today {}", clock::time(NOW));
    let expected = [
        format!("  [{at} #1] Bob: message 1"),
        format!("› [{at} #2] Bob: message 2"),
        format!("  [{at} #3] Bob: This message was deleted"),
    ];
    assert_eq!(view.around_lines(&around, Seq(2), NOW), expected);
}
