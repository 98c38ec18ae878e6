//! The rules, without any I/O.
//!
//! - [`access`]: who may do what
//! - [`link`]: what a request to link a device comes to
//! - [`refresh`]: what a presented refresh token stands for

pub mod access;
pub mod link;
pub mod refresh;
