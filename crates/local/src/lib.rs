//! Runs the whole platform on one machine, with the real servers. `tern-dev dev`, `tern-dev demo` and the end-to-end
//! tests are built on it. Every process that this process starts ends with it, however it ends; only [`shared`] servers
//! outlive it.
//!
//! ```text
//!   Platform ── Postgres (private, or shared by a test run)
//!            ── etcd     (private, or shared by a test run)
//!            ── S3       (tern-dev s3, where there are media nodes)
//!            ── tern serve gateway | chat | presence | accounts | media | push, a process each
//! ```
//!
//! - [`process`]: a child process with its own log, which ends with its owner
//! - [`postgres`], [`etcd`]: the servers, whose programs are found on this machine; [`s3`]: our own server, in
//!   `tern-dev`
//! - [`citus`]: several Postgres servers as one
//! - [`shared`]: one Postgres and one etcd for all test processes of a run
//! - [`platform`]: the platform's processes: started until ready; killed, stopped and restarted by name
//! - [`secrets`]: token keys and certificates for development; [`authority`]: the authority that signs certificates
//! - [`push`]: the push services of Apple, Google and a browser's vendor, in this process
//! - [`weed`]: SeaweedFS, an independent S3 server, for tests
//! - [`cable`]: a TCP proxy that a test can cut
//! - [`fault`]: an HTTP proxy that fails requests as a test says
//! - [`selective_proxy`]: a TCP proxy before a node, which a test can cut for some of the nodes that connect
//! - [`ports`], [`http`], [`until`]: helpers for free ports, admin pages and waiting

pub mod authority;
mod cable;
pub mod citus;
mod etcd;
pub mod fault;
pub mod http;
pub mod platform;
pub mod ports;
mod postgres;
mod process;
pub mod push;
pub mod s3;
pub mod secrets;
mod selective_proxy;
pub mod shared;
pub mod until;
pub mod weed;

mod orphan;

pub use cable::Cable;
pub use citus::Citus;
pub use etcd::Etcd;
pub use platform::{Builder, NodeProcess, Platform, Role};
pub use postgres::{Postgres, dump_schema};
pub use process::Process;
pub use push::PushServers;
pub use s3::S3;
pub use selective_proxy::SelectiveProxy;
pub use shared::Shared;
