//! The platform's basic types: ids, seqs, slots, time. This crate does no I/O and knows nothing of the wire.
//!
//! - [`id`]: users, devices, chats, sessions, requests
//! - [`seq`]: a place in a chat's log
//! - [`slot`]: which node owns what
//! - [`time`]: milliseconds since the epoch, and the two clocks that they come from
//! - [`trace`]: a place in a distributed trace
//! - [`strangers`]: how many new strangers a person may reach in a day
//! - [`typing`]: how often it is passed on that a person is typing
//! - [`limits`]: the largest sizes and counts that the platform accepts
//! - [`map`]: maps and sets whose keys are ids

mod id;
pub mod limits;
mod map;
mod seq;
pub mod slot;
pub mod strangers;
mod time;
mod trace;
pub mod typing;

pub use id::{ChatId, DeviceId, IdError, MediaId, RequestId, SessionId, UploadId, UserId};
pub use map::{IdMap, IdSet};
pub use seq::Seq;
pub use slot::{SLOTS, Slot};
pub use time::{Clock, Timestamp};
pub use trace::TraceContext;
