//! Keeps this node's keys in etcd by a lease. If the lease was lost, a new one is granted and the keys are written
//! again. A key that another node has marked as gone is written again too, because a process that can write is not
//! dead. A key is also written anew if this node had to guess the map's version, so that all nodes have the same one.

use std::collections::BTreeMap;
use std::time::Duration;

use etcd_client::{Compare, CompareOp, PutOptions, ResponseHeader, Txn, TxnOp};
use rand::Rng;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use super::{EtcdError, Records, Store, timely};
use crate::drain::Drain;
use crate::map::{MapHandle, Node, Role};
use crate::membership::{Key, LEASE, Recorded, version};
use crate::metrics;
use crate::retry_waits::RetryWaits;
use crate::standing::Standing;

/// The time between two renewals of the lease. Before the lease ends, one renewal may be late and one may fail.
const RENEW_INTERVAL: Duration = Duration::from_secs(1);
/// The most commands that wait: settle, drain, leave, one to spare, and one for each role that sets whether it is
/// unwell.
const COMMANDS: usize = 4 + Role::ALL.len();

enum Command {
    /// Changes nothing. The command is answered when etcd has every key.
    Settle,
    /// Marks the node as draining. The command is answered when etcd has every key.
    Drain,
    /// Sets whether the node is unwell in a role. The command is answered when etcd has every key.
    Unwell(Role, bool),
    /// Gives the lease back. The command is answered when the keys are gone, or etcd did not answer in time.
    Leave,
}

/// This process's place in the map. If it is dropped without [`Registration::leave`], the node stays in the map for up
/// to one lease.
pub struct Registration {
    commands: mpsc::Sender<(Command, oneshot::Sender<()>)>,
    _task: AbortOnDropHandle<()>,
}

impl Registration {
    pub(super) async fn start(
        store: Store,
        map: MapHandle,
        records: Records,
        nodes: Vec<(Role, Node)>,
        drain: Drain,
        standing: Standing,
    ) -> Self {
        let (commands, rx) = mpsc::channel(COMMANDS);
        let incarnation = nodes.first().map_or(0, |(_, node)| node.incarnation);
        let keys = nodes.iter().map(|(role, node)| (*role, node.name.clone()));
        standing.is(keys.collect(), incarnation);
        let wanted = nodes
            .into_iter()
            .map(|(role, node)| ((role, node.name.clone()), Wanted::new(node)))
            .collect();
        let registrar = Registrar {
            store,
            map,
            records,
            drain,
            standing,
            wanted,
            lease: None,
            anew_at: None,
            waiting: Vec::new(),
        };
        let registration = Self {
            commands,
            _task: AbortOnDropHandle::new(tokio::spawn(registrar.run(rx))),
        };
        registration.command(Command::Settle).await;
        registration
    }

    /// Marks the node as draining in all its roles, and returns when etcd has it.
    pub async fn drain(&self) {
        self.command(Command::Drain).await;
    }

    /// Marks the node as unwell, or well again, in one role, and returns when etcd has it.
    pub async fn unwell(&self, role: Role, unwell: bool) {
        self.command(Command::Unwell(role, unwell)).await;
    }

    /// Gives the lease back, so that the node is removed from the map at once. It returns also if etcd does not answer
    /// in time.
    pub async fn leave(&self) {
        self.command(Command::Leave).await;
    }

    async fn command(&self, command: Command) {
        let (done, wait) = oneshot::channel();
        if self.commands.send((command, done)).await.is_ok() {
            // An error means that the registrar has ended, so there is nothing to wait for.
            let _ = wait.await;
        }
    }
}

/// A key that this process wants to have in etcd.
struct Wanted {
    node: Node,
    /// True if etcd has `node` as it is now, under the present lease.
    written: bool,
    /// The version of the newest write under the present lease, or 0 if there was none.
    version: i64,
}

impl Wanted {
    fn new(node: Node) -> Self {
        Self {
            node,
            written: false,
            version: 0,
        }
    }
}

struct Registrar {
    store: Store,
    map: MapHandle,
    records: Records,
    drain: Drain,
    standing: Standing,
    wanted: BTreeMap<Key, Wanted>,
    lease: Option<i64>,
    /// The time at which a key is written anew because the version of the map is guessed; `None` if it is not. It is
    /// drawn, so that of many nodes that guess at the same time only a few write: their change gives the others a
    /// version too.
    anew_at: Option<Instant>,
    /// The callers that wait until every key is written.
    waiting: Vec<oneshot::Sender<()>>,
}

impl Registrar {
    async fn run(mut self, mut commands: mpsc::Receiver<(Command, oneshot::Sender<()>)>) {
        let mut waits = RetryWaits::default();
        let mut next = Instant::now();
        let mut map = self.map.clone();
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    None => return,
                    Some((Command::Settle, done)) => self.waiting.push(done),
                    Some((Command::Drain, done)) => {
                        self.mark_draining();
                        self.waiting.push(done);
                        next = Instant::now();
                    }
                    Some((Command::Unwell(role, unwell), done)) => {
                        self.mark_unwell(role, unwell);
                        self.waiting.push(done);
                        next = Instant::now();
                    }
                    Some((Command::Leave, done)) => {
                        self.revoke().await;
                        let _ = done.send(());
                        return;
                    }
                },
                newer = map.changed() => {
                    let records = self.records.current();
                    if self.missed_by(&records) {
                        next = Instant::now();
                    }
                    self.anew_at = newer.has_guessed_version().then(|| {
                        let drawn = || Instant::now() + LEASE.mul_f64(rand::rng().random_range(0.0..1.0));
                        self.anew_at.unwrap_or_else(drawn)
                    });
                }
                () = sleep_until(self.anew_at.unwrap_or(next)), if self.anew_at.is_some() => {
                    self.anew_at = None;
                    if let Some(wanted) = self.wanted.values_mut().next() {
                        wanted.written = false;
                    }
                    next = Instant::now();
                }
                () = sleep_until(next) => {
                    let outcome = self.renew().await;
                    metrics::etcd_up(outcome.is_ok());
                    metrics::place(self.standing.place());
                    let wait = match outcome {
                        Ok(()) => {
                            waits.reset();
                            RENEW_INTERVAL
                        }
                        Err(error) => {
                            tracing::warn!(%error, "registration in etcd not renewed");
                            waits.next(Duration::ZERO)
                        }
                    };
                    next = Instant::now() + wait;
                }
            }
        }
    }

    /// Renews the lease, and writes each key that etcd does not have under it.
    async fn renew(&mut self) -> Result<(), EtcdError> {
        self.yield_to_newer();
        self.keep_alive().await?;
        let lease = self.grant().await?;
        let keys: Vec<Key> = self
            .wanted
            .iter()
            .filter(|(_, wanted)| !wanted.written)
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            self.write(key, lease).await?;
        }
        for waiting in self.waiting.drain(..) {
            let _ = waiting.send(());
        }
        Ok(())
    }

    async fn keep_alive(&mut self) -> Result<(), EtcdError> {
        let Some(lease) = self.lease else { return Ok(()) };
        let asked = Instant::now();
        match timely(self.store.client.lease_client().keep_alive(lease)).await {
            Ok(_) => {
                self.standing.renewed(asked);
                Ok(())
            }
            // This is the error by which the client reports an unknown lease.
            Err(EtcdError::Client(etcd_client::Error::LeaseKeepAliveError(reason))) => {
                tracing::warn!(reason, "lease lost");
                metrics::lease_lost();
                self.lease = None;
                self.standing.ended();
                for wanted in self.wanted.values_mut() {
                    (wanted.written, wanted.version) = (false, 0);
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn grant(&mut self) -> Result<i64, EtcdError> {
        if let Some(lease) = self.lease {
            return Ok(lease);
        }
        let ttl = i64::try_from(LEASE.as_secs()).unwrap_or(i64::MAX);
        let asked = Instant::now();
        let granted = timely(self.store.client.lease_client().grant(ttl, None)).await?;
        self.lease = Some(granted.id());
        self.standing.renewed(asked);
        Ok(granted.id())
    }

    /// Writes a key by compare-and-set, so that an older incarnation never overwrites a newer one. While etcd's versions
    /// are below the map's, nothing is written: the map of before would count as newer than the write, and go on to show
    /// this node.
    async fn write(&mut self, key: Key, lease: i64) -> Result<(), EtcdError> {
        let Some(wanted) = self.wanted.get_mut(&key) else {
            return Ok(());
        };
        let path = self.store.key(&key);
        let read = self.store.read_above(&path, self.map.current().version()).await?;
        let present = read.record.as_ref();
        let known = present.and_then(|kv| serde_json::from_slice::<Node>(kv.value()).ok());
        let own = wanted.node.incarnation;
        if known.as_ref().is_some_and(|known| known.incarnation > own) {
            self.give_way(&key);
            return Ok(());
        }
        let gone = known.is_some_and(|known| known.incarnation == own && known.gone);
        if gone {
            tracing::warn!(name = wanted.node.name, "was said to be gone, and is not");
            wanted.node.insists = true;
        }
        let revision = present.map_or(0, etcd_client::KeyValue::mod_revision);
        let value = serde_json::to_vec(&wanted.node).unwrap_or_default();
        let put = TxnOp::put(path.clone(), value, Some(PutOptions::new().with_lease(lease)));
        let txn = Txn::new()
            .when([
                Compare::mod_revision(path, CompareOp::Equal, revision),
                // With another base the write would have another version than is noted here.
                Compare::mod_revision(self.store.base_key.as_str(), CompareOp::Equal, read.base_written),
            ])
            .and_then([put]);
        let written = timely(self.store.client.kv_client().txn(txn)).await?;
        if !written.succeeded() {
            return Err(EtcdError::Raced);
        }
        let revision = written.header().map_or(0, ResponseHeader::revision);
        let first = std::mem::replace(&mut wanted.version, version(read.base, revision)) == 0;
        wanted.written = true;
        if first || gone {
            self.standing.registered(wanted.version);
        }
        Ok(())
    }

    fn mark_draining(&mut self) {
        for wanted in self.wanted.values_mut() {
            wanted.node.draining = true;
            wanted.written = false;
        }
    }

    fn mark_unwell(&mut self, role: Role, unwell: bool) {
        let of_role = self.wanted.iter_mut().filter(|((of, _), _)| *of == role);
        for (_, wanted) in of_role.filter(|(_, wanted)| wanted.node.unwell != unwell) {
            wanted.node.unwell = unwell;
            wanted.written = false;
        }
    }

    /// Returns whether `records` lack a key of this process, or have another value, although they are newer than the
    /// key's last write. Such a key is marked to be written again. For example, an etcd that was restored from a backup
    /// has the records of that time.
    fn missed_by(&mut self, records: &Recorded) -> bool {
        let mut missed = false;
        for ((role, name), wanted) in &mut self.wanted {
            let mut of_key = records
                .nodes
                .iter()
                .filter(|(of, node)| of == role && node.name == *name);
            let there = of_key.any(|(_, node)| *node == wanted.node);
            if wanted.written && !there && records.version > wanted.version {
                (wanted.written, missed) = (false, true);
            }
        }
        missed
    }

    /// Drops the keys that a newer incarnation of this node has taken, according to the map, and starts the drain.
    fn yield_to_newer(&mut self) {
        let map = self.map.current();
        let newer = |(role, name): &Key, wanted: &Wanted| {
            map.node(*role, name)
                .is_some_and(|node| node.incarnation > wanted.node.incarnation)
        };
        let keys: Vec<Key> = self
            .wanted
            .iter()
            .filter(|(key, wanted)| newer(key, wanted))
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            self.give_way(&key);
        }
    }

    fn give_way(&mut self, (role, name): &Key) {
        tracing::error!(%role, name, "a newer process has taken this node's name: draining");
        self.wanted.remove(&(*role, name.clone()));
        self.drain.start();
    }

    async fn revoke(&mut self) {
        let Some(lease) = self.lease.take() else { return };
        self.standing.ended();
        if let Err(error) = timely(self.store.client.lease_client().revoke(lease)).await {
            tracing::warn!(%error, "lease not revoked: it ends by itself");
        }
    }
}
