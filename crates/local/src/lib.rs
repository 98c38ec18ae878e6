//! The whole platform on one machine, with the real servers: what `tern dev`, `tern demo` and the end-to-end tests
//! stand on. Nothing that it starts survives it, however it ends.
//!
//! ```text
//!   Platform ── Postgres (private, or shared by a test run)
//!            ── etcd     (private, or shared by a test run)
//!            ── tern serve gateway | chat | presence | accounts, a process each
//! ```
//!
//! - [`process`]: a child with its own log, ended with its owner
//! - [`postgres`], [`etcd`]: the servers, found on this machine
//! - [`shared`]: one of each for all test processes of a run
//! - [`platform`]: the platform's processes, started until ready; killed, stopped and restarted by name
//! - [`secrets`]: token keys and a certificate for development
//! - [`ports`], [`http`], [`until`]: small things that those need

pub mod etcd;
pub mod http;
pub mod platform;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod secrets;
pub mod shared;
pub mod until;

mod orphan;

pub use etcd::Etcd;
pub use platform::{Builder, NodeProcess, Platform, Role};
pub use postgres::Postgres;
pub use process::Process;
pub use shared::Shared;
