//! The cluster map as etcd has it: `{prefix}/nodes/{role}/{node}`.

use etcd_client::{Client, GetOptions};
use tern_types::{Slot, slot};

use super::Role;

pub struct EtcdMap {
    /// Role and name of every node that is not draining.
    nodes: Vec<(String, String)>,
}

/// Asks etcd.
pub async fn read(endpoint: &str, prefix: &str) -> anyhow::Result<EtcdMap> {
    let prefix = format!("{prefix}/nodes/");
    let mut client = Client::connect([endpoint], None).await?;
    let found = client
        .get(prefix.as_str(), Some(GetOptions::new().with_prefix()))
        .await?;
    let mut nodes = Vec::new();
    for pair in found.kvs() {
        let value: serde_json::Value = serde_json::from_slice(pair.value())?;
        let draining = value
            .get("draining")
            .and_then(serde_json::Value::as_bool)
            .unwrap_or(false);
        if let Some((role, name)) = pair.key_str()?.trim_start_matches(&prefix).split_once('/')
            && !draining
        {
            nodes.push((role.to_owned(), name.to_owned()));
        }
    }
    Ok(EtcdMap { nodes })
}

impl EtcdMap {
    pub fn has(&self, role: Role, name: &str) -> bool {
        self.of(role).any(|node| node == name)
    }

    pub fn owner(&self, role: Role, slot: Slot) -> Option<String> {
        slot::rendezvous(slot, self.of(role)).map(str::to_owned)
    }

    fn of(&self, role: Role) -> impl Iterator<Item = &str> {
        self.nodes
            .iter()
            .filter(move |(of, _)| of == role.as_str())
            .map(|(_, name)| name.as_str())
    }
}
