//! Files from one app to another: real processes, a real object store, and faults between them.
//!
//! - [`sharing`]: files are sent, read and forwarded, and others are kept out
//! - [`pictures`]: pictures of people and groups
//! - [`faults`]: an object store that is away, slow or lies, and apps and nodes that are killed
//! - [`servers`]: files on another S3 server
//! - [`studio`]: the platform and the apps of these tests

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod faults;
mod pictures;
mod servers;
mod sharing;
mod studio;

const MIB: usize = 1 << 20;
