//! Fills a store with old messages that the chat nodes trim while the load runs: their contents are erased, and their
//! entries deleted.

use std::time::Duration;

use anyhow::Context as _;
use sqlx::{Connection as _, PgConnection};
use tern_types::{Clock, Timestamp};
use tokio::time::sleep;

use super::Common;
use super::prefill::{self, Kind};
use super::report::Report;
use super::target::Target;

/// The age of the messages. It is more than the 30 days for which entries stay after their contents.
const AGE_S: f64 = 40.0 * 86_400.0;
/// The seconds for which their chats keep messages.
const KEEP_S: i32 = 86_400;
/// The time between two looks at what is left.
const LOOK: Duration = Duration::from_millis(500);
/// The longest time for all of them to be trimmed after the load.
const PATIENCE: Duration = Duration::from_secs(600);

/// Lets the chats be trimmed from now on.
const BEGIN: &str = "UPDATE chats SET trim_at = now() WHERE retention_mode = 2";

/// Counts the messages that are to be trimmed: the last entry of a chat stays.
const LEFT: &str = "
SELECT coalesce(sum(h.head_seq - c.first_seq), 0)::int8
FROM chats c JOIN chat_heads h USING (chat_id) WHERE c.retention_mode = 2";

/// The bytes of all tables of messages, with their indexes and what was stored apart.
const SIZE: &str = "
SELECT sum(pg_total_relation_size(c.oid))::int8 FROM pg_class c WHERE c.relname = 'messages' AND c.relkind = 'r'";

/// The messages of a load that are trimmed beside it.
pub struct Trims {
    db: PgConnection,
    messages: i64,
    began: Timestamp,
    /// The size of the tables of messages before the load, in bytes.
    size: i64,
}

impl Trims {
    /// Fills the store with messages, and lets them be trimmed from now on. Fails if the target has no database URL.
    pub async fn begin(target: &Target, common: &Common) -> anyhow::Result<Self> {
        let kind = Kind {
            age_s: AGE_S,
            keep_s: KEEP_S,
        };
        prefill::fill(target, common.trims, common.body, kind).await?;
        let url = target.database_url.as_ref().context("no database URL")?;
        let mut db = PgConnection::connect(url).await?;
        let size = sqlx::query_scalar(SIZE).fetch_one(&mut db).await?;
        let messages = sqlx::query_scalar(LEFT).fetch_one(&mut db).await?;
        sqlx::query(BEGIN).execute(&mut db).await?;
        Ok(Self {
            db,
            messages,
            began: Clock::monotonic(),
            size,
        })
    }

    /// Waits until all of them are trimmed, and adds to the report how many were trimmed beside the load, how fast, and
    /// how large the tables are after that. Fails if that takes over ten minutes.
    pub async fn end(mut self, report: &mut Report) -> anyhow::Result<()> {
        let trimmed = self.messages - self.left().await?;
        let beside = Clock::monotonic().since(self.began).as_secs_f64();
        report.noted(
            "messages trimmed beside the load",
            trimmed as f64,
            "",
            format!("of {}, in {beside:.1} s", self.messages),
        );
        while self.left().await? > 0 {
            let waited = Clock::monotonic().since(self.began);
            anyhow::ensure!(waited < PATIENCE, "messages are left after {waited:?}");
            sleep(LOOK).await;
        }
        let all = Clock::monotonic().since(self.began).as_secs_f64();
        report.noted(
            "messages trimmed a second",
            self.messages as f64 / all,
            "",
            format!("all in {all:.1} s"),
        );
        let after: i64 = sqlx::query_scalar(SIZE).fetch_one(&mut self.db).await?;
        let mib = |bytes: i64| bytes as f64 / f64::from(1 << 20);
        report.noted(
            "tables of messages",
            mib(after),
            "MiB",
            format!("{:.0} before", mib(self.size)),
        );
        self.db.close().await?;
        Ok(())
    }

    async fn left(&mut self) -> anyhow::Result<i64> {
        Ok(sqlx::query_scalar(LEFT).fetch_one(&mut self.db).await?)
    }
}
