//! Checks of what must hold after every test.

use std::time::Duration;

use anyhow::Context as _;
use sqlx::PgPool;
use tern_local::{Role, until};

use crate::World;
use crate::world::SWEEP_GRACE;

/// The time within which every commit is settled. A settle comes after half a second, and the search for what a dead
/// owner left after 10 s. Before that, the lease of a killed owner has to end.
const SETTLES_WITHIN: Duration = Duration::from_secs(60);

/// The time of two sweeps. A sweep has seen each row that is older than the grace by this time.
const SWEEPS: Duration = Duration::from_secs(4);
/// The additional time that a test waits, because new rows may still be written.
const SWEPT_WITHIN: Duration = Duration::from_secs(60);
/// The text that a gateway logs for each row that its sweep found. It is searched for because the metrics of gateways
/// that were killed meanwhile are gone, and their logs are not.
const FOUND: &str = "the sweep found a lost inbox row";

impl World {
    /// Waits until every commit so far is settled.
    pub async fn settled(&self) {
        let store = self.store().await;
        all_settled(&store)
            .await
            .unwrap_or_else(|error| panic!("{error:#}"));
        store.close().await;
    }

    /// Checks that no node has panicked, that logs have no gaps, and that every commit is settled.
    pub async fn store_and_logs(&self) -> anyhow::Result<()> {
        self.no_log_says("panicked at")?;
        // If the test has ended all chat nodes, nobody can settle.
        let able = self
            .platform
            .nodes()
            .any(|node| node.role == Role::Chat && node.process.exited().is_none());
        let store = self.store().await;
        logs_without_gaps(&store).await?;
        if able {
            all_settled(&store).await?;
        }
        store.close().await;
        Ok(())
    }

    /// Checks that the sweep found nothing. The sweep is the net below the protocol, so each row that it finds is one
    /// that the protocol has lost.
    pub async fn nothing_swept(&self) -> anyhow::Result<()> {
        // Each row in the inbox either belongs to a device that is away, or was forgotten. The sweep finds the
        // forgotten ones once they are old enough.
        let store = self.store().await;
        let grace = self.platform.setting(SWEEP_GRACE.0).unwrap_or(SWEEP_GRACE.1);
        let seen_at = Duration::from_secs(grace.parse()?) + SWEEPS;
        until::holds("the sweep has seen every row", seen_at + SWEPT_WITHIN, || async {
            let young: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM inbox WHERE since > now() - make_interval(secs => $1)",
            )
            .bind(seen_at.as_secs_f64())
            .fetch_one(&store)
            .await?;
            Ok(young == 0)
        })
        .await?;
        store.close().await;
        let found = self
            .platform
            .metric_of(Role::Gateway, "tern_gateway_sweep_found_total", &[])
            .await?;
        anyhow::ensure!(
            found == 0.0,
            "the sweep found {found} rows: something was lost on the way"
        );
        self.no_log_says(FOUND)
    }

    fn no_log_says(&self, what: &str) -> anyhow::Result<()> {
        for node in self.platform.nodes() {
            let log = std::fs::read(node.process.log()).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            if let Some(line) = log.lines().find(|line| line.contains(what)) {
                anyhow::bail!("{} says: {line}", node.name);
            }
        }
        Ok(())
    }
}

/// Checks rule 2: each log has all entries from its first to its head. The first is 1 unless older ones were trimmed.
async fn logs_without_gaps(store: &PgPool) -> anyhow::Result<()> {
    let bad: Vec<(String, i64, i64, i64)> = sqlx::query_as(
        "SELECT h.chat_id::text, h.head_seq, count(m.seq), coalesce(max(m.seq), c.first_seq - 1)
           FROM chat_heads h JOIN chats c ON c.chat_id = h.chat_id
           LEFT JOIN messages m ON m.chat_id = h.chat_id
          GROUP BY h.chat_id, h.head_seq, c.first_seq
         HAVING h.head_seq - c.first_seq + 1 <> count(m.seq)
             OR h.head_seq <> coalesce(max(m.seq), c.first_seq - 1)",
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

/// Waits until every commit is settled.
async fn all_settled(store: &PgPool) -> anyhow::Result<()> {
    until::holds("every commit is settled", SETTLES_WITHIN, || async {
        let open: i64 = sqlx::query_scalar("SELECT count(*) FROM unsettled")
            .fetch_one(store)
            .await?;
        anyhow::ensure!(open == 0, "{open} unsettled rows");
        Ok(true)
    })
    .await
}
