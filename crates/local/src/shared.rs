//! Shares one Postgres and one etcd among all test processes of a run. A test runner may start a process for each test,
//! and servers for each of them would cost more than the tests.
//!
//! The first process starts the servers and `keeper.sh`, which ends them when no test process has been left for 10 s.
//! Each process holds a file lock, which the kernel releases however the process ends. If TERN_TEST_POSTGRES and
//! TERN_TEST_ETCD are set, those servers are used instead. If TERN_TEST_CITUS is set, the tests have a Citus cluster in
//! place of the one Postgres.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use etcd_client::Client;
use serde::{Deserialize, Serialize};
use sqlx::{Connection as _, PgConnection};
use tokio::process::Command;

use crate::{Citus, Etcd, Postgres, Process, citus, postgres, secrets};

/// The script that ends the servers.
const KEEPER: &str = include_str!("keeper.sh");

/// The shared servers. They run as long as this or a clone of it lives.
#[derive(Debug, Clone)]
pub struct Shared {
    servers: Servers,
    _user: Option<Arc<File>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Servers {
    /// The URL of the database `postgres`, on the coordinator if there is a Citus cluster.
    postgres: String,
    /// The URLs of the same database on the other nodes of the cluster.
    workers: Vec<String>,
    etcd: String,
}

impl Shared {
    /// Returns the run's servers, and starts them if they do not run. Fails if they cannot be started.
    pub async fn get() -> anyhow::Result<Self> {
        if let (Ok(postgres), Ok(etcd)) = (
            std::env::var("TERN_TEST_POSTGRES"),
            std::env::var("TERN_TEST_ETCD"),
        ) {
            return Ok(Self {
                servers: Servers {
                    postgres,
                    workers: Vec::new(),
                    etcd,
                },
                _user: None,
            });
        }
        let dir = place()?;
        let (start, user) = {
            let dir = dir.clone();
            // This waits while another process starts the servers.
            tokio::task::spawn_blocking(move || lock(&dir)).await??
        };
        let servers = match running(&dir).await {
            Some(servers) => servers,
            None => launch(&dir).await?,
        };
        start.unlock()?;
        Ok(Self {
            servers,
            _user: Some(Arc::new(user)),
        })
    }

    /// Returns the URL of the server's database `postgres`.
    pub fn postgres(&self) -> &str {
        &self.servers.postgres
    }

    /// Returns the endpoint of etcd, `http://127.0.0.1:…`.
    pub fn etcd(&self) -> &str {
        &self.servers.etcd
    }

    /// Creates a database for one test, and returns its URL. The database ends with the server, unless
    /// [`postgres::drop_database`] drops it before.
    pub async fn database(&self) -> anyhow::Result<String> {
        let name = unique("test");
        if !self.is_citus() {
            return postgres::create_database(self.postgres(), &name).await;
        }
        let mut urls = self.servers.workers.clone();
        urls.insert(0, self.servers.postgres.clone());
        citus::create_database(&urls, &name).await
    }

    /// Returns whether the tests have a Citus cluster, on which stores are to be placed.
    pub fn is_citus(&self) -> bool {
        !self.servers.workers.is_empty()
    }
}

/// Returns a name that nobody else has: the prefix, `_`, and 16 random hex digits.
pub fn unique(prefix: &str) -> String {
    format!("{prefix}_{:016x}", rand::random::<u64>())
}

/// Returns the directory for the servers of this user's tests of this build, and makes it if it is missing.
fn place() -> anyhow::Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let build = exe.ancestors().nth(2).unwrap_or(&exe);
    let mut hasher = DefaultHasher::new();
    (build, nix::unistd::getuid().as_raw(), wants_citus()).hash(&mut hasher);
    let dir = std::env::temp_dir().join(format!("tern-tests-{:016x}", hasher.finish()));
    fs::create_dir_all(&dir)?;
    // The user `postgres` has to be able to pass through it.
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755))?;
    Ok(dir)
}

fn wants_citus() -> bool {
    std::env::var_os("TERN_TEST_CITUS").is_some()
}

/// Locks the files `start` and `users`, as `keeper.sh` describes it. Waits while another process holds `start`.
fn lock(dir: &Path) -> anyhow::Result<(File, File)> {
    let start = File::create(dir.join("start"))?;
    start.lock()?;
    let user = File::create(dir.join("users"))?;
    user.lock_shared()?;
    Ok((start, user))
}

/// Returns the servers if they have been started and answer.
async fn running(dir: &Path) -> Option<Servers> {
    let servers: Servers = serde_json::from_slice(&fs::read(dir.join("servers.json")).ok()?).ok()?;
    PgConnection::connect(&servers.postgres)
        .await
        .ok()?
        .close()
        .await
        .ok()?;
    Client::connect([&servers.etcd], None)
        .await
        .ok()?
        .get("/", None)
        .await
        .ok()?;
    Some(servers)
}

/// Starts the keeper and the servers.
async fn launch(dir: &Path) -> anyhow::Result<Servers> {
    let keeper = dir.join("keeper.sh");
    fs::write(&keeper, KEEPER)?;
    fs::set_permissions(&keeper, fs::Permissions::from_mode(0o755))?;
    // A run that was cut off may have left its data.
    for data in fs::read_to_string(dir.join("postgres.data"))
        .iter()
        .flat_map(|data| data.lines())
    {
        let _ = fs::remove_dir_all(data);
    }
    let mut command = Command::new(&keeper);
    command.arg(dir);
    Process::spawn_detached("keeper", command, &dir.join("keeper.log"))?;

    let places = ["postgres", "worker-1/postgres", "worker-2/postgres"];
    write_data(dir, places.map(|place| dir.join(place)))?;
    let (postgres, workers) = if wants_citus() {
        let cluster = Citus::start_detached(dir).await.context("the tests' citus")?;
        (cluster.coordinator, cluster.workers)
    } else {
        let server = Postgres::start_detached(dir).await;
        (server.context("the tests' postgres")?, Vec::new())
    };
    write_data(
        dir,
        std::iter::once(&postgres)
            .chain(&workers)
            .map(|server| server.data().to_owned()),
    )?;
    let etcd = Etcd::start_detached(dir).await.context("the tests' etcd")?;
    fs::write(dir.join("etcd.pid"), etcd.process().pid().to_string())?;
    let servers = Servers {
        postgres: postgres.url("postgres"),
        workers: workers.iter().map(|worker| worker.url("postgres")).collect(),
        etcd: etcd.endpoint().to_owned(),
    };
    secrets::write(&dir.join("servers.json"), &serde_json::to_string(&servers)?)?;
    Ok(servers)
}

/// Writes where the servers have their data, a line each.
fn write_data(dir: &Path, places: impl IntoIterator<Item = PathBuf>) -> anyhow::Result<()> {
    let lines = places.into_iter().map(|place| format!("{}\n", place.display()));
    Ok(fs::write(dir.join("postgres.data"), lines.collect::<String>())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_users_get_the_same_servers_and_databases_of_their_own() {
        let (one, two) = (Shared::get().await.unwrap(), Shared::get().await.unwrap());
        assert_eq!(one.postgres(), two.postgres());
        assert_eq!(one.etcd(), two.etcd());
        let (a, b) = (one.database().await.unwrap(), two.database().await.unwrap());
        assert_ne!(a, b);
        for url in [a, b] {
            PgConnection::connect(&url).await.unwrap().close().await.unwrap();
            postgres::drop_database(&url).await.unwrap();
        }
    }
}
