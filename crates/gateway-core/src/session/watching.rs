//! This module checks the list of users in a WatchPresence. The gateway keeps the watches.

use tern_proto::v1::{WatchErrorCode, WatchResult, server_event};
use tern_types::{Timestamp, UserId};

use super::settings::Settings;
use super::{Effect, Session};
use crate::gcra::Gcra;

/// The most users that a device may watch, which is more than one screen shows.
pub const MAX_WATCHED: usize = 256;
/// The number of WatchPresence that a stream may send a second over a longer time, and at once. A person who scrolls
/// sends many.
const RATE: (u32, u32) = (1, 10);

/// Makes the limiter for the WatchPresence of one stream.
pub(super) fn rate() -> Gcra {
    Gcra::new(RATE.0, RATE.1)
}

impl Session {
    /// Replaces the set of users whom the device watches, or puts a WatchResult that says why that is refused.
    pub(super) fn watch_presence(&mut self, users: &[String], now: Timestamp) {
        if users.len() > MAX_WATCHED {
            let why = format!("user_ids: at most {MAX_WATCHED}");
            return self.not_watched(WatchErrorCode::Invalid, &why, 0, now);
        }
        let Ok(mut users) = users
            .iter()
            .map(|user| user.parse())
            .collect::<Result<Vec<UserId>, _>>()
        else {
            let message = "user_ids: must be UUIDs in their hyphenated form";
            return self.not_watched(WatchErrorCode::Invalid, message, 0, now);
        };
        if let Err(wait) = self.watching.take(now) {
            let message = "too many WatchPresence";
            return self.not_watched(WatchErrorCode::RateLimited, message, Settings::millis(wait), now);
        }
        users.sort_unstable();
        users.dedup();
        debug_assert!(users.len() <= MAX_WATCHED, "too many users are watched");
        self.effects.push(Effect::Watch(users));
    }

    fn not_watched(&mut self, error: WatchErrorCode, message: &str, retry_after_ms: u32, now: Timestamp) {
        let result = WatchResult {
            error: error.into(),
            message: message.to_owned(),
            limited_user_ids: Vec::new(),
            retry_after_ms,
        };
        self.put(server_event::Event::WatchResult(result), now);
    }
}
