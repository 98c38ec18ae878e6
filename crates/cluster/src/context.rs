//! What every role of a process is given when it starts.

use std::sync::Arc;

use tern_transport::admin::Readiness;
use tern_transport::channels::Channels;

use crate::drain::Drain;
use crate::etcd::Obituaries;
use crate::map::MapHandle;
use crate::shedding::Shedding;
use crate::standing::Standing;
use crate::wellness::Reached;

/// This process as one node among the others: the state and the tools that its roles share.
#[derive(Clone)]
pub struct NodeContext {
    /// The node's name, the same in each of its roles.
    pub name: Arc<str>,
    /// Rises with each start of the process.
    pub incarnation: u64,
    /// The cluster map, kept up to date.
    pub map: MapHandle,
    /// Connections to other nodes.
    pub channels: Channels,
    /// Tells when the process stops.
    pub drain: Drain,
    /// What the process gives up under load.
    pub shedding: Shedding,
    /// How certain the node's place in the map is.
    pub standing: Standing,
    /// What the node's roles reach.
    pub reached: Reached,
    /// Where a role reports that a node's process may be dead.
    pub obituaries: Obituaries,
    /// Whether this process takes work. A role that cannot yet take work holds it back here.
    pub readiness: Readiness,
}

impl NodeContext {
    /// A node without others, for tests. Its drain starts when the test starts it.
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
