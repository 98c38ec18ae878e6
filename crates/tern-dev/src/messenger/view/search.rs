//! Makes the lines of messages that were found.

use std::ops::Range;

use tern_client::{Act, Entry, Hit, Message};
use tern_types::{Seq, Timestamp};

use super::View;
use crate::messenger::clock;
use crate::messenger::words::clean;

/// The largest number of characters that are shown before the first word that was found.
const BEFORE: usize = 30;
/// The largest number of characters of a message that are shown.
const SHOWN: usize = 100;

/// The text of a message that was deleted after it was found.
const DELETED: &str = "This message was deleted";

impl View {
    /// Takes the text of a message away from what was found, if the entry deletes it. The others keep their numbers.
    pub(super) fn take_from_found(&mut self, entry: &Entry) {
        let Act::Delete { target } = entry.act() else {
            return;
        };
        for hit in &mut self.found {
            let found = &hit.message.entry;
            if (found.chat, found.seq) == (entry.chat, target) {
                DELETED.clone_into(&mut hit.text);
                hit.places.clear();
            }
        }
    }

    /// Returns a numbered line for each message that was found. A line names the chat if it is not the open one.
    pub fn found_lines(&self, now: Timestamp) -> Vec<String> {
        let line = |(index, hit): (usize, &Hit)| {
            let entry = &hit.message.entry;
            let text = excerpt(&hit.text, &hit.places);
            format!("{}. {}{text}", index + 1, self.beginning(entry, now))
        };
        self.found.iter().enumerate().map(line).collect()
    }

    /// Returns lines for a message and its neighbours, with `›` before the one with this seq.
    pub fn around_lines(&self, around: &[Message], seq: Seq, now: Timestamp) -> Vec<String> {
        let line = |message: &Message| {
            let entry = &message.entry;
            let sign = if entry.seq == seq { '›' } else { ' ' };
            format!(
                "{sign} {}{}",
                self.beginning(entry, now),
                self.first_line(message)
            )
        };
        around.iter().map(line).collect()
    }

    /// Returns what stands before the text of a message, as in `[today 14:05 #12] (lunch) Bob: `.
    fn beginning(&self, entry: &Entry, now: Timestamp) -> String {
        let (at, seq) = (clock::ago(entry.sent_at, now), entry.seq);
        let place = if self.open == Some(entry.chat) {
            String::new()
        } else {
            format!("({}) ", self.title(entry.chat))
        };
        format!("[{at} #{seq}] {place}{}: ", self.author(entry))
    }
}

/// Returns a part of a text around the first place, on one line.
fn excerpt(text: &str, places: &[Range<usize>]) -> String {
    let at = places.first().map_or(0, |place| place.start);
    let (before, after) = text.split_at_checked(at).unwrap_or(("", text));
    let left_out = before.chars().count().saturating_sub(BEFORE);
    let mut rest = before.chars().skip(left_out).chain(after.chars());
    let shown: String = rest.by_ref().take(SHOWN).collect();
    let begins = if left_out > 0 { "…" } else { "" };
    let ends = if rest.next().is_some() { "…" } else { "" };
    format!("{begins}{}{ends}", clean(&shown).replace('\n', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_has_the_first_word_that_was_found() {
        let long = format!("{}needle{}", "a ".repeat(100), " b".repeat(100));
        let cut = excerpt(&long, &[Range { start: 200, end: 206 }]);
        assert!(cut.starts_with("…a a") && cut.ends_with(" b b…"), "{cut}");
        assert_eq!(cut.find("needle"), Some('…'.len_utf8() + BEFORE));
        for (text, places, expected) in [
            ("one\ntwo\u{1b}[31m", vec![], "one two[31m"),
            // These are places of another text.
            ("é", vec![Range { start: 1, end: 2 }], "é"),
            ("", vec![Range { start: 9, end: 12 }], ""),
        ] {
            assert_eq!(excerpt(text, &places), expected, "{text:?}");
        }
    }
}
