//! Reads the cluster map from etcd. A node's record has the key `{prefix}/nodes/{role}/{node}`.

use etcd_client::{Client, GetOptions};
use tern_types::{Slot, slot};

use super::Role;

/// The nodes of the map that take work.
pub struct EtcdMap {
    /// The role and the name of every node that is neither draining nor gone, and whether it is well.
    nodes: Vec<(String, String, bool)>,
}

/// Reads the map. Fails if etcd does not answer, or if a record is no JSON.
pub async fn read(endpoint: &str, prefix: &str) -> anyhow::Result<EtcdMap> {
    let prefix = format!("{prefix}/nodes/");
    let mut client = Client::connect([endpoint], None).await?;
    let found = client
        .get(prefix.as_str(), Some(GetOptions::new().with_prefix()))
        .await?;
    let mut nodes = Vec::new();
    for pair in found.kvs() {
        let value: serde_json::Value = serde_json::from_slice(pair.value())?;
        let says = |flag| {
            value
                .get(flag)
                .and_then(serde_json::Value::as_bool)
                .unwrap_or(false)
        };
        if let Some((role, name)) = pair.key_str()?.trim_start_matches(&prefix).split_once('/')
            && !says("draining")
            && !says("gone")
        {
            nodes.push((role.to_owned(), name.to_owned(), !says("unwell")));
        }
    }
    Ok(EtcdMap { nodes })
}

impl EtcdMap {
    /// Returns whether the map shows this node.
    pub fn has(&self, role: Role, name: &str) -> bool {
        self.of(role).any(|node| node == name)
    }

    /// Returns the name of a slot's owner, by rendezvous hashing among the well nodes, or among all nodes if none is
    /// well. Returns `None` if no node has the role.
    pub fn owner(&self, role: Role, slot: Slot) -> Option<String> {
        let well = slot::rendezvous(slot, self.that_are(role, true));
        well.or_else(|| slot::rendezvous(slot, self.of(role)))
            .map(str::to_owned)
    }

    /// Returns whether the node's record says that it is unwell, that is, cut off from what other nodes reach.
    pub fn is_unwell(&self, role: Role, name: &str) -> bool {
        self.that_are(role, false).any(|node| node == name)
    }

    fn of(&self, role: Role) -> impl Iterator<Item = &str> {
        self.that_are(role, true).chain(self.that_are(role, false))
    }

    fn that_are(&self, role: Role, well: bool) -> impl Iterator<Item = &str> {
        self.nodes
            .iter()
            .filter(move |(of, _, is_well)| of == role.as_str() && *is_well == well)
            .map(|(_, name, _)| name.as_str())
    }
}
