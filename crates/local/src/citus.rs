//! Runs a Citus cluster of a coordinator and two workers, where the Postgres of this machine offers the extension.

use std::path::Path;

use anyhow::Context as _;
use sqlx::{Connection as _, Executor as _, PgConnection};

use crate::postgres::{self, Postgres};

/// The number of nodes besides the coordinator.
const WORKERS: usize = 2;

/// The servers of a cluster. They end as [`Postgres`] does.
#[derive(Debug)]
pub struct Citus {
    /// The node that knows where the tables are.
    pub coordinator: Postgres,
    /// The nodes that have the cells and the schema `people`.
    pub workers: Vec<Postgres>,
}

impl Citus {
    /// Starts a cluster on the data below `dir`, which are made if there are none.
    pub async fn start(dir: &Path) -> anyhow::Result<Self> {
        Self::launch(dir, true).await
    }

    /// Starts a cluster that outlives this process.
    pub(crate) async fn start_detached(dir: &Path) -> anyhow::Result<Self> {
        Self::launch(dir, false).await
    }

    async fn launch(dir: &Path, dies_with_us: bool) -> anyhow::Result<Self> {
        let password = postgres::new_password();
        let mut workers = Vec::new();
        for number in 1..=WORKERS {
            let dir = dir.join(format!("worker-{number}"));
            workers.push(Postgres::start_citus(&dir, &password, dies_with_us).await?);
        }
        Ok(Self {
            coordinator: Postgres::start_citus(dir, &password, dies_with_us).await?,
            workers,
        })
    }

    /// Returns the URLs of the nodes' databases `postgres`, the coordinator's first.
    pub fn urls(&self) -> Vec<String> {
        let nodes = std::iter::once(&self.coordinator).chain(&self.workers);
        nodes.map(|node| node.url("postgres")).collect()
    }
}

/// Creates a database on all nodes of a cluster, and makes the nodes known to each other in it. `urls` are
/// the URLs of another database on each node, the coordinator's first. Returns the URL of the new database on
/// the coordinator. Fails if the database exists already.
pub async fn create_database(urls: &[String], name: &str) -> anyhow::Result<String> {
    let first = urls.first().context("a cluster has a coordinator")?;
    // Adding a node writes the roles of the whole server, which two databases cannot do at once.
    let mut turn = PgConnection::connect(first).await?;
    turn.execute("SELECT pg_advisory_lock(1)").await?;
    let mut made = Vec::new();
    for url in urls {
        let url = postgres::create_database(url, name).await?;
        let mut node = PgConnection::connect(&url).await?;
        node.execute("CREATE EXTENSION IF NOT EXISTS citus").await?;
        node.close().await?;
        made.push(url);
    }
    let (coordinator, workers) = made.split_first().context("a cluster has a coordinator")?;
    let mut db = PgConnection::connect(coordinator).await?;
    let own_port = port(coordinator)?;
    for worker in std::iter::once(coordinator).chain(workers) {
        let port = port(worker)?;
        let tell = if port == own_port {
            "SELECT citus_set_coordinator_host('127.0.0.1', $1)"
        } else {
            "SELECT citus_add_node('127.0.0.1', $1)"
        };
        sqlx::query(tell).bind(i32::from(port)).execute(&mut db).await?;
    }
    // The coordinator has no cells, as in a large installation.
    sqlx::query("SELECT citus_set_node_property('127.0.0.1', $1, 'shouldhaveshards', false)")
        .bind(i32::from(own_port))
        .execute(&mut db)
        .await?;
    db.close().await?;
    turn.close().await?;
    Ok(coordinator.clone())
}

/// Returns the port in the URL of a database.
fn port(url: &str) -> anyhow::Result<u16> {
    let (server, _) = url.rsplit_once('/').context("no URL of a database")?;
    let (_, port) = server.rsplit_once(':').context("a URL without a port")?;
    Ok(port.parse()?)
}
