//! Runs a private etcd server on 127.0.0.1. Each start begins with empty data.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use etcd_client::Client;
use nix::sys::signal::Signal;
use tokio::process::Command;

use crate::{Process, ports, until};

/// The time limit from the start to the first answer, which takes less than 1 s on an idle machine.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// The time that the server has to end before it is killed.
const STOPS_WITHIN: Duration = Duration::from_secs(5);

/// A running server, which is killed when dropped unless it was started detached.
#[derive(Debug)]
pub struct Etcd {
    process: Process,
    dir: PathBuf,
    endpoint: String,
    peer: String,
}

impl Etcd {
    /// Starts a server on empty data below `dir`.
    pub async fn start(dir: &Path) -> anyhow::Result<Self> {
        Self::launch(dir, true).await
    }

    /// Starts a server as [`Etcd::start`] does, but one that outlives this process.
    pub async fn start_detached(dir: &Path) -> anyhow::Result<Self> {
        Self::launch(dir, false).await
    }

    async fn launch(dir: &Path, dies_with_us: bool) -> anyhow::Result<Self> {
        for _ in 0..ports::STARTS {
            let local = || anyhow::Ok(format!("http://127.0.0.1:{}", ports::free()?));
            let (endpoint, peer) = (local()?, local()?);
            let server = Self {
                process: spawn(dir, &endpoint, &peer, dies_with_us)?,
                dir: dir.to_owned(),
                endpoint,
                peer,
            };
            if server.process.serves(server.ready()).await? {
                return Ok(server);
            }
        }
        anyhow::bail!("etcd found no free port")
    }

    async fn ready(&self) -> anyhow::Result<()> {
        until::some("etcd answers", READY_WITHIN, || async {
            Client::connect([&self.endpoint], None)
                .await?
                .get("/", None)
                .await?;
            Ok(())
        })
        .await
    }

    /// Returns the endpoint for clients, `http://127.0.0.1:…`.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Returns the server's process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Writes a key that no node reads, `writes` times. The server's revision rises by as much.
    pub async fn age(&self, writes: usize) -> anyhow::Result<()> {
        let mut client = Client::connect([&self.endpoint], None).await?;
        for _ in 0..writes {
            client.put("/aged", "", None).await?;
        }
        Ok(())
    }

    /// Kills the server, and starts one with empty data at the same address. It ends with this process.
    pub async fn lose_all(&mut self) -> anyhow::Result<()> {
        self.process.kill().await?;
        self.process = spawn(&self.dir, &self.endpoint, &self.peer, true)?;
        let serves = self.process.serves(self.ready()).await?;
        anyhow::ensure!(serves, "another process has taken etcd's port");
        Ok(())
    }

    /// Ends the server with SIGTERM, and kills it after 5 s.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.process.end(Signal::SIGTERM, STOPS_WITHIN).await?;
        Ok(())
    }
}

fn spawn(dir: &Path, endpoint: &str, peer: &str, dies_with_us: bool) -> anyhow::Result<Process> {
    let data = dir.join("etcd");
    if data.exists() {
        std::fs::remove_dir_all(&data).with_context(|| format!("remove {}", data.display()))?;
    }
    let mut command = Command::new("etcd");
    command
        .arg("--data-dir")
        .arg(&data)
        .args(["--name", "local", "--logger", "zap", "--log-level", "warn"]);
    command.args([
        "--listen-client-urls",
        endpoint,
        "--advertise-client-urls",
        endpoint,
    ]);
    command.args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]);
    command.args(["--initial-cluster", &format!("local={peer}")]);
    // Settings for the machine's own etcd do not concern this server.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("ETCD")) {
            command.env_remove(name);
        }
    }
    let log = dir.join("etcd.log");
    let process = if dies_with_us {
        Process::spawn("etcd", command, &log)
    } else {
        Process::spawn_detached("etcd", command, &log)
    };
    process.context("etcd: install it (`make setup`)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_etcd_starts_empty_and_ends() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let server = Etcd::start(dir.path()).await.unwrap();
            let mut client = Client::connect([server.endpoint()], None).await.unwrap();
            assert!(client.get("key", None).await.unwrap().kvs().is_empty());
            client.put("key", "value", None).await.unwrap();
            server.stop().await.unwrap();
        }
    }

    #[tokio::test]
    async fn an_etcd_that_loses_all_is_empty_at_the_same_address() {
        let dir = tempfile::tempdir().unwrap();
        let mut server = Etcd::start(dir.path()).await.unwrap();
        let mut client = Client::connect([server.endpoint()], None).await.unwrap();
        server.age(2).await.unwrap();
        assert_eq!(client.get("/aged", None).await.unwrap().kvs()[0].version(), 2);
        server.lose_all().await.unwrap();
        let mut client = Client::connect([server.endpoint()], None).await.unwrap();
        assert!(client.get("/aged", None).await.unwrap().kvs().is_empty());
        server.stop().await.unwrap();
    }
}
