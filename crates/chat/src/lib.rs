//! The chat node: owns chats by hash slot, orders and commits what is sent to them, fans it out, and settles it.
//!
//! ```text
//! gateway --Control--> grpc::link --> shard --(state decides)--> writer --> Postgres
//!                                       |                          |
//! gateway <--answers, wakes, live-- gateways <-- fanout, wake <----+   lookup --> presence
//! gateway --CatchUp--> grpc::link --> store::entries
//! ```
//!
//! - [`state`]: what is decided, pure
//! - [`shard`]: the loops round it, each with one connection
//! - [`store`]: Postgres, statement by statement
//! - [`fanout`], [`wake`], [`lookup`]: who is online gets it
//! - [`recovery`]: what other owners left behind
//! - [`backlog`]: what devices are owed in all, for metrics
//! - [`gateways`], [`grpc`], [`answer`], [`content`]: from and to the wire
//! - [`ownership`], [`server`], [`config`], [`metrics`]

pub mod answer;
pub mod backlog;
pub mod config;
pub mod content;
pub mod epoch;
pub mod fanout;
pub mod gateways;
pub mod grpc;
pub mod lookup;
pub mod metrics;
pub mod ownership;
pub mod recovery;
pub mod server;
pub mod shard;
pub mod state;
pub mod store;
pub mod wake;

pub use config::Config;
pub use server::start;
