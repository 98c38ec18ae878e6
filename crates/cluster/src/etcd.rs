//! Keeps the cluster map in etcd. The key `{prefix}/nodes/{role}/{node}` has the node's address, incarnation and
//! whether it is draining; each key is attached to its node's lease.
//!
//! - [`Cluster`]: the client, and the map that it keeps up to date by a list and a watch ([`follow`])
//! - [`Registration`]: this node's own keys, which it keeps in etcd by a lease ([`register`])
//! - [`Obituaries`]: marks the keys of other nodes whose process is dead
//! - [`Peers`]: asks other nodes what etcd has, while etcd is out of reach
//!
//! While etcd is away, all of them retry, and the last good map stays in use unless other nodes have a newer one.
//! [`crate::standing`] says how certain this node's own place in the map is.
//!
//! The version of a map is the etcd revision of the last change of a node's key, plus a base that is raised when etcd
//! has lost its data and counts from 1 again ([`base`]). So versions always rise, and all nodes number the same map
//! alike, also if others write to the same etcd. But a list does not show when a key was deleted.
//! Example: a key was deleted at revision 7, and a node that missed this reads the list at revision 9. It
//! only sees that the key is gone, and guesses version 9, while the other nodes have version 7. Soon after,
//! it writes its own key anew. That is a change which all nodes see, so all have the same version again.

mod base;
mod follow;
mod obituaries;
mod peers;
mod register;

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, ConnectOptions, GetOptions, KeyValue};
use tern_types::Clock;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::drain::Drain;
use crate::map::{ClusterMap, MapHandle, Node, Role};
use crate::membership::{Key, Listed, Membership, Recorded};
use crate::retry_waits::RetryWaits;
use crate::standing::Standing;

pub use obituaries::Obituaries;
pub use peers::Peers;
pub use register::Registration;

/// The timeout of a call to etcd. A call that takes longer is retried, perhaps on another member of etcd. Three tries
/// fit into a lease.
const CALL_TIMEOUT: Duration = Duration::from_millis(1200);
/// The time between two pings on an idle connection to etcd. etcd ends connections that ping more often than every 5 s.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// The time within which etcd has to answer a ping. Otherwise the connection counts as broken.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(3);

/// The flags that say how to reach etcd.
#[derive(clap::Args, Clone, Debug)]
pub struct EtcdArgs {
    /// Endpoints of etcd, comma separated
    #[arg(
        long,
        env = "TERN_ETCD_ENDPOINTS",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:2379"
    )]
    pub etcd_endpoints: Vec<String>,
    /// Prefix of all keys
    #[arg(long, env = "TERN_ETCD_PREFIX", default_value = "/tern/v1")]
    pub etcd_prefix: String,
}

/// The reason why a call to etcd failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EtcdError {
    #[error("no answer in time")]
    TimedOut,
    #[error(transparent)]
    Client(#[from] etcd_client::Error),
    #[error("the watch ended: {0}")]
    WatchEnded(String),
    #[error("the key changed meanwhile")]
    Raced,
    #[error("etcd has lost data, and its versions are below the known one")]
    Fell,
}

/// The other nodes, as etcd knows them. When this is dropped, the map is no longer kept up to date.
pub struct Cluster {
    store: Store,
    map: MapHandle,
    records: Records,
    standing: Standing,
    _follower: AbortOnDropHandle<()>,
}

impl Cluster {
    /// Connects, reads the map, and follows it from then on. It waits for as long as etcd does not answer. Returns
    /// `Err` only if the endpoints are unusable.
    pub async fn connect(args: &EtcdArgs) -> anyhow::Result<Self> {
        Self::connect_among(args, None).await
    }

    /// Does what [`Self::connect`] does, and asks `peers` for the map while etcd does not answer. Returns `Err` in the
    /// same case.
    pub async fn connect_among(args: &EtcdArgs, peers: Option<Peers>) -> anyhow::Result<Self> {
        let store = Store::connect(args).await?;
        let mut waits = RetryWaits::default();
        let listed = loop {
            match store.list().await {
                Ok(listed) => break listed,
                Err(error) => {
                    tracing::warn!(%error, endpoints = ?args.etcd_endpoints, "etcd does not answer");
                    tokio::time::sleep(waits.next(Duration::ZERO)).await;
                }
            }
        };
        let mut membership = Membership::default();
        let revision = listed.revision;
        membership.list(listed, tokio::time::Instant::now());
        let (map_tx, map) = MapHandle::channel(membership.map());
        let (records_tx, records) = watch::channel(Arc::new(membership.records()));
        let standing = Standing::new(map.clone());
        let out = Out {
            map: map_tx,
            records: records_tx,
        };
        let others = peers.map(|peers| (peers, standing.clone()));
        let follower = follow::follow(store.clone(), membership, revision, out, others);
        let follower = tokio::spawn(follower);
        Ok(Self {
            store,
            map,
            records: Records(records),
            standing,
            _follower: AbortOnDropHandle::new(follower),
        })
    }

    /// Returns a handle of the map, which is kept up to date.
    pub fn map(&self) -> MapHandle {
        self.map.clone()
    }

    /// Returns the records that etcd has, for other nodes that cannot reach it.
    pub fn records(&self) -> Records {
        self.records.clone()
    }

    /// Returns how certain this node's place in the map is. It is certain only after [`Self::register`].
    pub fn standing(&self) -> Standing {
        self.standing.clone()
    }

    /// Returns the reporter that marks nodes whose process is dead in etcd.
    pub fn obituaries(&self) -> Obituaries {
        Obituaries::new(self.store.clone(), self.map())
    }

    /// Returns an incarnation for a process that starts now under this name: the present time in milliseconds, or more,
    /// so that it is larger than that of any node of this name in the map or in etcd's records. The clock may have been
    /// set back since that node started, and a node that was found dead has a record, but is not in the map.
    pub fn incarnation(&self, name: &str) -> u64 {
        let (map, records) = (self.map.current(), self.records().current());
        let recorded = records.nodes.iter().map(|(_, node)| node);
        let known = Role::ALL
            .iter()
            .filter_map(|role| map.node(*role, name))
            .chain(recorded.filter(|node| node.name == name))
            .map(|node| node.incarnation)
            .max();
        let now = u64::try_from(Clock::wall().0).unwrap_or(0);
        known.map_or(now, |known| now.max(known + 1))
    }

    /// Registers this process in its roles, and returns when etcd has all of its keys. Starts the drain when a
    /// process with a newer incarnation takes the name over.
    pub async fn register(&self, nodes: Vec<(Role, Node)>, drain: Drain) -> Registration {
        let (map, records) = (self.map(), self.records());
        Registration::start(self.store.clone(), map, records, nodes, drain, self.standing()).await
    }
}

/// The keys in etcd. Every call ends within [`CALL_TIMEOUT`].
#[derive(Clone)]
pub(crate) struct Store {
    client: Client,
    prefix: String,
    /// The key of the base of the versions.
    base_key: String,
}

impl Store {
    async fn connect(args: &EtcdArgs) -> anyhow::Result<Self> {
        let options = ConnectOptions::new()
            .with_connect_timeout(CALL_TIMEOUT)
            .with_keep_alive(KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT)
            .with_keep_alive_while_idle(true)
            .with_require_leader(true);
        let client = Client::connect(&args.etcd_endpoints, Some(options)).await?;
        let prefix = format!("{}/nodes/", args.etcd_prefix.trim_end_matches('/'));
        Ok(Self {
            client,
            base_key: format!("{prefix}base"),
            prefix,
        })
    }

    async fn list(&self) -> Result<Listed, EtcdError> {
        let options = GetOptions::new().with_prefix();
        let response = timely(self.client.kv_client().get(self.prefix.clone(), Some(options))).await?;
        let revision = response.header().map_or(0, etcd_client::ResponseHeader::revision);
        let kvs = response.kvs();
        let (bases, records): (Vec<&KeyValue>, Vec<&KeyValue>) = kvs.iter().partition(|kv| self.is_base(kv));
        Ok(Listed {
            base: bases.first().map_or(0, |kv| base::parse(kv)),
            revision,
            changed: kvs.iter().map(KeyValue::mod_revision).max().unwrap_or(0),
            nodes: records.into_iter().filter_map(|kv| self.parse(kv)).collect(),
        })
    }

    fn key(&self, (role, name): &Key) -> String {
        format!("{}{role}/{name}", self.prefix)
    }

    fn parse_key(&self, key: &[u8]) -> Option<Key> {
        let (role, name) = std::str::from_utf8(key)
            .ok()?
            .strip_prefix(&self.prefix)?
            .split_once('/')?;
        Some((role.parse().ok()?, name.to_owned()))
    }

    /// Parses a key and its value. Returns `None` if this version does not understand them.
    fn parse(&self, kv: &KeyValue) -> Option<(Role, Node)> {
        let parsed = self.parse_key(kv.key()).and_then(|(role, name)| {
            let node: Node = serde_json::from_slice(kv.value()).ok()?;
            Some((role, Node { name, ..node }))
        });
        if parsed.is_none() {
            tracing::warn!(key = %String::from_utf8_lossy(kv.key()), "key in etcd not understood");
        }
        parsed
    }
}

async fn timely<T>(call: impl Future<Output = Result<T, etcd_client::Error>>) -> Result<T, EtcdError> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(EtcdError::TimedOut),
    }
}

/// The records of etcd, kept up to date.
#[derive(Debug, Clone)]
pub struct Records(watch::Receiver<Arc<Recorded>>);

impl Records {
    /// Returns the records as this node knows them now.
    pub fn current(&self) -> Arc<Recorded> {
        self.0.borrow().clone()
    }
}

/// The senders by which the map and the records that are followed are published.
struct Out {
    map: watch::Sender<Arc<ClusterMap>>,
    records: watch::Sender<Arc<Recorded>>,
}

impl Out {
    /// Publishes `membership`'s map and records if they differ from the present ones.
    fn publish(&self, membership: &Membership) {
        let map = membership.map();
        crate::metrics::map(&map, membership.held());
        // The records are published first, so that a node that uses a map can always tell others the records it is
        // made of.
        if !membership.are_known(&self.records.borrow()) {
            self.records.send_replace(Arc::new(membership.records()));
        }
        self.map.send_if_modified(|current| {
            let differs = **current != map;
            if differs {
                *current = Arc::new(map);
            }
            differs
        });
    }
}
