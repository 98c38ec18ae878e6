//! Postgres for every role: pools, the options of hot connections, migrations, and whether it keeps what it confirms.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

/// No statement of ours takes long; one that hangs would hold a shard up.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);
/// A caller waits this long for a connection before it is told to come back later.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);

static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// How to reach Postgres. Flattened by each role that needs it; a process with several such roles has the flags once.
#[derive(clap::Args, Clone, Debug)]
pub struct PostgresArgs {
    /// URL of the database: postgres://user:password@host:port/database
    #[arg(
        long,
        env = "TERN_DATABASE_URL",
        hide_env_values = true,
        default_value = "postgres://tern@127.0.0.1:5432/tern"
    )]
    pub database_url: DatabaseUrl,
    /// Connections of a role's pool. The connections of chat shards come on top
    #[arg(long, env = "TERN_DATABASE_POOL_SIZE", default_value_t = 8)]
    pub database_pool_size: u32,
}

/// Where the database is. Its `Debug` shows no password.
#[derive(Clone)]
pub struct DatabaseUrl(pub PgConnectOptions);

impl FromStr for DatabaseUrl {
    type Err = sqlx::Error;

    fn from_str(url: &str) -> Result<Self, sqlx::Error> {
        url.parse().map(Self)
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(options) = self;
        write!(
            f,
            "{}:{}/{}",
            options.get_host(),
            options.get_port(),
            options.get_database().unwrap_or_default()
        )
    }
}

impl PostgresArgs {
    /// For tests: this URL, a small pool.
    pub fn from_url(url: &str) -> anyhow::Result<Self> {
        Ok(Self {
            database_url: url.parse().context("not a database URL")?,
            database_pool_size: 4,
        })
    }
}

/// A pool for everything but a shard's own work.
pub async fn pool(args: &PostgresArgs) -> anyhow::Result<PgPool> {
    PgPoolOptions::new()
        .max_connections(args.database_pool_size)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_with(connect_options(args))
        .await
        .with_context(|| format!("cannot connect to Postgres at {:?}", args.database_url))
}

fn connect_options(args: &PostgresArgs) -> PgConnectOptions {
    let timeout = STATEMENT_TIMEOUT.as_millis().to_string();
    args.database_url
        .0
        .clone()
        .application_name("tern")
        .options([("statement_timeout", timeout)])
}

/// For connections whose statements are prepared while tables may still be empty: such a plan must not keep the
/// sequential scans that an empty table suggests.
pub fn hot_connect_options(args: &PostgresArgs) -> PgConnectOptions {
    connect_options(args).options([
        ("enable_seqscan", "off"),
        ("enable_hashjoin", "off"),
        ("enable_mergejoin", "off"),
    ])
}

/// Brings the schema up to date. Safe beside nodes of the version before, and beside itself.
pub async fn migrate(pool: &PgPool) -> anyhow::Result<()> {
    MIGRATOR.run(pool).await.context("the migration failed")
}
