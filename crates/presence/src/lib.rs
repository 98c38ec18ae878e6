//! Who is online: the live sessions of the users in this node's slots, in memory; and who may have seen them when.
//!
//! ```text
//! gateway --Announce, Watch--> grpc --> hub --> people (pure)
//! chat    --Lookup-----------> grpc --> hub --^
//! map     ------------------> server --^
//! ```
//!
//! Of this only last seen lasts: gateways announce their sessions again whenever the map or a link changed, and read the
//! devices' inboxes afterwards ("register, then drain"). A slow gateway never holds up another one: who does not
//! read its replies loses its link and starts anew.
//!
//! - [`people`]: the people of this node's slots (pure), of which
//!   - [`registry`]: their sessions
//!   - [`activity`]: who is online, and when they were last active
//!   - [`watches`]: the gateways that are to be told of whom
//! - [`last_seen`], [`writer`]: what of it lasts, in Postgres
//! - [`hub`]: the one registry, its links, and the map version that it follows
//! - [`grpc`]: the streams of `tern.internal.v1.Presence`; [`admin`]: what operators ask
//! - [`server`]: wiring and drain
//! - [`config`], [`metrics`]

pub mod activity;
pub mod admin;
pub mod config;
pub mod grpc;
pub mod hub;
pub mod last_seen;
pub mod metrics;
pub mod people;
pub mod registry;
pub mod server;
pub mod watches;
pub mod writer;

pub use config::Config;
