//! The bounds and times of a session. The constants are the same everywhere. An operator may change most of
//! [`Settings`] by the gateway's flags.

use std::time::Duration;

use tern_proto::v1;
use tern_types::limits::{
    CATCH_UP_WINDOW, MAX_ACTS_PER_PERSON, MAX_BODY_BYTES, MAX_FRAME_BYTES, MAX_FRAME_ITEMS,
    MAX_GROUP_MEMBERS, MAX_REACTION_BYTES, MAX_SENDS_IN_FLIGHT,
};

use super::Inbox;

/// The most chats that a session remembers: more than a person writes in during one connection. They take
/// some 300 KiB. Forgetting a chat costs one repeated delivery; a chat with an inbox row is never forgotten.
pub const MAX_CHATS: usize = 512;
/// The most entries of one window: a quarter of the catch-up window, so that several chats can be read ahead of the
/// device.
pub(crate) const WINDOW_STEP: u32 = CATCH_UP_WINDOW / 4;
/// The least number of entries for which a window is asked while windows turn out to be large. If
/// [`Settings::window`] is lower, no more than that are asked for.
pub(crate) const MIN_WINDOW_STEP: u32 = 4;
/// The most chats that are read at the same time. Several hide the round trip to the chat node, and few hold few
/// windows in memory.
pub(crate) const MAX_READING: usize = 4;
/// The size of a window, in bytes, from which on the next one is made smaller: it would only wait here for the device.
pub(crate) const LARGE_WINDOW_BYTES: usize = 1 << 20;
/// The number of bytes put and not yet taken by the transport from which on no window is asked for, so that a slow
/// device does not fill the gateway's memory.
pub(crate) const READ_BELOW_BYTES: usize = 64 << 10;
/// The number of bytes put and not yet taken by the transport from which on live pushes are dropped. The device gets
/// their entries from its inbox.
pub(crate) const LIVE_BELOW_BYTES: usize = 1 << 20;
/// The age up to which an acknowledgement or a read mark is sent again when its chat gets a new owner. The chat was
/// settled long ago for an older one.
pub(crate) const RESEND_WITHIN: Duration = Duration::from_secs(30);
/// The most times that `ack_timeout` is doubled for a device that does not acknowledge. With the default of 5 s it
/// grows to 80 s.
pub(crate) const MAX_BACK_OFF: u32 = 4;
/// The time after which a client is told to send a message again whose result has not come, for a device at the next
/// multiple of [`LATE_TOGETHER`]. A client is answered within 5 s, and the rest of that is for the way to it. A chat's
/// owner gives up a little earlier, so this is for an answer that is late on its way, or for a message that waits for
/// its owner.
pub const ANSWER_WITHIN: Duration = Duration::from_millis(4_500);
/// The interval at whose multiples devices are told so. Each send sets a timer, so that the timers of a busy gateway's
/// sessions wake it together.
pub(crate) const LATE_TOGETHER: Duration = Duration::from_millis(250);
/// The pause before a failed read of the inbox or of a window is repeated. It doubles up to [`RETRY_MAX`], so that a
/// device waits no longer than that once the chat node is back. Repeats are cheap: the inbox reader asks for many
/// devices at once.
pub const RETRY: Duration = Duration::from_millis(250);
/// The longest pause before a failed read is repeated.
pub(crate) const RETRY_MAX: Duration = Duration::from_secs(1);
/// The least time between two readings of the inbox. Pushes are dropped in bursts, and one reading serves a burst.
pub(crate) const INBOX_PAUSE: Duration = Duration::from_millis(250);
/// The time from the first reading of an inbox to the second one, if presence has not taken the session. It is longer
/// than a presence node takes to notice that this gateway is out of its reach. Until then it may say for sure that the
/// device is offline, so that nobody is woken for a row that is written after the first reading. From then on settles
/// find the session by asking this gateway.
pub(crate) const SECOND_READING_AFTER: Duration = Duration::from_secs(5);
/// The shortest pause before an inbox of which a part could not be read is read again. It doubles twice, because each
/// reading costs the parts of the store that answer as much as the first one.
pub(crate) const PARTIAL_PAUSE: Duration = Duration::from_secs(5);
/// The least time between two CaughtUp that are sent because receipts were lost: each makes a device ask for the
/// receipts of some chats.
pub(crate) const CAUGHT_UP_PAUSE: Duration = Duration::from_secs(10);
/// The time for which a stream goes on after its token has expired.
pub(crate) const TOKEN_GRACE: Duration = Duration::from_secs(60);
/// The number of heartbeat intervals without a frame of the client after which a stream ends.
pub(crate) const MISSED_HEARTBEATS: u32 = 3;
/// The time beyond a heartbeat interval after which a silent server sends a heartbeat of its own. A client that sends
/// its heartbeats in time gets an answer before that.
pub(crate) const SPEAK_AFTER: Duration = Duration::from_secs(10);
/// The time within which the sends of a client that closed its side are to be answered. Then the stream ends.
pub(crate) const LEAVE_WITHIN: Duration = Duration::from_secs(5);
/// The number of characters of a refused send's request_id that the refusal repeats: a UUID fits, garbage is cut.
pub(crate) const MAX_ECHO: usize = 64;

/// The settings of every session of a gateway.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// The time within which the client has to send Open. The server has as long again to answer with Opened.
    pub open_timeout: Duration,
    /// The time after Open at which the inbox is read even if presence has not taken the announcement.
    pub announce_patience: Duration,
    /// The heartbeat interval of a device that is not active.
    pub heartbeat_background: Duration,
    /// The heartbeat interval of an active device.
    pub heartbeat_active: Duration,
    /// The time before the end of a token at which TokenExpiring is sent.
    pub token_warning: Duration,
    /// The number of sends a second that a stream may make over a longer time.
    pub sends_per_second: u32,
    /// The number of sends that a stream may make at once.
    pub send_burst: u32,
    /// The time after which entries that were sent and not acknowledged are sent again.
    pub ack_timeout: Duration,
    /// The most entries that are sent ahead of the device's acknowledgements while it catches up, over all chats.
    pub window: u32,
    /// The age from which on an inbox row that only the sweep finds counts as a defect.
    pub sweep_grace: Duration,
    /// The time for which a user counts as online after each sign of activity.
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
    /// Returns the interval at which the client is to send heartbeats. It is shorter for an active device.
    pub fn heartbeat(&self, active: bool) -> Duration {
        if active {
            self.heartbeat_active
        } else {
            self.heartbeat_background
        }
    }

    /// Returns the number of items of any kind that a stream may send a second: fifty for each send and at least 1000,
    /// so that acknowledgements never meet the limit.
    pub(crate) fn items_per_second(&self) -> u32 {
        self.sends_per_second.saturating_mul(50).max(1000)
    }

    /// Returns the interval at which the client of an active device says that its user is still there: half the
    /// threshold, since a sign may come late or be lost with a connection.
    pub fn activity_interval(&self) -> Duration {
        self.online_threshold / 2
    }

    /// Returns the least time between two signs of a user's activity that presence is told: a little less than
    /// [`Self::activity_interval`], since clients keep that one to within a second or so.
    pub(crate) fn sign_every(&self) -> Duration {
        self.online_threshold / 3
    }

    /// Returns the limits that Opened tells the client. Those of the chat nodes came with the device's inbox.
    pub fn limits(&self, inbox: &Inbox) -> v1::Limits {
        v1::Limits {
            max_body_bytes: MAX_BODY_BYTES as u32,
            max_frame_bytes: MAX_FRAME_BYTES as u32,
            max_frame_items: MAX_FRAME_ITEMS as u32,
            max_sends_in_flight: MAX_SENDS_IN_FLIGHT as u32,
            sends_per_second: self.sends_per_second,
            max_group_members: MAX_GROUP_MEMBERS as u32,
            acts: Some(v1::ActLimits {
                edit_window_s: inbox.edit_window_s,
                delete_window_s: inbox.delete_window_s,
                max_reaction_bytes: MAX_REACTION_BYTES as u32,
                max_acts_per_person: MAX_ACTS_PER_PERSON,
            }),
        }
    }

    /// Returns the duration in whole milliseconds, rounded down, as the protos carry it. A longer one becomes
    /// `u32::MAX`.
    pub fn millis(duration: Duration) -> u32 {
        u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
    }
}
