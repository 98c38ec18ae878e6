//! The plans of all hot statements, on empty and on filled tables: indexes only. A statement prepared while a table is
//! empty must not keep a sequential scan.

use sqlx::{AssertSqlSafe, Executor, PgConnection, Row};
use tern_chat::store::{ack, commit, devices, entries, listing, load, settle};
use tern_types::Seq;

use crate::harness::Store;

/// On the way of a message, or at every connect, load or page; and what walks through a user's chats.
const HOT: &[(&str, &str)] = &[
    ("commit", commit::COMMIT),
    ("commit with media", commit::COMMIT_WITH_MEDIA),
    ("share users", commit::SHARE_USERS),
    ("add members", commit::ADD_MEMBERS),
    ("remove member", commit::REMOVE_MEMBER),
    ("settle", settle::SETTLE),
    ("lock heads", settle::LOCK_HEADS),
    ("close", settle::CLOSE),
    ("unsettled", settle::UNSETTLED),
    ("ack", ack::ACK),
    ("reads", ack::READS),
    ("load chat", load::CHAT),
    ("load placed", load::PLACED),
    ("window", entries::UPWARDS),
    ("history", entries::DOWNWARDS),
    ("last", entries::LAST),
    ("between", entries::BETWEEN),
    ("key", entries::KEY),
    ("inbox", listing::INBOX),
    ("chats", listing::PAGE),
    ("one chat", listing::ONE),
    ("receipts and load members", listing::RECEIPTS),
    ("members", listing::MEMBERS),
    ("is member", listing::IS_MEMBER),
    ("epoch", listing::EPOCH),
    ("chats of a device", devices::CHATS),
    ("link", devices::JOIN),
    ("take over", devices::TAKE_OVER),
    ("leave", devices::LEAVE),
    ("forget", devices::FORGET),
];

async fn assert_plans(db: &mut PgConnection, tables: &str) {
    db.execute("SET plan_cache_mode = force_generic_plan")
        .await
        .unwrap();
    for &(name, sql) in HOT {
        let arguments = (1..=20)
            .rev()
            .find(|n| sql.contains(&format!("${n}")))
            .unwrap_or(0);
        let nulls = vec!["NULL"; arguments].join(", ");
        db.execute(AssertSqlSafe(format!("PREPARE hot AS {sql}")))
            .await
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        let explain = format!(
            "EXPLAIN (COSTS OFF) EXECUTE hot{}",
            if arguments > 0 {
                format!("({nulls})")
            } else {
                String::new()
            }
        );
        let plan = sqlx::raw_sql(AssertSqlSafe(explain))
            .fetch_all(&mut *db)
            .await
            .unwrap();
        let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
        let bad: Vec<&String> = plan.iter().filter(|line| line.contains("Seq Scan")).collect();
        assert!(
            bad.is_empty(),
            "{name} on {tables} tables: {bad:?}\n{}",
            plan.join("\n")
        );
        db.execute("DEALLOCATE hot").await.unwrap();
    }
}

#[tokio::test]
async fn hot_statements_use_indexes_on_empty_and_on_filled_tables() {
    let store = Store::new().await;
    let mut db = store.shard().await;
    assert_plans(&mut db, "empty").await;

    let users = [store.user().await, store.user().await, store.user().await];
    for user in users {
        store.device(user).await;
    }
    for pair in [(0, 1), (1, 2), (0, 2)] {
        let mut chat = store.direct(users[pair.0], users[pair.1]).await;
        for _ in 0..200 {
            store.say(&mut db, &mut chat, users[pair.0], "x").await;
        }
        store.settle(&mut db, chat.id, Seq(150), &[]).await;
    }
    db.execute("ANALYZE").await.unwrap();
    assert_plans(&mut db, "filled").await;
}
