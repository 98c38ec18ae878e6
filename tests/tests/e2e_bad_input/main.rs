//! Bad input gets a clear typed error: never a panic, a hang, or a node that is gone.
//!
//! - [`stream`]: streams that break the protocol
//! - [`sends`]: sends that cannot be taken
//! - [`calls`]: calls whose bytes are no request, ids of nothing, metadata that says what is not so
//! - [`fields`]: every field of every request and every item of a stream, with everything that it should not hold:
//!   the requests come from the [`descriptors`], so that what is added to the protos is tested too. [`hostile`] has the
//!   values, [`cast`] the requests that they go into

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
