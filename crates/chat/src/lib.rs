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
//! - [`tern_chat_core`]: makes the decisions, as pure functions
//! - [`shard_loop`]: runs the loops around it, each with two connections to Postgres
//! - [`store`]: has the statements for Postgres
//! - [`fanout`]: pushes events to devices that are online; [`lookup`]: finds their sessions; [`wake`]: makes sessions
//!   responsible for inbox rows
//! - [`recovery`]: finds the entries that earlier owners left unsettled
//! - [`erasing`]: erases what was done to deleted messages, beside the shards
//! - [`epoch`]: forgets all chats when the store has become another one
//! - [`trimming`]: erases what chats need not keep any more
//! - [`bell`]: wakes the push workers when a push is due
//! - [`backlog`]: measures all inboxes, for metrics
//! - [`gateways`]: holds the gateways' links; [`grpc`], [`answer`]: convert from and to the wire
//! - [`invite_token`]: makes and checks the tokens of invite links
//! - [`own`]: appends to users' own logs, whichever node owns them
//! - [`ownership`]: decides which chats this node owns; [`server`]: wires the role; [`config`]: has its flags;
//!   [`metrics`]: has its metrics

#![warn(missing_docs)]

mod answer;
mod backlog;
pub mod bell;
mod config;
mod epoch;
mod erasing;
pub mod fanout;
pub mod gateways;
mod grpc;
mod invite_token;
pub mod lookup;
pub mod metrics;
pub mod own;
mod ownership;
mod recovery;
pub mod server;
pub mod shard_loop;
pub mod store;
pub mod trimming;
pub mod wake;

pub use config::Config;
pub use server::start;
