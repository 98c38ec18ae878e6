//! A user's devices know of each other by the user's own log.
//!
//! - [`settings`]: how a user keeps a chat is the same on all devices, also on those that were away
//! - [`listing`]: pinned chats come first, the archive is apart, and a device asks for what has changed
//! - [`hiding`]: a message that was deleted by one person for themselves stays for the others
//! - [`account`]: devices are told of devices, blocks, contacts and privacy
//! - [`access`]: nobody else reads or writes an own log, and it survives the loss of its node

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::large_futures,
    reason = "all of this is test code: what is not there fails the test"
)]

mod access;
mod account;
mod hiding;
mod listing;
mod settings;
