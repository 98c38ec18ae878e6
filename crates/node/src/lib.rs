//! What the nodes of every role share: which other nodes exist, how to reach them, who a call is from, when to stop.
//!
//! ```text
//!   etcd ──watch──> etcd ──> membership (pure) ──> map::ClusterMap ──> context::NodeContext ──> each role
//!                                                                            │
//!                      links: one task a node of a role, over channels  <────┘
//! ```
//!
//! - [`config`]: the flags of a node
//! - [`map`]: which nodes exist, and which of them owns a slot (pure)
//! - [`membership`]: makes the map from lists and changes, and holds removals back where too many nodes vanish (pure)
//! - [`etcd`]: the adapter to etcd: registers this node on a lease, lists and watches the others
//! - [`standing`]: whether this node's place in the map is certain
//! - [`wellness`]: whether this node is cut off from what others of its role reach
//! - [`context`]: what a role is given when it starts
//! - [`channels`], [`links`], [`internal_tls`]: connections between nodes
//! - [`listener`], [`connections`], [`descriptors`]: connections that others make to this process, how many and for
//!   how long
//! - [`tls`]: certificates from files, which are read again when they change
//! - [`principal`], [`token`]: who a call is from, and how devices prove it
//! - [`ticket`]: the right to attach media to a message
//! - [`request_id`]: the id of a call in logs
//! - [`drain`]: stopping in order
//! - [`shedding`]: what this node gives up under load
//! - [`postgres`]: pools, migrations, durability
//! - [`serve`], [`admin`], [`info`]: the internal gRPC server; metrics and probes over HTTP; a node's answers about
//!   itself
//! - [`telemetry`], [`trace`], [`exemplars`]: logs, traces, metrics; the spans of a message on its way; traces of
//!   slow calls

pub mod admin;
pub mod channels;
pub mod config;
pub mod connections;
pub mod context;
pub mod descriptors;
pub mod drain;
pub mod etcd;
pub mod exemplars;
pub mod info;
pub mod internal_tls;
pub mod links;
pub mod listener;
pub mod map;
pub mod membership;
pub mod metrics;
pub mod postgres;
pub mod principal;
pub mod request_id;
pub mod serve;
pub mod shedding;
pub mod standing;
pub mod telemetry;
pub mod ticket;
pub mod tls;
pub mod token;
pub mod trace;
pub mod wellness;

pub use context::NodeContext;
pub use drain::Drain;
pub use map::{ClusterMap, MapHandle, Node, Role};
