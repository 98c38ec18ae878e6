//! Configures a platform.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Platform, Role, Servers};
use crate::s3::Access;
use crate::secrets::Secrets;
use crate::{PushServers, Shared};

/// The default drain time. It is short enough for tests and Ctrl-C, and long enough to observe a drain.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// The configuration of a platform. The default is two gateways, two chat nodes, one presence node and one accounts
/// node. With media nodes it also has an object store, and with [`Builder::push`] a push node.
#[derive(Debug, Clone)]
pub struct Builder {
    pub(super) tern: PathBuf,
    pub(super) s3_program: PathBuf,
    pub(super) dir: PathBuf,
    pub(super) counts: BTreeMap<Role, usize>,
    pub(super) env: Vec<(String, String)>,
    pub(super) node_env: BTreeMap<String, Vec<(String, String)>>,
    pub(super) programs: BTreeMap<Role, PathBuf>,
    pub(super) etcd_prefix: String,
    pub(super) drain_timeout: Duration,
    pub(super) fixed_ports: Vec<u16>,
    pub(super) plain_clients: bool,
    pub(super) internal_tls: bool,
    pub(super) proxied: BTreeSet<Role>,
    pub(super) cells: Option<u16>,
    pub(super) citus: bool,
    pub(super) s3: Option<Access>,
    pub(super) push_apps: Option<PathBuf>,
    pub(super) cuttable: Vec<String>,
    pub(super) shared: Option<Shared>,
    pub(super) beside: Option<Beside>,
}

/// The database and the keys that a platform shares with another one.
#[derive(Debug, Clone)]
pub(super) struct Beside {
    pub(super) database_url: String,
    pub(super) secrets: Secrets,
    pub(super) api_key: String,
}

impl Builder {
    pub(super) fn new(tern: &Path, dir: &Path) -> Self {
        Self {
            tern: tern.to_owned(),
            s3_program: tern.to_owned(),
            dir: dir.to_owned(),
            counts: [
                (Role::Gateway, 2),
                (Role::Chat, 2),
                (Role::Presence, 1),
                (Role::Accounts, 1),
            ]
            .into(),
            env: Vec::new(),
            node_env: BTreeMap::new(),
            programs: BTreeMap::new(),
            etcd_prefix: "/tern/v1".to_owned(),
            drain_timeout: DRAIN_TIMEOUT,
            fixed_ports: Vec::new(),
            plain_clients: false,
            internal_tls: false,
            proxied: BTreeSet::new(),
            cells: None,
            citus: false,
            s3: None,
            push_apps: None,
            cuttable: Vec::new(),
            shared: None,
            beside: None,
        }
    }

    /// Sets the number of gateways.
    #[must_use]
    pub fn gateways(self, count: usize) -> Self {
        self.count(Role::Gateway, count)
    }

    /// Sets the number of chat nodes.
    #[must_use]
    pub fn chats(self, count: usize) -> Self {
        self.count(Role::Chat, count)
    }

    /// Sets the number of presence nodes.
    #[must_use]
    pub fn presences(self, count: usize) -> Self {
        self.count(Role::Presence, count)
    }

    /// Sets the number of accounts nodes.
    #[must_use]
    pub fn accounts(self, count: usize) -> Self {
        self.count(Role::Accounts, count)
    }

    /// Sets the number of media nodes.
    #[must_use]
    pub fn media(self, count: usize) -> Self {
        self.count(Role::Media, count)
    }

    /// Makes the media nodes use this object store. The platform then starts none of its own.
    #[must_use]
    pub fn s3(mut self, access: Access) -> Self {
        self.s3 = Some(access);
        self
    }

    /// Adds a push node, which sends through these services. They have to live as long as the platform.
    #[must_use]
    pub fn push(mut self, servers: &PushServers) -> Self {
        self.push_apps = Some(servers.apps_file().to_owned());
        self.pushes(1)
    }

    /// Sets the number of push nodes. See [`Builder::push`].
    #[must_use]
    pub fn pushes(self, count: usize) -> Self {
        self.count(Role::Push, count)
    }

    fn count(mut self, role: Role, count: usize) -> Self {
        self.counts.insert(role, count);
        self
    }

    /// Adds a TERN_… setting for every node. If a setting is added twice, the later value counts.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds a TERN_… setting for one node. It takes precedence over those for every node.
    #[must_use]
    pub fn node_env(mut self, node: &str, name: &str, value: &str) -> Self {
        self.node_env
            .entry(node.to_owned())
            .or_default()
            .push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs the nodes of a role with another program, such as another version. Migrations and API keys are still made
    /// by the platform's first program.
    #[must_use]
    pub fn program(mut self, role: Role, tern: &Path) -> Self {
        self.programs.insert(role, tern.to_owned());
        self
    }

    /// Runs the object store with another program: one that has the command `s3`.
    #[must_use]
    pub fn s3_program(mut self, program: &Path) -> Self {
        self.s3_program = program.to_owned();
        self
    }

    /// Sets how long a draining node takes at most; 5 s by default.
    #[must_use]
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// Sets the ports on which the gateways try to listen, in their order. A gateway whose port is taken uses another
    /// one.
    #[must_use]
    pub fn gateway_ports(mut self, ports: &[u16]) -> Self {
        self.fixed_ports = ports.to_vec();
        self
    }

    /// Names nodes that a test can cut off from etcd, Postgres and the other nodes. See [`Platform::cables`].
    #[must_use]
    pub fn cuttable<const N: usize>(mut self, nodes: [&str; N]) -> Self {
        self.cuttable.extend(nodes.map(str::to_owned));
        self
    }

    /// Makes clients connect to the gateways in plain text.
    #[must_use]
    pub fn plain_clients(mut self) -> Self {
        self.plain_clients = true;
        self
    }

    /// Makes nodes talk to each other by mutual TLS.
    #[must_use]
    pub fn internal_tls(mut self) -> Self {
        self.internal_tls = true;
        self
    }

    /// Places the store on a Citus cluster of the platform's own, with a coordinator and two workers.
    #[must_use]
    pub fn citus(mut self) -> Self {
        self.citus = true;
        self
    }

    /// Sets the number of cells of the store, if it is made: a power of two from 1 to 256. Without it there are as many
    /// as `tern migrate` makes by itself.
    #[must_use]
    pub fn cells(mut self, cells: u16) -> Self {
        self.cells = Some(cells);
        self
    }

    /// Puts a proxy that a test can cut before each node of this role. See [`Platform::proxy`].
    #[must_use]
    pub fn proxied(mut self, role: Role) -> Self {
        self.proxied.insert(role);
        self
    }

    /// Uses the test run's shared servers instead of private ones. The platform has a database and an etcd prefix of
    /// its own on them.
    #[must_use]
    pub fn on(mut self, shared: &Shared) -> Self {
        self.etcd_prefix = format!("/tern-tests/{}", crate::shared::unique("platform"));
        self.shared = Some(shared.clone());
        self
    }

    /// Uses the database and the keys of another platform, with a cluster map of its own. Neither platform knows the
    /// other's nodes, so each slot has two owners. Has no effect if the other platform has private servers.
    #[must_use]
    pub fn beside(self, other: &Platform) -> Self {
        let Servers::Shared { shared, .. } = &other.servers else {
            return self;
        };
        let beside = Beside {
            database_url: other.database_url.clone(),
            secrets: other.secrets.clone(),
            api_key: other.api_key.clone(),
        };
        Self {
            beside: Some(beside),
            ..self.on(shared)
        }
    }
}
