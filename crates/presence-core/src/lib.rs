//! This crate makes the decisions of a presence node as pure functions. They get the time as an argument, and
//! return as effects what the caller is to do. The crate knows nothing of streams, tasks or the store.
//!
//! - [`people`]: the people of this node's slots, with
//!   - [`registry`]: their sessions
//!   - [`activity`]: who is online, and when each person was last active
//!   - [`watches`]: which gateways are told of which people
//!   - [`follows`]: which chat nodes are told that a user's sessions have changed

#![warn(missing_docs)]
#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests draw ids and read a clock")
)]

pub mod activity;
pub mod follows;
pub mod people;
pub mod registry;
pub mod watches;
