//! Finds the node that answers a unary call.

use std::time::Duration;

use tern_cluster::{ClusterMap, MapHandle, Node};
use tern_proto::ApiError;
use tokio::time::{Instant, timeout_at};

/// The longest time that a call waits for the map: a node needs less to see a change in etcd.
pub const MAP_PATIENCE: Duration = Duration::from_secs(2);

/// Returns the node that `pick` takes from the map, and the map's version. If `pick` takes none, a node may be about to
/// start, and is waited for. `Err` (UNAVAILABLE) if there is none after [`MAP_PATIENCE`].
pub async fn find(
    map: &MapHandle,
    pick: impl for<'a> Fn(&'a ClusterMap) -> Option<&'a Node>,
) -> Result<(Node, i64), ApiError> {
    let mut handle = map.clone();
    let mut map = handle.current();
    let until = Instant::now() + MAP_PATIENCE;
    loop {
        if let Some(node) = pick(&map) {
            return Ok((node.clone(), map.version()));
        }
        match timeout_at(until, handle.changed()).await {
            Ok(next) => map = next,
            Err(_) => return Err(ApiError::unavailable("no node is there to answer")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tern_cluster::Role;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_call_waits_for_a_node_to_come_but_not_for_ever() {
        let (sender, map) = MapHandle::channel(ClusterMap::default());
        let find = || find(&map, |map| map.any(Role::Accounts));
        assert!(find().await.is_err());
        let node = Node {
            name: "a".into(),
            address: "h:1".into(),
            admin: String::new(),
            incarnation: 1,
            ..Node::default()
        };
        let comes = async {
            sender.send_replace(Arc::new(ClusterMap::new(7, [(Role::Accounts, node.clone())])));
        };
        let (found, ()) = tokio::join!(find(), comes);
        assert_eq!(found.ok(), Some((node, 7)));
    }
}
