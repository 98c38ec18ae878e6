//! The media role: images, files and video, uploaded and downloaded by URLs that this role signs. The bytes go
//! between clients and the object store, and never pass through a media node.
//!
//! ```text
//! gateway --unary--> grpc --> media --> domain (pure: what was declared, is it what is there)
//!                               \----> store  (Postgres: uploads, media, who may read)
//!                                \---> s3     (the object store: signs URLs, looks, deletes)
//!            collector (uploads given up, media that nothing refers to) --> store, s3
//! ```
//!
//! A media node keeps nothing in memory, so any node can answer any call. References from messages to media are
//! written by chat nodes, when they commit a message with tickets ([`tern_identity::ticket`]).
//!
//! - [`domain`]: pure rules: what a client may declare, whether an object is what was declared, and when uploads and
//!   media end
//! - [`store`]: the statements in Postgres
//! - [`s3`]: calls the object store; no other module uses aws-sdk-s3
//! - [`media`]: each call from beginning to end, with the help of these three
//! - [`collector`]: deletes what nobody needs any more
//! - [`grpc`]: the service on the wire
//! - [`server`]: starts and drains the role
//! - [`config`], [`metrics`]

#![warn(missing_docs)]

pub mod collector;
pub mod config;
pub mod domain;
mod grpc;
pub mod media;
mod metrics;
pub mod s3;
pub mod server;
pub mod store;

pub use config::Config;
