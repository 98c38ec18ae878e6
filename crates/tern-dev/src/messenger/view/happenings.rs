//! Says what happened in a chat, in the words of a line: who came and went, and what was changed.

use tern_client::Entry;
use tern_proto::v1::{self, entry_content::Content};
use tern_types::UserId;

use super::View;
use crate::messenger::words::{self, clean};

impl View {
    /// Returns the text for an entry that is not a message, as in "Bob left". Returns `None` if there is none to show.
    pub(super) fn happening(&self, entry: &Entry) -> Option<String> {
        let who = self.author(entry);
        let names = |ids: &[String]| ids.iter().map(|id| self.named(id)).collect::<Vec<_>>().join(", ");
        Some(match entry.content.content.as_ref()? {
            Content::ChatCreated(created) => format!("{who} made the group “{}”", clean(&created.title)),
            Content::MembersAdded(added) if joined(entry, added) => format!("{who} joined by a link"),
            Content::MembersAdded(added) => format!("{who} added {}", names(&added.user_ids)),
            Content::MemberRemoved(removed) => self.removal(&who, removed),
            Content::RoleChanged(changed) if changed.handed_over => {
                format!("{who} handed the group over: {}", self.owns(&changed.user_id))
            }
            Content::RoleChanged(changed) => {
                let role = words::role(changed.role());
                format!("{who} made {} {role}", self.named(&changed.user_id))
            }
            Content::ChatUpdated(updated) => format!("{who} named the group “{}”", clean(&updated.title)),
            Content::ChatPictureChanged(changed) if changed.media_id.is_empty() => {
                format!("{who} removed the group's picture")
            }
            Content::ChatPictureChanged(_) => format!("{who} set a new picture of the group"),
            Content::ChatDescriptionChanged(changed) if changed.description.is_empty() => {
                format!("{who} removed the description")
            }
            Content::ChatDescriptionChanged(changed) => {
                format!("{who} changed the description: {}", clean(&changed.description))
            }
            Content::GroupPolicyChanged(changed) => {
                let policy = changed.policy.unwrap_or_default();
                format!("{who} changed the rules: {}", words::policy(&policy))
            }
            Content::ChatFrozen(frozen) if frozen.frozen => "The operator froze this chat".to_owned(),
            Content::ChatFrozen(_) => "The operator froze this chat no more".to_owned(),
            Content::RetentionChanged(changed) => {
                let retention = changed.retention.unwrap_or_default();
                format!(
                    "{who} changed how long messages stay: {}",
                    words::retention(&retention)
                )
            }
            Content::Message(_)
            | Content::Erased(_)
            | Content::ChatSettingsChanged(_)
            | Content::MessagesHidden(_)
            | Content::JoinRequested(_)
            | Content::AccountChanged(_) => return None,
        })
    }

    /// Says who left or was removed by the person `who`, and who owns the group after the last owner.
    fn removal(&self, who: &str, removed: &v1::MemberRemoved) -> String {
        let name = self.named(&removed.user_id);
        let gone = if removed.left {
            format!("{name} left")
        } else {
            format!("{who} removed {name}")
        };
        match removed.new_owner_user_id.as_str() {
            "" => gone,
            owner => format!("{gone}: {}", self.owns(owner)),
        }
    }

    /// Says that a person owns the group now.
    fn owns(&self, id: &str) -> String {
        let is = if id.parse::<UserId>() == Ok(self.me) {
            "are"
        } else {
            "is"
        };
        format!("{} {is} the owner now", self.named(id))
    }

    /// Returns the name of the person with this id, or "…" if it is none.
    fn named(&self, id: &str) -> String {
        id.parse().map_or_else(|_| "…".to_owned(), |id| self.name(id))
    }
}

/// Returns whether an entry says that its sender joined by an invite link.
fn joined(entry: &Entry, added: &v1::MembersAdded) -> bool {
    let [user] = added.user_ids.as_slice() else {
        return false;
    };
    user.parse::<UserId>()
        .ok()
        .is_some_and(|user| entry.sender == Some(user))
}
