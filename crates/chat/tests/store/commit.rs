//! Tests commits (rules 2 and 5; fine print 3 and 10).

use sqlx::Connection;
use tern_chat::store::{change, commit};
use tern_chat_core::change::Action;
use tern_chat_core::{EntryKind, MediaRef};
use tern_store::postgres::{cell_connect_options, connect_hot};
use tern_types::{Cells, MediaId, Seq, Timestamp, UserId};

use crate::harness::{Store, new_entry};

#[tokio::test]
async fn rule_2_a_stale_owner_s_batch_matches_no_row() {
    let store = Store::new().await;
    let (a, b) = (store.user().await, store.user().await);
    let mut chat = store.direct(a, b).await;
    let stale = chat.clone();
    let mut db = store.shard().await;
    store.say(&mut db, &mut chat, a, "first").await;

    let late = stale.batch(vec![new_entry(b, EntryKind::Message, b"late")]);
    assert!(commit::commit(&mut db, &[late]).await.unwrap().is_empty());
    assert_eq!(store.log(chat.id).await, [1]);
    assert_eq!(store.unsettled(chat.id).await, [1]);
}

/// The shard of another cell does not even see the chat.
#[tokio::test]
async fn a_shard_reaches_the_chats_of_its_cell_only() {
    let store = Store::with_cells(None).await;
    let (a, b) = (store.user().await, store.user().await);
    let chat = store.direct(a, b).await;
    for cell in Cells::DEFAULT.all() {
        let mut db = connect_hot(&cell_connect_options(&store.args, cell))
            .await
            .unwrap();
        let batch = chat.batch(vec![new_entry(a, EntryKind::Message, b"hello")]);
        let stored = commit::commit(&mut db, &[batch]).await.unwrap();
        assert_eq!(
            !stored.is_empty(),
            cell == Cells::DEFAULT.of_chat(chat.id),
            "{cell}"
        );
    }
    assert_eq!(store.log(chat.id).await, [1]);
}

#[tokio::test]
async fn rule_2_two_owners_at_once_make_one_log_without_gaps() {
    let store = Store::new().await;
    let (a, b) = (store.user().await, store.user().await);
    let chat = store.direct(a, b).await;
    let writer = async |sender: UserId| {
        let mut db = store.shard().await;
        let mut chat = chat.clone();
        for n in 0..50 {
            let new = new_entry(sender, EntryKind::Message, format!("{n}").as_bytes());
            loop {
                let batch = chat.batch(vec![new.clone()]);
                if !commit::commit(&mut db, &[batch]).await.unwrap().is_empty() {
                    break;
                }
                chat = store.load(chat.id).await;
            }
        }
    };
    tokio::join!(writer(a), writer(b));
    assert_eq!(store.log(chat.id).await, (1..=100).collect::<Vec<_>>());
    assert_eq!(store.unsettled(chat.id).await.len(), 100);
    assert_eq!(store.load(chat.id).await.head, Seq(100));
}

#[tokio::test]
async fn rule_5_and_fine_print_10_a_request_in_the_log_leaves_its_chat_out_and_no_other() {
    let store = Store::new().await;
    let (a, b, c) = (store.user().await, store.user().await, store.user().await);
    let (mut one, two) = (store.direct(a, b).await, store.direct(a, c).await);
    let mut db = store.shard().await;
    let repeated = new_entry(a, EntryKind::Message, b"once");
    let first = one.batch(vec![repeated.clone()]);
    commit::commit(&mut db, std::slice::from_ref(&first))
        .await
        .unwrap();
    one.head = first.head();

    // Fine print 10: the repetition makes neither a gap nor a failed statement.
    let again = one.batch(vec![new_entry(a, EntryKind::Message, b"new"), repeated]);
    let other = two.batch(vec![new_entry(a, EntryKind::Message, b"other")]);
    let stored = commit::commit(&mut db, &[again, other]).await.unwrap();
    assert!(stored.contains(&two.id) && !stored.contains(&one.id));
    assert_eq!(store.log(one.id).await, [1]);
    assert_eq!(store.load(one.id).await.head, Seq(1));
    assert_eq!(store.log(two.id).await, [1]);
}

#[tokio::test]
async fn fine_print_3_every_commit_leaves_its_own_unsettled_row() {
    let store = Store::new().await;
    let (a, b) = (store.user().await, store.user().await);
    let mut chat = store.direct(a, b).await;
    let mut db = store.shard().await;
    for n in 1..=3 {
        store.say(&mut db, &mut chat, a, "x").await;
        assert_eq!(store.unsettled(chat.id).await, (1..=n).collect::<Vec<i64>>());
    }
    store.settle(&mut db, chat.id, Seq(2), &[]).await;
    tern_chat::store::settle::close(&mut db, &[(chat.id, Seq(2))])
        .await
        .unwrap();
    assert_eq!(store.unsettled(chat.id).await, [3], "only what was settled goes");
}

#[tokio::test]
async fn a_stale_view_of_the_members_is_caught_by_the_same_check() {
    let store = Store::new().await;
    let (a, b) = (store.user().await, store.user().await);
    let mut chat = store.group(a, &[b]).await;
    let stale = chat.clone();
    let mut db = store.shard().await;
    store.change(&mut db, &mut chat, a, Action::Remove(b)).await;

    let late = stale.batch(vec![new_entry(b, EntryKind::Message, b"still here")]);
    assert!(commit::commit(&mut db, &[late]).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_member_who_does_not_exist_is_not_added() {
    let store = Store::new().await;
    let a = store.user().await;
    let chat = store.group(a, &[]).await;
    let nobody = UserId::random();
    let mut batch = chat.batch(vec![new_entry(a, EntryKind::MembersAdded, b"")]);
    batch.change = Some(Action::Add(vec![nobody]));
    let mut db = store.shard().await;
    let refused = tern_chat_core::ChangeRefusal::UserNotFound(nobody);
    assert_eq!(
        change::change(&mut db, &batch, None).await.unwrap(),
        change::Changed::Refused(refused)
    );
    assert_eq!(store.log(chat.id).await, [1]);
}

#[tokio::test]
async fn a_commit_that_is_not_committed_is_nowhere() {
    let store = Store::new().await;
    let (a, b) = (store.user().await, store.user().await);
    let chat = store.direct(a, b).await;
    let mut db = store.shard().await;
    let mut tx = db.begin().await.unwrap();
    let batch = chat.batch(vec![new_entry(a, EntryKind::Message, b"x")]);
    assert_eq!(commit::commit(&mut tx, &[batch]).await.unwrap().len(), 1);
    tx.rollback().await.unwrap();
    assert!(store.log(chat.id).await.is_empty());
    assert!(store.unsettled(chat.id).await.is_empty());
}

#[tokio::test]
async fn what_an_entry_refers_to_is_written_with_it_or_not_at_all() {
    let store = Store::new().await;
    let (a, b, c) = (store.user().await, store.user().await, store.user().await);
    let (mut one, two) = (store.direct(a, b).await, store.direct(a, c).await);
    let mut db = store.shard().await;
    let with = |media: &[MediaId]| {
        let mut new = new_entry(a, EntryKind::Message, b"a picture");
        new.media = media
            .iter()
            .map(|media| MediaRef {
                media: *media,
                expires_at: Timestamp(i64::MAX),
            })
            .collect();
        new
    };
    let (x, y) = (MediaId::random(), MediaId::random());
    let plain = new_entry(a, EntryKind::Message, b"text");
    let stale = one.clone();
    let first = one.batch(vec![with(&[x]), plain, with(&[y])]);
    let other = two.batch(vec![with(&[x])]);
    one.head = first.head();
    assert_eq!(commit::commit(&mut db, &[first, other]).await.unwrap().len(), 2);
    assert_eq!(store.refs(one.id).await, [(x, 1), (y, 3)]);
    assert_eq!(store.refs(two.id).await, [(x, 1)]);

    // A chat that the commit leaves out gets no reference; the other chats of the statement get theirs.
    let late = stale.batch(vec![with(&[y])]);
    let group = store.group(a, &[b]).await;
    let good = group.batch(vec![with(&[y])]);
    let stored = commit::commit(&mut db, &[late, good]).await.unwrap();
    assert!(stored.contains(&group.id) && !stored.contains(&one.id));
    assert_eq!(store.refs(one.id).await, [(x, 1), (y, 3)]);
    assert_eq!(store.refs(group.id).await, [(y, 2)]);
}

#[tokio::test]
async fn a_groups_picture_is_in_its_entry_and_in_the_chat() {
    let store = Store::new().await;
    let (a, b) = (store.user().await, store.user().await);
    let mut group = store.group(a, &[b]).await;
    let mut db = store.shard().await;
    let expires_at = Timestamp(i64::MAX);
    let (old, new) = (MediaId::random(), MediaId::random());
    assert_eq!(store.snapshot(group.id).await.picture, None);
    for media in [old, new] {
        let set = Action::SetPicture(Some(MediaRef { media, expires_at }));
        store.change(&mut db, &mut group, a, set).await;
        assert_eq!(store.snapshot(group.id).await.picture, Some(media));
    }
    store
        .change(&mut db, &mut group, a, Action::SetPicture(None))
        .await;
    assert_eq!(store.snapshot(group.id).await.picture, None);
    // A member who scrolls back in the log still sees the old picture.
    assert_eq!(store.refs(group.id).await, [(old, 2), (new, 3)]);
}

/// A reference to media ends with the body that refers to it, whichever statement deletes that body.
#[tokio::test]
async fn what_is_deleted_refers_to_nothing() {
    let store = Store::new().await;
    let (a, b) = (store.user().await, store.user().await);
    let mut chat = store.direct(a, b).await;
    let mut db = store.shard().await;
    let media = [(); 3].map(|()| MediaId::random());
    for media in media {
        let mut new = new_entry(a, EntryKind::Message, b"a picture");
        let expires_at = Timestamp(i64::MAX);
        new.media = vec![MediaRef { media, expires_at }];
        let batch = chat.batch(vec![new]);
        commit::commit(&mut db, std::slice::from_ref(&batch))
            .await
            .unwrap();
        chat.head = batch.head();
    }
    let all = media.iter().copied().zip(1..).collect::<Vec<_>>();
    let mut sorted = all.clone();
    sorted.sort_unstable_by_key(|(_, seq)| *seq);
    for (statement, left) in [
        ("UPDATE messages SET body = body WHERE chat_id = $1", &sorted[..]),
        (
            "DELETE FROM messages WHERE chat_id = $1 AND seq = 1",
            &sorted[1..],
        ),
        (
            "UPDATE messages SET body = '' WHERE chat_id = $1 AND seq = 2",
            &sorted[2..],
        ),
        ("DELETE FROM chats WHERE chat_id = $1", &[]),
    ] {
        let cell = store.pools.of(chat.id);
        let done = sqlx::query(statement).bind(chat.id.0).execute(cell).await;
        assert!(done.unwrap().rows_affected() > 0, "{statement}");
        assert_eq!(store.refs(chat.id).await, left, "{statement}");
    }
}
