//! The rules of the role, without any I/O.
//!
//! - [`access`]: who may do what
//! - [`linking`]: what happens on a request to link a device
//! - [`privacy`]: whose presence somebody may see
//! - [`refresh`]: what a presented refresh token stands for

pub mod access;
pub mod linking;
pub mod privacy;
pub mod refresh;
