//! Gives the nodes of every role what they have to know about each other: which nodes exist, which of them owns a slot,
//! when to stop, and what to give up under load.
//!
//! ```text
//!   etcd ──watch──> etcd ──> membership (pure) ──> map::ClusterMap ──> context::NodeContext ──> each role
//!                                                                            │
//!                      links: one task a node of a role, over channels  <────┘
//! ```
//!
//! - [`config`]: the flags of a node
//! - [`map`]: which nodes exist, and which of them owns a slot (pure)
//! - [`membership`]: makes the map from lists and changes, and keeps nodes for a while when too many vanish at once
//!   (pure)
//! - [`etcd`]: the adapter to etcd: registers this node on a lease, lists and watches the others
//! - [`standing`]: how certain this node's place in the map is
//! - [`wellness`]: finds out whether this node is cut off from what others of its role reach
//! - [`context`]: the context that a role is given when it starts
//! - [`links`]: one task for each other node of a role, which keeps a stream to it open
//! - [`routing`]: the metadata by which calls find the owner of a chat or of a user
//! - [`drain`]: the orderly stop of a process
//! - [`shedding`]: what this node gives up under load
//! - [`info`]: a node's answers about itself
//!
//! This crate knows nothing of messages, of the store or of what a role does.

#![warn(missing_docs)]

pub mod config;
pub mod context;
pub mod drain;
pub mod etcd;
mod gather;
pub mod info;
mod level;
pub mod links;
pub mod map;
pub mod membership;
pub mod metrics;
mod reach;
mod retry_waits;
pub mod routing;
pub mod shedding;
pub mod standing;
pub mod wellness;

pub use context::NodeContext;
pub use drain::Drain;
pub use map::{ClusterMap, MapHandle, Node, Role};
