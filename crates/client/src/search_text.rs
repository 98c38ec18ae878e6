//! The choice of the text by which a message is found. The settings have it, and the store's index asks for it.

use std::fmt;
use std::sync::Arc;

use tern_client_core::model::Entry;

/// A function that returns the text by which a message is found, or `None` if it is not to be found. It gets the
/// message's entry as it is after the last edit. It is not asked for a message that was deleted, which is never found.
pub type TextOf = dyn Fn(&Entry) -> Option<String> + Send + Sync;

/// The text by which [`crate::Client::search`] finds a message.
#[derive(Clone, Default)]
pub enum SearchText {
    /// The body, if it is UTF-8. The text and the names of the files, if the message has attachments.
    #[default]
    Plain,
    /// The text that this function returns, for an app that encrypts its bodies or gives them a form of its own. The
    /// function is called while the store is written, so it has to be quick. If a later version of the app returns
    /// other texts, messages are found by the former ones until they are edited, or until the app has started once
    /// with [`SearchText::Off`].
    By(Arc<TextOf>),
    /// None. There is no search, and an index that an earlier start has made is deleted.
    Off,
}

impl SearchText {
    /// Returns whether messages are found at all.
    pub(crate) fn is_on(&self) -> bool {
        !matches!(self, Self::Off)
    }

    /// Returns the text by which the message of this entry is found, or `None` if it is not to be found.
    pub(crate) fn of(&self, entry: &Entry) -> Option<String> {
        // An app may remember texts by chat and seq.
        entry.message()?;
        match self {
            Self::Plain => plain(entry),
            Self::By(text_of) => text_of(entry),
            Self::Off => None,
        }
    }
}

impl fmt::Debug for SearchText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "Plain",
            Self::By(_) => "By(..)",
            Self::Off => "Off",
        })
    }
}

fn plain(entry: &Entry) -> Option<String> {
    if let Some(attached) = entry.attached() {
        let mut text = attached.text;
        for file in attached.files {
            text.push('\n');
            text.push_str(&file.name);
        }
        return Some(text);
    }
    let body = &entry.message()?.body;
    std::str::from_utf8(body).ok().map(str::to_owned)
}
