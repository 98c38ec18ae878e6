//! Says of nodes whose process is dead that they are gone, so that nobody waits for their lease.
//!
//! Whoever had a link to a node that broke looks whether its process is still there. Where its address refuses
//! connections again and again nothing listens any more: the machine is up, and the process is dead. A machine that does
//! not answer proves nothing, and its lease decides. The record is marked in etcd, by a compare-and-set on what was read, so
//! every map lets go of the node at one version. Should it live after all, its registration writes the record anew
//! and insists, which nobody marks again.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp};
use rand::Rng;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tracing::Instrument;

use super::{EtcdError, Store, timely};
use crate::map::{MapHandle, Node, Role};
use crate::membership::Key;
use crate::metrics;

/// Refusals that prove it. A process that starts again listens before it does anything else, and takes less than the
/// time of them all.
const REFUSALS: usize = 4;
/// Between two of them, at least; as much again by chance, so that not all who lost a link ask etcd at once.
const PAUSE: Duration = Duration::from_millis(120);
/// A connection that takes longer is no refusal.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// Tries to write it down; the lease makes up for what fails.
const TRIES: usize = 3;
/// Nodes looked at at a time: more that break at once are the network's trouble.
const UNDER_WAY: usize = 64;

/// See the module. Cheap to clone.
#[derive(Clone, Default)]
pub struct Obituaries(Option<Arc<Inner>>);

struct Inner {
    store: Store,
    map: MapHandle,
    under_way: Mutex<HashSet<(Key, u64)>>,
}

impl Obituaries {
    pub(super) fn new(store: Store, map: MapHandle) -> Self {
        Self(Some(Arc::new(Inner {
            store,
            map,
            under_way: Mutex::default(),
        })))
    }

    /// Nobody is looked at: for nodes without etcd.
    pub fn none() -> Self {
        Self(None)
    }

    /// The link to this node broke: looks whether its process is dead. Returns at once.
    pub fn suspect(&self, role: Role, node: &Node) {
        let Some(inner) = self.0.clone() else { return };
        if node.insists || !inner.has(role, node) {
            return;
        }
        let case = ((role, node.name.clone()), node.incarnation);
        {
            let mut under_way = inner.lock();
            if under_way.len() >= UNDER_WAY || !under_way.insert(case.clone()) {
                return;
            }
        }
        let node = node.clone();
        let look = async move {
            inner.look(role, &node).await;
            inner.lock().remove(&case);
        };
        tokio::spawn(look.in_current_span());
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, HashSet<(Key, u64)>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has(&self, role: Role, node: &Node) -> bool {
        self.map
            .current()
            .node(role, &node.name)
            .is_some_and(|known| known.incarnation == node.incarnation)
    }

    async fn look(&self, role: Role, node: &Node) {
        for _ in 0..REFUSALS {
            if !refuses(&node.address).await {
                return;
            }
            let pause = PAUSE + rand::rng().random_range(Duration::ZERO..PAUSE);
            sleep(pause).await;
        }
        // Every role of the process is dead with it.
        let map = self.map.current();
        let records: Vec<(Role, Node)> = Role::ALL
            .into_iter()
            .flat_map(|role| map.nodes(role).iter().map(move |node| (role, node.clone())))
            .filter(|(_, other)| other.address == node.address && other.incarnation == node.incarnation)
            .collect();
        for (role, node) in records {
            self.mark(role, &node).await;
        }
        tracing::debug!(%role, name = node.name, "looked at");
    }

    async fn mark(&self, role: Role, node: &Node) {
        for _ in 0..TRIES {
            match self.store.mark_gone(role, node).await {
                Ok(marked) => {
                    if marked {
                        tracing::warn!(%role, name = node.name, address = node.address, "its process is dead");
                        metrics::found_dead();
                    }
                    return;
                }
                Err(error) => tracing::info!(%error, name = node.name, "cannot say that it is gone"),
            }
        }
    }
}

/// Nothing listens there, says the machine.
async fn refuses(address: &str) -> bool {
    match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
        Ok(Err(error)) => error.kind() == ErrorKind::ConnectionRefused,
        Ok(Ok(_)) | Err(_) => false,
    }
}

impl Store {
    /// False: there is nothing to mark any more.
    async fn mark_gone(&self, role: Role, node: &Node) -> Result<bool, EtcdError> {
        let path = self.key(&(role, node.name.clone()));
        let mut kv = self.client.kv_client();
        let present = timely(kv.get(path.clone(), None)).await?;
        let Some(present) = present.kvs().first() else {
            return Ok(false);
        };
        // Fields of later versions stay as they are.
        let record: Option<(Node, serde_json::Map<String, serde_json::Value>)> =
            serde_json::from_slice(present.value())
                .ok()
                .zip(serde_json::from_slice(present.value()).ok());
        let Some((known, mut record)) = record else {
            return Ok(false);
        };
        if known.incarnation != node.incarnation || known.gone || known.insists {
            return Ok(false);
        }
        record.insert("gone".to_owned(), true.into());
        let value = serde_json::to_vec(&record).unwrap_or_default();
        // It still goes with the lease of the dead.
        let put = TxnOp::put(path.clone(), value, Some(PutOptions::new().with_ignore_lease()));
        let txn = Txn::new()
            .when([Compare::mod_revision(
                path,
                CompareOp::Equal,
                present.mod_revision(),
            )])
            .and_then([put]);
        if timely(kv.txn(txn)).await?.succeeded() {
            Ok(true)
        } else {
            Err(EtcdError::Raced)
        }
    }
}
