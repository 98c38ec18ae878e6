//! The presence role: it knows the live sessions of the users in this node's slots, in memory, and so who is online
//! and when people were last seen.
//!
//! ```text
//! gateway --Announce, Watch--> grpc --> hub --> people (core)
//! chat    --Lookup-----------> grpc --> hub --^
//! map     ------------------> server --^
//! ```
//!
//! Only last seen is stored. Everything else is announced again by the gateways whenever the map or a link has
//! changed; they read their devices' inboxes afterwards (rule 3, "register, then drain"). A slow gateway never delays
//! another one: a gateway that does not read its replies loses its link, and announces everything again on a new one.
//!
//! - [`tern_presence_core`]: what is decided, as pure functions: the people of this node's slots, their sessions, who is
//!   online, and which gateways are to be told of whom
//! - [`last_seen`], [`reader`], [`writer`]: last seen in Postgres, and what reads it there and writes it
//! - [`hub`]: the node's one registry, shared by all streams, and the map version that it follows
//! - [`grpc`]: the streams of `tern.internal.v1.Presence`; [`admin`]: answers to operators
//! - [`server`]: wiring and drain
//! - [`config`]: the flags; [`metrics`]: what the node counts

#![warn(missing_docs)]

mod admin;
mod config;
mod grpc;
mod hub;
pub mod last_seen;
mod metrics;
mod reader;
pub mod server;
mod writer;

pub use config::Config;
