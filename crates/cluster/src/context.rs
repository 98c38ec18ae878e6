//! The context that every role of a process is given when it starts.

use std::sync::Arc;

use tern_transport::admin::Readiness;
use tern_transport::channels::Channels;

use crate::drain::Drain;
use crate::etcd::Obituaries;
use crate::map::MapHandle;
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
}
