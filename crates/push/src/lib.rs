//! The push role: it wakes devices that have no stream, through the push services of Apple, Google and browsers.
//!
//! - [`provider`]: what a push is, and what may become of it
//! - [`providers`]: sends pushes to the providers, and by a relay
//! - [`apps`]: for which apps, and with which keys
//! - [`seal`]: seals notifications to a device's key
//! - [`relay`]: `tern push relay`, which forwards pushes of other platforms

#![warn(missing_docs)]

pub mod apps;
pub mod provider;
pub mod providers;
pub mod relay;
mod seal;
