//! The decisions of a media node, as pure functions: no clock, no store, no wire.
//!
//! - [`declared`]: what a client declares that it will upload, and the parts of it
//! - [`upload`]: the states of an upload, and the check of an object against its declaration
//! - [`lifetimes`]: the times after which uploads and media end
//! - [`cdn`]: signs paths for a delivery network

pub mod cdn;
pub mod declared;
pub mod lifetimes;
pub mod upload;
