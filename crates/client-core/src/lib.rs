//! The decisions of a client as pure functions. Time comes in as an argument, and what is to be stored, told to the app
//! and sent goes out as effects. This crate knows nothing of sockets, files, tasks or the local store's tables.
//!
//! - [`engine`]: the protocol as a pure function `apply(inputs, now) -> effects`
//! - [`model`]: the types that the app sees: entries, chats, events
//! - [`error`]: the failure of a call; [`backoff`]: the delays between attempts

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests draw ids and read a clock")
)]

pub mod backoff;
pub mod engine;
mod error;
pub mod model;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use error::CallError;
