//! Identifies the caller of a call, and says what the caller may do.
//!
//! - [`principal`]: the caller, which is a device of a user or a back end with an API key
//! - [`token`]: access tokens, by which devices prove who they are
//! - [`ticket`]: tickets, which give the right to attach media to a message
//!
//! This crate knows nothing of nodes, of the store or of the network.

#![warn(missing_docs)]

pub mod principal;
pub mod ticket;
pub mod token;
