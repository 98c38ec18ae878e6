//! Runs a private Postgres server with a data directory made by initdb. The server listens on 127.0.0.1, which other
//! users of the machine reach too, so it asks for a password. The password is in a file beside the data that only this
//! user may read. It crosses the loopback in plain text, because whoever can listen there can also read the file.
//!
//! Postgres refuses to run as root. If root starts it, it runs as the user `postgres`, in a data directory that this
//! user can reach: below the given directory if possible, otherwise below /var/tmp.

mod account;
mod dump;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::signal::Signal;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tokio::process::Command;

use self::account::Account;
pub use self::dump::dump_schema;
use crate::{Process, ports, secrets, until};

/// The time limit from the start to the first connection, which takes 1 s on an idle machine and more after a crash.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// The time limit for a shutdown. A fast shutdown first writes a checkpoint.
pub(crate) const STOPS_WITHIN: Duration = Duration::from_secs(20);
/// The name of the file in the data directory with the password for other servers, in libpq's format.
const PASSWORDS: &str = "passwords";
/// The settings of a node of a Citus cluster. Its schemas are moved by logical replication, and the nodes are on the
/// loopback, where a server has no certificate.
const CITUS_SETTINGS: [&str; 5] = [
    "shared_preload_libraries=citus",
    "wal_level=logical",
    "citus.node_conninfo=sslmode=disable",
    // Citus has a worker for each database, and each test has a database: that worker keeps connections to all nodes.
    "max_worker_processes=500",
    "max_connections=2000",
];
/// The longest path of a directory for sockets, in bytes. A socket's path, with its file name, has to fit into 108.
const MAX_SOCKET_DIR: usize = 80;

/// A running server, which stops when dropped unless it was started detached. Its data stay until somebody removes the
/// directory.
#[derive(Debug)]
pub struct Postgres {
    process: Process,
    port: u16,
    data: PathBuf,
    password: String,
    mode: Mode,
}

/// How a server runs.
#[derive(Debug, Clone, Copy)]
struct Mode {
    /// True if the server ends with this process.
    dies_with_us: bool,
    /// True if the server is a node of a Citus cluster.
    citus: bool,
}

impl Postgres {
    /// Starts a server on the data below `dir`, which are made if there are none.
    pub async fn start(dir: &Path) -> anyhow::Result<Self> {
        Self::launch(dir, true, None).await
    }

    /// Starts a server that outlives this process. Its pid is in `postmaster.pid` in the data directory.
    pub async fn start_detached(dir: &Path) -> anyhow::Result<Self> {
        Self::launch(dir, false, None).await
    }

    /// Starts a server that can be a node of a Citus cluster. All nodes of a cluster have one password, by which they
    /// reach each other.
    pub(crate) async fn start_citus(dir: &Path, password: &str, dies_with_us: bool) -> anyhow::Result<Self> {
        Self::launch(dir, dies_with_us, Some(password)).await
    }

    /// Starts a server. It is a node of a Citus cluster if it is given the password of one.
    async fn launch(dir: &Path, dies_with_us: bool, cluster_password: Option<&str>) -> anyhow::Result<Self> {
        let mode = Mode {
            dies_with_us,
            citus: cluster_password.is_some(),
        };
        let account = Account::find()?;
        let data = account.place(dir)?;
        let password_file = dir.join("postgres-password");
        if !data.join("PG_VERSION").exists() {
            let password = cluster_password.map_or_else(new_password, str::to_owned);
            init(&account, &data, &password).await?;
            secrets::write(&password_file, &password)?;
        }
        let password = fs::read_to_string(&password_file).with_context(|| {
            let file = password_file.display();
            format!(
                "read {file}: without it the data in {} cannot be used, remove them",
                data.display()
            )
        })?;
        let log = dir.join("postgres.log");
        for _ in 0..ports::STARTS {
            let port = ports::free()?;
            let process = spawn(&account, &data, &log, port, mode)?;
            let server = Self {
                process,
                port,
                data: data.clone(),
                password: password.clone(),
                mode,
            };
            if server.process.serves(server.ready()).await? {
                return Ok(server);
            }
        }
        anyhow::bail!("postgres found no free port")
    }

    /// Waits until the server accepts connections. Fails after [`READY_WITHIN`].
    async fn ready(&self) -> anyhow::Result<()> {
        let url = self.url("postgres");
        until::some("postgres accepts connections", READY_WITHIN, || async {
            Ok(PgConnection::connect(&url).await?.close().await?)
        })
        .await
    }

    /// Returns the `postgres://…` URL of a database.
    pub fn url(&self, database: &str) -> String {
        format!(
            "postgres://tern:{}@127.0.0.1:{}/{database}",
            self.password, self.port
        )
    }

    /// Returns the port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the server's process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Returns the data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Creates a database if it is not there, and returns its URL.
    pub async fn create_database(&self, name: &str) -> anyhow::Result<String> {
        create_database(&self.url("postgres"), name).await
    }

    /// Ends the server and its children without a checkpoint, as a crash would. Returns when they are gone.
    pub async fn crash(&self) -> anyhow::Result<()> {
        self.process.end(Signal::SIGQUIT, STOPS_WITHIN).await?;
        Ok(())
    }

    /// Shuts the server down fast: connections are ended, and a checkpoint is written. [`Postgres::restart`] starts it
    /// again. Fails if the server had to be killed.
    pub async fn shut_down(&self) -> anyhow::Result<()> {
        let stopped = self.process.end(Signal::SIGINT, STOPS_WITHIN).await?;
        anyhow::ensure!(stopped, "postgres had to be killed");
        Ok(())
    }

    /// Starts a server that has ended, on the same port. Returns when it accepts connections.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        anyhow::ensure!(self.process.exited().is_some(), "postgres is running");
        let log = self.process.log().to_owned();
        self.process = spawn(&Account::find()?, &self.data, &log, self.port, self.mode)?;
        let serves = self.process.serves(self.ready()).await?;
        anyhow::ensure!(serves, "another process has taken the port of postgres");
        Ok(())
    }

    /// Copies the data to `backup`, which must not exist. The server has to be shut down.
    pub async fn copy_to(&self, backup: &Path) -> anyhow::Result<()> {
        anyhow::ensure!(self.process.exited().is_some(), "postgres is running");
        copy(&self.data, backup).await
    }

    /// Replaces the data by a copy that [`Postgres::copy_to`] made. The server has to be shut down.
    pub async fn restore(&self, backup: &Path) -> anyhow::Result<()> {
        anyhow::ensure!(self.process.exited().is_some(), "postgres is running");
        fs::remove_dir_all(&self.data).with_context(|| format!("remove {}", self.data.display()))?;
        copy(backup, &self.data).await
    }

    /// Shuts the server down for good. The data stay.
    pub async fn stop(self) -> anyhow::Result<()> {
        if let Err(error) = self.shut_down().await {
            tracing::warn!("{error:#}");
        }
        Ok(())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.mode.dies_with_us && self.process.exited().is_none() {
            // An immediate shutdown ends the children too. The server may have ended at this moment.
            let _ = self.process.signal(Signal::SIGQUIT);
            self.process.leave();
        }
    }
}

/// Copies a directory with its owners and modes, which Postgres checks.
async fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let output = Command::new("cp").arg("-a").arg(from).arg(to).output().await?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "copy {}: {said}", from.display());
    Ok(())
}

/// Creates a database on the server of `url`, which names another database, if it is not there. Returns its URL. Fails
/// if the name has other characters than letters, digits and `_`.
pub async fn create_database(url: &str, name: &str) -> anyhow::Result<String> {
    let plain = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    anyhow::ensure!(plain && !name.is_empty(), "{name:?} is no plain database name");
    let mut connection = PgConnection::connect(url).await?;
    let there: Option<i32> = sqlx::query_scalar("SELECT 1 FROM pg_database WHERE datname = $1")
        .bind(name)
        .fetch_optional(&mut connection)
        .await?;
    if there.is_none() {
        connection
            .execute(AssertSqlSafe(format!("CREATE DATABASE \"{name}\"")))
            .await?;
    }
    connection.close().await?;
    let (server, _) = url
        .rsplit_once('/')
        .context("a database URL ends in the database's name")?;
    Ok(format!("{server}/{name}"))
}

/// Drops a database, and ends the connections to it.
pub async fn drop_database(url: &str) -> anyhow::Result<()> {
    let (server, name) = url
        .rsplit_once('/')
        .context("a database URL ends in the database's name")?;
    let mut connection = PgConnection::connect(&format!("{server}/postgres")).await?;
    connection
        .execute(AssertSqlSafe(format!(
            "DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE)"
        )))
        .await?;
    connection.close().await?;
    Ok(())
}

/// Makes a data directory, with the superuser `tern` and this password.
async fn init(account: &Account, data: &Path, password: &str) -> anyhow::Result<()> {
    let mut command = account.command(&binary("initdb")?, false);
    // The file is removed when this is dropped.
    let file = tempfile::NamedTempFile::new().context("a file for the password")?;
    secrets::write(file.path(), password)?;
    if let Account::Other(uid, gid) = account {
        chown(file.path(), Some(uid.as_raw()), Some(gid.as_raw()))?;
    }
    command.arg("--pwfile").arg(file.path());
    command.arg("-D").arg(data).args([
        "--username=tern",
        "--auth=password",
        "--encoding=UTF8",
        "--locale=C",
        "--no-instructions",
    ]);
    let output = command.output().await.context("run initdb")?;
    anyhow::ensure!(
        output.status.success(),
        "initdb: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    // The nodes of a Citus cluster find each other's password here.
    let passwords = data.join(PASSWORDS);
    secrets::write(&passwords, &format!("*:*:*:tern:{password}\n"))?;
    if let Account::Other(uid, gid) = account {
        chown(&passwords, Some(uid.as_raw()), Some(gid.as_raw()))?;
    }
    Ok(())
}

/// Makes a password that nobody can guess.
pub(crate) fn new_password() -> String {
    format!("{:032x}", rand::random::<u128>())
}

fn spawn(account: &Account, data: &Path, log: &Path, port: u16, mode: Mode) -> anyhow::Result<Process> {
    let mut command = account.command(&binary("postgres")?, mode.dies_with_us);
    let sockets = if data.as_os_str().len() <= MAX_SOCKET_DIR {
        data.as_os_str()
    } else {
        OsStr::new("")
    };
    command
        .arg("-D")
        .arg(data)
        .arg("-p")
        .arg(port.to_string())
        .arg("-k")
        .arg(sockets);
    for setting in [
        "listen_addresses=127.0.0.1",
        // A test run has many small platforms at once.
        "max_connections=400",
        "shared_buffers=256MB",
        "max_wal_size=2GB",
        "log_min_duration_statement=1000",
    ] {
        command.args(["-c", setting]);
    }
    if mode.citus {
        command.env("PGPASSFILE", data.join(PASSWORDS));
        for setting in CITUS_SETTINGS {
            command.args(["-c", setting]);
        }
    }
    if mode.dies_with_us {
        // SIGQUIT is an immediate shutdown. SIGKILL would leave shared memory behind.
        Process::spawn_with("postgres", command, log, Signal::SIGQUIT)
    } else {
        Process::spawn_detached("postgres", command, log)
    }
}

/// Finds a server program in PATH, or where Debian and Red Hat keep the newest version.
fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            Some((
                entry.file_name().to_str()?.parse().ok()?,
                entry.path().join("bin"),
            ))
        })
        .collect();
    versions.sort();
    places.extend(versions.into_iter().rev().map(|(_, path)| path));
    places.push("/usr/pgsql/bin".into());
    places
        .into_iter()
        .map(|place| place.join(name))
        .find(|file| file.is_file())
        .with_context(|| format!("{name} not found: install PostgreSQL (`make setup`)"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn data_outlive_the_server() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let server = Postgres::start(dir.path()).await.unwrap();
        let url = server.create_database("once").await.unwrap();
        assert_eq!(server.create_database("once").await.unwrap(), url);
        let mut connection = PgConnection::connect(&url).await.unwrap();
        connection
            .execute("CREATE TABLE kept AS SELECT 7 AS number")
            .await
            .unwrap();
        connection.close().await.unwrap();
        server.stop().await.unwrap();

        let server = Postgres::start(dir.path()).await.unwrap();
        let mut connection = PgConnection::connect(&server.url("once")).await.unwrap();
        let number: i32 = sqlx::query_scalar("SELECT number FROM kept")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(number, 7);
        drop_database(&server.url("once")).await.unwrap();
        assert!(PgConnection::connect(&server.url("once")).await.is_err());
        server.stop().await.unwrap();
    }

    #[tokio::test]
    async fn nobody_else_on_this_machine_gets_in() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let server = Postgres::start(dir.path()).await.unwrap();
        let port = server.port;
        for stranger in ["tern", "tern:guessed", "postgres"] {
            let url = format!("postgres://{stranger}@127.0.0.1:{port}/postgres");
            assert!(PgConnection::connect(&url).await.is_err(), "{stranger}");
        }
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(server.data()), 0o700);
        for file in ["postgres-password", "postgres.log"] {
            assert_eq!(mode(&dir.path().join(file)), 0o600, "{file}");
        }
        server.stop().await.unwrap();
    }

    #[tokio::test]
    async fn a_database_name_is_no_sql() {
        assert!(
            create_database("postgres://nowhere/postgres", "x\"; DROP DATABASE y; --")
                .await
                .is_err()
        );
    }
}
