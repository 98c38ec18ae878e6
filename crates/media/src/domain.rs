//! The decisions of a media node, as pure functions: no clock, no store, no wire.
//!
//! - [`declared`]: what a client says that it will upload, cut into parts
//! - [`upload`]: the states of an upload, and whether what the object store has is what was declared
//! - [`lifetimes`]: when uploads and media end
//! - [`cdn`]: signed paths of a delivery network

pub mod cdn;
pub mod declared;
pub mod lifetimes;
pub mod upload;
