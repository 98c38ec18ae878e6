//! Users, devices and what they prove themselves with.
//!
//! ```text
//! gateway --unary--> grpc --> accounts --> domain (pure: who may, which token)
//!                                     \--> store  (Postgres)
//!                                      \-> peers  (chat nodes: a device joins its chats, blocks; gateways: close streams, privacy)
//! ```
//!
//! A node keeps nothing: any node answers any call.
//!
//! - [`domain`]: who may do what, when a device is linked, what a refresh token stands for, who sees whom; pure
//! - [`secrets`]: API keys and refresh tokens, how they look and what is stored of them
//! - [`store`]: users, devices, keys, blocks, contacts in Postgres
//! - [`peers`]: calls to chat nodes and gateways
//! - [`accounts`]: each call as one story of these four
//! - [`keys`]: API keys, for the operator's tool
//! - [`grpc`]: the services on the wire
//! - [`server`]: wiring, drain and the revocations that nobody waits for
//! - [`config`], [`metrics`]

pub mod accounts;
pub mod config;
pub mod domain;
pub mod grpc;
pub mod keys;
pub mod metrics;
pub mod peers;
pub mod secrets;
pub mod server;
pub mod store;

pub use config::Config;
