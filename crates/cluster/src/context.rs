//! The context that every role of a process is given when it starts.

use std::sync::Arc;

use tern_transport::admin::Readiness;
use tern_transport::channels::Channels;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::drain::Drain;
use crate::etcd::Obituaries;
use crate::map::{MapHandle, Role};
use crate::reach::Reached;
use crate::shedding::Shedding;
use crate::standing::Standing;

/// This process as one node among the others: the state and the tools that its roles share.
#[derive(Clone)]
pub struct NodeContext {
    /// The node's name, the same in each of its roles.
    pub name: Arc<str>,
    /// The number of this start of the process, which rises with each start.
    pub incarnation: u64,
    /// The cluster map, kept up to date.
    pub map: MapHandle,
    /// Connections to other nodes.
    pub channels: Channels,
    /// The drain, which tells when the process stops.
    pub drain: Drain,
    /// The state that says what the process gives up under load.
    pub shedding: Shedding,
    /// The state that says how certain the node's place in the map is.
    pub standing: Standing,
    /// The state that says what the node's roles reach.
    pub reached: Reached,
    /// The place where a role reports that another node's process may be dead.
    pub obituaries: Obituaries,
    /// The state that says whether this process takes work. A role that cannot yet take work holds the process back by
    /// it.
    pub readiness: Readiness,
}

impl NodeContext {
    /// Makes the context of a node without etcd, for tests. Its drain starts when the test starts it.
    pub fn alone(name: &str, incarnation: u64, map: MapHandle) -> Self {
        let drain = Drain::new(crate::drain::DEFAULT_TIMEOUT);
        Self {
            name: name.into(),
            incarnation,
            map,
            channels: Channels::default(),
            drain,
            shedding: Shedding::default(),
            standing: Standing::certain(),
            reached: Reached::default(),
            obituaries: Obituaries::none(),
            readiness: Readiness::default(),
        }
    }

    /// Waits until no call of a role of this node is under way and nobody makes another one. `calls` counts those under
    /// way. The role calls it when the drain has begun, and it ends at the drain's deadline at the latest.
    pub async fn finish_calls(&self, role: Role, calls: &TaskTracker) {
        let idle = async {
            self.takes_no_new_work(role).await;
            calls.close();
            calls.wait().await;
        };
        if timeout(self.drain.deadline(), idle).await.is_err() {
            let calls = calls.len();
            tracing::warn!(calls, "calls were still under way at the end of the drain");
        }
    }

    /// Waits until the map says that this node takes no new work. From then on gateways do not call it.
    async fn takes_no_new_work(&self, role: Role) {
        let mut changes = self.map.clone();
        let mut map = self.map.current();
        while map
            .node(role, &self.name)
            .is_some_and(|node| node.incarnation == self.incarnation && !node.draining)
        {
            map = changes.changed().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::time::Duration;

    use super::*;
    use crate::map::{ClusterMap, Node};

    #[tokio::test(start_paused = true)]
    async fn a_role_finishes_its_calls_when_the_map_says_that_it_drains() {
        let map = |draining| {
            let node = Node {
                name: "m1".into(),
                incarnation: 1,
                draining,
                ..Node::default()
            };
            ClusterMap::new(1, [(Role::Media, node)])
        };
        let (sender, handle) = MapHandle::channel(map(false));
        let ctx = NodeContext::alone("m1", 1, handle);
        let calls = TaskTracker::new();
        let mut finished = pin!(ctx.finish_calls(Role::Media, &calls));
        let moment = Duration::from_millis(1);
        assert!(
            timeout(moment, finished.as_mut()).await.is_err(),
            "calls may come"
        );
        let call = calls.token();
        sender.send_replace(Arc::new(map(true)));
        assert!(
            timeout(moment, finished.as_mut()).await.is_err(),
            "one is under way"
        );
        drop(call);
        assert!(timeout(moment, finished.as_mut()).await.is_ok());
    }
}
