//! The bounds and times of a session. Constants are the platform's; an operator may change [`Settings`].

use std::time::Duration;

use tern_proto::v1;
use tern_types::limits::{
    CATCH_UP_WINDOW, MAX_BODY_BYTES, MAX_FRAME_BYTES, MAX_FRAME_ITEMS, MAX_GROUP_MEMBERS, MAX_SENDS_IN_FLIGHT,
};

/// Chats that a session remembers: more than a person writes in during one connection, and some 100 KiB at most.
/// Forgetting a chat costs one repeated delivery; a chat with an inbox row is never forgotten.
pub const MAX_CHATS: usize = 512;
/// Entries of one window: a quarter of the catch-up window, so that several chats can be read ahead of the device.
pub const WINDOW_STEP: u32 = CATCH_UP_WINDOW / 4;
/// The fewest entries of one window, while windows turn out large.
pub const MIN_WINDOW_STEP: u32 = 4;
/// Chats that are read at the same time. Several hide the round trip to the chat node; few hold few windows in
/// memory.
pub const MAX_READING: usize = 4;
/// A window of this many bytes or more makes the next one smaller: it would only wait here for the device.
pub const LARGE_WINDOW_BYTES: usize = 1 << 20;
/// Bytes put and not yet taken by the transport from which on no window is asked for: memory here is the operator's,
/// not the slow device's.
pub const READ_BELOW_BYTES: usize = 64 << 10;
/// Bytes put and not yet taken by the transport from which on live pushes are dropped: the device gets them from its
/// inbox.
pub const LIVE_BELOW_BYTES: usize = 1 << 20;
/// An acknowledgement or read mark younger than this is sent again when its chat gets a new owner. The settle of an
/// older one ran long ago.
pub const RESEND_WITHIN: Duration = Duration::from_secs(30);
/// How often `ack_timeout` is doubled at most for a device that does not acknowledge: up to about 80 s with the
/// default.
pub const MAX_BACK_OFF: u32 = 4;
/// The pause before a failed read of the inbox or of a window is repeated. It doubles up to `RETRY_MAX`, so that a
/// device waits no longer than that once the chat node is back. Repeats are cheap: the inbox reader asks for many
/// devices at once.
pub const RETRY: Duration = Duration::from_millis(250);
pub const RETRY_MAX: Duration = Duration::from_secs(1);
/// The least time between two readings of the inbox: pushes are dropped in bursts.
pub const INBOX_PAUSE: Duration = Duration::from_millis(250);
/// The least time between two CaughtUp for lost receipts: each makes a device ask for the receipts of some chats.
pub const CAUGHT_UP_PAUSE: Duration = Duration::from_secs(10);
/// How long a stream goes on after its token has expired.
pub const TOKEN_GRACE: Duration = Duration::from_secs(60);
/// A stream ends after this many heartbeat intervals without a frame of the client.
pub const MISSED_HEARTBEATS: u32 = 3;
/// The server sends a heartbeat of its own once it was silent for a heartbeat interval and this time more. A client
/// that sends its heartbeats has had an answer before that.
pub const SPEAK_AFTER: Duration = Duration::from_secs(10);
/// How long the sends of a client that closed its side may take to be answered.
pub const LEAVE_WITHIN: Duration = Duration::from_secs(5);
/// How many characters of an unusable request_id its refusal repeats.
pub const MAX_ECHO: usize = 64;

/// Settings of every session of a gateway.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// The time that the client has to send Open, and then the server to answer it.
    pub open_timeout: Duration,
    /// The inbox is read after this time even where presence has not taken the announcement.
    pub announce_patience: Duration,
    /// The heartbeat interval of a device that is not active.
    pub heartbeat_background: Duration,
    /// The heartbeat interval of an active device.
    pub heartbeat_active: Duration,
    /// TokenExpiring is sent this long before the token expires.
    pub token_warning: Duration,
    /// Sends that a stream may make a second, over a longer time.
    pub sends_per_second: u32,
    /// Sends that a stream may make at once.
    pub send_burst: u32,
    /// Entries that were sent and not acknowledged are sent again after this time.
    pub ack_timeout: Duration,
    /// Entries that are sent ahead of the device's acknowledgements while it catches up.
    pub window: u32,
    /// A row that only the sweep finds counts as a defect once it is this old.
    pub sweep_grace: Duration,
    /// How long a user counts as online after each sign of activity.
    pub online_threshold: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            open_timeout: Duration::from_secs(10),
            announce_patience: Duration::from_secs(2),
            heartbeat_background: Duration::from_secs(180),
            heartbeat_active: Duration::from_secs(45),
            token_warning: Duration::from_secs(300),
            sends_per_second: 20,
            send_burst: 200,
            ack_timeout: Duration::from_secs(5),
            window: CATCH_UP_WINDOW,
            sweep_grace: Duration::from_secs(10),
            online_threshold: Duration::from_secs(30),
        }
    }
}

impl Settings {
    /// The interval at which the client is to send heartbeats.
    pub fn heartbeat(&self, active: bool) -> Duration {
        if active {
            self.heartbeat_active
        } else {
            self.heartbeat_background
        }
    }

    /// Items of any kind that a stream may send a second: fifty for each send and at least 1000, so that
    /// acknowledgements never meet the limit.
    pub fn items_per_second(&self) -> u32 {
        self.sends_per_second.saturating_mul(50).max(1000)
    }

    /// How often the client of an active device says that its user is still there: twice in the threshold, since a
    /// sign may come late or be lost with a connection.
    pub fn activity_interval(&self) -> Duration {
        self.online_threshold / 2
    }

    /// How often presence is told of the activity of a user: a little below the interval, which clients keep to
    /// within a second or so.
    pub fn sign_every(&self) -> Duration {
        self.online_threshold / 3
    }

    /// The limits that Opened tells the client.
    pub fn limits(&self) -> v1::Limits {
        v1::Limits {
            max_body_bytes: MAX_BODY_BYTES as u32,
            max_frame_bytes: MAX_FRAME_BYTES as u32,
            max_frame_items: MAX_FRAME_ITEMS as u32,
            max_sends_in_flight: MAX_SENDS_IN_FLIGHT as u32,
            sends_per_second: self.sends_per_second,
            max_group_members: MAX_GROUP_MEMBERS as u32,
        }
    }

    /// The duration in whole milliseconds, as the protos carry it; `u32::MAX` for a longer one.
    pub fn millis(duration: Duration) -> u32 {
        u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
    }
}
