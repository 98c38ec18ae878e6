//! Parses what comes from the wire, at the edge: ids and texts here, whole messages in [`send()`]. An error is
//! INVALID_FIELD with the field's name, unless a function says otherwise.

mod send;

use std::str::FromStr;

use tern_types::IdError;

use crate::ApiError;

pub use send::{Send, send};

/// Reads a UUID string of a public request. Returns `Err` if it is not a UUID in its hyphenated form.
pub fn id<T: FromStr<Err = IdError>>(field: &'static str, text: &str) -> Result<T, ApiError> {
    text.parse()
        .map_err(|_| ApiError::invalid(field, "must be a UUID in its hyphenated form"))
}

/// Reads a UUID string that may be empty; an empty one gives `None`. Returns `Err` if the text is neither empty nor a
/// UUID in its hyphenated form.
pub fn optional_id<T: FromStr<Err = IdError>>(
    field: &'static str,
    text: &str,
) -> Result<Option<T>, ApiError> {
    if text.is_empty() {
        Ok(None)
    } else {
        id(field, text).map(Some)
    }
}

/// Returns how many items a page may have. As in AIP-158, 0 stands for the default, and a larger number than `max` for
/// `max`.
pub fn page_size(asked: u32, default: u32, max: u32) -> u32 {
    if asked == 0 { default } else { asked.min(max) }
}

/// Checks a name that people read, of a person, a group, a device or a platform. Returns `Err` if it is not one line of
/// at most `max` UTF-8 bytes. A name that does not fit is refused rather than trimmed, so that what is stored is what
/// was sent.
pub fn name(field: &'static str, name: String, max: usize) -> Result<String, ApiError> {
    if name.contains(breaks_a_line) {
        return Err(ApiError::invalid(
            field,
            "must be one line without control characters",
        ));
    }
    text(field, name, max)
}

/// Checks a text that people read, and that may have several lines. Returns `Err` if it has more than `max` UTF-8 bytes,
/// or a control character other than the line feed.
pub fn paragraphs(field: &'static str, text: String, max: usize) -> Result<String, ApiError> {
    if text.contains(|char: char| char.is_control() && char != '\n') {
        return Err(ApiError::invalid(
            field,
            "must not contain control characters other than line feeds",
        ));
    }
    self::text(field, text, max)
}

/// Returns whether `char` is a control character, or Unicode's line or paragraph separator.
fn breaks_a_line(char: char) -> bool {
    char.is_control() || matches!(char, '\u{2028}' | '\u{2029}')
}

/// Checks a string. Returns `Err` if it has more than `max` UTF-8 bytes or contains NUL, which Postgres does not store.
pub fn text(field: &'static str, text: String, max: usize) -> Result<String, ApiError> {
    if text.len() > max {
        return Err(ApiError::invalid(
            field,
            &format!("must have at most {max} bytes"),
        ));
    }
    if text.contains('\0') {
        return Err(ApiError::invalid(field, "must not contain NUL"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_what_was_asked_for_up_to_the_most() {
        let size = |asked| page_size(asked, 100, 256);
        assert_eq!([0, 1, 256, 257, u32::MAX].map(size), [100, 1, 256, 256, 256]);
    }

    #[test]
    fn a_name_is_one_line() {
        let name = |text: &str| name("title", text.to_owned(), 20);
        for good in ["", "Lunch", "Åse 🦆 نيلز", "\u{202e}odd\u{feff}"] {
            assert_eq!(name(good).unwrap(), good);
        }
        for bad in [
            "a\nb",
            "a\rb",
            "a\tb",
            "\u{1b}[31mred",
            "a\0b",
            "\u{7f}",
            "\u{85}",
            "a\u{2028}b",
            "a\u{2029}b",
        ] {
            let error = name(bad).unwrap_err();
            assert_eq!(error.field, Some("title"), "{bad:?}: {error}");
        }
        assert!(name(&"x".repeat(21)).is_err());
    }

    #[test]
    fn paragraphs_are_lines_without_other_control_characters() {
        let check = |text: &str| paragraphs("description", text.to_owned(), 20);
        for good in ["", "Lunch", "a\nb\n\nc", "a\u{2028}b", &"x".repeat(20)] {
            assert_eq!(check(good).unwrap(), good);
        }
        for bad in ["a\rb", "a\tb", "\u{1b}[31mred", "a\0b", "\u{85}", &"x".repeat(21)] {
            assert_eq!(check(bad).unwrap_err().field, Some("description"), "{bad:?}");
        }
    }
}
