//! The time after which a message disappears. The owner puts it into the content when the entry gets its seq, so that
//! all devices and the store go by the same time.

use std::sync::Arc;

use tern_proto::raw;
use tern_types::Timestamp;

use super::Chat;
use crate::entry::{EntryKind, NewEntry};

impl Chat {
    /// Returns the entry with the time after which it disappears, and the same entry if it stays. `wall` is the wall
    /// clock's time, and the entry's own time is not before that of the newest entry.
    ///
    /// A message has the shorter time of the chat's and its sender's. An edit stands in the place of its message, so it
    /// has the time that is left of the message's. What an edit itself asks for has no effect, and neither has a
    /// setting that the chat got after the message was sent.
    pub(super) fn with_expiry(&self, entry: &Arc<NewEntry>, wall: Timestamp) -> Arc<NewEntry> {
        let expires_after_s = if entry.kind == EntryKind::Message {
            self.group.retention.expires_after(entry.expires_after_s)
        } else if entry.kind == EntryKind::Edit {
            self.left_of_target(entry, wall.max(self.last_sent_at))
        } else {
            0
        };
        if expires_after_s == 0 {
            return entry.clone();
        }
        Arc::new(NewEntry {
            content: raw::with_expiry(&entry.content, expires_after_s),
            expires_after_s,
            ..NewEntry::clone(entry)
        })
    }

    /// Returns the whole seconds after `sent_at` for which the entry's target is still there, at least 1, and 0 if the
    /// target stays.
    fn left_of_target(&self, entry: &NewEntry, sent_at: Timestamp) -> u32 {
        let target = entry.about.as_ref().and_then(|about| self.target(about.target));
        let expires_at = target.and_then(|target| target.expires_at());
        expires_at.map_or(0, |at| {
            u32::try_from(at.since(sent_at).as_secs())
                .unwrap_or(u32::MAX)
                .max(1)
        })
    }
}
