//! The decisions about push notifications, as pure functions: whether one is sent, when, and what happens after one
//! that failed.
//!
//! - [`facts`]: what a worker found out about a push that is due
//! - [`decide()`]: decides by that whether it is sent, waits or ends
//! - [`quiet`]: the hours in which a person wants no notifications
//! - [`backoff()`], [`Breaker`]: when a push that failed is tried again, and when a provider is left alone
//! - [`Tag`]: the name of a chat for a device
//!
//! Time and chance come in as arguments.

#![warn(missing_docs)]

mod backoff;
mod breaker;
mod decide;
pub mod facts;
pub mod quiet;
mod tag;

pub use backoff::{LONGEST_WAIT, asked, away, backoff};
pub use breaker::Breaker;
pub use decide::{
    Class, Decision, Hold, LIVE_PATIENCE, MAX_PUSHES_A_MINUTE, POINTLESS_AFTER, Send, Why, decide, is_old,
    unreachable,
};
pub use tag::Tag;
