//! The rules, without any I/O.
//!
//! - [`access`]: who may do what
//! - [`link`]: what a request to link a device comes to
//! - [`privacy`]: whose presence somebody may see
//! - [`refresh`]: what a presented refresh token stands for

pub mod access;
pub mod link;
pub mod privacy;
pub mod refresh;
