//! Images, files, video: uploads and downloads by URLs that this service signs. The bytes go between clients and the
//! object store and never pass through here.
//!
//! ```text
//! gateway --unary--> grpc --> media --> domain (pure: what was declared, is it what is there)
//!                               \----> store  (Postgres: uploads, media, who may read)
//!                                \---> s3     (the object store: signs URLs, looks, deletes)
//!            collector (uploads given up, media that nothing refers to) --> store, s3
//! ```
//!
//! A node keeps nothing: any node answers any call. Chat nodes write the references, when they commit a message with
//! tickets ([`tern_node::ticket`]).
//!
//! - [`domain`]: what is declared, what is media, what has ended; pure
//! - [`store`]: the statements
//! - [`s3`]: the object store; knows aws-sdk-s3, nobody else does
//! - [`media`]: each call as one story of these three
//! - [`collector`]: the end of what nobody needs
//! - [`grpc`]: the service on the wire
//! - [`server`]: wiring and drain
//! - [`config`], [`metrics`]

pub mod collector;
pub mod config;
pub mod domain;
pub mod grpc;
pub mod media;
pub mod metrics;
pub mod s3;
pub mod server;
pub mod store;

pub use config::Config;
