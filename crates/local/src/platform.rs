//! Starts, kills, stops and restarts the platform's processes on one machine. See [`Platform`]. A function fails if
//! there is no node of the name that it is given, if a process ends that should run, or if what it waits for takes too
//! long.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use tern_local::Platform;
//!
//! let platform = Platform::builder("target/debug/tern".as_ref(), ".tern/dev".as_ref()).chats(2).start().await?;
//! let url = platform.gateway_url(0);
//! platform.kill("chat-0").await?;
//! platform.stop().await
//! # }
//! ```

mod builder;
mod etcd_map;
mod metrics;
mod node;
mod role;
mod servers;
mod start;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::signal::Signal;
use tern_types::Slot;

pub use builder::Builder;
pub use metrics::sum as metric_sum;
pub use node::{Cables, NodeProcess};
pub use role::Role;

use crate::s3::Access;
use crate::secrets::Secrets;
use crate::{Etcd, Postgres, S3, SelectiveProxy, postgres, until};

use servers::Servers;

/// The time limit for a node to become ready after its start, on a busy machine.
pub(crate) const READY_WITHIN: Duration = Duration::from_secs(120);
/// The time limit for the cluster map to show a change. The lease of a killed node may have to run out first.
pub(crate) const MAP_WITHIN: Duration = Duration::from_secs(60);
/// The time after the drain time at which [`Platform::stop`] kills a node that has not ended.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// The time after the drain time for which [`Platform::drained`] waits. A node ends soon after the drain time, but
/// later on a busy machine.
const ENDS_WITHIN: Duration = Duration::from_secs(60);
/// The number of lines of each log that a failing test shows.
const TAIL: usize = 15;

/// A running platform. Dropping it ends it at once; [`Platform::stop`] ends it in good order.
#[derive(Debug)]
pub struct Platform {
    // Nodes come first: fields are dropped in this order.
    nodes: BTreeMap<String, NodeProcess>,
    cables: BTreeMap<String, Cables>,
    builder: Builder,
    servers: Servers,
    s3: Option<S3>,
    secrets: Secrets,
    api_key: String,
    database_url: String,
    /// The pids of the nodes whose end [`Platform::next_exit`] has returned.
    reported: BTreeSet<i32>,
}

impl Platform {
    /// Returns a builder for a platform that runs the program `tern` and keeps its files in `dir`.
    pub fn builder(tern: &Path, dir: &Path) -> Builder {
        Builder::new(tern, dir)
    }

    /// Returns an API key with every scope, for back ends.
    pub fn api_key(&self) -> &str {
        &self.api_key
    }

    /// Returns the PEM of the authority that signed the gateways' certificate.
    pub fn ca_pem(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(&self.secrets.ca)?)
    }

    /// Returns the URL of the gateway with this number, counted from 0: `https://localhost:…`, or `http://localhost:…`
    /// with plain clients.
    ///
    /// # Panics
    ///
    /// Panics if there is no such gateway.
    pub fn gateway_url(&self, number: usize) -> String {
        let node = &self.nodes[&Role::Gateway.node_name(number)];
        node.client_url().unwrap_or_default()
    }

    /// Returns the URLs of all gateways, running or not.
    pub fn gateway_urls(&self) -> Vec<String> {
        self.nodes.values().filter_map(NodeProcess::client_url).collect()
    }

    /// Returns the URL of the platform's database.
    pub fn database_url(&self) -> &str {
        &self.database_url
    }

    /// Returns the endpoint of etcd, `http://127.0.0.1:…`.
    pub fn etcd(&self) -> &str {
        self.servers.etcd()
    }

    /// Returns the prefix of the platform's keys in etcd.
    pub fn etcd_prefix(&self) -> &str {
        &self.builder.etcd_prefix
    }

    /// Returns the platform's own Postgres (of a Citus cluster the coordinator) and etcd, or `None` if it
    /// uses shared ones.
    pub fn private_servers(&mut self) -> Option<(&mut Postgres, &mut Etcd)> {
        match &mut self.servers {
            Servers::Private { postgres, etcd, .. } => Some((postgres, etcd)),
            Servers::Shared { .. } => None,
        }
    }

    /// Returns the nodes of the platform's own Citus cluster besides the coordinator.
    pub fn citus_workers(&mut self) -> &mut [Postgres] {
        match &mut self.servers {
            Servers::Private { workers, .. } => workers,
            Servers::Shared { .. } => &mut [],
        }
    }

    /// Returns the directory with the platform's files.
    pub fn dir(&self) -> &Path {
        &self.builder.dir
    }

    /// Returns the platform's own object store, or `None` if it has none.
    pub fn s3(&self) -> Option<&S3> {
        self.s3.as_ref()
    }

    /// Returns the object store that the media nodes use, or `None` if there is none.
    fn s3_access(&self) -> Option<&Access> {
        let own = self.s3.as_ref().map(S3::access);
        self.builder.s3.as_ref().or(own)
    }

    /// Returns the value of a TERN_… setting that [`Builder::env`] gave to every node, or `None` if it gave none.
    pub fn setting(&self, name: &str) -> Option<&str> {
        let mut settings = self.builder.env.iter().rev();
        settings
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// Returns the files with keys and certificates.
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// Returns all nodes, running or not.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeProcess> {
        self.nodes.values()
    }

    /// Returns the node with this name, such as `chat-0`, or an error if there is none.
    pub fn node(&self, name: &str) -> anyhow::Result<&NodeProcess> {
        self.nodes
            .get(name)
            .with_context(|| format!("there is no node {name}"))
    }

    /// Returns the proxy before a node whose role was [`Builder::proxied`]. Fails if other nodes reach it directly.
    pub fn proxy(&self, name: &str) -> anyhow::Result<&SelectiveProxy> {
        let proxy = self.node(name)?.proxy.as_deref();
        proxy.with_context(|| format!("{name} is reached directly"))
    }

    /// Kills a node with SIGKILL, and returns when the process is gone. The map drops it when other nodes have found
    /// it dead, or when its lease has run out.
    pub async fn kill(&self, name: &str) -> anyhow::Result<()> {
        self.node(name)?.process.kill().await
    }

    /// Freezes a node with SIGSTOP: it hangs with all its connections.
    pub fn freeze(&self, name: &str) -> anyhow::Result<()> {
        self.node(name)?.process.signal(Signal::SIGSTOP)
    }

    /// Continues a node with SIGCONT: it goes on as if nothing had happened.
    pub fn thaw(&self, name: &str) -> anyhow::Result<()> {
        self.node(name)?.process.signal(Signal::SIGCONT)
    }

    /// Makes a node drain, by SIGTERM. Returns at once.
    pub fn drain(&self, name: &str) -> anyhow::Result<()> {
        self.node(name)?.process.signal(Signal::SIGTERM)
    }

    /// Waits until a draining node has ended. Fails if it ends with an error, or not within the drain time and 60 s.
    pub async fn drained(&self, name: &str) -> anyhow::Result<()> {
        let bound = self.builder.drain_timeout + ENDS_WITHIN;
        let status = tokio::time::timeout(bound, self.node(name)?.process.wait()).await;
        let status = status.with_context(|| format!("{name} has not drained within {bound:?}"))?;
        anyhow::ensure!(status.success(), "{name} ended with {status}");
        Ok(())
    }

    /// Starts a node that has ended, on the same ports. Returns when it is ready and in the map.
    pub async fn restart(&mut self, name: &str) -> anyhow::Result<()> {
        let old = self
            .nodes
            .get(name)
            .with_context(|| format!("there is no node {name}"))?;
        anyhow::ensure!(old.process.exited().is_some(), "{name} is running");
        let node = self.launcher().again(old).await?;
        self.nodes.insert(name.to_owned(), node);
        self.in_map(name).await
    }

    /// Starts one more node of a role. Returns its name when it is ready and in the map.
    pub async fn add(&mut self, role: Role) -> anyhow::Result<String> {
        let number = self.nodes.values().filter(|node| node.role == role).count();
        let name = role.node_name(number);
        let node = self.launcher().launch(role, &name).await?;
        self.nodes.insert(name.clone(), node);
        self.in_map(&name).await?;
        Ok(name)
    }

    fn launcher(&self) -> node::Launcher<'_> {
        node::Launcher {
            builder: &self.builder,
            secrets: &self.secrets,
            database_urls: self.servers.database_urls(&self.database_url),
            etcd: self.servers.etcd(),
            s3: self.s3_access(),
            cables: &self.cables,
        }
    }

    async fn in_map(&self, name: &str) -> anyhow::Result<()> {
        let role = self.node(name)?.role;
        self.map_until(&format!("the map shows {name}"), |map| map.has(role, name))
            .await
    }

    /// Waits until every gateway and chat node knows every node, gateways are linked to chat and presence nodes, and
    /// chat nodes to presence nodes. From then on every request finds its way, and no online device is overlooked. It
    /// expects as many nodes as the builder has set, so it fails after [`Platform::add`].
    pub async fn linked(&self) -> anyhow::Result<()> {
        for node in self.nodes.values() {
            let (metric, roles): (_, &[Role]) = match node.role {
                Role::Gateway => ("tern_gateway_link_up", &[Role::Chat, Role::Presence]),
                Role::Chat => ("tern_chat_link_up", &[Role::Presence]),
                Role::Presence | Role::Accounts | Role::Media | Role::Push => continue,
            };
            let what = format!("{} is linked", node.name);
            until::some(&what, MAP_WITHIN, || async {
                let page = self.metrics(&node.name).await?;
                let all = |metric, role: Role, wanted: usize| {
                    let found = metrics::sum(&page, metric, &[("role", role.as_str())]);
                    anyhow::ensure!(
                        found == wanted as f64,
                        "{metric} of {} is {found}, not {wanted}",
                        role.as_str()
                    );
                    Ok(())
                };
                for (role, wanted) in &self.builder.counts {
                    all("tern_node_map_nodes", *role, *wanted)?;
                }
                roles
                    .iter()
                    .try_for_each(|role| all(metric, *role, self.builder.counts[role]))
            })
            .await?;
        }
        Ok(())
    }

    /// Returns the cables of a node that was named in [`Builder::cuttable`]; an error for any other node.
    pub fn cables(&self, name: &str) -> anyhow::Result<&Cables> {
        self.cables
            .get(name)
            .with_context(|| format!("{name} cannot be cut off"))
    }

    /// Waits until a node's record in the map says that the node is unwell, or with `unwell` false that it is well.
    pub async fn unwell(&self, name: &str, unwell: bool) -> anyhow::Result<()> {
        let role = self.node(name)?.role;
        self.map_until(&format!("{name} is unwell: {unwell}"), |map| {
            map.has(role, name) && map.is_unwell(role, name) == unwell
        })
        .await
    }

    /// Waits until the map shows a node again that had left it.
    pub async fn back(&self, name: &str) -> anyhow::Result<()> {
        self.in_map(name).await
    }

    /// Returns whether a node says that it is ready (`/readyz`). Fails if it does not answer within 60 s.
    pub async fn is_ready(&self, name: &str) -> anyhow::Result<bool> {
        let (status, _) = crate::http::get_patiently(self.node(name)?.admin, "/readyz").await?;
        Ok(status == 200)
    }

    /// Waits until the map does not show a node, or shows it as draining or gone.
    pub async fn out_of_map(&self, name: &str) -> anyhow::Result<()> {
        let role = self.node(name)?.role;
        self.map_until(&format!("the map no longer shows {name}"), |map| {
            !map.has(role, name)
        })
        .await
    }

    async fn map_until(&self, what: &str, holds: impl Fn(&etcd_map::EtcdMap) -> bool) -> anyhow::Result<()> {
        until::holds(what, MAP_WITHIN, || async {
            Ok(holds(
                &etcd_map::read(self.servers.etcd(), &self.builder.etcd_prefix).await?,
            ))
        })
        .await
    }

    /// Returns the name of the node that owns a slot according to the map in etcd. Fails if no node has the role.
    pub async fn owner(&self, role: Role, slot: Slot) -> anyhow::Result<String> {
        let map = etcd_map::read(self.servers.etcd(), &self.builder.etcd_prefix).await?;
        map.owner(role, slot)
            .with_context(|| format!("no {} node", role.as_str()))
    }

    /// Returns a node's page /metrics.
    pub async fn metrics(&self, name: &str) -> anyhow::Result<String> {
        let (status, page) = crate::http::get_patiently(self.node(name)?.admin, "/metrics").await?;
        anyhow::ensure!(status == 200, "/metrics of {name}: status {status}");
        Ok(page)
    }

    /// Returns the sum of a metric's samples on a node that have all these labels; 0 if there are none.
    pub async fn metric(&self, name: &str, metric: &str, labels: &[(&str, &str)]) -> anyhow::Result<f64> {
        Ok(metrics::sum(&self.metrics(name).await?, metric, labels))
    }

    /// Returns the sum of [`Platform::metric`] over all running nodes of a role.
    pub async fn metric_of(&self, role: Role, metric: &str, labels: &[(&str, &str)]) -> anyhow::Result<f64> {
        let mut total = 0.0;
        for node in self
            .nodes
            .values()
            .filter(|node| node.role == role && node.process.exited().is_none())
        {
            total += self.metric(&node.name, metric, labels).await?;
        }
        Ok(total)
    }

    /// Waits for the next node that ends, and returns its name and exit status. Each end is returned once.
    pub async fn next_exit(&mut self) -> (String, ExitStatus) {
        loop {
            let mut ends = tokio::task::JoinSet::new();
            for node in self
                .nodes
                .values()
                .filter(|node| !self.reported.contains(&node.process.pid()))
            {
                let (name, pid, end) = (node.name.clone(), node.process.pid(), node.process.wait());
                ends.spawn(async move { (name, pid, end.await) });
            }
            match ends.join_next().await {
                Some(Ok((name, pid, status))) => {
                    self.reported.insert(pid);
                    return (name, status);
                }
                // All nodes have ended and were returned.
                _ => std::future::pending().await,
            }
        }
    }

    /// Ends everything in good order: the nodes drain, then the servers stop. The database on a shared server is
    /// dropped.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let nodes = std::mem::take(&mut self.nodes);
        for node in nodes.values().filter(|node| node.process.exited().is_none()) {
            node.process.signal(Signal::SIGTERM)?;
            // A frozen node has to wake up to drain.
            node.process.signal(Signal::SIGCONT)?;
        }
        let end = tokio::time::Instant::now() + self.builder.drain_timeout + STOP_GRACE;
        for node in nodes.values() {
            if tokio::time::timeout_at(end, node.process.wait()).await.is_err() {
                tracing::warn!(node = node.name, "had to be killed");
                node.process.kill().await?;
            }
        }
        self.stop_servers().await
    }

    /// Kills the nodes, then ends the servers.
    pub async fn abort(mut self) -> anyhow::Result<()> {
        for node in std::mem::take(&mut self.nodes).values() {
            node.process.kill().await?;
        }
        self.stop_servers().await
    }

    async fn stop_servers(self) -> anyhow::Result<()> {
        if let Some(s3) = &self.s3 {
            s3.stop().await?;
        }
        match &self.servers {
            Servers::Shared {
                owns_database: true, ..
            } => postgres::drop_database(&self.database_url).await,
            Servers::Shared {
                owns_database: false, ..
            } => Ok(()),
            Servers::Private {
                postgres,
                workers,
                etcd,
            } => {
                etcd.process().end(Signal::SIGTERM, STOP_GRACE).await?;
                for server in std::iter::once(postgres).chain(workers) {
                    let process = server.process();
                    process.end(Signal::SIGINT, postgres::STOPS_WITHIN).await?;
                }
                Ok(())
            }
        }
    }
}

impl Drop for Platform {
    /// Prints the last lines of each node's log if a test fails.
    #[allow(clippy::print_stderr, reason = "a failing test speaks by standard error")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprint!("{}", self.tails());
        }
    }
}

impl Platform {
    /// Returns the last lines of each node's log.
    pub(crate) fn tails(&self) -> String {
        let tail = |node: &NodeProcess| {
            format!(
                "---- {} ({}) ----\n{}\n",
                node.name,
                node.process.log().display(),
                node.process.tail(TAIL)
            )
        };
        self.nodes.values().map(tail).collect()
    }
}
