//! How entries are announced by push notifications.

use bytes::Bytes;
use prost::Message as _;
use tern_proto::v1;
use tern_proto::v1::entry_content::Content;

use crate::entry::EntryKind;

/// How an entry is announced. The numbers are those of `tern.v1.PushHint`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PushHint {
    /// As entries of its kind are by themselves: a message is, and an entry of an own log is not. It is not stored.
    #[default]
    Usual,
    /// By a notification.
    Alert,
    /// Not at all, but the app is woken.
    Silent,
    /// Not at all.
    Nothing,
}

impl PushHint {
    /// Returns the number as it is stored; `None` for the hint that is not.
    pub fn stored(self) -> Option<i16> {
        match self {
            Self::Usual => None,
            Self::Alert => Some(1),
            Self::Silent => Some(2),
            Self::Nothing => Some(3),
        }
    }

    /// Returns the hint of an envelope of this kind. Messages alone have a choice. A hint that this version does not know
    /// counts as the usual one.
    pub fn of_envelope(kind: EntryKind, hint: i32) -> Self {
        if kind != EntryKind::Message {
            return Self::Usual;
        }
        match v1::PushHint::try_from(hint) {
            Ok(v1::PushHint::Silent) => Self::Silent,
            Ok(v1::PushHint::None) => Self::Nothing,
            Ok(v1::PushHint::Unspecified | v1::PushHint::Alert) | Err(_) => Self::Usual,
        }
    }

    /// Returns the hint of a change of this kind, whose content is an encoded `tern.v1.EntryContent`. Of an own log, what
    /// the person should see at once is announced: that a device was linked, which may not be theirs, and that somebody
    /// asks to join a group.
    pub(crate) fn of_change(kind: EntryKind, content: &Bytes) -> Self {
        if kind != EntryKind::Own {
            return Self::Usual;
        }
        let content = v1::EntryContent::decode(content.clone()).ok();
        match content.and_then(|content| content.content) {
            Some(Content::JoinRequested(_)) => Self::Alert,
            Some(Content::AccountChanged(changed)) if changed.change() == v1::AccountChange::DeviceLinked => {
                Self::Alert
            }
            _ => Self::Usual,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::encode;

    #[test]
    fn a_message_has_the_hint_of_its_envelope_and_nothing_else_has() {
        let cases = [
            (EntryKind::Message, v1::PushHint::Unspecified as i32, None),
            (EntryKind::Message, v1::PushHint::Alert as i32, None),
            (EntryKind::Message, v1::PushHint::Silent as i32, Some(2)),
            (EntryKind::Message, v1::PushHint::None as i32, Some(3)),
            (EntryKind::Message, 77, None),
            (EntryKind::Reaction, v1::PushHint::None as i32, None),
            (EntryKind::Edit, v1::PushHint::Silent as i32, None),
        ];
        for (kind, hint, stored) in cases {
            assert_eq!(
                PushHint::of_envelope(kind, hint).stored(),
                stored,
                "{kind:?} {hint}"
            );
        }
    }

    #[test]
    fn of_an_own_log_linked_devices_and_requests_to_join_are_announced() {
        let account = |change: v1::AccountChange| {
            encode(Content::AccountChanged(v1::AccountChanged {
                change: change.into(),
                subject_id: String::new(),
            }))
        };
        let asked = encode(Content::JoinRequested(v1::JoinRequested::default()));
        let settings = encode(Content::ChatSettingsChanged(v1::ChatSettingsChanged::default()));
        let cases = [
            (
                EntryKind::Own,
                account(v1::AccountChange::DeviceLinked),
                PushHint::Alert,
            ),
            (
                EntryKind::Own,
                account(v1::AccountChange::DeviceRevoked),
                PushHint::Usual,
            ),
            (
                EntryKind::Own,
                account(v1::AccountChange::Privacy),
                PushHint::Usual,
            ),
            (EntryKind::Own, asked.clone(), PushHint::Alert),
            (EntryKind::Own, settings, PushHint::Usual),
            (EntryKind::Own, Bytes::from_static(b"\xff"), PushHint::Usual),
            (EntryKind::ChatUpdated, asked, PushHint::Usual),
        ];
        for (kind, content, hint) in cases {
            assert_eq!(PushHint::of_change(kind, &content), hint, "{kind:?} {content:?}");
        }
    }
}
