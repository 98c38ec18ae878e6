//! The accounts role: users, their devices, and the tokens and keys with which devices and back ends prove who they
//! are.
//!
//! ```text
//! gateway --unary--> grpc --> accounts --> domain (pure: who may, which token)
//!                                     \--> store  (Postgres)
//!                                      \-> peers  (chat nodes: a device joins its chats, blocks;
//!                                                 gateways: close streams, privacy)
//! ```
//!
//! An accounts node keeps nothing in memory, so any node can answer any call.
//!
//! - [`domain`]: pure rules: who may do what, when a device is linked, what a refresh token stands for, who sees whom,
//!   and which push tokens and settings are well formed
//! - [`secrets`]: the form of API keys and refresh tokens, and what is stored of them
//! - [`store`]: users, devices, their push tokens, keys, blocks, contacts and settings in Postgres
//! - [`peers`]: calls to chat nodes and gateways
//! - [`accounts`]: each call from beginning to end, with the help of these four
//! - [`keys`]: API keys, for the operator's tool
//! - [`grpc`]: the services on the wire
//! - [`server`]: starts and drains the role, and finishes revocations whose call was cut short
//! - [`config`], [`metrics`]

#![warn(missing_docs)]

pub mod accounts;
mod config;
pub mod domain;
pub mod grpc;
pub mod keys;
mod metrics;
pub mod peers;
mod secrets;
pub mod server;
pub mod store;

pub use config::Config;
