//! Watchers see who is online and when people were last seen, as far as they may know it, also when nodes are lost.

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
