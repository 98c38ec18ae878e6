//! Tests which entries of a log a reader gets (rules 6 and 7, fine print 6).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prost::Message;
use tern_chat::store::entries::{self, History, Item, Window};
use tern_chat::store::seal::Sealer;
use tern_chat::store::{listing, settle};
use tern_chat_core::change::Action;
use tern_types::{ChatId, Seq, Timestamp, UserId};

use crate::harness::{Known, Store, direct, group};

async fn window(store: &Store, chat: &Known, user: UserId, from: u64, limit: u32) -> Window {
    entries::window(
        &store.pools,
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

async fn history(
    store: &Store,
    chat: &Known,
    user: UserId,
    before: u64,
    limit: u32,
    max_bytes: usize,
) -> History {
    let (pools, master) = (&store.pools, &store.master);
    entries::history(pools, master, chat.id, user, Seq(before), limit, max_bytes)
        .await
        .unwrap()
}

/// Describes the items of a window, for example `["2", "skip to 5", "6"]`.
fn shape(window: &Window) -> Vec<String> {
    let shape = window.items.iter().map(|item| match item {
        Item::Entry(entry) => format!("{}", entry.seq),
        Item::Skipped { to, .. } => format!("skip to {to}"),
    });
    shape.collect()
}

#[tokio::test]
async fn a_window_goes_on_where_the_last_one_ended() {
    let (store, [a, b], _, mut chat, mut db) = direct().await;
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
    let (store, [a, b], _, mut chat, mut db) = group().await;
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
    // B has acknowledged the removal, so their log is asked for from 6 on, while they still wait for 4 and 5.
    let again = window(&store, &chat, b, 6, 10).await;
    assert_eq!(shape(&again), ["skip to 5", "6", "7"]);
    let stranger = store.user().await;
    assert_eq!(
        shape(&window(&store, &chat, stranger, 1, 10).await),
        [] as [&str; 0]
    );

    let history = history(&store, &chat, b, 100, 10, 1 << 20).await;
    assert_eq!(
        history.messages.iter().map(|entry| entry.seq).collect::<Vec<_>>(),
        [7, 2],
        "messages only, newest first"
    );
}

#[tokio::test]
async fn rule_6_what_was_trimmed_is_skipped() {
    let (store, [a, b], _, mut chat, mut db) = direct().await;
    for _ in 0..5 {
        store.say(&mut db, &mut chat, a, "x").await;
    }
    let trim = async |upto: i64| {
        sqlx::query("DELETE FROM messages WHERE chat_id = $1 AND seq <= $2")
            .bind(chat.id.0)
            .bind(upto)
            .execute(store.pools.of(chat.id))
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
    let (store, [a, b], _, mut chat, mut db) = direct().await;
    for _ in 0..4 {
        store.say(&mut db, &mut chat, a, &"x".repeat(100)).await;
    }
    let cut = entries::window(&store.pools, &store.master, chat.id, b, Seq(1), 10, 250)
        .await
        .unwrap();
    assert_eq!((shape(&cut), cut.done), (vec!["1".into(), "2".into()], false));
    let tiny = entries::window(&store.pools, &store.master, chat.id, b, Seq(1), 10, 1)
        .await
        .unwrap();
    assert_eq!(shape(&tiny), ["1"]);
}

#[tokio::test]
async fn a_page_of_one_has_one_entry() {
    let store = Store::new().await;
    let (a, b) = (store.user().await, store.user().await);
    let mut chat = store.group(a, &[]).await;
    let mut db = store.shard().await;
    store.change(&mut db, &mut chat, a, Action::Add(vec![b])).await; // 2
    store.say(&mut db, &mut chat, a, "3").await;
    // The Skipped before the first entry comes with that entry. Alone it would come again and again.
    let first = window(&store, &chat, b, 1, 1).await;
    assert_eq!(shape(&first), ["skip to 1", "2"]);
    let second = window(&store, &chat, b, first.next.0, 1).await;
    assert_eq!((shape(&second), second.done), (vec!["3".into()], false));
    let last = window(&store, &chat, b, second.next.0, 1).await;
    assert_eq!((shape(&last), last.done), (vec![], true));
}

#[tokio::test]
async fn history_is_bounded_in_bytes_and_goes_on_where_it_was_cut() {
    let (store, [a, b], _, mut chat, mut db) = direct().await;
    for _ in 0..5 {
        store.say(&mut db, &mut chat, a, &"x".repeat(1000)).await;
    }
    let mut pages = Vec::new();
    let mut before = 100;
    loop {
        let page = history(&store, &chat, b, before, 10, 1500).await;
        pages.push(page.messages.iter().map(|entry| entry.seq).collect::<Vec<_>>());
        if !page.more {
            break;
        }
        before = page.messages.last().unwrap().seq;
    }
    assert_eq!(pages, [vec![5, 4], vec![3, 2], vec![1]]);
}

#[tokio::test]
async fn chats_are_listed_by_bytes_and_the_pages_go_on() {
    let store = Store::new().await;
    let me = store.user().await;
    let mut db = store.shard().await;
    let mut expected = Vec::new();
    for _ in 0..5 {
        let mut chat = store.direct(me, store.user().await).await;
        store.say(&mut db, &mut chat, me, &"x".repeat(1000)).await;
        expected.push(chat.id);
    }
    expected.sort_unstable();
    let (pools, master) = (&store.pools, &store.master);
    let (mut found, mut sizes, mut after) = (Vec::new(), Vec::new(), None);
    loop {
        let page = listing::chats(pools, master, me, None, after, 50, 1500)
            .await
            .unwrap();
        sizes.push(page.chats.len());
        found.extend(page.chats.iter().map(|chat| chat.chat));
        let Some(last) = page.chats.last().filter(|_| page.more) else {
            break;
        };
        let at = last.last_entry.as_ref().map_or(0, |entry| entry.sent_at_ms);
        after = Some((Timestamp(at), last.chat));
    }
    found.sort_unstable();
    assert_eq!(found, expected, "each once");
    assert_eq!(sizes, [2, 2, 1]);
}

#[tokio::test]
async fn bodies_are_sealed_in_the_store() {
    let (store, [a, _], _, mut chat, mut db) = direct().await;
    store.say(&mut db, &mut chat, a, "the secret plan").await;
    let body: Vec<u8> = sqlx::query_scalar("SELECT body FROM messages")
        .fetch_one(&store.pool)
        .await
        .unwrap();
    assert!(!String::from_utf8_lossy(&body).contains("secret"));
}

/// Other tasks must go on, because the task that renews the node's lease is one of them.
#[tokio::test]
async fn other_tasks_have_their_turn_while_large_bodies_are_opened() {
    const LARGE: usize = 8;
    let (store, [a, b], _, mut chat, mut db) = direct().await;
    for _ in 0..LARGE {
        store.say(&mut db, &mut chat, a, &"x".repeat(100 << 10)).await;
    }
    let rows = sqlx::query(entries::UPWARDS)
        .bind(chat.id.0)
        .bind(b.0)
        .bind(1_i64)
        .bind(100_i64)
        .bind(i64::MAX)
        .fetch_all(&store.pool)
        .await
        .unwrap();
    let turns = Arc::new(AtomicUsize::new(0));
    let counted = turns.clone();
    let other = tokio::spawn(async move {
        loop {
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    });
    tokio::task::yield_now().await;
    let before = turns.load(Ordering::Relaxed);
    let opened = entries::open(&rows, chat.id, &Sealer::new(&chat.key))
        .await
        .unwrap();
    assert_eq!(opened.len(), LARGE);
    let had = turns.load(Ordering::Relaxed) - before;
    assert!(had >= LARGE - 1, "only {had}");
    other.abort();
}

/// A window that begins at a device's place brings all entries that the device lacks, and skips none of them.
#[tokio::test]
async fn a_device_stands_where_its_row_begins_or_what_is_unsettled() {
    let (store, [a, b], [hers, his], mut chat, mut db) = group().await;
    let id = chat.id;
    let place = async || {
        let place = entries::place(&store.pools, id, b, his).await.unwrap();
        place.map(|place| place.0)
    };
    store.say(&mut db, &mut chat, a, "2").await;
    store.settle(&mut db, id, Seq(2), &[(hers, 2), (his, 2)]).await;
    assert_eq!(place().await, Some(3), "nothing is owed");
    store.say(&mut db, &mut chat, a, "3").await;
    assert_eq!(place().await, Some(3), "unsettled");
    store.settle(&mut db, id, Seq(3), &[(hers, 3)]).await;
    settle::close(&mut db, &[(id, Seq(3))]).await.unwrap();
    store.say(&mut db, &mut chat, a, "4").await;
    assert_eq!(place().await, Some(3), "its row begins below");
    store.ack(&mut db, id, b, his, 3).await;
    store.change(&mut db, &mut chat, a, Action::Remove(b)).await; // 5
    store.say(&mut db, &mut chat, a, "6").await;
    assert_eq!(place().await, Some(4), "the removal is owed");
    store.ack(&mut db, id, b, his, 5).await;
    store.settle(&mut db, id, Seq(6), &[(hers, 6), (his, 5)]).await;
    assert_eq!(place().await, Some(7), "nothing after the removal is");
    store.change(&mut db, &mut chat, a, Action::Add(vec![b])).await; // 7
    store.say(&mut db, &mut chat, a, "8").await;
    assert_eq!(place().await, Some(7));
    let window = window(&store, &chat, b, 7, 10).await;
    assert_eq!(shape(&window), ["skip to 6", "7", "8"]);
    let nowhere = ChatId(uuid::Uuid::nil());
    assert_eq!(entries::place(&store.pools, nowhere, b, his).await.unwrap(), None);
}
