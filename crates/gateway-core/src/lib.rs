//! This crate makes the decisions of a gateway as pure functions. They get the time as an argument, and return as
//! effects what the caller is to do. The crate knows nothing of connections, tasks, the wire's framing or the store.
//!
//! - [`session`]: one stream of one device
//! - [`watches`]: which sessions watch which users' presence, and which states they are told at what time
//! - [`audience`]: who may see a user's notices, such as that the user is typing, as far as accounts have
//!   answered that
//! - [`gcra`]: the rate limiter

#![warn(missing_docs)]
#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests draw ids and read a clock")
)]

pub mod audience;
pub mod gcra;
pub mod session;
pub mod watches;
