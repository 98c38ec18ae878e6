//! Who is online, who was last seen when, and who may know it; over the loss of any node.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::large_futures,
    reason = "tests"
)]

mod cast;
mod failover;
mod privacy;
mod watching;
