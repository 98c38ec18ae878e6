//! Decides whether this node owns a chat, from this node's copy of the cluster map.

use std::collections::HashSet;
use std::sync::Arc;

use tern_cluster::context::NodeContext;
use tern_cluster::map::{ClusterMap, Role};
use tern_types::{ChatId, Slot};

/// A view of the map that answers whether this node owns a chat. It is cheap to clone.
#[derive(Clone)]
pub struct Ownership {
    ctx: NodeContext,
}

/// The error that another node owns the chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotOwner {
    /// The version of this node's map.
    pub map_version: i64,
}

impl Ownership {
    /// Creates the view for the node that `ctx` names.
    pub fn new(ctx: NodeContext) -> Self {
        Self { ctx }
    }

    /// Returns the version of this node's map.
    pub fn map_version(&self) -> i64 {
        self.ctx.map.current().version()
    }

    /// Checks that this node owns the chat. `sender_version` is the version of the sender's map. A sender whose map is
    /// newer than this node's is believed. If it is wrong and two nodes write to one chat, the compare-and-set of the
    /// commit still makes one log.
    ///
    /// # Errors
    ///
    /// [`NotOwner`] if this node's map does not give it the chat, and the sender's map is not newer.
    pub fn check(&self, chat: ChatId, sender_version: i64) -> Result<(), NotOwner> {
        let map = self.ctx.map.current();
        if self.owns(&map, Slot::of_chat(chat)) || sender_version > map.version() {
            return Ok(());
        }
        Err(NotOwner {
            map_version: map.version(),
        })
    }

    /// Returns the slots that `map` gives this node.
    pub fn slots(&self, map: &ClusterMap) -> Arc<HashSet<Slot>> {
        Arc::new(Slot::all().filter(|slot| self.owns(map, *slot)).collect())
    }

    /// Returns whether this node's map gives it the slot.
    pub(crate) fn owns_slot(&self, slot: Slot) -> bool {
        self.owns(&self.ctx.map.current(), slot)
    }

    fn owns(&self, map: &ClusterMap, slot: Slot) -> bool {
        map.owner(Role::Chat, slot)
            .is_some_and(|node| *node.name == *self.ctx.name && node.incarnation == self.ctx.incarnation)
    }
}
