//! What must hold after every test.

use std::time::Duration;

use anyhow::Context as _;
use sqlx::PgPool;
use tern_local::{Role, until};

use crate::World;
use crate::world::SWEEP_GRACE;

/// Settling takes half a second and the looking for forgotten rows ten; a killed owner's lease has to end first.
const SETTLES_WITHIN: Duration = Duration::from_secs(40);

/// Two sweeps: a row that is older by so much than the grace has been looked at.
const SWEEPS: Duration = Duration::from_secs(4);
/// Beyond that, for new rows of what is still going on.
const SWEPT_WITHIN: Duration = Duration::from_secs(25);
/// What a gateway logs of each row that its sweep found: also those that did not live to the end speak by their logs.
const FOUND: &str = "the sweep found a lost inbox row";

/// What the nodes said and what they have stored.
pub async fn store_and_logs(world: &World) -> anyhow::Result<()> {
    no_log_says(world, "panicked at")?;
    // Nobody is left to settle when the test has ended them.
    let able = world
        .platform
        .nodes()
        .any(|node| node.role == Role::Chat && node.process.exited().is_none());
    let store = world.store().await;
    logs_without_gaps(&store).await?;
    if able {
        settled(&store).await?;
    }
    store.close().await;
    Ok(())
}

/// The net below the protocol: what it catches, the protocol has lost.
pub async fn nothing_swept(world: &World) -> anyhow::Result<()> {
    // What is left in the inbox belongs to devices that are away, or was forgotten: then the sweep finds it.
    let store = world.store().await;
    let grace = world.platform.setting(SWEEP_GRACE.0).unwrap_or(SWEEP_GRACE.1);
    let seen_at = Duration::from_secs(grace.parse()?) + SWEEPS;
    until::holds("the sweep has seen every row", seen_at + SWEPT_WITHIN, || async {
        let young: i64 =
            sqlx::query_scalar("SELECT count(*) FROM inbox WHERE since > now() - make_interval(secs => $1)")
                .bind(seen_at.as_secs_f64())
                .fetch_one(&store)
                .await?;
        Ok(young == 0)
    })
    .await?;
    store.close().await;
    let found = world
        .platform
        .metric_of(Role::Gateway, "tern_gateway_sweep_found_total", &[])
        .await?;
    anyhow::ensure!(
        found == 0.0,
        "the sweep found {found} rows: something was lost on the way"
    );
    no_log_says(world, FOUND)
}

fn no_log_says(world: &World, what: &str) -> anyhow::Result<()> {
    for node in world.platform.nodes() {
        let log = std::fs::read(node.process.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        if let Some(line) = log.lines().find(|line| line.contains(what)) {
            anyhow::bail!("{} says: {line}", node.name);
        }
    }
    Ok(())
}

/// Rule 2: one log, one order, no gaps.
async fn logs_without_gaps(store: &PgPool) -> anyhow::Result<()> {
    let bad: Vec<(String, i64, i64, i64)> = sqlx::query_as(
        "SELECT h.chat_id::text, h.head_seq, count(m.seq), coalesce(max(m.seq), 0)
           FROM chat_heads h LEFT JOIN messages m ON m.chat_id = h.chat_id
          GROUP BY h.chat_id, h.head_seq
         HAVING h.head_seq <> count(m.seq) OR h.head_seq <> coalesce(max(m.seq), 0)",
    )
    .fetch_all(store)
    .await
    .context("look for gaps")?;
    anyhow::ensure!(
        bad.is_empty(),
        "logs with gaps (chat, head, entries, last): {bad:?}"
    );
    Ok(())
}

/// Every commit is accounted for in the end.
pub async fn settled(store: &PgPool) -> anyhow::Result<()> {
    until::holds("every commit is settled", SETTLES_WITHIN, || async {
        let open: i64 = sqlx::query_scalar("SELECT count(*) FROM unsettled")
            .fetch_one(store)
            .await?;
        anyhow::ensure!(open == 0, "{open} unsettled rows");
        Ok(true)
    })
    .await
}
