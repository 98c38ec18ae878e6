//! Tests that a page of a long chat costs Postgres what the page shows, however long the chat is.

use sqlx::{AssertSqlSafe, Executor, PgConnection, Row};
use tern_chat::store::{history, timeline};
use tern_types::{ChatId, UserId};
use uuid::Uuid;

use crate::harness;

/// The entries of the chat.
const ENTRIES: i64 = 100_000;
/// The most blocks of tables and indexes that Postgres looks at for a page of 50 messages. Fifteen lead to each message,
/// its state, its edit and its reactions. The chat's messages alone have 3,200.
const MOST_BLOCKS: u64 = 1_000;

/// Fills a chat ($1) of two people ($2, $3). Of five entries three are messages, one edits the first of them, and one
/// is a reaction to the second. The bodies are as long as those of short messages.
const FILL: [&str; 5] = [
    "INSERT INTO messages (chat_id, seq, ordinal, kind, sender_user, sender_device, request_id, fingerprint, body, sent_at)
     SELECT $1::uuid, s, s, CASE s % 5 WHEN 4 THEN 2 WHEN 0 THEN 4 ELSE 1 END, CASE s % 2 WHEN 0 THEN $2::uuid ELSE $3::uuid END, $2::uuid,
            gen_random_uuid(), decode(repeat('ab', 16), 'hex'), decode(repeat('cd', 120), 'hex'),
            to_timestamp(1700000000 + s)
     FROM generate_series(1, 100000) AS s",
    "INSERT INTO entry_targets (chat_id, seq, target_seq, kind)
     SELECT $1::uuid, s, s - 3, CASE s % 5 WHEN 4 THEN 2 ELSE 4 END FROM generate_series(1, 100000) AS s
     WHERE s % 5 IN (0, 4) AND $2::uuid <> $3::uuid",
    "INSERT INTO message_state (chat_id, seq, edited_seq)
     SELECT $1::uuid, s - 3, s FROM generate_series(1, 100000) AS s WHERE s % 5 = 4 AND $2::uuid <> $3::uuid",
    "INSERT INTO reactions (chat_id, target_seq, user_id, key, seq)
     SELECT $1::uuid, s - 3, CASE s % 2 WHEN 0 THEN $2::uuid ELSE $3::uuid END, decode(repeat('01', 16), 'hex'), s
     FROM generate_series(1, 100000) AS s WHERE s % 5 = 0",
    "UPDATE chat_heads SET head_seq = 100000 WHERE chat_id = $1 AND $2::uuid <> $3::uuid",
];

/// Carries a prepared statement out, and returns the number of blocks that Postgres looked at.
async fn blocks(db: &mut PgConnection, name: &str, sql: &'static str, arguments: &str) -> u64 {
    db.execute(AssertSqlSafe(format!("PREPARE {name} AS {sql}")))
        .await
        .unwrap();
    let explain = format!("EXPLAIN (ANALYZE, BUFFERS, TIMING OFF) EXECUTE {name}({arguments})");
    let plan = sqlx::raw_sql(AssertSqlSafe(explain)).fetch_all(&mut *db).await;
    let lines = plan.unwrap();
    let mut lines = lines.iter().map(|row| row.get::<String, _>(0));
    db.execute(AssertSqlSafe(format!("DEALLOCATE {name}")))
        .await
        .unwrap();
    // The first such line is that of the whole statement, such as "Buffers: shared hit=12 read=3".
    let whole = lines.find(|line| line.contains("Buffers: shared ")).unwrap();
    let of = |kind: &str| {
        let count = whole.split(kind).nth(1).and_then(|rest| rest.split(' ').next());
        count.map_or(0, |count| count.parse::<u64>().unwrap())
    };
    of("hit=") + of("read=")
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
async fn a_page_of_a_long_chat_reads_what_it_shows_and_not_the_chat() {
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
        let page = blocks(&mut db, "page", history::ALL[0], &page).await;
        let reactions = blocks(&mut db, "reactions", history::reactions::REACTIONS, &reactions).await;
        assert!(
            page > 0 && page + reactions < MOST_BLOCKS,
            "{page} and {reactions}"
        );
    }
    let sent = sent_from(b, 1_700_000_000_000 + ENTRIES / 2 * 1_000);
    let sent = blocks(&mut db, "sent", timeline::SENT, &sent).await;
    assert!(sent < MOST_BLOCKS, "{sent}");
}

/// Returns the arguments for the first 50 entries of a user's chats from a time on.
fn sent_from(user: UserId, time: i64) -> String {
    let (last, most) = (Uuid::max(), i64::MAX);
    format!("'{}', {time}, '{last}', {most}, {most}, 50", user.0)
}
