//! The settings by which a user keeps one of their chats: muted, archived, pinned, marked as unread, with a draft, with
//! notifications of mentions only. The user's own log has them, and other people are not told.

use bytes::Bytes;
use tern_proto::v1;
use tern_types::{Seq, Timestamp};

/// The settings of one chat. The default is that of a chat whose settings were never changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// The time until which the chat is muted, by the wall clock; 0 if it is not muted.
    pub muted_until: Timestamp,
    /// True if the chat is in the archive.
    pub archived: bool,
    /// The time at which the chat was pinned, by the wall clock; 0 if it is not pinned.
    pub pinned_at: Timestamp,
    /// True if the chat is to be shown as unread.
    pub marked_unread: bool,
    /// The text that the person has begun to write, as the app encodes it; empty if there is none.
    pub draft: Bytes,
    /// True if only messages that mention the user are announced.
    pub mentions_only: bool,
}

/// The settings that a caller wants to change. `None` leaves a setting as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The time until which the chat is muted, by the wall clock; 0 ends that it is muted.
    pub muted_until: Option<Timestamp>,
    /// True puts the chat into the archive.
    pub archived: Option<bool>,
    /// True pins the chat. A chat that is pinned already keeps its time.
    pub pinned: Option<bool>,
    /// True marks the chat as unread.
    pub marked_unread: Option<bool>,
    /// The new draft; empty for none.
    pub draft: Option<Bytes>,
    /// True has only messages announced that mention the user.
    pub mentions_only: Option<bool>,
}

impl Settings {
    /// Returns the settings as they are after the change, which is made at the time `now` by the wall clock.
    pub fn with(&self, wanted: &Wanted, now: Timestamp) -> Self {
        let pinned_at = match wanted.pinned {
            Some(true) if self.pinned_at > Timestamp(0) => self.pinned_at,
            Some(true) => now.max(Timestamp(1)),
            Some(false) => Timestamp(0),
            None => self.pinned_at,
        };
        Self {
            muted_until: wanted.muted_until.unwrap_or(self.muted_until),
            archived: wanted.archived.unwrap_or(self.archived),
            pinned_at,
            marked_unread: wanted.marked_unread.unwrap_or(self.marked_unread),
            draft: wanted.draft.clone().unwrap_or_else(|| self.draft.clone()),
            mentions_only: wanted.mentions_only.unwrap_or(self.mentions_only),
        }
    }

    /// Returns whether the chat is pinned.
    pub fn is_pinned(&self) -> bool {
        self.pinned_at > Timestamp(0)
    }

    /// Converts the settings to the public API.
    pub fn to_wire(&self) -> v1::ChatSettings {
        v1::ChatSettings {
            muted_until_ms: self.muted_until.0,
            archived: self.archived,
            pinned_at_ms: self.pinned_at.0,
            marked_unread: self.marked_unread,
            draft: self.draft.clone(),
            mentions_only: self.mentions_only,
        }
    }
}

/// The settings of one chat as the store keeps them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// The settings as they were when they were last changed.
    pub settings: Settings,
    /// The user's read mark in the chat when it was marked as unread.
    pub marked_at: Seq,
    /// The seq in the own log of the entry that changed them last; 0 if none has.
    pub seq: Seq,
}

impl Kept {
    /// Returns the settings as they are while the user's read mark in the chat is `read`. A chat is no longer marked as
    /// unread once the read mark has risen.
    pub fn shown(&self, read: Seq) -> Settings {
        Settings {
            marked_unread: self.settings.marked_unread && read <= self.marked_at,
            ..self.settings.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_leaves_the_other_settings_as_they_are() {
        let before = Settings {
            muted_until: Timestamp(9),
            pinned_at: Timestamp(5),
            draft: Bytes::from_static(b"hel"),
            ..Settings::default()
        };
        let wanted = Wanted::default;
        let cases = [
            (wanted(), before.clone()),
            (
                Wanted {
                    muted_until: Some(Timestamp(0)),
                    archived: Some(true),
                    mentions_only: Some(true),
                    ..wanted()
                },
                Settings {
                    muted_until: Timestamp(0),
                    archived: true,
                    mentions_only: true,
                    ..before.clone()
                },
            ),
            (
                Wanted {
                    pinned: Some(true),
                    ..wanted()
                },
                before.clone(),
            ),
            (
                Wanted {
                    pinned: Some(false),
                    marked_unread: Some(true),
                    draft: Some(Bytes::new()),
                    ..wanted()
                },
                Settings {
                    pinned_at: Timestamp(0),
                    marked_unread: true,
                    draft: Bytes::new(),
                    ..before.clone()
                },
            ),
        ];
        for (wanted, after) in cases {
            assert_eq!(before.with(&wanted, Timestamp(70)), after, "{wanted:?}");
        }
        let pinned = Wanted {
            pinned: Some(true),
            ..wanted()
        };
        for (now, at) in [(70, 70), (0, 1), (-3, 1)] {
            let after = Settings::default().with(&pinned, Timestamp(now));
            assert_eq!((after.pinned_at, after.is_pinned()), (Timestamp(at), true));
        }
    }

    #[test]
    fn a_chat_is_marked_as_unread_until_its_read_mark_rises() {
        let kept = |marked_unread| Kept {
            settings: Settings {
                marked_unread,
                ..Settings::default()
            },
            marked_at: Seq(7),
            seq: Seq(1),
        };
        for (marked, read, shown) in [
            (true, 6, true),
            (true, 7, true),
            (true, 8, false),
            (false, 7, false),
        ] {
            assert_eq!(
                kept(marked).shown(Seq(read)).marked_unread,
                shown,
                "{marked} at {read}"
            );
        }
    }
}
