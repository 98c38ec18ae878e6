//! Who is online: the live sessions of the users in this node's slots, in memory.
//!
//! ```text
//! gateway --Announce--> grpc --> hub --> registry (pure)
//! chat    --Lookup----> grpc --> hub --^
//! map     ------------> server --^
//! ```
//!
//! Nothing here lasts: gateways announce their sessions again whenever the map or a link changed, and read the
//! devices' inboxes afterwards ("register, then drain"). A slow gateway never holds up another one: who does not
//! read its replies loses its link and starts anew.
//!
//! - [`registry`]: what is known and what follows from each event; decides, never waits
//! - [`hub`]: the one registry, its links, and the map version that it follows
//! - [`grpc`]: the two streams of `tern.internal.v1.Presence`; [`admin`]: what operators ask
//! - [`server`]: wiring and drain
//! - [`config`], [`metrics`]

pub mod admin;
pub mod config;
pub mod grpc;
pub mod hub;
pub mod metrics;
pub mod registry;
pub mod server;

pub use config::Config;
