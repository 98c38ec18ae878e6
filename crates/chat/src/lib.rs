//! The chat node. It owns chats by hash slot, orders and commits what is sent to them, pushes it to devices that are
//! online, and settles it for those that are not.
//!
//! ```text
//! gateway --Control--> grpc::gateway_link --> shard --(core decides)--> writer --> Postgres
//!                                               |                         |
//! gateway <--answers, wakes, live-- gateways <--+-- fanout, wake <--------+   lookup --> presence
//! gateway --CatchUp--> grpc::gateway_link --> store::entries
//! ```
//!
//! - [`tern_chat_core`]: what is decided, as pure functions
//! - [`shard_loop`]: the loops around it, each with two connections
//! - [`store`]: Postgres, statement by statement
//! - [`fanout`], [`wake`], [`lookup`]: delivery to devices that are online
//! - [`recovery`]: settles what other owners left behind
//! - [`epoch`]: which store the memory of this node belongs to
//! - [`backlog`]: the size of all inboxes, for metrics
//! - [`gateways`], [`grpc`], [`answer`]: from and to the wire
//! - [`ownership`], [`server`], [`config`], [`metrics`]

mod answer;
mod backlog;
mod config;
mod epoch;
pub mod fanout;
pub mod gateways;
mod grpc;
pub mod lookup;
pub mod metrics;
mod ownership;
mod recovery;
pub mod server;
pub mod shard_loop;
pub mod store;
pub mod wake;

pub use config::Config;
pub use server::start;
