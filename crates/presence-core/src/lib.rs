//! The decisions of a presence node as pure functions. Time comes in as an argument, and what is to be done goes out
//! as effects. This crate knows nothing of streams, tasks or the store.
//!
//! - [`people`]: the people of this node's slots, with
//!   - [`registry`]: their sessions
//!   - [`activity`]: who is online, and when each person was last active
//!   - [`watches`]: which gateways are told of which people
//!   - [`follows`]: which chat nodes are told that a user's sessions have changed

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests draw ids and read a clock")
)]

pub mod activity;
pub mod follows;
pub mod people;
pub mod registry;
pub mod watches;
