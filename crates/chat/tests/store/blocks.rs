//! Tests how a load and the making of a chat see blocks, and who counts as having written to whom.

use tern_chat::store::direct::{self, Made};
use tern_chat::store::{commit, load, written};
use tern_chat_core::EntryKind;
use tern_types::{Cell, ChatId, UserId};

use crate::harness::{self, NOTHING, Store, new_entry};

impl Store {
    pub async fn block(&self, user: UserId, blocked: UserId) {
        sqlx::query("INSERT INTO blocks (user_id, blocked_id) VALUES ($1, $2)")
            .bind(user.0)
            .bind(blocked.0)
            .execute(&self.pool)
            .await
            .unwrap();
    }

    pub async fn unblock_all(&self) {
        sqlx::query("DELETE FROM blocks")
            .execute(&self.pool)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_load_brings_a_block_in_either_direction() {
    let (store, [a, b], _, chat, _) = harness::direct().await;
    let stranger = store.user().await;
    store.block(a, stranger).await;
    store.block(stranger, b).await;
    assert!(!store.snapshot(chat.id).await.blocked, "others do not matter");
    for (user, blocked) in [(a, b), (b, a)] {
        store.block(user, blocked).await;
        assert!(store.snapshot(chat.id).await.blocked, "{user} {blocked}");
        store.unblock_all().await;
        assert!(!store.snapshot(chat.id).await.blocked);
    }
}

#[tokio::test]
async fn a_group_of_two_who_blocked_each_other_is_not_touched() {
    let (store, [a, b], _, group, _) = harness::group().await;
    store.block(a, b).await;
    store.block(b, a).await;
    assert!(!store.snapshot(group.id).await.blocked);
}

#[tokio::test]
async fn no_direct_chat_is_made_after_a_block() {
    let store = Store::new().await;
    let (a, b) = (store.user().await, store.user().await);
    let chat = ChatId::direct(a, b);
    let make = async |people: (UserId, UserId)| {
        // Another pair in the same transaction is not affected.
        let others = harness::new_direct(store.user().await, store.user().await);
        let new = [harness::new_direct(people.0, people.1), others];
        let made = direct::make(store.pools.cell(Cell::FIRST), &store.master, &new).await;
        let [made, beside]: [Made; 2] = made.unwrap().try_into().unwrap();
        assert!(matches!(beside, Made::New(_)));
        made
    };
    store.block(a, b).await;
    assert!(matches!(make((a, b)).await, Made::Blocked));
    assert!(matches!(make((b, a)).await, Made::Blocked));
    let none = load::chat(&store.pools, &store.master, chat, &NOTHING)
        .await
        .unwrap();
    assert!(none.is_none());
    store.unblock_all().await;
    assert!(matches!(make((b, a)).await, Made::New(_)));
    assert!(matches!(make((a, UserId::random())).await, Made::NobodyFound));
}

#[tokio::test]
async fn who_has_written_is_who_sent_a_message_in_the_direct_chat() {
    let (store, [a, b], _, mut chat, mut db) = harness::direct().await;
    let (c, d) = (store.user().await, store.user().await);
    let mut others = store.direct(a, c).await;
    let mut group = store.group(d, &[a]).await;
    store.say(&mut db, &mut group, d, "in a group").await;
    let reaction = others.batch(vec![new_entry(c, EntryKind::Reaction, b"x")]);
    let stored = commit::commit(&mut db, std::slice::from_ref(&reaction))
        .await
        .unwrap();
    assert!(stored.contains(&others.id));
    others.head = reaction.head();
    let asked = [b, c, d, UserId::random(), a];
    let written = async |to| {
        let mut written = written::have_written(&store.pools, to, &asked).await.unwrap();
        written.sort_unstable();
        written
    };
    assert_eq!(
        written(a).await,
        [],
        "a reaction is no message, nor is a group their chat"
    );
    store.say(&mut db, &mut chat, b, "hello").await;
    assert_eq!(written(a).await, [b]);
    assert_eq!(written(b).await, [], "the other way is another matter");
    let to = async |from| written::has_written_to(&store.pools, from, &asked).await.unwrap();
    assert_eq!((to(b).await, to(a).await), (vec![a], vec![]));
    store.say(&mut db, &mut others, c, "hello").await;
    let mut both = [b, c];
    both.sort_unstable();
    assert_eq!(written(a).await, both);
}
