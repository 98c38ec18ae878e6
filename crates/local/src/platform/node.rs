//! Starts the processes of `tern serve`, one per node.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use anyhow::Context as _;
use tokio::process::Command;

use super::{Builder, READY_WITHIN, Role};
use crate::s3::Access;
use crate::secrets::Secrets;
use crate::{Cable, Process, SelectiveProxy, http, ports, until};

/// The process of one node.
#[derive(Debug)]
pub struct NodeProcess {
    /// The node's name, such as `chat-0`.
    pub name: String,
    /// The node's role.
    pub role: Role,
    /// The process that runs the node.
    pub process: Process,
    /// The address of /metrics, /healthz and /readyz.
    pub admin: SocketAddr,
    /// The address at which the node listens for other nodes.
    pub internal: SocketAddr,
    /// The proxy over which other nodes reach the node, if its role was [`Builder::proxied`].
    pub proxy: Option<Arc<SelectiveProxy>>,
    /// The address for clients, which only gateways have.
    pub clients: Option<SocketAddr>,
    /// True if clients use TLS.
    pub tls: bool,
}

impl NodeProcess {
    /// Returns the URL for clients, such as `https://localhost:…`, or `None` if the node is no gateway.
    pub fn client_url(&self) -> Option<String> {
        let scheme = if self.tls { "https" } else { "http" };
        self.clients
            .map(|address| format!("{scheme}://localhost:{}", address.port()))
    }
}

/// The values with which the nodes of one platform are started.
pub(super) struct Launcher<'a> {
    /// The settings of the platform.
    pub builder: &'a Builder,
    /// The files with the keys and certificates of the platform.
    pub secrets: &'a Secrets,
    /// The URL of the database on each server of the store, with spaces between them.
    pub database_urls: String,
    /// The URL of etcd.
    pub etcd: &'a str,
    /// The object store, if the platform has one.
    pub s3: Option<&'a Access>,
    /// The cables of nodes that a test may cut off.
    pub cables: &'a BTreeMap<String, Cables>,
}

/// The connections of one node that can be cut.
#[derive(Debug)]
pub struct Cables {
    /// The cable from the node to etcd.
    pub etcd: Cable,
    /// The cable from the node to Postgres.
    pub store: Cable,
    /// The cable from other nodes to the node.
    pub internal: Cable,
}

impl Cables {
    pub(super) async fn start(etcd: &str, database_url: &str) -> anyhow::Result<Self> {
        Ok(Self {
            etcd: Cable::to(etcd.trim_start_matches("http://")).await?,
            store: Cable::to(authority(database_url)?).await?,
            internal: Cable::start().await?,
        })
    }

    /// Returns the settings with which a node that listens at `internal` uses these cables.
    fn settings(
        &self,
        internal: SocketAddr,
        database_url: &str,
    ) -> anyhow::Result<[(&'static str, String); 3]> {
        self.internal.leads_to(internal);
        let store = self.store.address().to_string();
        let database_url = database_url.replace(authority(database_url)?, &store);
        Ok([
            ("TERN_ETCD_ENDPOINTS", format!("http://{}", self.etcd.address())),
            ("TERN_DATABASE_URL", database_url),
            ("TERN_INTERNAL_ADVERTISE", self.internal.address().to_string()),
        ])
    }
}

/// Returns the `host:port` of a URL.
fn authority(url: &str) -> anyhow::Result<&str> {
    let rest = url.split_once("://").context("a URL")?.1;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    Ok(rest[..end].rsplit('@').next().unwrap_or_default())
}

struct Addresses {
    admin: SocketAddr,
    internal: SocketAddr,
    clients: Option<SocketAddr>,
    proxy: Option<Arc<SelectiveProxy>>,
}

impl Launcher<'_> {
    /// Starts a node and waits until it is ready. Starts it again with new ports if another process has taken one.
    pub async fn launch(&self, role: Role, name: &str) -> anyhow::Result<NodeProcess> {
        for tries in 1..=ports::STARTS {
            let node = self.spawn(role, name, self.addresses(role, name, tries).await?)?;
            if node.process.serves(self.ready(&node)).await? {
                return Ok(node);
            }
        }
        anyhow::bail!("{name} found no free port")
    }

    /// Starts a node that has ended, at the same addresses.
    pub async fn again(&self, old: &NodeProcess) -> anyhow::Result<NodeProcess> {
        let addresses = Addresses {
            admin: old.admin,
            internal: old.internal,
            clients: old.clients,
            proxy: old.proxy.clone(),
        };
        let node = self.spawn(old.role, &old.name, addresses)?;
        let serves = node.process.serves(self.ready(&node)).await?;
        anyhow::ensure!(serves, "another process has taken a port of {}", old.name);
        Ok(node)
    }

    /// Chooses the addresses for an attempt to start a node. `tries` counts the attempts from 1.
    async fn addresses(&self, role: Role, name: &str, tries: usize) -> anyhow::Result<Addresses> {
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let clients = match role {
            Role::Gateway => Some(local(self.wished_port(name, tries).map_or_else(ports::free, Ok)?)),
            _ => None,
        };
        let internal = local(ports::free()?);
        let proxy = if self.builder.proxied.contains(&role) {
            Some(Arc::new(SelectiveProxy::start(internal).await?))
        } else {
            None
        };
        Ok(Addresses {
            admin: local(ports::free()?),
            internal,
            clients,
            proxy,
        })
    }

    /// Returns the port that [`Builder::gateway_ports`] names for this gateway, if it is the first attempt and the port
    /// is free.
    fn wished_port(&self, name: &str, tries: usize) -> Option<u16> {
        let number: usize = name.rsplit('-').next()?.parse().ok()?;
        let port = *self.builder.fixed_ports.get(number)?;
        (tries == 1 && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()).then_some(port)
    }

    fn spawn(&self, role: Role, name: &str, addresses: Addresses) -> anyhow::Result<NodeProcess> {
        let mut command = Command::new(self.builder.programs.get(&role).unwrap_or(&self.builder.tern));
        command.args(["serve", role.as_str()]);
        without_callers_settings(&mut command);
        self.common_settings(name, &mut command);
        self.address_settings(&addresses, &mut command);
        if let (Role::Media, Some(s3)) = (role, self.s3) {
            command.envs(s3.settings());
        }
        if let (Role::Push, Some(apps)) = (role, &self.builder.push_apps) {
            command.env("TERN_PUSH_APPS", apps);
        }
        if let Some(cables) = self.cables.get(name) {
            command.envs(cables.settings(addresses.internal, &self.database_urls)?);
        }
        command.envs(self.builder.env.iter().cloned());
        command.envs(self.builder.node_env.get(name).into_iter().flatten().cloned());
        let log = self.builder.dir.join("logs").join(format!("{name}.log"));
        let process = Process::spawn(name, command, &log)?;
        let Addresses {
            admin,
            internal,
            clients,
            proxy,
        } = addresses;
        Ok(NodeProcess {
            name: name.to_owned(),
            role,
            process,
            admin,
            internal,
            proxy,
            clients,
            tls: !self.builder.plain_clients,
        })
    }

    /// Sets the variables that nodes of every role have.
    fn common_settings(&self, name: &str, command: &mut Command) {
        command
            // Backtraces are off, so that the last lines of a log say why a node ended.
            .env("RUST_LIB_BACKTRACE", "0")
            .env("TERN_NODE_NAME", name)
            .env("TERN_ETCD_ENDPOINTS", self.etcd)
            .env("TERN_ETCD_PREFIX", &self.builder.etcd_prefix)
            .env("TERN_DATABASE_URL", &self.database_urls)
            .env(
                "TERN_DRAIN_TIMEOUT",
                self.builder.drain_timeout.as_secs_f32().to_string(),
            )
            .env("TERN_TOKEN_KEY_FILE", &self.secrets.token_key)
            .env("TERN_TOKEN_VERIFY_FILES", &self.secrets.token_key)
            .env("TERN_CHAT_MASTER_KEY_FILE", &self.secrets.master_key)
            .env("TERN_MEDIA_TICKET_KEY_FILE", &self.secrets.ticket_key);
        if self.builder.internal_tls {
            command
                .env("TERN_INTERNAL_TLS_CERT", &self.secrets.internal_cert)
                .env("TERN_INTERNAL_TLS_KEY", &self.secrets.internal_key)
                .env("TERN_INTERNAL_TLS_CA", &self.secrets.internal_ca);
        }
    }

    /// Sets where the node listens, and where other nodes reach it.
    fn address_settings(&self, addresses: &Addresses, command: &mut Command) {
        command
            .env("TERN_INTERNAL_LISTEN", addresses.internal.to_string())
            .env("TERN_ADMIN_LISTEN", addresses.admin.to_string());
        if let Some(proxy) = &addresses.proxy {
            command.env("TERN_INTERNAL_ADVERTISE", proxy.address().to_string());
        }
        if let Some(clients) = addresses.clients {
            command.env("TERN_GATEWAY_LISTEN", clients.to_string());
            if !self.builder.plain_clients {
                command
                    .env("TERN_GATEWAY_TLS_CERT", &self.secrets.tls_cert)
                    .env("TERN_GATEWAY_TLS_KEY", &self.secrets.tls_key);
            }
        }
    }

    /// Waits until a node is ready. Fails after [`READY_WITHIN`].
    async fn ready(&self, node: &NodeProcess) -> anyhow::Result<()> {
        let what = format!("{} is ready", node.name);
        until::some(&what, READY_WITHIN, || async {
            let (status, body) = http::get(node.admin, "/readyz").await?;
            anyhow::ensure!(status == 200, "status {status}: {body}");
            Ok(())
        })
        .await
    }
}

/// Keeps the TERN_… settings of this process's environment from the node, except for the log level.
fn without_callers_settings(command: &mut Command) {
    for (variable, _) in std::env::vars_os() {
        if variable
            .to_str()
            .is_some_and(|variable| variable.starts_with("TERN_") && variable != "TERN_LOG")
        {
            command.env_remove(variable);
        }
    }
}
