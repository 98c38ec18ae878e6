//! Rule 6 and 7, fine print 6: what may be read.

use prost::Message;
use tern_chat::state::change::Action;
use tern_chat::store::entries::{self, Item, Window};
use tern_types::{Seq, UserId};

use crate::harness::{Known, Store};

async fn window(store: &Store, chat: &Known, user: UserId, from: u64, limit: u32) -> Window {
    entries::window(
        &store.pool,
        &store.master,
        chat.id,
        user,
        Seq(from),
        limit,
        1 << 20,
    )
    .await
    .unwrap()
}

fn shape(window: &Window) -> Vec<String> {
    let shape = window.items.iter().map(|item| match item {
        Item::Entry(entry) => format!("{}", entry.seq),
        Item::Skipped { to } => format!("skip to {to}"),
    });
    shape.collect()
}

#[tokio::test]
async fn a_window_goes_on_where_the_last_one_ended() {
    let store = Store::new().await;
    let (a, b) = (store.user().await, store.user().await);
    let mut chat = store.direct(a, b).await;
    let mut db = store.shard().await;
    for n in 1..=5 {
        store.say(&mut db, &mut chat, a, &format!("message {n}")).await;
    }
    let first = window(&store, &chat, b, 1, 3).await;
    assert_eq!(
        (shape(&first), first.next, first.done),
        (vec!["1".into(), "2".into(), "3".into()], Seq(4), false)
    );
    let rest = window(&store, &chat, b, 4, 3).await;
    assert_eq!(
        (shape(&rest), rest.next, rest.done),
        (vec!["4".into(), "5".into()], Seq(6), true)
    );
    let nothing = window(&store, &chat, b, 6, 3).await;
    assert_eq!((shape(&nothing), nothing.done), (vec![], true));
    let Item::Entry(entry) = &rest.items[1] else {
        panic!("{rest:?}")
    };
    assert_eq!(entry.content, "message 5");
    assert!(entry.encode_to_vec().len() < 250);
}

#[tokio::test]
async fn rule_7_and_fine_print_6_intervals_of_membership_limit_what_is_read() {
    let store = Store::new().await;
    let (a, b) = (store.user().await, store.user().await);
    let mut chat = store.group(a, &[b]).await;
    let mut db = store.shard().await;
    store.say(&mut db, &mut chat, a, "2").await;
    store.change(&mut db, &mut chat, a, Action::Remove(b)).await; // 3
    store.say(&mut db, &mut chat, a, "4").await;
    assert_eq!(shape(&window(&store, &chat, b, 1, 10).await), ["1", "2", "3"]);
    assert_eq!(shape(&window(&store, &chat, b, 4, 10).await), [] as [&str; 0]);

    store.say(&mut db, &mut chat, a, "5").await;
    store.change(&mut db, &mut chat, a, Action::Add(vec![b])).await; // 6
    store.say(&mut db, &mut chat, a, "7").await;
    let all = window(&store, &chat, b, 2, 10).await;
    assert_eq!(shape(&all), ["2", "3", "skip to 5", "6", "7"]);
    assert!(all.done);
    let cut = window(&store, &chat, b, 2, 3).await;
    assert_eq!(
        (shape(&cut), cut.next, cut.done),
        (vec!["2".into(), "3".into()], Seq(4), false)
    );
    let alone = window(&store, &chat, b, 4, 1).await;
    assert_eq!(
        (shape(&alone), alone.next, alone.done),
        (vec!["skip to 5".into(), "6".into()], Seq(7), false)
    );
    // Who acknowledged the removal is asked for from 6 on, and still waits for 4 and 5.
    let again = window(&store, &chat, b, 6, 10).await;
    assert_eq!(shape(&again), ["skip to 5", "6", "7"]);
    let stranger = store.user().await;
    assert_eq!(
        shape(&window(&store, &chat, stranger, 1, 10).await),
        [] as [&str; 0]
    );

    let history = entries::history(&store.pool, &store.master, chat.id, b, Seq(100), 10)
        .await
        .unwrap();
    assert_eq!(
        history.iter().map(|entry| entry.seq).collect::<Vec<_>>(),
        [7, 2],
        "messages only, newest first"
    );
}

#[tokio::test]
async fn rule_6_what_was_trimmed_is_skipped() {
    let store = Store::new().await;
    let (a, b) = (store.user().await, store.user().await);
    let mut chat = store.direct(a, b).await;
    let mut db = store.shard().await;
    for _ in 0..5 {
        store.say(&mut db, &mut chat, a, "x").await;
    }
    let trim = async |upto: i64| {
        sqlx::query("DELETE FROM messages WHERE chat_id = $1 AND seq <= $2")
            .bind(chat.id.0)
            .bind(upto)
            .execute(&store.pool)
            .await
            .unwrap()
    };
    trim(3).await;
    assert_eq!(
        shape(&window(&store, &chat, b, 1, 10).await),
        ["skip to 3", "4", "5"]
    );
    trim(5).await;
    let nothing = window(&store, &chat, b, 4, 10).await;
    assert_eq!(
        (shape(&nothing), nothing.next),
        (vec!["skip to 5".into()], Seq(6))
    );
}

#[tokio::test]
async fn a_window_is_bounded_in_bytes_and_never_empty() {
    let store = Store::new().await;
    let (a, b) = (store.user().await, store.user().await);
    let mut chat = store.direct(a, b).await;
    let mut db = store.shard().await;
    for _ in 0..4 {
        store.say(&mut db, &mut chat, a, &"x".repeat(100)).await;
    }
    let cut = entries::window(&store.pool, &store.master, chat.id, b, Seq(1), 10, 250)
        .await
        .unwrap();
    assert_eq!((shape(&cut), cut.done), (vec!["1".into(), "2".into()], false));
    let tiny = entries::window(&store.pool, &store.master, chat.id, b, Seq(1), 10, 1)
        .await
        .unwrap();
    assert_eq!(shape(&tiny), ["1"]);
}

#[tokio::test]
async fn bodies_are_sealed_in_the_store() {
    let store = Store::new().await;
    let (a, b) = (store.user().await, store.user().await);
    let mut chat = store.direct(a, b).await;
    let mut db = store.shard().await;
    store.say(&mut db, &mut chat, a, "the secret plan").await;
    let body: Vec<u8> = sqlx::query_scalar("SELECT body FROM messages")
        .fetch_one(&store.pool)
        .await
        .unwrap();
    assert!(!String::from_utf8_lossy(&body).contains("secret"));
}
