//! The push role: it wakes devices that have no stream, through the push services of Apple, Google and browsers.
//!
//! ```text
//! inbox rows (Postgres) --claim--> worker --look--> decide (tern-push-core) --send--> providers (APNs, FCM, Web Push)
//!                          ^          \---> presence nodes (who has a stream)                |
//!                          └──────────────────── note what became of it ─────────────────────┘
//! ```
//!
//! A push node keeps nothing that must last: what is due, and what is claimed, is in the rows of the inbox, and any
//! number of nodes may take from them.
//!
//! - [`worker`]: claims pushes, looks, sends, and notes what became of them
//! - [`store`]: the statements in Postgres
//! - [`presence`]: asks which devices have a stream
//! - `jwt`: the keys, and what is signed with them
//! - `lanes`: the bounds and the breakers of push services
//! - [`provider`]: what a push is, and what may become of it
//! - [`providers`]: sends pushes to the providers, and by a relay
//! - [`apps`]: for which apps, and with which keys
//! - [`jwt`]: the keys that prove to a provider who sends, and what is signed with them
//! - [`seal`]: seals notifications to a device's key
//! - [`relay`]: `tern push relay`, which forwards pushes of other platforms
//! - [`server`]: starts and drains the role
//! - [`config`], [`metrics`], [`grpc`]

#![warn(missing_docs)]

pub mod apps;
pub mod config;
mod grpc;
mod jwt;
mod lanes;
mod metrics;
pub mod presence;
pub mod provider;
pub mod providers;
pub mod relay;
mod seal;
pub mod server;
pub mod store;
pub mod worker;

pub use config::Config;
