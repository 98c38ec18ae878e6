//! Tests of messages as they are shown, and of what is left of those that were deleted.

use std::path::Path;

use tern_proto::v1::{self, MessageKind, entry_content::Content};
use tern_types::Timestamp;

use tern_client_core::model::{Act, Deletion, Message, Reaction, erased};

use super::*;

/// Returns the entry that a message of the user with this number becomes.
pub(super) fn sent(seq: u64, number: u128, message: Outgoing) -> Entry {
    let content = v1::Message {
        envelope: Some(message.envelope),
        body: message.body,
    };
    Entry {
        sender: Some(user(number)),
        sent_at: Timestamp(NOW.0 + i64::try_from(seq).unwrap()),
        content: v1::EntryContent {
            content: Some(Content::Message(content)),
            ..Default::default()
        },
        ..entry(CHAT, seq)
    }
}

pub(super) fn said(seq: u64, body: impl Into<bytes::Bytes>) -> Entry {
    sent(seq, 2, Outgoing::new(CHAT, body))
}

pub(super) fn edited(seq: u64, message: u64, body: impl Into<bytes::Bytes>) -> Entry {
    let mut edit = Outgoing::new(CHAT, body);
    edit.envelope.kind = MessageKind::Edit.into();
    edit.envelope.target_seq = message;
    sent(seq, 2, edit)
}

pub(super) fn reaction(seq: u64, number: u128, message: u64, key: &'static str) -> Entry {
    sent(seq, number, Outgoing::reaction(CHAT, Seq(message), key, false))
}

pub(super) fn deletion(seq: u64, message: u64) -> Entry {
    sent(seq, 3, Outgoing::delete(CHAT, Seq(message)))
}

pub(super) fn put(store: &mut Store, entries: impl IntoIterator<Item = Entry>) {
    let changes: Vec<Change> = entries.into_iter().map(Change::Entry).collect();
    store.commit(&changes).unwrap();
}

pub(super) fn message(store: &Store, seq: u64) -> Message {
    store.message(CHAT, Seq(seq)).unwrap().unwrap()
}

pub(super) fn seqs(messages: &[Message]) -> Vec<u64> {
    messages.iter().map(|message| message.entry.seq.0).collect()
}

#[test]
fn messages_are_shown_with_all_that_later_entries_did_to_them() {
    let mut store = memory();
    put(
        &mut store,
        [
            said(1, "one"),
            said(2, "two"),
            reaction(3, 1, 1, "👍"),
            edited(4, 2, "zwei"),
            reaction(5, 3, 1, "👍"),
            sent(6, 3, Outgoing::pin(CHAT, Seq(2), false)),
            said(7, "seven"),
            // The target of this one is not here.
            reaction(8, 1, 99, "👍"),
        ],
    );
    let messages = store.messages(CHAT, None, 10).unwrap();
    assert_eq!(seqs(&messages), [1, 2, 7]);
    let likes = Reaction {
        key: "👍".into(),
        users: vec![user(1), user(3)],
    };
    assert_eq!(messages[0].reactions, [likes]);
    assert_eq!(messages[1].entry.text().as_deref(), Some("zwei"));
    assert_eq!(messages[1].edited_at, Some(Timestamp(NOW.0 + 4)));
    assert_eq!((messages[0].pinned, messages[1].pinned), (false, true));
    assert_eq!(message(&store, 2), messages[1]);
    assert_eq!(store.pinned(CHAT).unwrap(), [messages[1].clone()]);

    let page = store.messages(CHAT, Some(Seq(7)), 1).unwrap();
    assert_eq!(page, [messages[1].clone()]);
    assert_eq!(
        store.message(CHAT, Seq(3)).unwrap(),
        None,
        "a reaction is no message"
    );
    put(&mut store, [sent(9, 3, Outgoing::pin(CHAT, Seq(2), true))]);
    assert_eq!(store.pinned(CHAT).unwrap(), []);
}

#[test]
fn an_entry_that_comes_twice_changes_nothing() {
    let mut store = memory();
    let entries = [said(1, "one"), edited(2, 1, "two"), reaction(3, 3, 1, "👍")];
    put(&mut store, entries.clone());
    let before = message(&store, 1);
    put(&mut store, entries.clone());
    assert_eq!(message(&store, 1), before);
    put(&mut store, [deletion(4, 1)]);
    let deleted = message(&store, 1);
    put(&mut store, entries.into_iter().chain([deletion(4, 1)]));
    assert_eq!(message(&store, 1), deleted);
}

#[test]
fn a_deletion_erases_the_message_its_edits_and_its_reactions() {
    let mut store = memory();
    put(
        &mut store,
        [
            said(1, "one"),
            said(2, "two"),
            edited(3, 1, "eins"),
            reaction(4, 3, 1, "👍"),
            reaction(5, 3, 2, "👍"),
            deletion(6, 1),
        ],
    );
    let deleted = message(&store, 1);
    assert_eq!(deleted.deleted, Some(Deletion { by: Some(user(3)) }));
    assert_eq!((deleted.entry.text(), deleted.reactions.len()), (None, 0));
    assert_eq!(message(&store, 2).reactions.len(), 1, "it was not deleted");
    let log = store.history(CHAT, None, 10).unwrap();
    let acts: Vec<Act<'_>> = log.iter().map(Entry::act).collect();
    assert_eq!(acts[0], Act::Erased);
    assert_eq!((acts[2], acts[3]), (Act::Nothing, Act::Nothing));
    assert_eq!(acts[5], Act::Delete { target: Seq(1) });
    assert_eq!(log[3].kind(), Some(MessageKind::Reaction));
    assert_eq!(log[3].target(), Some(Seq(1)));
}

/// A page of history was read before the message was deleted, and is stored after that.
#[test]
fn what_was_deleted_does_not_come_back_with_an_older_page() {
    let mut store = memory();
    put(&mut store, [deletion(9, 1)]);
    put(
        &mut store,
        [said(1, "one"), edited(2, 1, "two"), reaction(3, 3, 1, "👍")],
    );
    for entry in store.history(CHAT, None, 3).unwrap().iter().take(2) {
        assert_eq!(entry.message(), None, "{entry:?}");
    }
    assert_eq!(message(&store, 1).deleted, Some(Deletion { by: Some(user(3)) }));
}

#[test]
fn a_message_that_was_erased_before_this_device_got_it_is_shown_as_deleted() {
    let mut store = memory();
    let gone = Entry {
        content: erased(MessageKind::Message, None),
        ..entry(CHAT, 1)
    };
    put(&mut store, [gone]);
    assert_eq!(message(&store, 1).deleted, Some(Deletion { by: None }));
}

/// Returns how often the text is in the store's files.
pub(super) fn found(directory: &Path, text: &str) -> usize {
    let files = std::fs::read_dir(directory).unwrap();
    let count = |path: std::path::PathBuf| {
        let bytes = std::fs::read(path).unwrap();
        bytes
            .windows(text.len())
            .filter(|part| *part == text.as_bytes())
            .count()
    };
    files.map(|file| count(file.unwrap().path())).sum()
}

#[test]
fn nothing_of_a_deleted_message_is_left_on_the_disk() {
    const SECRET: &str = "the key is under the mat";
    let directory = tempfile::tempdir().unwrap();
    let location = StoreLocation::File(directory.path().join("device.db"));
    let mut store = Store::open(&location, true).unwrap();
    store.put_credentials(&credentials()).unwrap();
    // A long text takes pages of its own. The first message was in the outbox before it was in the log.
    let (short, long) = (queued(SECRET), format!("{SECRET}{}", "!".repeat(20_000)));
    store.commit(&[Change::Queue(short.clone())]).unwrap();
    let first = Entry {
        content: said(1, SECRET).content,
        ..own(&short, 1)
    };
    put(&mut store, [first, said(2, long), edited(3, 1, SECRET)]);
    assert!(found(directory.path(), SECRET) > 0);
    put(&mut store, [deletion(4, 1), deletion(5, 2)]);
    assert_eq!(found(directory.path(), SECRET), 0);
}

#[test]
fn a_refused_edit_of_a_deleted_message_is_not_kept() {
    const SECRET: &str = "a refused edit says it too";
    let directory = tempfile::tempdir().unwrap();
    let location = StoreLocation::File(directory.path().join("device.db"));
    let mut store = Store::open(&location, true).unwrap();
    put(&mut store, [said(1, SECRET), said(2, "two")]);
    let edit_of = |message: u64, body: &'static str| {
        let mut waiting = queued(body);
        waiting.message.envelope.kind = MessageKind::Edit.into();
        waiting.message.envelope.target_seq = message;
        waiting
    };
    let (before, after) = (edit_of(1, SECRET), edit_of(1, SECRET));
    let other = edit_of(2, "zwei");
    let refused = |queued: &QueuedMessage, code| Change::Failed {
        request: queued.message.request,
        code,
        message: String::new(),
        retry_at: None,
    };
    let waits = |store: &Store| -> Vec<_> {
        let outbox = store.outbox().unwrap();
        outbox.iter().map(|queued| queued.message.request).collect()
    };
    for queued in [&before, &after, &other] {
        store.commit(&[Change::Queue(queued.clone())]).unwrap();
    }
    store.commit(&[refused(&before, FailureCode::TooLate)]).unwrap();
    assert_eq!(waits(&store).len(), 3, "the message is there");
    put(&mut store, [deletion(3, 1)]);
    assert_eq!(waits(&store), [after.message.request, other.message.request]);
    store
        .commit(&[
            refused(&after, FailureCode::TargetNotFound),
            refused(&other, FailureCode::TooLate),
        ])
        .unwrap();
    assert_eq!(waits(&store), [other.message.request]);
    assert_eq!(found(directory.path(), SECRET), 0);
}

/// The app kept history once, and does so no more.
#[test]
fn what_an_earlier_start_has_stored_is_erased_without_history_too() {
    const SECRET: &str = "kept by an earlier start";
    let directory = tempfile::tempdir().unwrap();
    let location = StoreLocation::File(directory.path().join("device.db"));
    let mut store = Store::open(&location, true).unwrap();
    put(&mut store, [said(1, SECRET), edited(2, 1, SECRET)]);
    drop(store);
    let mut store = Store::open(&location, false).unwrap();
    put(&mut store, [deletion(3, 1)]);
    assert_eq!(found(directory.path(), SECRET), 0);
    assert_eq!(
        store.history(CHAT, None, 10).unwrap().len(),
        2,
        "nothing is added"
    );
}

/// In a restored store of the server, the seqs that the device knows may stand for other messages.
#[test]
fn a_new_epoch_does_nothing_to_earlier_messages() {
    let mut store = memory();
    let mine = own(&queued("mine"), 1);
    let like = Entry {
        content: reaction(2, 1, 1, "👍").content,
        ..own(&queued("a reaction"), 2)
    };
    let waiting = QueuedMessage {
        message: Outgoing::delete(CHAT, Seq(1)),
        ..queued("")
    };
    let reset = Change::Reset {
        epoch: Uuid::from_u128(2),
        since: NOW - Duration::from_secs(60),
    };
    store
        .commit(&[
            Change::Entry(mine.clone()),
            Change::Entry(like),
            Change::Queue(waiting.clone()),
            reset,
        ])
        .unwrap();
    let outbox = store.outbox().unwrap();
    let requests: Vec<_> = outbox.iter().map(|queued| Some(queued.message.request)).collect();
    assert_eq!(requests, [mine.request, Some(waiting.message.request)]);
    assert_eq!(outbox[0].state, SendState::Queued);
    let failed = |state: &SendState| matches!(state, SendState::Failed { code, .. } if *code == FailureCode::TargetNotFound);
    assert!(failed(&outbox[1].state), "{outbox:?}");
}
