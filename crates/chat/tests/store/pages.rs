//! Measures what a page of a long chat costs Postgres. It takes a minute, so it runs only when it is asked for:
//!
//!     cargo nextest run -p tern-chat --test store --run-ignored only --no-capture -E 'test(million)'

#![allow(clippy::print_stdout, reason = "it prints what it measured")]

use sqlx::{AssertSqlSafe, Executor, PgConnection, Row};
use tern_chat::store::{history, timeline};
use tern_types::{ChatId, UserId};
use uuid::Uuid;

use crate::harness;

/// The entries of the chat.
const ENTRIES: i64 = 1_000_000;
/// The times that each page is read. The first read of a page may find it on the disk.
const READS: usize = 9;
/// The most milliseconds that half of the reads of a page take.
const BAR_MS: f64 = 5.0;

/// Fills a chat ($1) of two people ($2, $3). Of five entries three are messages, one edits the first of them, and one
/// is a reaction to the second. The bodies are as long as those of short messages.
const FILL: [&str; 5] = [
    "INSERT INTO messages (chat_id, seq, ordinal, kind, sender_user, sender_device, request_id, fingerprint, body, sent_at)
     SELECT $1::uuid, s, s, CASE s % 5 WHEN 4 THEN 2 WHEN 0 THEN 4 ELSE 1 END, CASE s % 2 WHEN 0 THEN $2::uuid ELSE $3::uuid END, $2::uuid,
            gen_random_uuid(), decode(repeat('ab', 16), 'hex'), decode(repeat('cd', 120), 'hex'),
            to_timestamp(1700000000 + s)
     FROM generate_series(1, 1000000) AS s",
    "INSERT INTO entry_targets (chat_id, seq, target_seq, kind)
     SELECT $1::uuid, s, s - 3, CASE s % 5 WHEN 4 THEN 2 ELSE 4 END FROM generate_series(1, 1000000) AS s
     WHERE s % 5 IN (0, 4) AND $2::uuid <> $3::uuid",
    "INSERT INTO message_state (chat_id, seq, edited_seq)
     SELECT $1::uuid, s - 3, s FROM generate_series(1, 1000000) AS s WHERE s % 5 = 4 AND $2::uuid <> $3::uuid",
    "INSERT INTO reactions (chat_id, target_seq, user_id, key, seq)
     SELECT $1::uuid, s - 3, CASE s % 2 WHEN 0 THEN $2::uuid ELSE $3::uuid END, decode(repeat('01', 16), 'hex'), s
     FROM generate_series(1, 1000000) AS s WHERE s % 5 = 0",
    "UPDATE chat_heads SET head_seq = 1000000 WHERE chat_id = $1 AND $2::uuid <> $3::uuid",
];

/// Carries a prepared statement out, and returns the milliseconds that Postgres took: half of the reads took less.
async fn median_ms(db: &mut PgConnection, name: &str, sql: &'static str, arguments: &str) -> f64 {
    db.execute(AssertSqlSafe(format!("PREPARE {name} AS {sql}")))
        .await
        .unwrap();
    let mut times = Vec::new();
    for _ in 0..READS {
        let explain = format!("EXPLAIN (ANALYZE, TIMING OFF) EXECUTE {name}({arguments})");
        let plan = sqlx::raw_sql(AssertSqlSafe(explain))
            .fetch_all(&mut *db)
            .await
            .unwrap();
        let lines = plan.iter().map(|row| row.get::<String, _>(0));
        let time = lines.filter_map(|line| {
            let time = line.strip_prefix("Execution Time: ")?.strip_suffix(" ms")?;
            time.parse::<f64>().ok()
        });
        times.extend(time);
    }
    db.execute(AssertSqlSafe(format!("DEALLOCATE {name}")))
        .await
        .unwrap();
    assert_eq!(times.len(), READS);
    times.sort_by(f64::total_cmp);
    times[READS / 2]
}

/// Returns the seqs of a page of 50 messages below `high`, as the text of an array.
async fn seqs(db: &mut PgConnection, chat: ChatId, high: i64) -> String {
    let select =
        "SELECT seq FROM messages WHERE chat_id = $1 AND seq <= $2 AND kind = 1 ORDER BY seq DESC LIMIT 50";
    let seqs: Vec<i64> = sqlx::query_scalar(select)
        .bind(chat.0)
        .bind(high)
        .fetch_all(db)
        .await
        .unwrap();
    format!("ARRAY{seqs:?}::int8[]")
}

#[tokio::test]
#[ignore = "it takes a minute and measures time"]
async fn a_page_of_a_chat_with_a_million_entries_takes_less_than_5_ms_of_postgres() {
    let (_store, [a, b], _, chat, mut db) = harness::direct().await;
    let chat = chat.id;
    db.execute("SET statement_timeout = 0").await.unwrap();
    for statement in FILL {
        let fill = sqlx::query(statement).bind(chat.0).bind(a.0).bind(b.0);
        fill.execute(&mut db).await.unwrap();
    }
    db.execute("ANALYZE").await.unwrap();
    db.execute("SET plan_cache_mode = force_generic_plan")
        .await
        .unwrap();
    for high in [ENTRIES, ENTRIES / 2, ENTRIES / 4] {
        let (chat_and_user, low) = (format!("'{}', '{}'", chat.0, b.0), high - 4095);
        let page = format!("{chat_and_user}, {low}, {high}, 50, 1048576");
        let reactions = seqs(&mut db, chat, high).await;
        let reactions = format!(
            "array_fill('{}'::uuid, ARRAY[50]), {reactions}, '{}'",
            chat.0, b.0
        );
        let page = median_ms(&mut db, "page", history::ALL[0], &page).await;
        let reactions = median_ms(&mut db, "reactions", history::reactions::REACTIONS, &reactions).await;
        println!("50 messages from {high} downwards: {page:.2} ms, their reactions: {reactions:.2} ms");
        assert!(page + reactions < BAR_MS);
    }
    let sent = sent_from(b, 1_700_000_000_000 + ENTRIES / 2 * 1_000);
    let sent = median_ms(&mut db, "sent", timeline::SENT, &sent).await;
    println!("50 places from a time on: {sent:.2} ms");
    assert!(sent < BAR_MS);
}

/// Returns the arguments for the first 50 entries of a user's chats from a time on.
fn sent_from(user: UserId, time: i64) -> String {
    let (last, most) = (Uuid::max(), i64::MAX);
    format!("'{}', {time}, '{last}', {most}, {most}, 50", user.0)
}
