//! The server keeps what is said in a chat only as long as the chat's people or the operator want.
//!
//! - [`setting`]: who may say how long, and that all are told
//! - [`disappearing`]: a message disappears from server and devices when its time is over
//! - [`keeping`]: content goes after a time, and later its place in the log too
//! - [`delivered`]: content goes when every device has it, and no sooner
//! - [`store`]: the rows of a chat, and how a test makes them old

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::large_futures,
    reason = "all of this is test code: what is not there fails the test"
)]

mod delivered;
mod disappearing;
mod keeping;
mod setting;
mod store;
