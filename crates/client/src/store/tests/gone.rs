//! Tests of messages that are gone without a trace: they have disappeared, or the person has deleted them for themselves.

use tern_proto::v1::MessageKind;
use tern_types::Timestamp;

use tern_client_core::model::{Act, Only, erased, vanished};

use super::messages::{deletion, edited, found, message, put, reaction, said, sent, seqs};
use super::*;
use crate::search_text::SearchText;
use crate::store::Expired;

fn hide(store: &mut Store, seqs: &[u64]) {
    let seqs = seqs.iter().map(|seq| Seq(*seq)).collect();
    store.commit(&[Change::Hide { chat: CHAT, seqs }]).unwrap();
}

/// Returns a message that disappears so many seconds after it was sent.
fn disappearing(seq: u64, body: &'static str, after_s: u32) -> Entry {
    let mut entry = said(seq, body);
    entry.content.expires_after_s = after_s;
    entry
}

fn due(entry: &Entry) -> Timestamp {
    entry.expires_at().unwrap()
}

fn shown(store: &Store) -> Vec<u64> {
    seqs(&store.messages(CHAT, None, 100).unwrap())
}

fn searching(location: &StoreLocation) -> Store {
    let mut store = Store::open(location, true).unwrap();
    store.put_credentials(&credentials()).unwrap();
    store.set_search(&SearchText::Plain).unwrap();
    store
}

#[test]
fn hidden_messages_vanish_with_all_that_was_done_to_them() {
    let mut store = memory();
    put(
        &mut store,
        [
            said(1, "one"),
            edited(2, 1, "eins"),
            reaction(3, 3, 1, "👍"),
            said(4, "four"),
        ],
    );
    hide(&mut store, &[1]);
    assert_eq!(shown(&store), [4]);
    assert_eq!(store.message(CHAT, Seq(1)).unwrap(), None);
    let log = store.history(CHAT, None, 10).unwrap();
    assert_eq!(log.len(), 4, "the entries stay");
    assert!(log[..3].iter().all(|entry| entry.has_vanished()), "{log:?}");
    assert_eq!(log[0].act(), Act::Erased);
    assert_eq!(
        (log[2].kind(), log[2].target()),
        (Some(MessageKind::Reaction), Some(Seq(1)))
    );
    // All of it comes again, and more is done to the message.
    put(
        &mut store,
        [
            said(1, "one"),
            edited(2, 1, "eins"),
            edited(5, 1, "uno"),
            deletion(6, 1),
        ],
    );
    assert_eq!(shown(&store), [4]);
    let log = store.history(CHAT, None, 10).unwrap();
    assert!(log.iter().take(3).all(|entry| entry.message().is_none()));
    assert_eq!(log[4].message(), None, "the new edit");
}

#[test]
fn a_message_may_be_hidden_before_this_device_has_it() {
    let mut store = memory();
    hide(&mut store, &[1]);
    assert_eq!(store.load().unwrap().hidden_ahead, [(CHAT, Seq(1))]);
    put(
        &mut store,
        [said(1, "one"), reaction(2, 3, 1, "👍"), said(3, "three")],
    );
    assert_eq!(shown(&store), [3]);
    let reset = Change::Reset {
        epoch: Uuid::from_u128(2),
        since: NOW,
    };
    store.commit(&[reset]).unwrap();
    put(&mut store, [said(1, "another one")]);
    assert_eq!(
        shown(&store),
        [1],
        "in another store the seq stands for another message"
    );
}

#[test]
fn what_is_due_is_erased_and_nothing_else() {
    let mut store = memory();
    let (soon, late) = (disappearing(1, "soon", 30), disappearing(2, "late", 60));
    put(
        &mut store,
        [
            soon.clone(),
            late.clone(),
            said(3, "stays"),
            reaction(4, 3, 1, "👍"),
        ],
    );
    assert_eq!(store.next_expiry().unwrap(), Some(due(&soon)));
    assert_eq!(message(&store, 2).expires_at, Some(due(&late)));
    let early = store.expire(due(&soon) - Duration::from_millis(1)).unwrap();
    assert_eq!((early.gone, early.next), (vec![], Some(due(&soon))));
    let first = store.expire(due(&soon)).unwrap();
    let expected = Expired {
        gone: vec![(CHAT, Seq(1))],
        next: Some(due(&late)),
    };
    assert_eq!(first, expected);
    assert_eq!(shown(&store), [2, 3]);
    assert_eq!(
        store.history(CHAT, None, 10).unwrap()[3].message(),
        None,
        "the reaction"
    );
    // A page of history that was read before brings it again.
    put(&mut store, [soon, edited(5, 1, "later")]);
    assert_eq!(shown(&store), [2, 3]);
    assert_eq!(store.history(CHAT, None, 1).unwrap()[0].message(), None);
    let last = store.expire(due(&late)).unwrap();
    assert_eq!((last.gone, last.next), (vec![(CHAT, Seq(2))], None));
    assert_eq!(shown(&store), [3]);
}

#[test]
fn many_that_are_due_are_erased_step_by_step() {
    let mut store = memory();
    put(&mut store, (1..=450).map(|seq| disappearing(seq, "x", 1)));
    let later = NOW + Duration::from_secs(3600);
    let steps: Vec<usize> = std::iter::from_fn(|| {
        let expired = store.expire(later).unwrap();
        (!expired.gone.is_empty()).then_some(expired.gone.len())
    })
    .collect();
    assert_eq!(steps, [200, 200, 50]);
    assert_eq!(shown(&store), [0; 0]);
}

#[test]
fn a_deleted_message_disappears_too() {
    let mut store = memory();
    let entry = disappearing(1, "soon", 30);
    put(&mut store, [entry.clone(), deletion(2, 1)]);
    assert_eq!(shown(&store), [1], "it is shown as deleted");
    store.expire(due(&entry)).unwrap();
    assert_eq!(shown(&store), [0; 0]);
}

#[test]
fn what_the_server_only_did_not_keep_stays_on_the_device() {
    let mut store = memory();
    let kept = [
        said(1, "kept"),
        disappearing(2, "disappears", 30),
        said(3, "deleted"),
    ];
    put(&mut store, kept);
    let by_server = |seq, content| Entry {
        content,
        ..said(seq, "")
    };
    put(
        &mut store,
        [
            by_server(1, vanished(MessageKind::Message, None)),
            by_server(2, vanished(MessageKind::Message, None)),
            by_server(3, erased(MessageKind::Message, None)),
            // This device never had it.
            by_server(4, vanished(MessageKind::Message, None)),
        ],
    );
    assert_eq!(shown(&store), [1, 3]);
    assert_eq!(message(&store, 1).entry.text().as_deref(), Some("kept"));
    assert!(message(&store, 3).deleted.is_some());
}

#[test]
fn a_refused_edit_of_a_message_that_is_gone_is_not_kept() {
    let mut store = memory();
    let entry = disappearing(1, "soon", 30);
    put(&mut store, [entry.clone(), said(2, "two")]);
    let edits: Vec<QueuedMessage> = [1, 2]
        .map(|target| {
            let mut edit = queued("it says so too");
            edit.message.envelope.kind = MessageKind::Edit.into();
            edit.message.envelope.target_seq = target;
            edit
        })
        .into();
    for edit in edits {
        let failed = Change::Failed {
            request: edit.message.request,
            code: FailureCode::TooLate,
            message: String::new(),
            retry_at: None,
        };
        store.commit(&[Change::Queue(edit), failed]).unwrap();
    }
    store.expire(due(&entry)).unwrap();
    assert_eq!(store.outbox().unwrap().len(), 1);
    hide(&mut store, &[2]);
    assert_eq!(store.outbox().unwrap().len(), 0);
}

#[test]
fn vanished_messages_are_in_no_list() {
    let mut store = memory();
    let mut reply = Outgoing::new(CHAT, "and so").in_thread(Seq(1));
    reply.envelope.attachments = vec![v1::Attachment::default()];
    let pin = sent(3, 3, Outgoing::pin(CHAT, Seq(2), false));
    put(&mut store, [said(1, "root"), sent(2, 2, reply), pin]);
    hide(&mut store, &[2]);
    for only in [Only::Thread(Seq(1)), Only::WithAttachments, Only::Pinned] {
        let list = store.messages_only(CHAT, only, None, 10).unwrap();
        assert_eq!(list.len(), 0, "{only:?}");
    }
    assert_eq!(message(&store, 1).reply_count, 0);
}

#[test]
fn nothing_of_what_is_gone_is_left_on_the_disk() {
    const SECRETS: [&str; 2] = ["zebramarzipan", "quokkapudding"];
    let directory = tempfile::tempdir().unwrap();
    let mut store = searching(&StoreLocation::File(directory.path().join("device.db")));
    let disappears = disappearing(2, SECRETS[1], 30);
    put(
        &mut store,
        [said(1, SECRETS[0]), disappears.clone(), said(3, "innocent")],
    );
    // In the index the words are stored without the letters in which they begin like the word before.
    for secret in SECRETS {
        assert!(found(directory.path(), &secret[2..]) > 0);
    }
    hide(&mut store, &[1]);
    store.expire(due(&disappears)).unwrap();
    for secret in SECRETS {
        assert_eq!(found(directory.path(), &secret[2..]), 0, "{secret}");
        assert_eq!(store.search(secret, None, None, 10).unwrap(), []);
    }
    assert_eq!(store.search("innocent", None, None, 10).unwrap().len(), 1);
}
