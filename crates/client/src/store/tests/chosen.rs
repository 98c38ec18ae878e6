//! Tests of the choices among messages: those of a thread, of a person, with attachments, pinned.

use tern_proto::v1;

use tern_client_core::model::Only;

use super::messages::{deletion, edited, put, said, sent, seqs};
use super::*;

fn in_thread(seq: u64, root: u64) -> Entry {
    sent(seq, 3, Outgoing::new(CHAT, "and so").in_thread(Seq(root)))
}

fn with_file(seq: u64) -> Entry {
    let mut message = Outgoing::new(CHAT, "a picture");
    message.envelope.attachments = vec![v1::Attachment::default()];
    sent(seq, 2, message)
}

fn pin(seq: u64, message: u64) -> Entry {
    sent(seq, 3, Outgoing::pin(CHAT, Seq(message), false))
}

#[test]
fn a_list_has_the_messages_that_are_chosen_and_comes_in_pages() {
    let mut store = memory();
    let elsewhere = Entry {
        chat: ChatId(Uuid::from_u128(2)),
        ..in_thread(3, 1)
    };
    put(
        &mut store,
        [
            said(1, "root"),
            in_thread(2, 1),
            with_file(3),
            in_thread(4, 1),
            in_thread(5, 3),
            edited(6, 1, "the root"),
            with_file(7),
            pin(8, 3),
            pin(9, 1),
            in_thread(10, 1),
            elsewhere,
        ],
    );
    for (only, expected) in [
        (Only::Thread(Seq(1)), vec![2, 4, 10]),
        (Only::Thread(Seq(3)), vec![5]),
        (Only::Thread(Seq(2)), vec![]),
        (Only::Sender(user(2)), vec![1, 3, 7]),
        (Only::Sender(user(3)), vec![2, 4, 5, 10]),
        (Only::WithAttachments, vec![3, 7]),
        (Only::Pinned, vec![1, 3]),
    ] {
        let list = |before, limit| store.messages_only(CHAT, only, before, limit).unwrap();
        let mut pages: Vec<u64> = Vec::new();
        let mut before = None;
        loop {
            let page = list(before, 2);
            let Some(first) = page.first() else { break };
            before = Some(first.entry.seq);
            drop(pages.splice(0..0, seqs(&page)));
        }
        assert_eq!(pages, expected, "{only:?}");
        assert_eq!(seqs(&list(None, 100)), expected, "{only:?}");
    }
    let roots = store.messages_only(CHAT, Only::Pinned, None, 10).unwrap();
    let counts: Vec<u32> = roots.iter().map(|message| message.reply_count).collect();
    assert_eq!(counts, [3, 1]);
}

#[test]
fn of_a_deleted_message_it_is_known_who_wrote_it_and_in_which_thread_and_no_more() {
    let mut store = memory();
    put(&mut store, [said(1, "root"), in_thread(2, 1), with_file(3)]);
    put(&mut store, [deletion(4, 2), deletion(5, 3)]);
    for (only, expected) in [
        (Only::Thread(Seq(1)), vec![2]),
        (Only::Sender(user(2)), vec![1, 3]),
        (Only::WithAttachments, vec![]),
    ] {
        let list = store.messages_only(CHAT, only, None, 10).unwrap();
        assert_eq!(seqs(&list), expected, "{only:?}");
    }
    let reply = messages::message(&store, 2);
    assert_eq!(reply.deleted_at, Some(NOW + Duration::from_millis(4)));
    assert_eq!(messages::message(&store, 1).reply_count, 1);
}
