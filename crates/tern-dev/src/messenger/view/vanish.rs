//! Takes messages from the screen that have disappeared, or that the user deleted for themselves.

use tern_client::Entry;
use tern_proto::v1::{EntryContent, entry_content::Content};
use tern_types::{ChatId, Seq, Timestamp};

use super::{Room, View};

/// The text of a message that has disappeared, or was hidden, after it was found.
const GONE: &str = "This message is gone";

impl View {
    /// Takes away what has disappeared by now, by the wall clock. Returns whether there was anything. Call it about
    /// once a second.
    pub fn expire(&mut self, now: Timestamp) -> bool {
        let mut any = false;
        let entries = self.rooms.values_mut().flat_map(Room::entries_mut);
        for entry in entries.filter(|entry| is_over(entry, now)) {
            blank(entry);
            any = true;
        }
        self.take_found(|entry| is_over(entry, now)) || any
    }

    /// Takes these messages of a chat away, because the user deleted them for themselves, or they have disappeared.
    pub fn hide(&mut self, chat: ChatId, seqs: &[Seq]) {
        let room = self.rooms.get_mut(&chat);
        let entries = room.into_iter().flat_map(Room::entries_mut);
        for entry in entries {
            // An edit repeats what the message says.
            if seqs.contains(&entry.target().unwrap_or(entry.seq)) {
                blank(entry);
            }
        }
        self.take_found(|entry| entry.chat == chat && seqs.contains(&entry.seq));
    }

    /// Takes the text of what was found in these entries away. Returns whether there was any.
    fn take_found(&mut self, is_gone: impl Fn(&Entry) -> bool) -> bool {
        let mut any = false;
        for hit in &mut self.found {
            if hit.text != GONE && is_gone(&hit.message.entry) {
                GONE.clone_into(&mut hit.text);
                hit.places.clear();
                blank(&mut hit.message.entry);
                any = true;
            }
        }
        any
    }
}

/// Takes the content of an entry away if it has disappeared by now. Then it makes no line any more, as if it were of a
/// kind that this version does not know. It keeps its place in the log.
pub(super) fn blank_if_over(entry: &mut Entry, now: Timestamp) {
    let expired = matches!(&entry.content.content, Some(Content::Erased(erased)) if erased.expired);
    if expired || is_over(entry, now) {
        blank(entry);
    }
}

/// Takes the content of an entry away.
fn blank(entry: &mut Entry) {
    entry.content = EntryContent::default();
    entry.unknown.clear();
}

/// Returns whether an entry has a time to disappear that is over.
fn is_over(entry: &Entry, now: Timestamp) -> bool {
    let after = std::time::Duration::from_secs(entry.content.expires_after_s.into());
    !after.is_zero() && entry.sent_at + after <= now
}
