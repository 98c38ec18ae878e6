//! Tests of what the commit of an entry does to an earlier message.

use bytes::Bytes;
use sqlx::PgConnection;
use tern_chat::store::{commit, entries, load};
use tern_chat_core::chat::LookUp;
use tern_chat_core::target::{About, Target};
use tern_chat_core::{EntryKind, MediaRef, NewEntry};
use tern_proto::v1::entry_content::Content;
use tern_types::{MediaId, Seq, Timestamp, UserId};

use crate::harness::{Known, Store, new_entry};

/// Makes an entry of this kind about the message at `target`. A reaction has the content as its key.
fn about(sender: UserId, kind: EntryKind, target: u64, content: &str) -> NewEntry {
    NewEntry {
        about: Some(About {
            target: Seq(target),
            take_back: false,
            reaction: Bytes::copy_from_slice(content.as_bytes()),
        }),
        ..new_entry(sender, kind, content.as_bytes())
    }
}

fn taken_back(mut entry: NewEntry) -> NewEntry {
    if let Some(about) = &mut entry.about {
        about.take_back = true;
    }
    entry
}

/// Commits the entries in one batch, and moves the known head to the last.
async fn commit(db: &mut PgConnection, chat: &mut Known, entries: Vec<NewEntry>) {
    let batch = chat.batch(entries);
    let stored = commit::commit(db, std::slice::from_ref(&batch)).await.unwrap();
    assert!(stored.contains(&chat.id));
    chat.head = batch.head();
    chat.ordinal = batch.entries.last().unwrap().ordinal;
}

/// The columns edited_seq, deleted_seq, pinned_seq and replies of a message.
async fn state(store: &Store, chat: &Known, seq: i64) -> Option<(i64, i64, i64, i32)> {
    let select = "SELECT edited_seq, deleted_seq, pinned_seq, replies FROM message_state WHERE chat_id = $1 AND seq = $2";
    let row = sqlx::query_as(select).bind(chat.id.0).bind(seq);
    row.fetch_optional(store.pools.of(chat.id)).await.unwrap()
}

/// Counts the reactions to a message, and the different ones among them.
async fn reactions(store: &Store, chat: &Known, seq: i64) -> (i64, i64) {
    let count = "SELECT count(*), count(DISTINCT key) FROM reactions WHERE chat_id = $1 AND target_seq = $2";
    let row = sqlx::query_as(count).bind(chat.id.0).bind(seq);
    row.fetch_one(store.pools.of(chat.id)).await.unwrap()
}

/// Returns the seqs of the entries without a body.
async fn blank(store: &Store, chat: &Known) -> Vec<i64> {
    let select = "SELECT seq FROM messages WHERE chat_id = $1 AND octet_length(body) = 0 ORDER BY seq";
    let rows = sqlx::query_scalar(select).bind(chat.id.0);
    rows.fetch_all(store.pools.of(chat.id)).await.unwrap()
}

#[tokio::test]
async fn the_state_of_a_message_follows_its_edits_pins_and_replies() {
    let store = Store::new().await;
    let (a, b) = (store.user().await, store.user().await);
    let mut chat = store.direct(a, b).await;
    let mut db = store.shard().await;
    store.say(&mut db, &mut chat, a, "hello").await;
    assert_eq!(
        state(&store, &chat, 1).await,
        None,
        "an ordinary message has no row"
    );
    let edit = about(a, EntryKind::Edit, 1, "hallo");
    let pin = about(b, EntryKind::Pin, 1, "");
    commit(&mut db, &mut chat, vec![edit]).await;
    commit(&mut db, &mut chat, vec![pin.clone()]).await;
    assert_eq!(state(&store, &chat, 1).await, Some((2, 0, 3, 0)));

    let reply = |root| NewEntry {
        thread_root: Some(Seq(root)),
        ..new_entry(b, EntryKind::Message, b"a reply")
    };
    // Two replies, and an edit of the message, in one statement. A thread cannot begin in the future.
    let edit = about(a, EntryKind::Edit, 1, "hey");
    commit(&mut db, &mut chat, vec![reply(1), edit, reply(1), reply(50)]).await;
    assert_eq!(state(&store, &chat, 1).await, Some((5, 0, 3, 2)));
    assert_eq!(state(&store, &chat, 50).await, None);

    let unpin = NewEntry {
        request: tern_types::RequestId::random(),
        ..taken_back(pin)
    };
    commit(&mut db, &mut chat, vec![unpin]).await;
    assert_eq!(state(&store, &chat, 1).await, Some((5, 0, -8, 2)));
    commit(&mut db, &mut chat, vec![about(b, EntryKind::Pin, 1, "")]).await;
    commit(&mut db, &mut chat, vec![about(a, EntryKind::Delete, 1, "")]).await;
    // Nobody could unpin it any more.
    assert_eq!(state(&store, &chat, 1).await, Some((5, 10, -10, 2)));
}

#[tokio::test]
async fn a_reaction_counts_once_until_it_is_taken_back() {
    let store = Store::new().await;
    let (a, b) = (store.user().await, store.user().await);
    let mut chat = store.direct(a, b).await;
    let mut other = store.direct(a, store.user().await).await;
    let mut db = store.shard().await;
    store.say(&mut db, &mut chat, a, "hello").await;
    store.say(&mut db, &mut other, a, "hello").await;
    let react = |user, key| about(user, EntryKind::Reaction, 1, key);
    commit(&mut db, &mut chat, vec![react(a, "+"), react(b, "+")]).await;
    commit(&mut db, &mut chat, vec![react(b, "+")]).await;
    commit(&mut db, &mut chat, vec![react(b, "-")]).await;
    assert_eq!(reactions(&store, &chat, 1).await, (3, 2));
    commit(&mut db, &mut chat, vec![taken_back(react(b, "+"))]).await;
    commit(&mut db, &mut chat, vec![taken_back(react(b, "none of these"))]).await;
    assert_eq!(reactions(&store, &chat, 1).await, (2, 2));

    // Who reads the store cannot compare reactions of two chats, or try them out.
    commit(&mut db, &mut other, vec![react(a, "+")]).await;
    let keys: Vec<Vec<u8>> = sqlx::query_scalar("SELECT DISTINCT key FROM public.reactions")
        .fetch_all(&store.pool)
        .await
        .unwrap();
    assert_eq!(keys.len(), 3);
}

#[tokio::test]
async fn a_deletion_leaves_nothing_of_the_message_its_edits_and_its_reactions() {
    let store = Store::new().await;
    let (a, b) = (store.user().await, store.user().await);
    let mut chat = store.direct(a, b).await;
    let mut db = store.shard().await;
    let media = MediaId::random();
    let mut picture = new_entry(a, EntryKind::Message, b"a picture");
    let expires_at = Timestamp(i64::MAX);
    picture.media = vec![MediaRef { media, expires_at }];
    commit(&mut db, &mut chat, vec![picture]).await;
    store.say(&mut db, &mut chat, a, "another").await;
    let edit = |target| about(a, EntryKind::Edit, target, "edited");
    let react = |target| about(b, EntryKind::Reaction, target, "+");
    commit(&mut db, &mut chat, vec![edit(1), edit(2), react(2)]).await;
    commit(&mut db, &mut chat, vec![react(1)]).await;
    assert_eq!(store.refs(chat.id).await, [(media, 1)]);

    commit(&mut db, &mut chat, vec![about(a, EntryKind::Delete, 1, "")]).await;
    assert_eq!(blank(&store, &chat).await, [1, 3, 6]);
    assert_eq!(store.refs(chat.id).await, []);
    assert_eq!(reactions(&store, &chat, 1).await, (0, 0));
    assert_eq!(
        reactions(&store, &chat, 2).await,
        (1, 1),
        "the other message's stays"
    );
    assert_eq!(state(&store, &chat, 1).await, Some((3, 7, 0, 0)));

    // Who catches up gets an entry in each place, which says what was there.
    let window = entries::window(&store.pools, &store.master, chat.id, b, Seq(1), 100, 1 << 20);
    let window = window.await.unwrap();
    let erased = window.items.iter().filter_map(|item| match item {
        entries::Item::Entry(entry) => match entry.decoded_content().ok()?.content? {
            Content::Erased(erased) => Some((entry.seq, erased.kind, erased.target_seq)),
            _ => None,
        },
        entries::Item::Skipped { .. } => None,
    });
    assert_eq!(erased.collect::<Vec<_>>(), [(1, 1, 0), (3, 2, 1), (6, 4, 1)]);
    assert_eq!(window.next, Seq(8), "no seq is missing");
}

/// Nobody could end it later: nothing is done to a message that was deleted.
#[tokio::test]
async fn a_deletion_ends_that_the_message_is_pinned() {
    let store = Store::new().await;
    let (a, b) = (store.user().await, store.user().await);
    let mut chat = store.direct(a, b).await;
    let mut db = store.shard().await;
    store.say(&mut db, &mut chat, a, "hello").await;
    commit(&mut db, &mut chat, vec![about(b, EntryKind::Pin, 1, "")]).await;
    commit(&mut db, &mut chat, vec![about(a, EntryKind::Delete, 1, "")]).await;
    assert_eq!(state(&store, &chat, 1).await, Some((0, 3, -3, 0)));
}

#[tokio::test]
async fn a_commit_that_conflicts_does_nothing_to_the_message() {
    let store = Store::new().await;
    let (a, b) = (store.user().await, store.user().await);
    let mut chat = store.direct(a, b).await;
    let mut db = store.shard().await;
    store.say(&mut db, &mut chat, a, "hello").await;
    let stale = chat.clone();
    commit(&mut db, &mut chat, vec![about(a, EntryKind::Edit, 1, "hallo")]).await;
    let late = stale.batch(vec![about(a, EntryKind::Delete, 1, "")]);
    let stored = commit::commit(&mut db, std::slice::from_ref(&late))
        .await
        .unwrap();
    assert!(stored.is_empty());
    assert_eq!(blank(&store, &chat).await, [] as [i64; 0]);
    assert_eq!(state(&store, &chat, 1).await, Some((2, 0, 0, 0)));
}

#[tokio::test]
async fn a_load_finds_what_decides_about_an_old_message() {
    let store = Store::new().await;
    let (a, b) = (store.user().await, store.user().await);
    let mut chat = store.direct(a, b).await;
    let mut db = store.shard().await;
    for seq in 0..300 {
        let sender = if seq == 1 { b } else { a };
        commit(
            &mut db,
            &mut chat,
            vec![new_entry(sender, EntryKind::Message, b"x")],
        )
        .await;
    }
    commit(&mut db, &mut chat, vec![about(a, EntryKind::Delete, 3, "")]).await;
    let look_up = LookUp {
        targets: vec![Seq(2), Seq(3), Seq(301), Seq(999)],
        ..LookUp::default()
    };
    let loaded = load::chat(&store.pools, &store.master, chat.id, &look_up).await;
    let targets = loaded.unwrap().unwrap().targets;
    let facts = |target: &Target| (target.sender, target.is_message, target.erased);
    let found: Vec<_> = targets
        .iter()
        .map(|(seq, target)| (seq.0, facts(target)))
        .collect();
    let expected = [
        (2, (b, true, false)),
        (3, (a, true, true)),
        (301, (a, false, false)),
    ];
    assert_eq!(found, expected);
}
