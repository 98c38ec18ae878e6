//! The push role: it wakes devices that have no stream, through the push services of Apple, Google and browsers.
//!
//! - [`provider`]: what a push is, and what may become of it

#![warn(missing_docs)]

pub mod provider;
