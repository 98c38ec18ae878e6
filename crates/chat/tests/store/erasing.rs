//! Tests the erasing of what was done to a message that is deleted: a part with the deletion, the rest in batches.

use bytes::Bytes;
use sqlx::PgConnection;
use tern_chat::store::commit::{self, ERASED_IN_COMMIT};
use tern_chat::store::history::{Begin, Bounds, Only, Reader};
use tern_chat::store::{entries, erasing, listing};
use tern_chat_core::target::About;
use tern_chat_core::{EntryKind, MediaRef, NewEntry};
use tern_proto::v1::entry_content::Content;
use tern_types::{MediaId, Seq, Timestamp, UserId};

use crate::harness::{Known, Store, direct, new_entry};

/// The reactions to the message. There are some edits besides, before and after them.
const REACTIONS: i64 = 600;
const BATCH: i64 = 100;

fn about(sender: UserId, kind: EntryKind) -> NewEntry {
    let about = About {
        target: Seq(1),
        take_back: false,
        reaction: Bytes::from_static(b"+"),
    };
    NewEntry {
        about: Some(about),
        ..new_entry(sender, kind, b"+")
    }
}

async fn commit(db: &mut PgConnection, chat: &mut Known, entries: Vec<NewEntry>) {
    let batch = chat.batch(entries);
    let stored = commit::commit(db, std::slice::from_ref(&batch)).await;
    assert!(stored.unwrap().contains(&chat.id));
    chat.head = batch.head();
}

/// Commits a message, an edit with a picture, as many reactions of other people, and another edit with the picture.
async fn much_is_done(store: &Store, db: &mut PgConnection, chat: &mut Known, author: UserId, people: i64) {
    store.say(db, chat, author, "hello").await;
    let media = MediaId::random();
    let edit = || NewEntry {
        media: vec![MediaRef {
            media,
            expires_at: Timestamp(i64::MAX),
        }],
        ..about(author, EntryKind::Edit)
    };
    commit(db, chat, vec![edit()]).await;
    let reactions = (0..people).map(|_| about(UserId::random(), EntryKind::Reaction));
    commit(db, chat, reactions.collect()).await;
    commit(db, chat, vec![edit()]).await;
    assert_eq!(store.refs(chat.id).await.len(), 2);
}

async fn count(store: &Store, chat: &Known, sql: &'static str) -> i64 {
    let count = sqlx::query_scalar(sql).bind(chat.id.0);
    count.fetch_one(store.pools.of(chat.id)).await.unwrap()
}

const BLANK: &str = "SELECT count(*) FROM messages WHERE chat_id = $1 AND octet_length(body) = 0";
const GUESSABLE: &str = "
SELECT count(*) FROM messages WHERE chat_id = $1 AND octet_length(body) = 0 AND octet_length(fingerprint) > 0";
const LEFT: &str = "
SELECT (SELECT count(*) FROM reactions WHERE chat_id = $1) + (SELECT count(*) FROM act_counts WHERE chat_id = $1)";
const ERASURES: &str = "SELECT count(*) FROM erasures WHERE chat_id = $1";

/// Asserts that a reader finds nothing of the message, whatever is still in the store.
async fn assert_is_gone(store: &Store, chat: &Known, user: UserId) {
    let all = entries::window(
        &store.pools,
        &store.master,
        chat.id,
        user,
        Seq(1),
        10_000,
        1 << 24,
    );
    let erased = |item: &entries::Item| match item {
        entries::Item::Entry(entry) => match entry.decoded_content().ok().and_then(|content| content.content)
        {
            Some(Content::Erased(erased)) => erased.kind == 1 || erased.target_seq == 1,
            _ => false,
        },
        entries::Item::Skipped { .. } => false,
    };
    let all = all.await.unwrap().items;
    assert_eq!(all.len() as u64, chat.head.0);
    let (deletion, others) = all.split_last().unwrap();
    assert!(others.iter().all(erased) && !erased(deletion));

    let reader = Reader {
        pools: &store.pools,
        master: &store.master,
        chat: chat.id,
        user,
    };
    let message = reader.message(Seq(1)).await.unwrap().unwrap();
    assert_eq!(
        (message.deleted_seq, message.reactions),
        (chat.head.0, Vec::new())
    );
    let content = message.entry.unwrap().decoded_content().unwrap().content;
    assert!(matches!(content, Some(Content::Erased(_))), "{content:?}");
    let bounds = Bounds {
        limit: 100,
        bytes: 1 << 20,
    };
    let edits = reader
        .page(Only::EditsOf(Seq(1)), Begin::Above(Seq(0)), bounds)
        .await;
    assert_eq!(edits.unwrap().messages, []);
}

#[tokio::test]
async fn much_that_was_done_to_a_message_is_gone_at_once_and_erased_in_batches() {
    let (store, [a, b], _, mut chat, mut db) = direct().await;
    much_is_done(&store, &mut db, &mut chat, a, REACTIONS).await;
    let last = about(b, EntryKind::Reaction);
    commit(&mut db, &mut chat, vec![last]).await;
    let acts = REACTIONS + 3;
    commit(&mut db, &mut chat, vec![about(a, EntryKind::Delete)]).await;
    assert_eq!(count(&store, &chat, BLANK).await, 1 + ERASED_IN_COMMIT);
    assert_eq!(count(&store, &chat, ERASURES).await, 1);
    assert_eq!(store.refs(chat.id).await, [], "edits are erased first");
    assert_is_gone(&store, &chat, b).await;

    let pool = store.pools.of(chat.id);
    assert!(erasing::oldest(pool).await.unwrap().is_some());
    let mut erased = 0;
    while let Some(batch) = erasing::erase(pool, BATCH).await.unwrap() {
        erased += batch as i64;
        assert!(batch as i64 <= BATCH);
        assert_eq!(count(&store, &chat, BLANK).await, 1 + ERASED_IN_COMMIT + erased);
    }
    assert_eq!(erased, acts - ERASED_IN_COMMIT);
    assert_eq!(erasing::oldest(pool).await.unwrap(), None);
    for (sql, what) in [
        (GUESSABLE, "fingerprints"),
        (LEFT, "reactions"),
        (ERASURES, "erasures"),
    ] {
        assert_eq!(count(&store, &chat, sql).await, 0, "{what}");
    }
    assert_is_gone(&store, &chat, b).await;
}

/// A node that dies in a batch leaves the erasure to others, and two do not wait for each other.
#[tokio::test]
async fn an_erasure_at_which_another_node_is_is_passed_over() {
    let (store, [a, _], _, mut chat, mut db) = direct().await;
    much_is_done(&store, &mut db, &mut chat, a, REACTIONS).await;
    commit(&mut db, &mut chat, vec![about(a, EntryKind::Delete)]).await;
    let pool = store.pools.of(chat.id);
    let mut other = tern_store::postgres::begin(pool).await.unwrap();
    sqlx::query(erasing::ERASE)
        .bind(BATCH)
        .execute(&mut *other)
        .await
        .unwrap();
    assert_eq!(erasing::erase(pool, BATCH).await.unwrap(), None);
    other.rollback().await.unwrap();
    // The two edits are not among the oldest entries, and the commit of the deletion has erased them.
    let erased = erasing::erase(pool, ERASED_IN_COMMIT + BATCH).await.unwrap();
    assert_eq!(erased, Some(BATCH as u64 + 1));
}

#[tokio::test]
async fn as_much_as_a_commit_erases_leaves_nothing_to_be_done() {
    let (store, [a, b], _, mut chat, mut db) = direct().await;
    much_is_done(&store, &mut db, &mut chat, a, ERASED_IN_COMMIT - 2).await;
    commit(&mut db, &mut chat, vec![about(a, EntryKind::Delete)]).await;
    assert_eq!(count(&store, &chat, BLANK).await, 1 + ERASED_IN_COMMIT);
    for (sql, what) in [
        (GUESSABLE, "fingerprints"),
        (LEFT, "reactions"),
        (ERASURES, "erasures"),
    ] {
        assert_eq!(count(&store, &chat, sql).await, 0, "{what}");
    }
    assert_eq!(
        erasing::erase(store.pools.of(chat.id), BATCH).await.unwrap(),
        None
    );
    assert_is_gone(&store, &chat, b).await;
}

/// The last entry of a chat is a reaction that is still to be erased if another owner has lost the deletion's push.
#[tokio::test]
async fn a_list_of_chats_does_not_show_what_is_still_to_be_erased() {
    let (store, [a, b], _, mut chat, mut db) = direct().await;
    store.say(&mut db, &mut chat, a, "hello").await;
    commit(&mut db, &mut chat, vec![about(b, EntryKind::Reaction)]).await;
    let delete = "INSERT INTO message_state (chat_id, seq, deleted_seq) VALUES ($1, 1, 3)";
    sqlx::query(delete)
        .bind(chat.id.0)
        .execute(store.pools.of(chat.id))
        .await
        .unwrap();
    let view = listing::chat(&store.pools, &store.master, b, None, chat.id).await;
    let last = view.unwrap().unwrap().last_entry.unwrap();
    let content = last.decoded_content().unwrap().content;
    assert!(matches!(content, Some(Content::Erased(_))), "{content:?}");
}
