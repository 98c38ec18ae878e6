//! The platform's basic types: ids, seqs, slots, time. This crate does no I/O and knows nothing of the wire.
//!
//! - [`id`]: users, devices, chats, sessions, requests
//! - [`seq`]: a place in a chat's log
//! - [`slot`]: the parts into which chats and users are hashed, each owned by one node
//! - [`Cells`]: the parts of the store
//! - [`time`]: milliseconds since the epoch, and the two clocks that they come from
//! - [`trace`]: a place in a distributed trace
//! - [`strangers`]: the limit on how many new strangers a person may reach in a day
//! - [`Notice`]: what a device tells the others of a chat and nobody stores
//! - [`typing`]: the limit on passing on that a person is typing
//! - [`limits`]: the largest sizes and counts that the platform accepts
//! - [`map`]: maps and sets whose keys are ids
//!
//! Numbers in comments ("rule 5") are those of `docs/delivery.md`.

#![warn(missing_docs)]

mod cell;
mod id;
pub mod limits;
mod map;
mod notice;
mod partition_hash;
mod seq;
pub mod slot;
pub mod strangers;
mod time;
mod trace;
pub mod typing;

pub use cell::{Cell, Cells};
pub use id::{ChatId, DeviceId, IdError, InviteId, MediaId, RequestId, SessionId, UploadId, UserId};
pub use map::{IdMap, IdSet};
pub use notice::{Notice, NoticeKind};
pub use seq::Seq;
pub use slot::{SLOTS, Slot};
pub use time::{Clock, Timestamp};
pub use trace::TraceContext;
