//! Groups are run by their members and by back ends.
//!
//! - [`policy`]: the description, and which role may do what
//! - [`slow_mode`]: members wait between two messages, whichever node owns the group
//! - [`freezing`]: a frozen chat takes nothing but what the operator says
//! - [`succession`]: a group with members has an owner, whoever leaves
//! - [`joiners`]: what those who join may read of the time before
//! - [`links`]: invite links lead in those who have them, and tell others nothing
//! - [`uses`]: links end, are used up, and are revoked
//! - [`requests`]: who needs approval waits for it

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::large_futures,
    reason = "all of this is test code: what is not there fails the test"
)]

mod freezing;
mod joiners;
mod links;
mod policy;
mod requests;
mod slow_mode;
mod succession;
mod uses;
