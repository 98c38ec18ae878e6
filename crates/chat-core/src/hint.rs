//! How entries are announced by push notifications.

use bytes::Bytes;
use prost::Message as _;
use tern_proto::v1;
use tern_proto::v1::entry_content::Content;

/// How an entry is announced. The numbers are those of `tern.v1.PushHint`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PushHint {
    /// The kind of the entry decides: a message is announced, and an entry of an own log is not. This hint is not stored.
    #[default]
    Usual,
    /// The device shows a notification.
    Alert,
    /// The device shows nothing, but the app is woken.
    Silent,
    /// No push is sent.
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

    /// Returns the hint of a message whose envelope has this number. A hint that this version does not know counts as the
    /// usual one.
    pub fn of_envelope(hint: i32) -> Self {
        match v1::PushHint::try_from(hint) {
            Ok(v1::PushHint::Silent) => Self::Silent,
            Ok(v1::PushHint::None) => Self::Nothing,
            Ok(v1::PushHint::Unspecified | v1::PushHint::Alert) | Err(_) => Self::Usual,
        }
    }

    /// Returns the hint of an entry of an own log with this content, an encoded `tern.v1.EntryContent`. What the person
    /// should see at once is announced: that a device was linked, which may not be theirs, and that somebody asks to join
    /// a group.
    pub(crate) fn of_own(content: &Bytes) -> Self {
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

    #[test]
    fn a_message_has_the_hint_of_its_envelope() {
        let cases = [
            (v1::PushHint::Unspecified as i32, None),
            (v1::PushHint::Alert as i32, None),
            (v1::PushHint::Silent as i32, Some(2)),
            (v1::PushHint::None as i32, Some(3)),
            (77, None),
        ];
        for (hint, stored) in cases {
            assert_eq!(PushHint::of_envelope(hint).stored(), stored, "{hint}");
        }
    }

    #[test]
    fn of_an_own_log_linked_devices_and_requests_to_join_are_announced() {
        let encode = |content| {
            let content = v1::EntryContent {
                content: Some(content),
                ..v1::EntryContent::default()
            };
            content.encoded()
        };
        let account = |change: v1::AccountChange| {
            encode(Content::AccountChanged(v1::AccountChanged {
                change: change.into(),
                subject_id: String::new(),
            }))
        };
        let asked = encode(Content::JoinRequested(v1::JoinRequested::default()));
        let settings = encode(Content::ChatSettingsChanged(v1::ChatSettingsChanged::default()));
        let cases = [
            (account(v1::AccountChange::DeviceLinked), PushHint::Alert),
            (account(v1::AccountChange::DeviceRevoked), PushHint::Usual),
            (account(v1::AccountChange::Privacy), PushHint::Usual),
            (asked, PushHint::Alert),
            (settings, PushHint::Usual),
            (Bytes::from_static(b"\xff"), PushHint::Usual),
        ];
        for (content, hint) in cases {
            assert_eq!(PushHint::of_own(&content), hint, "{content:?}");
        }
    }
}
