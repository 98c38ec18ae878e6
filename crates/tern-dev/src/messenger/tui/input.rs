//! Edits the line that is being typed.

use crossterm::event::KeyCode;
use ratatui::text::Line;

/// The largest number of characters that the input takes, typed or pasted. It is far below the server's limit for a
/// message.
const MAX: usize = 16_000;

/// The text and the position of the cursor, both in characters.
#[derive(Debug, Default)]
pub struct Input {
    text: Vec<char>,
    at: usize,
}

impl Input {
    /// Returns whether nothing is typed.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Returns whether the text is a message, that is neither empty nor a command.
    pub fn is_message(&self) -> bool {
        self.text.contains(&'\n')
            || !matches!(self.text.as_slice(), [] | ['/'] | ['/', 'a'..='z' | 'A'..='Z' | '?', ..])
    }

    /// Returns the text and empties the input.
    pub fn take(&mut self) -> String {
        self.at = 0;
        std::mem::take(&mut self.text).into_iter().collect()
    }

    /// Inserts text at the cursor. All line ends become `\n`, tabs become blanks, other control characters are
    /// removed.
    pub fn insert(&mut self, text: &str) {
        let text = text
            .replace("\r\n", "\n")
            .replace('\r', "\n")
            .replace('\t', "    ");
        for c in text.chars().filter(|c| !c.is_control() || *c == '\n') {
            if self.text.len() < MAX {
                self.text.insert(self.at, c);
                self.at += 1;
            }
        }
    }

    /// Returns whether the input takes all of this text.
    pub fn has_room(&self, text: &str) -> bool {
        self.text.len() + text.chars().count() <= MAX
    }

    /// Applies a key that edits the text or moves the cursor. `control` says that Ctrl is held.
    pub fn key(&mut self, key: KeyCode, control: bool) {
        match key {
            KeyCode::Char('a') if control => self.at = 0,
            KeyCode::Char('e') if control => self.at = self.text.len(),
            KeyCode::Char('u') if control => drop(self.text.drain(..std::mem::take(&mut self.at))),
            KeyCode::Char('k') if control => self.text.truncate(self.at),
            KeyCode::Char('w') if control => self.delete_word(),
            KeyCode::Char(_) if control => {}
            KeyCode::Char(c) => self.insert(c.encode_utf8(&mut [0; 4])),
            KeyCode::Backspace if self.at > 0 => {
                self.at -= 1;
                self.text.remove(self.at);
            }
            KeyCode::Delete if self.at < self.text.len() => drop(self.text.remove(self.at)),
            KeyCode::Left => self.at = self.at.saturating_sub(1),
            KeyCode::Right => self.at = (self.at + 1).min(self.text.len()),
            KeyCode::Home => self.at = 0,
            KeyCode::End => self.at = self.text.len(),
            _ => {}
        }
    }

    /// Deletes the word before the cursor, with the blanks after it.
    fn delete_word(&mut self) {
        let end = self.at;
        while self.at > 0 && self.text[self.at - 1].is_whitespace() {
            self.at -= 1;
        }
        while self.at > 0 && !self.text[self.at - 1].is_whitespace() {
            self.at -= 1;
        }
        self.text.drain(self.at..end);
    }

    /// Returns the part of the text around the cursor that fits into `width` columns, and the cursor's column in it.
    pub fn window(&self, width: usize) -> (String, usize) {
        let mut from = 0;
        while columns(&self.text[from..self.at]) >= width.max(1) {
            from += 1;
        }
        let mut to = from;
        while to < self.text.len() && columns(&self.text[from..=to]) <= width {
            to += 1;
        }
        (shown(&self.text[from..to]), columns(&self.text[from..self.at]))
    }
}

/// Returns the text on one line, with `⏎` for each line end.
fn shown(text: &[char]) -> String {
    text.iter().map(|c| if *c == '\n' { '⏎' } else { *c }).collect()
}

/// Returns the columns that a text takes on the screen.
fn columns(text: &[char]) -> usize {
    Line::raw(shown(text)).width()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(text: &str) -> Input {
        let mut input = Input::default();
        input.insert(text);
        input
    }

    #[test]
    fn editing_works_as_in_a_shell() {
        let mut input = typed("hello brave world");
        input.key(KeyCode::Char('w'), true);
        input.key(KeyCode::Home, false);
        input.key(KeyCode::Delete, false);
        input.key(KeyCode::Char('J'), false);
        input.key(KeyCode::End, false);
        input.key(KeyCode::Backspace, false);
        assert_eq!(input.take(), "Jello brave");
        assert!(input.is_empty());
        input.key(KeyCode::Backspace, false);
        input.key(KeyCode::Delete, false);
        input.key(KeyCode::Char('w'), true);
        assert!(input.is_empty());
    }

    #[test]
    fn a_long_line_is_shown_around_the_cursor() {
        let mut input = typed("0123456789");
        assert_eq!(input.window(4), ("789".to_owned(), 3));
        input.key(KeyCode::Home, false);
        assert_eq!(input.window(4), ("0123".to_owned(), 0));
        assert_eq!(typed("日本語").window(4), ("語".to_owned(), 2));
    }

    #[test]
    fn pasted_lines_stay_lines_and_are_a_message() {
        let mut input = typed("/first\r\nsecond\rthird\n\tfourth");
        assert!(input.is_message());
        assert_eq!(input.window(40).0, "/first⏎second⏎third⏎    fourth");
        assert_eq!(input.take(), "/first\nsecond\nthird\n    fourth");
        assert!(!typed("/first").is_message());
    }

    #[test]
    fn control_characters_are_no_text() {
        assert_eq!(typed("a\u{1b}[31mb\u{7}").take(), "a[31mb");
    }
}
