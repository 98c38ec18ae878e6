//! Tests on a real Postgres: a caller that is dropped leaves no open transaction behind, migrations of a newer version are
//! accepted and may change columns, and a store that is not whole is refused.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, PgPool};
use tern_local::{Shared, until};
use tern_store::postgres::{self, PostgresArgs};
use tern_store::schema;
use tern_types::Cells;

/// A number that is larger than the number of polls that beginning a transaction takes.
const MOST_POLLS: usize = 50;

/// Polls the future at most `polls` + 1 times, then drops it. Returns `true` if the future had completed.
async fn dropped_after(polls: usize, future: impl Future) -> bool {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(_) => Poll::Ready(true),
        Poll::Pending if left == 0 => Poll::Ready(false),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    })
    .await
}

async fn open_transactions(pool: &PgPool) -> i64 {
    sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND state LIKE 'idle in transaction%'",
    )
    .fetch_one(pool)
    .await
    .unwrap()
}

#[tokio::test]
async fn a_caller_dropped_while_a_transaction_begins_leaves_none_open() {
    let servers = Shared::get().await.unwrap();
    let args = PostgresArgs::from_url(&servers.database().await.unwrap()).unwrap();
    let (pool, watcher) = (
        postgres::pool(&args).await.unwrap(),
        postgres::pool(&args).await.unwrap(),
    );
    let mut dropped = 0;
    for polls in 0..MOST_POLLS {
        // The number of polls that a BEGIN takes depends on when Postgres answers.
        if dropped_after(polls, postgres::begin(&pool)).await {
            continue;
        }
        dropped += 1;
        until::holds("no transaction is open", Duration::from_secs(8), || async {
            Ok(open_transactions(&watcher).await == 0)
        })
        .await
        .unwrap_or_else(|error| panic!("dropped after {polls} polls: {error:#}"));
    }
    assert!(dropped > 0, "no caller was dropped while it waited");
}

/// A pod of the version before runs its own migrations when it starts again, also after a newer version has run more.
#[tokio::test]
async fn an_older_program_accepts_what_a_newer_one_has_migrated() {
    let servers = Shared::get().await.unwrap();
    let args = PostgresArgs::from_url(&servers.database().await.unwrap()).unwrap();
    migrate(&servers, &args).await;
    let pool = postgres::pool(&args).await.unwrap();
    sqlx::query(
        "INSERT INTO cell_02._sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (99999, 'of a newer version', true, '', 0)",
    )
    .execute(&pool)
    .await
    .unwrap();
    migrate(&servers, &args).await;
    assert_eq!(schema::require(&pool).await.unwrap(), Cells::DEFAULT);
}

/// The second server of the store is the same one, on connections that lose what they confirm.
#[tokio::test]
async fn the_durability_of_each_server_is_checked() {
    let servers = Shared::get().await.unwrap();
    let urls = servers.database().await.unwrap();
    let safe = urls.split(' ').next().unwrap();
    let lossy = format!("{safe}?options[synchronous_commit]=off");
    let dead = "postgres://tern@127.0.0.1:1/tern";
    let check = async |urls: &str, strict| {
        let args = PostgresArgs::from_url(urls).unwrap();
        postgres::enforce_durability(&args, strict).await
    };
    check(safe, true).await.unwrap();
    for both in [format!("{safe} {lossy}"), format!("{lossy} {safe}")] {
        check(&both, false).await.unwrap();
        let error = check(&both, true).await.unwrap_err().to_string();
        assert!(error.contains("synchronous_commit must be on"), "{error}");
    }
    // A server that does not answer keeps no node from starting while another one answers.
    check(&format!("{dead} {safe}"), true).await.unwrap();
    check(dead, false).await.unwrap_err();
}

/// Makes a store with the default number of cells, on Citus if the tests have it.
async fn migrate(servers: &Shared, args: &PostgresArgs) {
    let wanted = schema::Wanted {
        cells: None,
        citus: servers.is_citus(),
    };
    schema::migrate(args, wanted).await.unwrap();
}

/// A migration of a later version adds a column to a table of each cell. An attempt before it was interrupted, so that
/// one of the tables is no partition.
#[tokio::test]
async fn the_tables_of_all_cells_get_a_column_by_a_migration_of_each_cell() {
    let servers = Shared::get().await.unwrap();
    let url = servers.database().await.unwrap();
    let args = PostgresArgs::from_url(&url).unwrap();
    migrate(&servers, &args).await;
    let mut db = PgConnection::connect(&url).await.unwrap();
    if !servers.is_citus() {
        let detach = "ALTER TABLE public.messages DETACH PARTITION cell_02.messages";
        db.execute(detach).await.unwrap();
    }
    for cell in Cells::DEFAULT.all() {
        let path = format!("SET search_path = {}", cell.schema());
        db.execute(AssertSqlSafe(path)).await.unwrap();
        let add =
            "SELECT tern.alter_table('messages', 'ADD COLUMN IF NOT EXISTS later int NOT NULL DEFAULT 7')";
        db.execute(add).await.unwrap();
    }
    migrate(&servers, &args).await;
    let pool = postgres::pool(&args).await.unwrap();
    schema::require(&pool).await.unwrap();
    let with_column: Vec<String> = sqlx::query_scalar(
        "SELECT table_schema::text FROM information_schema.columns
         WHERE table_name = 'messages' AND column_name = 'later' ORDER BY 1",
    )
    .fetch_all(&mut db)
    .await
    .unwrap();
    let all = ["cell_00", "cell_01", "cell_02", "cell_03", "public"];
    assert_eq!(with_column, all);
}

/// Changes to a store after which it is not whole, each with what makes it whole again, and what a node says of it.
const NOT_WHOLE: [(&str, &str, &str); 7] = [
    (
        "DELETE FROM tern.store",
        "INSERT INTO tern.store (cells) VALUES (4)",
        "made only in part",
    ),
    (
        "UPDATE tern.store SET cells = 3",
        "UPDATE tern.store SET cells = 4",
        "3 cells, which is not possible",
    ),
    (
        "UPDATE tern.store SET cells = 2",
        "UPDATE tern.store SET cells = 4",
        "the database has 4 cells",
    ),
    (
        "UPDATE tern.store SET cells = 8",
        "UPDATE tern.store SET cells = 4",
        "cell_04 has version 0",
    ),
    (
        "ALTER SCHEMA cell_03 RENAME TO elsewhere",
        "ALTER SCHEMA elsewhere RENAME TO cell_03",
        "cell_03 has version 0",
    ),
    (
        "UPDATE cell_01._sqlx_migrations SET success = false",
        "UPDATE cell_01._sqlx_migrations SET success = true",
        "cell_01 has version 0",
    ),
    (
        "ALTER TABLE public.inbox DETACH PARTITION cell_01.inbox",
        "ALTER TABLE public.inbox ATTACH PARTITION cell_01.inbox FOR VALUES WITH (MODULUS 4, REMAINDER 1)",
        "of inbox not all cells' tables are attached",
    ),
];

#[tokio::test]
async fn a_store_that_is_not_whole_is_refused_with_the_reason() {
    let servers = Shared::get().await.unwrap();
    if servers.is_citus() {
        return;
    }
    let url = servers.database().await.unwrap();
    let args = PostgresArgs::from_url(&url).unwrap();
    migrate(&servers, &args).await;
    let pool = postgres::pool(&args).await.unwrap();
    let mut db = PgConnection::connect(&url).await.unwrap();
    for (change, undo, reason) in NOT_WHOLE {
        db.execute(change).await.unwrap();
        let refused = schema::require(&pool).await.unwrap_err();
        assert!(refused.to_string().contains(reason), "{change}: {refused:#}");
        db.execute(undo).await.unwrap();
        schema::require(&pool).await.unwrap();
    }
}
