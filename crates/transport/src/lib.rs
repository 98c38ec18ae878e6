//! Manages connections: those that others make to this process, and those that it makes to other nodes.
//!
//! ```text
//!   TCP ──> listener (TLS, bounds of connections) ──> serve: internal gRPC    channels ──> other nodes
//!                                                └──> admin: /metrics, probes
//! ```
//!
//! - [`listener`], [`connections`], [`descriptors`]: accept connections, and limit their number and their time
//! - [`tls`], [`internal_tls`]: TLS with certificates from files, which are read again when they change, and mutual TLS
//!   between nodes
//! - [`channels`]: gRPC channels to other nodes
//! - [`serve`], [`admin`]: the internal gRPC server, and metrics and probes over HTTP
//!
//! This crate knows nothing of the cluster's map, of the store or of any role.

#![warn(missing_docs)]

pub mod admin;
pub mod channels;
pub mod connections;
pub mod descriptors;
pub mod internal_tls;
pub mod listener;
pub mod metrics;
pub mod serve;
pub mod tls;
