//! Tests how direct chats are made: by two nodes at once, by retries, and while devices are linked.

use sqlx::{Connection, PgConnection};
use tern_chat::shard_loop::loader::Loader;
use tern_chat::store::devices;
use tern_chat::store::direct::{self, Made, NewDirect};
use tern_chat::store::load;
use tern_chat_core::chat::LookUp;
use tern_chat_core::shard::LoadError;
use tern_types::{Cell, ChatId, DeviceId, RequestId, UserId};

use crate::harness::{NOTHING, Store, making, new_direct};

/// The time after which a statement counts as one that waits for a lock. The test holds the lock to its end, so that
/// such a statement never ends.
const AT_ONCE: std::time::Duration = std::time::Duration::from_secs(60);

/// Makes the chats with the statements alone, without a loader.
async fn make(store: &Store, new: &[NewDirect]) -> Vec<Made> {
    direct::make(store.pools.cell(Cell::FIRST), &store.master, new)
        .await
        .unwrap()
}

/// Returns the devices of a member as the chat knows them.
async fn known(store: &Store, chat: ChatId, user: UserId) -> Vec<DeviceId> {
    let query = "SELECT unnest(devices) FROM members WHERE chat_id = $1 AND user_id = $2";
    let devices: Vec<uuid::Uuid> = sqlx::query_scalar(query)
        .bind(chat.0)
        .bind(user.0)
        .fetch_all(&store.pool)
        .await
        .unwrap();
    devices.into_iter().map(DeviceId).collect()
}

/// Begins to link a device: locks its user, and makes the device active. The lock lasts until the transaction ends.
async fn hold(db: &mut PgConnection, user: UserId, device: DeviceId) {
    sqlx::query(devices::LOCK_USER)
        .bind(user.0)
        .execute(&mut *db)
        .await
        .unwrap();
    sqlx::query(devices::ACTIVATE)
        .bind(device.0)
        .bind(user.0)
        .execute(db)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_chat_just_made_is_known_as_a_load_would_bring_it() {
    let store = Store::new().await;
    let (a, b) = (store.user().await, store.user().await);
    let device = store.device(b).await;
    for new in [new_direct(a, b), new_direct(b, store.user().await)] {
        let made = make(&store, &[new]).await.pop();
        let Some(Made::New(made)) = made else {
            panic!("{made:?}")
        };
        let loaded = store.snapshot(new.chat).await;
        assert_eq!(made.key, loaded.key);
        assert_eq!(format!("{made:?}"), format!("{loaded:?}"));
        assert_eq!(known(&store, new.chat, b).await, [device]);
    }
}

#[tokio::test]
async fn two_nodes_that_make_the_same_chats_agree_on_them_whatever_the_order() {
    let store = Store::new().await;
    for _ in 0..10 {
        let mut new = Vec::new();
        let me = store.user().await;
        for _ in 0..8 {
            new.push(new_direct(me, store.user().await));
        }
        let backwards: Vec<NewDirect> = new.iter().rev().copied().collect();
        let (one, other) = tokio::join!(make(&store, &new), make(&store, &backwards));
        for (new, answers) in new.iter().zip(one.iter().zip(other.iter().rev())) {
            let stored = store.snapshot(new.chat).await;
            match answers {
                (Made::New(made), Made::Before) | (Made::Before, Made::New(made)) => {
                    assert_eq!(made.key, stored.key);
                }
                answers => panic!("{answers:?}"),
            }
            assert_eq!(stored.members.len(), 2);
        }
    }
}

#[tokio::test]
async fn a_chat_that_another_node_is_making_is_waited_for_and_left_as_it_is() {
    let store = Store::new().await;
    let (a, b, c) = (store.user().await, store.user().await, store.user().await);
    let (theirs, mine) = (new_direct(a, b), new_direct(a, c));
    let mut other = store.shard().await;
    let mut tx = other.begin().await.unwrap();
    begin_to_make(&store, &mut tx, theirs).await;
    let pair = [theirs, mine];
    let end = async {
        store.somebody_waits().await;
        tx.commit().await.unwrap();
    };
    let (made, ()) = tokio::join!(make(&store, &pair), end);
    assert!(matches!(made[..], [Made::Before, Made::New(_)]), "{made:?}");
    let heads: i64 = sqlx::query_scalar("SELECT count(*) FROM chat_heads WHERE chat_id = $1")
        .bind(theirs.chat.0)
        .fetch_one(&store.pool)
        .await
        .unwrap();
    assert_eq!(heads, 0, "what belongs to it is the other node's to insert");
}

/// Inserts the row of a chat, as another node does that is making it.
async fn begin_to_make(store: &Store, db: &mut PgConnection, new: NewDirect) {
    let key = store.master.new_chat_key(new.chat);
    sqlx::query("INSERT INTO chats (chat_id, kind, created_by, wrapped_key) VALUES ($1, 1, $2, $3)")
        .bind(new.chat.0)
        .bind(new.people.1.0)
        .bind(key.1)
        .execute(db)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_lock_on_one_new_chat_fails_no_other_that_was_to_be_made_with_it() {
    let store = Store::new().await;
    let (a, b, c) = (store.user().await, store.user().await, store.user().await);
    let (theirs, mine) = (new_direct(a, b), new_direct(a, c));
    let mut other = store.shard().await;
    let mut tx = other.begin().await.unwrap();
    begin_to_make(&store, &mut tx, theirs).await;
    let loader = Loader::new(store.pools.clone(), store.master.clone(), 100);
    let (locked, made) = tokio::join!(
        loader.load(theirs.chat, making(theirs), &NOTHING),
        loader.load(mine.chat, making(mine), &NOTHING),
    );
    assert!(matches!(locked, Err(LoadError::Locked)), "{locked:?}");
    assert!(made.unwrap().is_some());
    tx.rollback().await.unwrap();
}

#[tokio::test]
async fn the_same_chat_twice_is_made_once_under_the_key_that_is_stored() {
    let store = Store::new().await;
    let new = new_direct(store.user().await, store.user().await);
    let made = make(&store, &[new, new]).await;
    let [Made::New(made), Made::Before] = &made[..] else {
        panic!("{made:?}")
    };
    assert_eq!(made.key, store.snapshot(new.chat).await.key);
}

#[tokio::test]
async fn who_does_not_exist_or_is_being_linked_holds_up_no_other_chat() {
    let store = Store::new().await;
    let (a, b, linking) = (store.user().await, store.user().await, store.user().await);
    let device = store.unlinked_device(linking).await;
    let old = new_direct(a, linking);
    make(&store, &[old]).await;
    let mut other = store.shard().await;
    let mut tx = other.begin().await.unwrap();
    hold(&mut tx, linking, device).await;

    let new = [
        new_direct(b, linking),
        new_direct(a, b),
        new_direct(a, UserId::random()),
        old,
    ];
    let made = tokio::time::timeout(AT_ONCE, make(&store, &new)).await;
    let made = made.expect("it waits for the lock");
    assert!(
        matches!(
            made[..],
            [Made::Locked, Made::New(_), Made::NobodyFound, Made::Before]
        ),
        "{made:?}"
    );
    // A retry locks nobody.
    let retry = tokio::time::timeout(AT_ONCE, make(&store, &[old])).await;
    assert!(matches!(retry.expect("it waits")[..], [Made::Before]));
}

#[tokio::test]
async fn fine_print_11_a_device_linked_while_the_chat_is_made_belongs_to_it() {
    let store = Store::new().await;
    let (a, b) = (store.user().await, store.user().await);
    let (new, device) = (new_direct(a, b), store.unlinked_device(b).await);
    let mut other = store.shard().await;
    let mut tx = other.begin().await.unwrap();
    hold(&mut tx, b, device).await;
    let loader = Loader::new(store.pools.clone(), store.master.clone(), 100);
    let made = make(&store, &[new]).await;
    assert!(matches!(made[..], [Made::Locked]), "{made:?}");
    let load = loader.load(new.chat, making(new), &NOTHING);
    let end = async { tx.commit().await.unwrap() };
    let (made, ()) = tokio::join!(load, end);
    assert!(made.unwrap().is_some());
    assert_eq!(known(&store, new.chat, b).await, [device]);
}

#[tokio::test]
async fn linking_and_the_making_of_a_chat_exclude_each_other() {
    let store = Store::new().await;
    let (a, b) = (store.user().await, store.user().await);
    let loader = Loader::new(store.pools.clone(), store.master.clone(), 100);
    for _ in 0..20 {
        let peer = store.user().await;
        let (new, device) = (new_direct(a, peer), store.unlinked_device(peer).await);
        let other = new_direct(b, peer);
        let (linked, one, two) = tokio::join!(
            devices::link(&store.pools, peer, device),
            loader.load(new.chat, making(new), &NOTHING),
            loader.load(other.chat, making(other), &NOTHING),
        );
        assert!(linked.unwrap());
        for (made, chat) in [(one, new.chat), (two, other.chat)] {
            assert!(made.unwrap().is_some());
            assert_eq!(known(&store, chat, peer).await, [device]);
        }
    }
}

#[tokio::test]
async fn many_at_once_are_made_and_each_gets_its_own_answer() {
    let store = Store::new().await;
    let loader = Loader::new(store.pools.clone(), store.master.clone(), 100);
    let me = store.user().await;
    let before = new_direct(me, store.user().await);
    make(&store, &[before]).await;
    let nobody = new_direct(me, UserId::random());
    let mut wanted = vec![before, nobody];
    for _ in 0..40 {
        wanted.push(new_direct(me, store.user().await));
    }
    let request = (me, RequestId::random());
    let look_up = LookUp {
        requests: vec![request],
        ..LookUp::default()
    };
    let loads = wanted
        .iter()
        .map(|new| async { loader.load(new.chat, making(*new), &look_up).await });
    let results = futures::future::join_all(loads).await;
    for (new, result) in wanted.iter().zip(results) {
        if *new == nobody {
            assert!(matches!(result, Err(LoadError::PeerNotFound)), "{result:?}");
            assert!(
                load::chat(&store.pools, &store.master, new.chat, &NOTHING)
                    .await
                    .unwrap()
                    .is_none()
            );
            continue;
        }
        let snapshot = result.unwrap().unwrap();
        assert_eq!(snapshot.looked_up, [request]);
        assert_eq!(snapshot.key, store.snapshot(new.chat).await.key);
    }
}
