//! The decisions of a gateway as pure functions. Time comes in as an argument, and what is to be done goes out as
//! effects. This crate knows nothing of connections, tasks, the wire's framing or the store.
//!
//! - [`session`]: one stream of one device
//! - [`watches`]: which sessions watch which users' presence, and what they are told when
//! - [`audience`]: who may see that a user writes, as far as it is known
//! - [`gcra`]: the rate limiter

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests draw ids and read a clock")
)]

pub mod audience;
pub mod gcra;
pub mod session;
pub mod watches;
