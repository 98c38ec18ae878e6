//! The actions that write a user's own log: the user changes the settings of a chat, or hides messages from themselves,
//! and the server notes something about the user's account or groups. No other chat has such entries.

use bytes::Bytes;
use tern_proto::v1;
use tern_proto::v1::entry_content::Content;
use tern_types::{ChatId, Seq, UserId};

use super::{Action, Permitted, Rules};
use crate::content::encode;
use crate::entry::EntryKind;
use crate::group::{Group, Role};
use crate::settings::Settings;
use crate::{ChangeRefusal, Refusal};

/// A change of a user's own log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnChange {
    /// The user changes the settings of a chat.
    Settings(SettingsChange),
    /// The user hides messages of a chat from themselves.
    Hide {
        /// The chat.
        chat: ChatId,
        /// The seqs of those of the messages that are not hidden yet. If there are none, nothing is changed.
        seqs: Vec<Seq>,
    },
    /// The server notes something: an encoded `tern.v1.EntryContent`.
    Note(Bytes),
}

/// A change of the settings of a chat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsChange {
    /// The chat.
    pub chat: ChatId,
    /// All settings of the chat after the change.
    pub settings: Settings,
    /// The seq of the entry that made the settings from which these were computed; 0 if no entry has changed them. The
    /// change is refused if another entry has changed them meanwhile.
    pub seen: Seq,
    /// The user's read mark in the chat.
    pub read: Seq,
    /// False if the settings are these already.
    pub is_news: bool,
}

pub(super) struct Own<'a>(pub &'a OwnChange);

impl Rules for Own<'_> {
    fn kind(&self) -> EntryKind {
        EntryKind::Own
    }

    fn content(&self, _: UserId) -> Bytes {
        match self.0 {
            OwnChange::Settings(change) => encode(Content::ChatSettingsChanged(v1::ChatSettingsChanged {
                chat_id: change.chat.to_string(),
                settings: Some(change.settings.to_wire()),
            })),
            OwnChange::Hide { chat, seqs } => encode(Content::MessagesHidden(v1::MessagesHidden {
                chat_id: chat.to_string(),
                seqs: seqs.iter().map(|seq| seq.0).collect(),
            })),
            OwnChange::Note(content) => content.clone(),
        }
    }

    fn is_for_groups(&self) -> bool {
        false
    }

    fn is_for_own_logs(&self) -> bool {
        true
    }

    fn permit(&self, _: &Group, actor: UserId, _: Role) -> Result<Permitted, ChangeRefusal> {
        let by_server = actor == UserId::SYSTEM;
        let (may, changes) = match self.0 {
            OwnChange::Settings(change) => (!by_server, change.is_news),
            OwnChange::Hide { seqs, .. } => (!by_server, !seqs.is_empty()),
            OwnChange::Note(_) => (by_server, true),
        };
        if !may {
            return Err(Refusal::NotAllowed.into());
        }
        Ok(if changes {
            Permitted::Entry(Action::Own(Box::new(self.0.clone())))
        } else {
            Permitted::Nothing
        })
    }

    fn apply(&self, _: &mut Group, _: Seq) {}

    fn bytes(&self) -> usize {
        match self.0 {
            OwnChange::Settings(change) => change.settings.draft.len(),
            OwnChange::Hide { seqs, .. } => std::mem::size_of_val(seqs.as_slice()),
            OwnChange::Note(content) => content.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tern_types::IdMap;
    use uuid::Uuid;

    use super::*;
    use crate::group::{ChatKind, Member};

    const OWNER: UserId = UserId(Uuid::from_u128(1));
    const CHAT: ChatId = ChatId(Uuid::from_u128(2));

    fn log() -> Group {
        Group {
            kind: ChatKind::Own,
            members: IdMap::from_iter([(OWNER, Member::joined_at(Seq(1)))]),
            ..Group::default()
        }
    }

    fn settings(is_news: bool) -> OwnChange {
        OwnChange::Settings(SettingsChange {
            chat: CHAT,
            settings: Settings::default(),
            seen: Seq(0),
            read: Seq(0),
            is_news,
        })
    }

    fn hide(seqs: &[u64]) -> OwnChange {
        OwnChange::Hide {
            chat: CHAT,
            seqs: seqs.iter().map(|seq| Seq(*seq)).collect(),
        }
    }

    #[test]
    fn the_user_keeps_their_chats_and_the_server_notes() {
        let note = || OwnChange::Note(Bytes::from_static(b"note"));
        let not_allowed = || Err(ChangeRefusal::Common(Refusal::NotAllowed));
        let entry = |change: OwnChange| Ok(Permitted::Entry(Action::Own(Box::new(change))));
        let cases: [(UserId, OwnChange, Result<Permitted, ChangeRefusal>); 8] = [
            (OWNER, settings(true), entry(settings(true))),
            (OWNER, settings(false), Ok(Permitted::Nothing)),
            (OWNER, hide(&[3]), entry(hide(&[3]))),
            (OWNER, hide(&[]), Ok(Permitted::Nothing)),
            (OWNER, note(), not_allowed()),
            (UserId::SYSTEM, note(), entry(note())),
            (UserId::SYSTEM, settings(true), not_allowed()),
            (UserId::SYSTEM, hide(&[3]), not_allowed()),
        ];
        for (actor, change, expected) in cases {
            let permitted = Own(&change).permit(&log(), actor, Role::Member);
            assert_eq!(permitted, expected, "{change:?} by {actor}");
        }
    }

    #[test]
    fn the_entry_says_what_devices_are_to_know() {
        let content = |change: &OwnChange| {
            let content = Own(change).content(OWNER);
            let decoded: v1::EntryContent = prost::Message::decode(content).unwrap();
            decoded.content
        };
        let (chat_id, expected) = (CHAT.to_string(), Some(v1::ChatSettings::default()));
        assert_eq!(
            content(&settings(true)),
            Some(Content::ChatSettingsChanged(v1::ChatSettingsChanged {
                chat_id: chat_id.clone(),
                settings: expected,
            }))
        );
        let seqs = vec![3, 5];
        assert_eq!(
            content(&hide(&[3, 5])),
            Some(Content::MessagesHidden(v1::MessagesHidden { chat_id, seqs }))
        );
    }
}
