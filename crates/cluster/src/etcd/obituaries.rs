//! Marks nodes whose process is dead as gone, so that nobody has to wait until their lease ends.
//!
//! When a link to a node breaks, the node at the other end checks whether the process is still there. If the node's
//! address refuses connections several times in a row, nothing listens there any more: the machine is up, and the
//! process is dead. A machine that does not answer at all proves nothing, and the node stays in the map until its lease
//! ends. The node's record is marked in etcd by a compare-and-set on the record that was read, so every map drops the
//! node at the same version. If the process lives after all, its registration writes the record again with `insists`
//! set, and such a record is never marked again.

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

/// The number of refusals in a row that prove that a process is dead. Together they take longer than a process that
/// starts again needs until it listens, because listening is the first thing that it does.
const REFUSALS: usize = 4;
/// The shortest pause between two connection attempts. Up to as much again is added at random, so that not all nodes
/// that lost a link write to etcd at once.
const PAUSE: Duration = Duration::from_millis(120);
/// The timeout of a connection attempt. An attempt that takes longer is not a refusal.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// The number of attempts to mark a record. If all fail, the node is removed when its lease ends.
const TRIES: usize = 3;
/// The most nodes that are checked at the same time. If more links break at once, the network is at fault.
const UNDER_WAY: usize = 64;

/// A reporter that checks whether the process of a node is dead, and if so marks the node as gone in etcd. It is cheap
/// to clone.
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

    /// Makes a reporter that does nothing, for nodes that run without etcd.
    pub fn none() -> Self {
        Self(None)
    }

    /// Checks in the background whether the process of `node` is dead, and if so marks all of its records as gone. Call
    /// this when the link to the node broke. It returns at once.
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
        // All roles of a process die with it, so all of its records are marked.
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

/// Returns whether the machine refuses a connection to `address`, because nothing listens there.
async fn refuses(address: &str) -> bool {
    match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
        Ok(Err(error)) => error.kind() == ErrorKind::ConnectionRefused,
        Ok(Ok(_)) | Err(_) => false,
    }
}

impl Store {
    /// Marks the record of `node` as gone. Returns `Ok(false)` if there is nothing to mark: the record is gone, belongs
    /// to another incarnation, is marked already, or has `insists` set.
    async fn mark_gone(&self, role: Role, node: &Node) -> Result<bool, EtcdError> {
        let path = self.key(&(role, node.name.clone()));
        let mut kv = self.client.kv_client();
        let present = timely(kv.get(path.clone(), None)).await?;
        let Some(present) = present.kvs().first() else {
            return Ok(false);
        };
        // The record is read as a map too, so that fields of later versions are kept.
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
        // The record keeps the dead process's lease, and ends with it.
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
