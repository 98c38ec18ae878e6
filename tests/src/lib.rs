//! The harness of the end-to-end tests: the whole platform as real processes, on a real Postgres and etcd, and
//! clients that were written from the protos alone.
//!
//! - [`world`]: a platform for one test, with its users and devices, which is checked for defects at the end
//! - [`api`]: the unary services, called as a back end or a device
//! - [`wire`]: one device stream, frame by frame, which can also do what a good client never does
//! - [`socket`]: the same over a WebSocket
//! - [`phone`]: a good client with cursors, an outbox, acknowledgements and reconnects
//! - [`acts`], [`files`]: what people do to messages, and the files that they attach
//! - [`groups`]: what people and back ends do to run a group
//! - [`own`]: what a user's devices tell each other by the user's own log
//! - [`conversation`]: two people who write to each other while a test does what it likes to the platform
//! - [`screen`]: a client that shows who is online
//! - [`raw`], [`h2`]: arbitrary bytes, as a call or as HTTP/2 frames
//! - [`collector`]: collects the traces that nodes export
//! - [`clock`]: the wall clocks of nodes, set by a test
//! - [`checks`]: checks of the store and the nodes after every test

#![allow(
    clippy::expect_used,
    clippy::large_futures,
    reason = "all of this is test code: what is not there fails the test"
)]

pub mod acts;
pub mod api;
mod bounds;
pub mod checks;
pub mod clock;
pub mod collector;
pub mod conversation;
pub mod files;
pub mod groups;
pub mod h2;
pub mod own;
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
