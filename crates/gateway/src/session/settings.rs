//! What a session is held to. Constants are the platform's; the rest an operator may change.

use std::time::Duration;

use tern_proto::v1;
use tern_types::limits::{
    CATCH_UP_WINDOW, MAX_BODY_BYTES, MAX_FRAME_BYTES, MAX_FRAME_ITEMS, MAX_GROUP_MEMBERS, MAX_SENDS_IN_FLIGHT,
};

/// Chats that a session remembers: more than a person writes in during one connection, and some 100 KiB at worst.
/// Forgetting a chat costs one repeated delivery; a chat with an inbox row is never forgotten.
pub const MAX_CHATS: usize = 512;
/// Entries asked for at once: a quarter of the window, so that several chats can be read ahead of the device.
pub const WINDOW_STEP: u32 = CATCH_UP_WINDOW / 4;
/// Entries asked for at once while they turn out large.
pub const MIN_WINDOW_STEP: u32 = 4;
/// Chats read at the same time. Hides the way to the chat node without holding many windows in memory.
pub const MAX_READING: usize = 4;
/// A window of more bytes than this makes the next one smaller: it would only wait here for the device.
pub const LARGE_WINDOW_BYTES: usize = 1 << 20;
/// With this much not yet taken by the transport no window is asked for: memory here is the operator's, not the
/// slow device's.
pub const READ_BELOW_BYTES: usize = 64 << 10;
/// With this much not yet taken by the transport live pushes are dropped: the inbox has them.
pub const LIVE_BELOW_BYTES: usize = 1 << 20;
/// The last acknowledgement of a chat is sent again to a new owner when it is younger than this. What is older was
/// settled long ago.
pub const RESEND_WITHIN: Duration = Duration::from_secs(30);
/// Doublings of `ack_timeout` for a device that does not acknowledge: up to about 80 s with the default.
pub const MAX_BACK_OFF: u32 = 4;
/// A read or window that failed is tried again after this, doubling up to `RETRY_MAX`: nobody waits for longer than that
/// when what was away is back, and the reader shares questions, so many who ask cost it little.
pub const RETRY: Duration = Duration::from_millis(250);
pub const RETRY_MAX: Duration = Duration::from_secs(1);
/// At least this much lies between two readings of the inbox: dropped pushes come in bursts.
pub const INBOX_PAUSE: Duration = Duration::from_millis(250);
/// Between two CaughtUp for receipts that were lost: each has a device ask for the receipts of some chats.
pub const CAUGHT_UP_PAUSE: Duration = Duration::from_secs(10);
/// A stream lives on for this long after its token's end.
pub const TOKEN_GRACE: Duration = Duration::from_secs(60);
/// Heartbeat intervals without a sign of life that end a stream.
pub const MISSED_HEARTBEATS: u32 = 3;
/// The server speaks unasked when it was silent for an interval and this much: by then the answer to the client's own
/// heartbeat would have been its word.
pub const SPEAK_AFTER: Duration = Duration::from_secs(10);
/// After the client closed its side, its sends may take this long to be answered.
pub const LEAVE_WITHIN: Duration = Duration::from_secs(5);
/// Characters of an unusable request_id that are given back.
pub const MAX_ECHO: usize = 64;

/// Settings of every session of a gateway.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// For the client to send Open, and for the server to answer it.
    pub open_timeout: Duration,
    /// The inbox is read after this also when presence does not answer.
    pub announce_patience: Duration,
    pub heartbeat_background: Duration,
    pub heartbeat_active: Duration,
    /// TokenExpiring comes this long before the end.
    pub token_warning: Duration,
    pub sends_per_second: u32,
    pub send_burst: u32,
    /// What was sent and not acknowledged is sent again after this.
    pub ack_timeout: Duration,
    pub window: u32,
    /// A row that the sweep finds counts as a defect from this age on.
    pub sweep_grace: Duration,
    /// A person counts as online for this long after each sign.
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
    pub fn heartbeat(&self, active: bool) -> Duration {
        if active {
            self.heartbeat_active
        } else {
            self.heartbeat_background
        }
    }

    /// Items of any kind a second: an order above the sends, so that acknowledgements never meet it.
    pub fn items_per_second(&self) -> u32 {
        self.sends_per_second.saturating_mul(50).max(1000)
    }

    /// How often a client says that the person is still there: a sign may be late, or lost with a connection.
    pub fn activity_interval(&self) -> Duration {
        self.online_threshold / 2
    }

    /// How often presence is told so. A little below the interval, which clients keep to within a second or so.
    pub fn sign_every(&self) -> Duration {
        self.online_threshold / 3
    }

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

    /// Milliseconds, as the protos carry durations.
    pub fn millis(duration: Duration) -> u32 {
        u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
    }
}
