//! Tests on a real Postgres: a caller that is dropped leaves no open transaction behind, and migrations of a newer version
//! are accepted.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use sqlx::PgPool;
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
    let wanted = schema::Wanted {
        cells: None,
        citus: servers.is_citus(),
    };
    schema::migrate(&args, wanted).await.unwrap();
    let pool = postgres::pool(&args).await.unwrap();
    sqlx::query(
        "INSERT INTO cell_02._sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (99999, 'of a newer version', true, '', 0)",
    )
    .execute(&pool)
    .await
    .unwrap();
    let wanted = schema::Wanted {
        cells: None,
        citus: servers.is_citus(),
    };
    schema::migrate(&args, wanted).await.unwrap();
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
