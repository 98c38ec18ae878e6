//! Finds out when devices have to ask for receipts because some were lost. If a chat node goes away or its
//! link breaks, the receipts that it had gathered or put on the link are lost, and nobody sends them again.
//! So devices are told CaughtUp, and ask for their receipts.
//!
//! They are told once the chats have an owner that can answer: when the link is up again, or when the map gives the
//! node's slots to others.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tern_cluster::{ClusterMap, Role};
use tern_types::Slot;
use tokio::sync::Notify;

/// The time from when the chats have an owner to when the first devices are told. By then the sessions have sent the
/// new owner what it has to know, such as acknowledgements; receipts for later ones come by themselves.
pub const AFTER: Duration = Duration::from_secs(1);

/// The chat nodes whose receipts may be lost, until the devices are told.
#[derive(Debug, Default)]
pub struct Lost {
    /// The names and incarnations of the nodes whose link broke and whose chats have no owner yet that can answer.
    nodes: Mutex<Vec<(String, u64)>>,
    /// Notified when devices are to be told.
    due: Notify,
}

impl Lost {
    /// Takes note that the link to the node broke. `map` is the newest that is known.
    pub fn link(&self, node: &str, incarnation: u64, map: &ClusterMap) {
        self.nodes().push((node.to_owned(), incarnation));
        self.map_is(map);
    }

    /// Takes note that a link to the node is up: the node owns its chats still.
    pub fn linked(&self, node: &str, incarnation: u64) {
        self.done(|name, its| name == node && its == incarnation);
    }

    /// Takes note that the map has changed: nodes that own no slot by it have been replaced.
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

    /// Takes note that a node has lost receipts, and does not know whose.
    pub fn receipts(&self) {
        self.due.notify_one();
    }

    /// Waits until devices are to be told. One call returns for everything that was lost before it.
    pub async fn due(&self) {
        self.due.notified().await;
    }

    /// Removes the nodes for which `which` returns true. If there were any, devices are to be told.
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
    use tern_cluster::Node;

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
        // A node of the same name came back before its old link was seen to break.
        lost.link("a", 1, &map(&[("a", 2)]));
        assert!(due(&lost));
        lost.map_is(&map(&[]));
        assert!(!due(&lost));
        lost.receipts();
        assert!(due(&lost));
    }
}
