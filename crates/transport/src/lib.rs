//! Connections: those that others make to this process, and those that it makes to other nodes.
//!
//! ```text
//!   TCP ──> listener (TLS, bounds of connections) ──> serve: internal gRPC    channels ──> other nodes
//!                                                └──> admin: /metrics, probes
//! ```
//!
//! - [`listener`], [`connections`], [`descriptors`]: accepting connections, how many and for how long
//! - [`tls`], [`internal_tls`]: certificates from files, which are read again when they change; mutual TLS of nodes
//! - [`channels`]: gRPC channels to other nodes
//! - [`serve`], [`admin`]: the internal gRPC server; metrics and probes over HTTP
//!
//! This crate knows nothing of the cluster's map, of the store or of any role.

pub mod admin;
pub mod channels;
pub mod connections;
pub mod descriptors;
pub mod internal_tls;
pub mod listener;
pub mod metrics;
pub mod serve;
pub mod tls;
