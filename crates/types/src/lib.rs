//! The words of the platform as types: ids, places in a log, slots, time. No I/O, nothing of the wire.
//!
//! - [`id`]: users, devices, chats, sessions, requests
//! - [`seq`]: a place in a chat's log
//! - [`slot`]: which node owns what
//! - [`time`]: milliseconds since the epoch, and the two clocks that they come from
//! - [`trace`]: a place in a distributed trace
//! - [`strangers`]: how many new ones a person meets a day
//! - [`typing`]: how often it is said that a person writes
//! - [`limits`]: what the platform accepts
//! - [`map`]: maps and sets by id

pub mod id;
pub mod limits;
pub mod map;
pub mod seq;
pub mod slot;
pub mod strangers;
pub mod time;
pub mod trace;
pub mod typing;

pub use id::{ChatId, DeviceId, IdError, MediaId, RequestId, SessionId, UploadId, UserId};
pub use map::{IdMap, IdSet};
pub use seq::Seq;
pub use slot::{SLOTS, Slot};
pub use time::{Clock, Timestamp};
pub use trace::TraceContext;
