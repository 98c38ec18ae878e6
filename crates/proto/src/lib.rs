//! The code generated from `proto/`, and conversions between it and [`tern_types`].
//!
//! - [`v1`]: the public API; [`internal`]: the calls between nodes
//! - [`raw`]: public messages in which parts stay encoded, because they are passed on unparsed
//! - [`notice`]: converts the notices of devices, such as typing
//! - [`parse`]: reads ids and texts from the wire, with the field's name in the error
//! - [`codec`]: the codec of the generated services
//! - [`error`]: the error of every API, and its gRPC status with `google.rpc.ErrorInfo`

/// The generated code of `tern.v1`, the public API.
#[allow(clippy::all, clippy::pedantic, missing_docs)]
pub mod v1 {
    tonic::include_proto!("tern.v1");
}

/// The generated code of `tern.internal.v1`, the calls between nodes.
#[allow(clippy::all, clippy::pedantic, missing_docs)]
pub mod internal {
    /// Generated code of `tern.internal.v1` looks for `tern.v1` next to this module.
    pub mod v1 {
        tonic::include_proto!("tern.internal.v1");
    }
    pub use v1::*;
}

mod codec;
pub mod error;
pub mod notice;
pub mod parse;
pub mod raw;

/// The descriptors of all proto files, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The paths of all methods that stream in either direction, such as `/tern.v1.Messaging/Stream`.
pub const STREAMING: &[&str] = include!(concat!(env!("OUT_DIR"), "/streaming.rs"));

pub use error::ApiError;
pub use tonic::{Code, Status};
