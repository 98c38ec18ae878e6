//! Chat nodes that were lost, or the way to them, and receipts with them: those that a node had gathered, or had put on its
//! link. Nobody repeats them, so devices are told CaughtUp again and ask. Not before their chats have an owner again, who
//! answers: when the link is there again, or the map has given the node's slots to others.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tern_node::{ClusterMap, Role};
use tern_types::Slot;
use tokio::sync::Notify;

/// From when the chats have an owner to when the first devices ask: what the sessions say again to the new owner, such as
/// acknowledgements, is there by then. What comes later is told by itself.
pub const AFTER: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug, Default)]
pub struct Lost {
    /// By name and incarnation: those whose chats have no owner yet.
    nodes: Mutex<Vec<(String, u64)>>,
    due: Notify,
}

impl Lost {
    /// The link broke. `map`: the newest that is known.
    pub fn link(&self, node: &str, incarnation: u64, map: &ClusterMap) {
        self.nodes().push((node.to_owned(), incarnation));
        self.map_is(map);
    }

    /// A link to the node is up.
    pub fn linked(&self, node: &str, incarnation: u64) {
        self.done(|name, its| name == node && its == incarnation);
    }

    /// The map is this now.
    pub fn map_is(&self, map: &ClusterMap) {
        if self.nodes().is_empty() {
            return;
        }
        let owners: HashSet<(&str, u64)> = Slot::all()
            .filter_map(|slot| map.owner(Role::Chat, slot))
            .map(|node| (node.name.as_str(), node.incarnation))
            .collect();
        self.done(|name, incarnation| !owners.contains(&(name, incarnation)));
    }

    /// A node says that receipts were lost.
    pub fn receipts(&self) {
        self.due.notify_one();
    }

    /// Until devices are to be told.
    pub async fn due(&self) {
        self.due.notified().await;
    }

    fn done(&self, which: impl Fn(&str, u64) -> bool) {
        let mut nodes = self.nodes();
        let before = nodes.len();
        nodes.retain(|(name, incarnation)| !which(name, *incarnation));
        if nodes.len() < before {
            self.due.notify_one();
        }
    }

    fn nodes(&self) -> MutexGuard<'_, Vec<(String, u64)>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tern_node::Node;

    use super::*;

    fn map(nodes: &[(&str, u64)]) -> ClusterMap {
        let nodes = nodes.iter().map(|(name, incarnation)| {
            let node = Node {
                name: (*name).to_owned(),
                address: "127.0.0.1:1".to_owned(),
                incarnation: *incarnation,
                ..Node::default()
            };
            (Role::Chat, node)
        });
        ClusterMap::new(1, nodes)
    }

    fn due(lost: &Lost) -> bool {
        lost.due().now_or_never().is_some()
    }

    #[test]
    fn devices_are_told_when_the_chats_have_an_owner_again() {
        let both = map(&[("a", 1), ("b", 1)]);
        let lost = Lost::default();
        lost.link("a", 1, &both);
        lost.link("b", 1, &both);
        lost.map_is(&both);
        lost.linked("b", 2);
        assert!(!due(&lost), "nobody answers for these chats yet");
        lost.linked("b", 1);
        assert!(due(&lost) && !due(&lost), "once");
        lost.map_is(&map(&[("b", 1)]));
        assert!(due(&lost));
        // Its name came back before the link was seen to break.
        lost.link("a", 1, &map(&[("a", 2)]));
        assert!(due(&lost));
        lost.map_is(&map(&[]));
        assert!(!due(&lost));
        lost.receipts();
        assert!(due(&lost));
    }
}
