//! The reasons for which a content is not on this device any more.

use tern_proto::v1::{Erased, entry_content::Content};

use tern_client_core::model::Entry;

/// The reason for which a content was erased. A later one in this order takes the place of an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Gone {
    /// The message was deleted for everyone, which is shown in its place.
    Deleted,
    /// The message has disappeared, or the server did not keep it. Nothing is shown.
    Vanished,
    /// The person has deleted the message for themselves. Nothing is shown.
    Hidden,
}

impl Gone {
    /// Returns the value of the column `gone`.
    pub(super) fn code(self) -> i64 {
        match self {
            Self::Deleted => 1,
            Self::Vanished => 2,
            Self::Hidden => 3,
        }
    }

    /// Reads the value of the column `gone`.
    pub(super) fn from_code(code: i64) -> Option<Self> {
        [Self::Deleted, Self::Vanished, Self::Hidden]
            .into_iter()
            .find(|gone| gone.code() == code)
    }
}

/// Returns what stands in the place of the entry's content, if the server has erased it and this version knows the kind
/// of message that it was.
pub(super) fn erased_by_server(entry: &Entry) -> Option<&Erased> {
    match &entry.content.content {
        Some(Content::Erased(erased)) => entry.kind().map(|_| erased),
        _ => None,
    }
}
