//! Keeps the versions of the map rising when etcd is replaced by an empty one or restored from a backup. Such an etcd
//! counts its revisions from a lower one again.
//!
//! A version is a revision of etcd plus the base. The base is a number that etcd has in a key of its own, beside the
//! nodes' records, and 0 while there is no such key. A node that finds a sum below the version that it knows raises the
//! base above that version, by compare-and-set, by more than other nodes may know beyond it. So all versions of the new
//! etcd are above those of the old one. Example: the map has version 5000 when etcd loses its data. The first node that
//! reads the empty etcd, at revision 1, writes the base 1,005,000, which is revision 2. All nodes then have version
//! 1,005,002, and so has a node that starts later.

use etcd_client::{Compare, CompareOp, KeyValue, Txn, TxnOp, TxnOpResponse};

use super::{EtcdError, Store, timely};
use crate::membership::{Listed, version};

/// How far above the version that the node knows the base is raised. No other node knows a version so much later: etcd
/// would have had to take a million writes in the time in which one watch was late.
const AHEAD: i64 = 1_000_000;

/// One record of etcd, with what tells its version.
pub(super) struct Read {
    /// The record. `None` if there is none.
    pub record: Option<KeyValue>,
    /// The base.
    pub base: i64,
    /// The revision of etcd at which the base was written last. 0 if it never was.
    pub base_written: i64,
    /// The revision of etcd at which both were read.
    revision: i64,
}

impl Read {
    fn version(&self) -> i64 {
        version(self.base, self.revision)
    }
}

impl Store {
    /// Returns whether the key is that of the base.
    pub(super) fn is_base(&self, kv: &KeyValue) -> bool {
        kv.key() == self.base_key.as_bytes()
    }

    /// Reads the list. If etcd's versions are below `known`, the base is raised first.
    pub(super) async fn list_above(&self, known: i64) -> Result<Listed, EtcdError> {
        let listed = self.list().await?;
        if listed.version() >= known {
            return Ok(listed);
        }
        tracing::warn!(
            known,
            found = listed.version(),
            "etcd has lost data: the map's versions go on above the known one"
        );
        self.raise_base(known).await?;
        let listed = self.list().await?;
        if listed.version() < known {
            return Err(EtcdError::Fell);
        }
        Ok(listed)
    }

    /// Raises the base so that all versions from now on are above `known`, unless another node has done so already.
    async fn raise_base(&self, known: i64) -> Result<(), EtcdError> {
        let read = self.read(&self.base_key).await?;
        if read.version() >= known {
            return Ok(());
        }
        let written = read.record.as_ref().map_or(0, KeyValue::mod_revision);
        let key = self.base_key.as_str();
        let raise = Txn::new()
            .when([Compare::mod_revision(key, CompareOp::Equal, written)])
            .and_then([TxnOp::put(key, known.saturating_add(AHEAD).to_string(), None)]);
        let raised = timely(self.client.kv_client().txn(raise)).await?;
        if raised.succeeded() {
            Ok(())
        } else {
            Err(EtcdError::Raced)
        }
    }

    /// Reads a record and the base. Returns `Err` if their version is below `known`: etcd has lost data, and nobody has
    /// raised the base yet.
    pub(super) async fn read_above(&self, path: &str, known: i64) -> Result<Read, EtcdError> {
        let read = self.read(path).await?;
        if read.version() < known {
            return Err(EtcdError::Fell);
        }
        Ok(read)
    }

    async fn read(&self, path: &str) -> Result<Read, EtcdError> {
        let gets = [path, self.base_key.as_str()].map(|key| TxnOp::get(key, None));
        let answer = timely(self.client.kv_client().txn(Txn::new().and_then(gets))).await?;
        let mut found = answer.op_responses().into_iter().map(|response| match response {
            TxnOpResponse::Get(mut get) => get.take_kvs().into_iter().next(),
            _ => None,
        });
        let (record, base) = (found.next().flatten(), found.next().flatten());
        Ok(Read {
            record,
            base: base.as_ref().map_or(0, parse),
            base_written: base.as_ref().map_or(0, KeyValue::mod_revision),
            revision: answer.header().map_or(0, etcd_client::ResponseHeader::revision),
        })
    }
}

/// Parses the base. One that is not understood counts as none, and is written over when it is too low.
pub(super) fn parse(kv: &KeyValue) -> i64 {
    let text = kv.value_str().unwrap_or_default();
    text.parse().unwrap_or(0)
}
