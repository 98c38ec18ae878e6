//! Tests that a chat of which a page takes the store too long is trimmed by smaller pages.

use std::time::Duration;

use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection, PgConnection, PgPool};
use tern_chat::store::trim::slow::{self, Pages};
use tern_chat::store::trim::{PAGE, Trimmed};
use tern_chat_core::retention::Mode;
use tern_store::postgres::cell_connect_options;
use tern_types::{Cell, Clock};

use super::two::Two;
use super::{HOUR, KEPT_FOR_AN_HOUR, MINUTE};

/// The messages of the chat. Pages of 512, 64 and 8 entries have the fifth one in them, and are given up.
const MESSAGES: i64 = 9;

/// Opens a pool whose statements are given up soon: sooner than they would give up a lock.
async fn hasty(two: &Two) -> PgPool {
    let options = cell_connect_options(&two.store.args, Cell::FIRST);
    PgPoolOptions::new()
        .max_connections(1)
        .connect_with(options.options([("statement_timeout", "450")]))
        .await
        .unwrap()
}

/// Opens a connection that is no node's, and has whatever erases the entry wait for its transaction.
async fn hold(two: &Two, db: &mut PgConnection, seq: i64) {
    sqlx::query("BEGIN").execute(&mut *db).await.unwrap();
    let lock = sqlx::query("SELECT FROM cell_00.messages WHERE chat_id = $1 AND seq = $2 FOR UPDATE");
    lock.bind(two.chat.id.0).bind(seq).execute(db).await.unwrap();
}

#[tokio::test]
async fn a_chat_that_the_store_cannot_trim_in_time_is_trimmed_up_to_where_it_can_and_given_up() {
    let mut two = Two::new().await;
    for _ in 0..MESSAGES {
        two.say(0, "old", HOUR * 2).await;
    }
    two.retain(KEPT_FOR_AN_HOUR).await;
    assert_eq!(two.left().await, Vec::from_iter(1..=MESSAGES));
    let (pool, chat, mut pages) = (hasty(&two).await, two.chat.id, Pages::default());
    let mut other = two.store.stranger().await;
    hold(&two, &mut other, 5).await;

    let now = Clock::wall() + Duration::from_secs(1);
    let given_up = slow::trim(&pool, chat, Mode::Default, now, Some(now + MINUTE), &mut pages).await;
    assert_eq!(given_up.unwrap(), None);
    assert!(pages.is_given_up(chat));
    assert_eq!(
        two.left().await,
        [5, 6, 7, 8, 9],
        "what comes before it is erased"
    );

    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    let mut trimmed = Trimmed::default();
    while pages.is_slow(chat) {
        let more = slow::trim(&pool, chat, Mode::Default, now, Some(now + MINUTE), &mut pages).await;
        trimmed.erased += more.unwrap().unwrap().erased;
    }
    assert_eq!((trimmed.erased, pages.of(chat)), (5, PAGE));
    assert_eq!(two.left().await, [] as [i64; 0]);
}
