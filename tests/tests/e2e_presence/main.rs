//! Who is online, when somebody was last seen, and who may know it. Also over the loss of any node.

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
