//! The whole platform on one machine, with the real servers: what `tern dev`, `tern demo` and the end-to-end tests
//! stand on. Nothing that it starts survives it, however it ends.
//!
//! ```text
//!   Platform ── Postgres (private, or shared by a test run)
//!            ── etcd     (private, or shared by a test run)
//!            ── S3       (tern s3, where there are media nodes)
//!            ── tern serve gateway | chat | presence | accounts | media, a process each
//! ```
//!
//! - [`process`]: a child with its own log, ended with its owner
//! - [`postgres`], [`etcd`]: the servers, found on this machine; [`s3`]: one of our own
//! - [`shared`]: one of each for all test processes of a run
//! - [`platform`]: the platform's processes, started until ready; killed, stopped and restarted by name
//! - [`secrets`]: token keys and certificates for development; [`authority`]: who signs those
//! - [`weed`]: an S3 server of others, for tests
//! - [`cable`]: a TCP proxy that a test can cut
//! - [`fault`]: an HTTP proxy that fails where a test says so
//! - [`wire`]: the network before a node, which a test may cut for some of those who connect to it
//! - [`ports`], [`http`], [`until`]: small things that those need

pub mod authority;
pub mod cable;
pub mod etcd;
pub mod fault;
pub mod http;
pub mod platform;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod s3;
pub mod secrets;
pub mod shared;
pub mod until;
pub mod weed;
pub mod wire;

mod orphan;

pub use cable::Cable;
pub use etcd::Etcd;
pub use platform::{Builder, NodeProcess, Platform, Role};
pub use postgres::Postgres;
pub use process::Process;
pub use s3::S3;
pub use shared::Shared;
pub use wire::Wire;
