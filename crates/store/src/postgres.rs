//! Connects every role to Postgres: pools, the options of hot connections, and a check whether Postgres is durable.

use std::time::Duration;

use anyhow::Context;
use futures::future::join_all;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Executor, PgConnection, PgPool, Postgres, Transaction};
use tern_types::Cell;
use tokio::time::{sleep, timeout};

pub use crate::address::DatabaseUrl;
use crate::address::Probes;
use crate::metrics;

/// The timeout of a statement. None of ours takes long, and one that hangs would hold a shard up.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest time that a statement of a hot connection waits for a lock. Most locks are held for milliseconds, and a
/// statement that waits keeps its connection from others. Shards set shorter timeouts.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest time that a caller waits for a connection of a pool before its call fails as UNAVAILABLE.
pub(crate) const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
/// The time after which Postgres ends an idle transaction, which frees its locks. None of our transactions waits for
/// anything but Postgres, so an idle one has been abandoned.
const IDLE_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);

/// The time between two probes of Postgres. A probe costs less than one message.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);

/// Begins a transaction that only reads, and whose statements all see the same moment.
const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// The flags that say how to reach Postgres. Each role that needs Postgres flattens them; a process with several such
/// roles has them once.
#[derive(clap::Args, Clone, Debug)]
pub struct PostgresArgs {
    /// URL of the database: postgres://user:password@host:port/database. For a Citus cluster it may be several with
    /// spaces between them, the coordinator's first
    #[arg(
        long,
        env = "TERN_DATABASE_URL",
        hide_env_values = true,
        default_value = "postgres://tern@127.0.0.1:5432/tern"
    )]
    pub database_url: DatabaseUrl,
    /// Connections of a role's pool. A chat or media role has as many again for reading the cells of the store, but at
    /// least two for each cell, and a chat role two more a cell for writing, and one that wakes push workers
    #[arg(long, env = "TERN_DATABASE_POOL_SIZE", default_value_t = 8)]
    pub database_pool_size: u32,
}

impl PostgresArgs {
    /// Returns the flags for a small pool on the database at `url`, for tests. Returns `Err` if `url` is not valid.
    pub fn from_url(url: &str) -> anyhow::Result<Self> {
        Ok(Self {
            database_url: url.parse().context("not a database URL")?,
            database_pool_size: 4,
        })
    }

    /// Makes the pool open its connections at the servers of the store in turn, with the settings that `options` gives.
    pub(crate) fn spread(
        &self,
        pool: &PgPool,
        options: impl Fn(&Self) -> PgConnectOptions + Send + Sync + 'static,
    ) {
        let args = self.clone();
        self.database_url.spread(pool, move || options(&args));
    }
}

/// Opens a pool for what is by user. Returns `Err` if Postgres cannot be reached.
pub async fn pool(args: &PostgresArgs) -> anyhow::Result<PgPool> {
    let pool = PgPoolOptions::new()
        .max_connections(args.database_pool_size)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_with(connect_options(args))
        .await
        .with_context(|| format!("cannot connect to Postgres at {:?}", args.database_url))?;
    args.spread(&pool, connect_options);
    Ok(pool)
}

/// Returns a pool with [`hot_connect_options`]. It connects when it is first used, so a role that can run without the
/// store starts without it.
pub fn pool_when_needed(args: &PostgresArgs) -> PgPool {
    let options = PgPoolOptions::new()
        .max_connections(args.database_pool_size)
        .acquire_timeout(ACQUIRE_TIMEOUT);
    let pool = hot(options).connect_lazy_with(hot_connect_options(args));
    args.spread(&pool, hot_connect_options);
    pool
}

/// Probes Postgres every half second on a connection of its own to each server, and calls `tell` after each probe with
/// whether one answered in time. Connections are opened at those that did. It runs until it is dropped.
pub async fn probe(args: PostgresArgs, tell: impl Fn(bool)) {
    let mut probes = Probes::default();
    loop {
        tell(args.database_url.probe(&mut probes, cold).await);
        sleep(PROBE_INTERVAL).await;
    }
}

fn connect_options(args: &PostgresArgs) -> PgConnectOptions {
    cold(args.database_url.in_turn())
}

/// Gives a connection the settings that all of Tern's have.
fn cold(address: PgConnectOptions) -> PgConnectOptions {
    let timeout = STATEMENT_TIMEOUT.as_millis().to_string();
    let idle = IDLE_TRANSACTION_TIMEOUT.as_millis().to_string();
    address.application_name("tern").options([
        ("statement_timeout", timeout.as_str()),
        ("idle_in_transaction_session_timeout", idle.as_str()),
        // Compiling a statement takes 200 ms, longer than any of our statements runs.
        ("jit", "off"),
        ("search_path", "people,tern,public"),
    ])
}

/// Returns the options of a connection that migrates one schema, to which unqualified names belong. A migration may
/// take as long as it needs. It waits for another migration and for whoever uses a table, whatever `lock_timeout` the
/// database has: that of a store on Citus is half a second.
pub(crate) fn migration_options(args: &PostgresArgs, schema: &str) -> PgConnectOptions {
    let url = args.database_url.first().application_name("tern migrate");
    url.options([
        ("search_path", schema),
        ("statement_timeout", "0"),
        ("lock_timeout", "0"),
    ])
}

/// Makes Postgres plan a statement once for a connection: that takes longer than carrying it out, and the plan is always
/// the same. Citus plans some statements by their values and refuses to plan them without, so it decides for itself.
const KEEP_PLANS: &str = "
SELECT set_config('plan_cache_mode', 'force_generic_plan', false)
WHERE to_regclass('pg_catalog.pg_dist_partition') IS NULL";

/// Opens a connection with these options, which are those of a hot connection. Returns `Err` if the server does not
/// answer or refuses the connection.
pub async fn connect_hot(options: &PgConnectOptions) -> sqlx::Result<PgConnection> {
    let mut connection = options.connect().await?;
    keep_plans(&mut connection).await?;
    Ok(connection)
}

/// Makes the pool open its connections as [`connect_hot`] does.
pub(crate) fn hot(pool: PgPoolOptions) -> PgPoolOptions {
    pool.after_connect(|connection, _| Box::pin(keep_plans(connection)))
}

async fn keep_plans(connection: &mut PgConnection) -> sqlx::Result<()> {
    connection.execute(KEEP_PLANS).await?;
    Ok(())
}

/// Returns the options of connections whose statements are prepared while tables may still be empty: their plans must
/// not keep the sequential scans that an empty table suggests. Connections are opened by [`connect_hot`].
pub fn hot_connect_options(args: &PostgresArgs) -> PgConnectOptions {
    let lock_timeout = LOCK_TIMEOUT.as_millis().to_string();
    connect_options(args).options([
        ("lock_timeout", lock_timeout.as_str()),
        ("enable_seqscan", "off"),
        ("enable_hashjoin", "off"),
        ("enable_mergejoin", "off"),
        // Tables of chats have no name here: a statement about them belongs on a connection to their cell.
        ("search_path", "people,tern"),
    ])
}

/// Returns the options of connections to one cell: those of its shard and those that read it. They are those of
/// [`hot_connect_options`], but the names of tables of chats mean those of the cell.
pub fn cell_connect_options(args: &PostgresArgs, cell: Cell) -> PgConnectOptions {
    // Postgres takes the later one of two settings of the same name.
    hot_connect_options(args).options([("search_path", cell_path(cell).as_str())])
}

/// Returns the search_path under which the names of tables of chats mean those of the cell.
pub(crate) fn cell_path(cell: Cell) -> String {
    format!("{},people", cell.schema())
}

/// Begins a transaction on a connection of the pool. It is rolled back when the returned value is dropped, and also
/// when the caller's future is dropped while it waits for this function. Returns `Err` if no connection is free in time
/// or the server does not answer.
///
/// `Pool::begin` and `Pool::begin_with` are banned (clippy.toml) because they do not keep the second promise: when
/// their future is dropped after BEGIN was sent, sqlx 0.9 puts the connection back into the pool with the transaction
/// still open. Whatever the connection's next users write is then confirmed to them and never committed. Here a task of
/// its own sends BEGIN, and is not dropped with the caller.
pub async fn begin(pool: &PgPool) -> sqlx::Result<Transaction<'static, Postgres>> {
    let pool = pool.clone();
    #[expect(
        clippy::disallowed_methods,
        reason = "the task is not dropped with the caller"
    )]
    let begun = tokio::spawn(async move { pool.begin().await });
    begun.await.unwrap_or(Err(sqlx::Error::WorkerCrashed))
}

/// Begins a transaction that only reads, and whose statements all see the same moment. It is rolled back, and fails, as
/// [`begin`] says.
pub async fn snapshot(pool: &PgPool) -> sqlx::Result<Transaction<'static, Postgres>> {
    let pool = pool.clone();
    #[expect(
        clippy::disallowed_methods,
        reason = "the task is not dropped with the caller"
    )]
    let begun = tokio::spawn(async move { pool.begin_with(SNAPSHOT).await });
    begun.await.unwrap_or(Err(sqlx::Error::WorkerCrashed))
}

/// The settings of Postgres that decide whether a confirmed commit is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Durability {
    /// The setting that makes Postgres wait until writes are on disk: `on` or `off`.
    pub fsync: String,
    /// The setting that makes Postgres log whole pages, so that torn pages can be mended: `on` or `off`.
    pub full_page_writes: String,
    /// The setting of what Postgres waits for before it confirms a commit, such as `on` or `local`.
    pub synchronous_commit: String,
    /// The names of the synchronous standbys, or an empty string if there are none.
    pub synchronous_standby_names: String,
}

/// Checks the settings of every server of the store, as [`Durability::enforce`] says. A server that does not answer is
/// passed over. Returns `Err` if none answers, or if `strict` is set and the settings of one are unsafe.
pub async fn enforce_durability(args: &PostgresArgs, strict: bool) -> anyhow::Result<()> {
    let servers = args.database_url.each();
    let found = join_all(servers.iter().map(Durability::of)).await;
    let (mut checked, mut refused) = (0, Vec::new());
    for (server, found) in servers.iter().zip(found) {
        match found {
            Ok(durability) => {
                checked += 1;
                if let Err(error) = durability.enforce(strict) {
                    refused.push(format!("{server:?}: {error}"));
                }
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(?server, error, "its durability settings are not checked");
            }
        }
    }
    anyhow::ensure!(
        checked > 0,
        "cannot read the durability settings: no Postgres answers"
    );
    anyhow::ensure!(refused.is_empty(), "{}", refused.join("; "));
    Ok(())
}

impl Durability {
    /// Reads the settings of a store of one server. Returns `Err` if it does not answer in time.
    async fn of(server: &DatabaseUrl) -> anyhow::Result<Self> {
        let read = async {
            let mut connection = cold(server.first()).connect().await?;
            Self::read(&mut connection).await
        };
        timeout(ACQUIRE_TIMEOUT, read)
            .await
            .context("no answer in time")?
    }

    async fn read(connection: &mut PgConnection) -> anyhow::Result<Self> {
        let (fsync, full_page_writes, synchronous_commit, synchronous_standby_names) = sqlx::query_as(
            "SELECT current_setting('fsync'), current_setting('full_page_writes'),
                    current_setting('synchronous_commit'), current_setting('synchronous_standby_names')",
        )
        .fetch_one(connection)
        .await
        .context("cannot read the durability settings")?;
        Ok(Self {
            fsync,
            full_page_writes,
            synchronous_commit,
            synchronous_standby_names,
        })
    }

    /// Returns the unsafe settings, each with the reason why it is unsafe. If the list is empty, a commit that Postgres
    /// confirmed survives a crash of its machine and, where there are synchronous standbys, the loss of the machine.
    pub fn faults(&self) -> Vec<&'static str> {
        let mut faults = Vec::new();
        if self.fsync != "on" {
            faults.push("fsync must be on: commits are lost when the machine goes down");
        }
        if self.full_page_writes != "on" {
            faults.push("full_page_writes must be on: a torn page cannot be mended");
        }
        if !self.commit_is_safe() {
            faults.push(
                "synchronous_commit must be on (or remote_apply): commits are confirmed before they are on disk, \
                 here or on the synchronous standby",
            );
        }
        faults
    }

    /// Returns whether Postgres confirms a commit only when it is safe. `local` and `remote_write` are enough without
    /// synchronous standbys; with them, a commit would be confirmed before it is on a standby's disk.
    fn commit_is_safe(&self) -> bool {
        match self.synchronous_commit.as_str() {
            "on" | "remote_apply" => true,
            "local" | "remote_write" => self.synchronous_standby_names.is_empty(),
            _ => false,
        }
    }

    /// Exports the settings as metrics. Returns `Err` if they are unsafe and `strict` is set, as under `--profile
    /// production`.
    pub fn enforce(&self, strict: bool) -> anyhow::Result<()> {
        let on = |value: &str| value == "on";
        metrics::postgres_setting("fsync", &self.fsync, on(&self.fsync));
        metrics::postgres_setting(
            "full_page_writes",
            &self.full_page_writes,
            on(&self.full_page_writes),
        );
        metrics::postgres_setting(
            "synchronous_commit",
            &self.synchronous_commit,
            self.commit_is_safe(),
        );
        metrics::postgres_setting("synchronous_standby_names", &self.synchronous_standby_names, true);
        let faults = self.faults();
        for fault in &faults {
            tracing::warn!(fault, "postgres may lose what it confirms");
        }
        let refused = strict && !faults.is_empty();
        anyhow::ensure!(
            !refused,
            "refused under --profile production: {}",
            faults.join("; ")
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_settings_that_keep_a_confirmed_commit_are_safe() {
        let cases = [
            (["on", "on", "on", ""], true),
            (["on", "on", "on", "ANY 1 (a, b)"], true),
            (["on", "on", "remote_apply", "a"], true),
            (["on", "on", "local", ""], true),
            (["on", "on", "local", "a"], false),
            (["on", "on", "remote_write", "a"], false),
            (["on", "on", "off", ""], false),
            (["off", "on", "on", ""], false),
            (["on", "off", "on", ""], false),
        ];
        for (settings, safe) in cases {
            let [
                fsync,
                full_page_writes,
                synchronous_commit,
                synchronous_standby_names,
            ] = settings.map(str::to_owned);
            let durability = Durability {
                fsync,
                full_page_writes,
                synchronous_commit,
                synchronous_standby_names,
            };
            assert_eq!(durability.enforce(true).is_ok(), safe, "{durability:?}");
            assert!(durability.enforce(false).is_ok());
        }
    }

    #[test]
    fn the_password_is_not_shown() {
        let args = PostgresArgs::from_url("postgres://tern:secret@db:5433/chat").unwrap();
        let shown = format!("{args:?}");
        assert!(
            shown.contains("db:5433/chat") && !shown.contains("secret"),
            "{shown}"
        );
    }
}
