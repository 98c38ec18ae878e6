//! Whose an entry is.

use tern_client::Entry;

use super::View;

/// Whose an entry is that no person sent: the operator's back end did, for nobody.
const SYSTEM: &str = "the system";

impl View {
    pub(super) fn author(&self, entry: &Entry) -> String {
        let name = |sender| self.name(sender);
        entry.sender.map_or_else(|| SYSTEM.to_owned(), name)
    }
}

/// A message as it is shown: a line that is no person's has no name beside it.
pub(super) fn signed(entry: &Entry, text: String) -> String {
    match entry.sender {
        Some(_) => text,
        None => format!("{SYSTEM}: {text}"),
    }
}
