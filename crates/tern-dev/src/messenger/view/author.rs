//! Names the sender of an entry.

use tern_client::Entry;
use tern_types::UserId;

use super::View;

/// The name that is shown for entries that the operator's back end sent in nobody's name.
const SYSTEM: &str = "the system";

impl View {
    /// Returns the name of the entry's sender, or [`SYSTEM`] if no person sent it.
    pub(super) fn author(&self, entry: &Entry) -> String {
        let name = |sender| self.name(sender);
        entry.sender.map_or_else(|| SYSTEM.to_owned(), name)
    }

    /// Returns the name of a person who did something, or [`SYSTEM`] if the operator's back end did it in nobody's
    /// name.
    pub(super) fn actor(&self, user: UserId) -> String {
        if user == UserId::SYSTEM {
            SYSTEM.to_owned()
        } else {
            self.name(user)
        }
    }
}

/// Returns the text of a message as it is shown. A message that no person sent has no name beside it, so the text
/// begins with the name [`SYSTEM`].
pub(super) fn signed(entry: &Entry, text: String) -> String {
    match entry.sender {
        Some(_) => text,
        None => format!("{SYSTEM}: {text}"),
    }
}
