//! Bad input gets a clear typed error. No node panics, hangs or dies of it.
//!
//! - [`stream`]: streams that break the protocol
//! - [`sends`]: sends that cannot be accepted
//! - [`calls`]: calls whose bytes are no request, ids that do not exist, metadata that claims another identity
//! - [`fields`]: every field of every request and of every item of a stream, with each value that it should not hold.
//!   The requests come from the [`descriptors`], so that additions to the protos are tested too. [`hostile`] has the
//!   values, [`cast`] the requests that they are put into.

#![allow(
    clippy::expect_used,
    reason = "all of this is test code: what is not there fails the test"
)]

mod calls;
mod cast;
mod descriptors;
mod fields;
mod hostile;
mod sends;
mod stream;

const SQL: &str = "'; DROP TABLE messages; --";
