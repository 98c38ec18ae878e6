//! The rules of the role, without any I/O.
//!
//! - [`access`]: who may do what
//! - [`linking`]: what happens on a request to link a device
//! - [`notifications`]: which settings of notifications a user may have
//! - [`privacy`]: whose presence somebody may see
//! - [`push_tokens`]: whether a device's push token is well formed
//! - [`refresh`]: what a presented refresh token stands for

pub mod access;
pub mod linking;
pub mod notifications;
pub mod privacy;
pub mod push_tokens;
pub mod refresh;
