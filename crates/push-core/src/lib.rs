//! What is decided about push notifications, as pure functions: whether one is sent, when, and what happens after one
//! that failed.

#![warn(missing_docs)]

mod tag;

pub use tag::Tag;
