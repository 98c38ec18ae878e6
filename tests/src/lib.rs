//! What the end-to-end tests stand on: the whole platform as real processes, on a real Postgres and etcd, and clients
//! written from the protos alone.
//!
//! - [`world`]: a platform for one test, its users and devices; checked for defects at the end
//! - [`api`]: the unary services as a back end or a device
//! - [`wire`]: one device stream, frame by frame: for what a good client never does
//! - [`socket`]: the same over a WebSocket
//! - [`phone`]: a good client: cursor, outbox, acknowledgements, reconnects
//! - [`screen`]: a client that shows who is online
//! - [`raw`], [`h2`]: any bytes at all, as a call or as frames of HTTP/2
//! - [`collector`]: what the nodes export of their traces
//! - [`clock`]: the wall clocks of nodes, set by a test
//! - [`checks`]: what must hold of the store and of the nodes after every test

#![allow(
    clippy::expect_used,
    reason = "all of this is test code: what is not there fails the test"
)]

pub mod api;
pub mod checks;
pub mod clock;
pub mod collector;
pub mod h2;
pub mod phone;
pub mod raw;
pub mod screen;
pub mod socket;
pub mod wire;
pub mod world;

pub use api::Api;
pub use clock::WallClock;
pub use phone::{Phone, To};
pub use screen::{Screen, Shown};
pub use wire::Wire;
pub use world::{Device, User, World};
