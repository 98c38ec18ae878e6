//! Who a call is from, and what they may do.
//!
//! - [`principal`]: the caller of a call: a device of a user, or a back end with an API key
//! - [`token`]: how devices prove who they are
//! - [`ticket`]: the right to attach media to a message
//!
//! This crate knows nothing of nodes, of the store or of the network.

pub mod principal;
pub mod ticket;
pub mod token;
