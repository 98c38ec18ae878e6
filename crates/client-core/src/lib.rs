//! This crate makes the decisions of a client as pure functions. They get the time as an argument, and return as
//! effects what is to be stored, told to the app and sent. The crate knows nothing of sockets, files, tasks or the
//! local store's tables.
//!
//! - [`engine`]: the protocol as a pure function `apply(inputs, now) -> effects`
//! - [`model`]: the types that the app sees: entries, chats, events
//! - [`error`]: the failure of a call; [`backoff`]: the delays between attempts

#![warn(missing_docs)]
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
