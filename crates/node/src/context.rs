//! What a role is given when it starts.

use std::sync::Arc;

use crate::admin::Readiness;
use crate::channels::Channels;
use crate::drain::Drain;
use crate::etcd::Obituaries;
use crate::map::MapHandle;
use crate::shedding::Shedding;
use crate::standing::Standing;
use crate::wellness::Reached;

/// This process among the others.
#[derive(Clone)]
pub struct NodeContext {
    /// The node's name, the same in each of its roles.
    pub name: Arc<str>,
    pub incarnation: u64,
    pub map: MapHandle,
    pub channels: Channels,
    pub drain: Drain,
    pub shedding: Shedding,
    /// Whether the node's place in the map is certain.
    pub standing: Standing,
    /// What its roles reach.
    pub reached: Reached,
    /// Where to say of a node that its process may be dead.
    pub obituaries: Obituaries,
    /// Whether this process takes work: a role that cannot yet holds it back.
    pub readiness: Readiness,
}

impl NodeContext {
    /// A node on its own, for tests: its drain starts when the test says so.
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
}
