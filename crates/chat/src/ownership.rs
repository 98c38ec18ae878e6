//! Whether this node owns a chat, by its copy of the map.

use std::collections::HashSet;
use std::sync::Arc;

use tern_cluster::context::NodeContext;
use tern_cluster::map::{ClusterMap, Role};
use tern_types::{ChatId, Slot};

/// Answers who owns a chat. It is cheap to clone.
#[derive(Clone)]
pub struct Ownership {
    ctx: NodeContext,
}

/// Another node owns the chat, according to this version of the map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotOwner {
    pub map_version: i64,
}

impl Ownership {
    /// Asks the map of this node.
    pub fn new(ctx: NodeContext) -> Self {
        Self { ctx }
    }

    /// The version of this node's map.
    pub fn map_version(&self) -> i64 {
        self.ctx.map.current().version()
    }

    /// Checks that this node owns the chat. A sender with a newer map than this node's is believed: if it is wrong,
    /// the compare-and-set of the commit makes it right.
    pub fn check(&self, chat: ChatId, sender_version: i64) -> Result<(), NotOwner> {
        let map = self.ctx.map.current();
        if self.owns(&map, Slot::of_chat(chat)) || sender_version > map.version() {
            return Ok(());
        }
        Err(NotOwner {
            map_version: map.version(),
        })
    }

    /// The slots that `map` gives this node.
    pub fn slots(&self, map: &ClusterMap) -> Arc<HashSet<Slot>> {
        Arc::new(Slot::all().filter(|slot| self.owns(map, *slot)).collect())
    }

    fn owns(&self, map: &ClusterMap, slot: Slot) -> bool {
        map.owner(Role::Chat, slot)
            .is_some_and(|node| *node.name == *self.ctx.name && node.incarnation == self.ctx.incarnation)
    }
}
