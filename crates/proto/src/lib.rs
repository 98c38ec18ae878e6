//! Generated code of `proto/`, and what goes between it and [`tern_types`].
//!
//! - [`v1`]: the public API; [`internal`]: between nodes
//! - [`raw`]: the parts of it that are passed on unparsed
//! - [`parse`]: ids from the wire, with the field's name in the error
//! - [`codec`]: what the generated services decode with
//! - [`error`]: gRPC statuses with `google.rpc.ErrorInfo`

#[allow(clippy::all, clippy::pedantic, missing_docs)]
pub mod v1 {
    tonic::include_proto!("tern.v1");
}

#[allow(clippy::all, clippy::pedantic, missing_docs)]
pub mod internal {
    /// Where generated code looks for `tern.v1` from here.
    pub mod v1 {
        tonic::include_proto!("tern.internal.v1");
    }
    pub use v1::*;
}

pub mod codec;
pub mod error;
pub mod parse;
pub mod raw;

/// Descriptors of every proto file, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Paths of the methods that are streams, either way.
pub const STREAMING: &[&str] = include!(concat!(env!("OUT_DIR"), "/streaming.rs"));

pub use error::ApiError;
