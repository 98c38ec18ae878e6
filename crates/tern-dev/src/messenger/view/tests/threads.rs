//! Tests how a thread is shown in place of its chat.

use super::*;

/// Returns a message of the user with this number in the thread that begins with the message `root`.
fn part(seq: u64, number: u128, root: u64) -> Entry {
    let mut part = said(seq, user(number), &format!("part {seq}"));
    if let Some(Content::Message(message)) = &mut part.content.content {
        message.envelope.get_or_insert_default().thread_root_seq = root;
    }
    part
}

#[test]
fn a_thread_has_its_first_message_its_replies_and_what_is_still_to_be_sent_there() {
    let mut view = view(3);
    view.open = Some(CHAT);
    for entry in [
        said(1, user(2), "who comes?"),
        removed(2, 3),
        said(3, user(2), "another matter"),
        part(4, 1, 1),
        part(5, 2, 3),
        part(6, 2, 1),
    ] {
        view.add(entry);
    }
    for root in [1, 3] {
        let message = Outgoing::new(CHAT, format!("waits in {root}")).in_thread(Seq(root));
        view.queue(QueuedMessage {
            message,
            chat: CHAT,
            created_at: NOW,
            state: SendState::Queued,
        });
    }
    queued(&mut view);
    let texts = |view: &View| -> Vec<String> {
        let lines = view.lines(CHAT).into_iter();
        lines.map(|line| line.text).collect()
    };
    assert_eq!(texts(&view).len(), 9);
    let shown = |view: &View, at: usize| view.lines(CHAT)[at].shown();
    assert_eq!(shown(&view, 0), "who comes?  [2 replies]");
    assert_eq!(shown(&view, 2), "another matter  [1 reply]");
    view.thread = Some(Seq(1));
    assert_eq!(texts(&view), ["who comes?", "part 4", "part 6", "waits in 1"]);
    assert_eq!(shown(&view, 0), "who comes?");
    assert_eq!(view.target(None, false).unwrap().entry.seq, Seq(6));
    assert_eq!(view.target(None, true).unwrap().entry.seq, Seq(4));
    let mut selected = || {
        view.select(false);
        view.selected.map(|seq| seq.0)
    };
    assert_eq!([selected(), selected(), selected()], [Some(6), Some(4), Some(1)]);
    view.open = None;
    assert_eq!(texts(&view).len(), 9, "the thread is that of the open chat");
}
