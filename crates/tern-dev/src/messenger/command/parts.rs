//! Parses the parts of a command: words, numbers, times.

/// Parses a number that counts messages from the last one, which is 1. An empty text means 1. `None` if the text is no
/// such number.
pub(super) fn nth(rest: &str) -> Option<usize> {
    if rest.is_empty() {
        return Some(1);
    }
    rest.parse().ok().filter(|nth| *nth > 0)
}

/// Splits a text into a message's number and the rest. `None` if it does not begin with a number, as in `12` or `#12`.
pub(super) fn numbered(text: &str) -> Option<(u64, &str)> {
    let (number, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let number = number.strip_prefix('#').unwrap_or(number);
    Some((number.parse().ok()?, rest.trim()))
}

/// Splits a text, as in `#12 hello`, into the number of the message that it is about, if there is one, and the rest.
/// `None` if the rest is empty.
pub(super) fn about(text: &str) -> Option<(Option<u64>, String)> {
    let numbered = numbered(text).filter(|_| text.starts_with('#'));
    let (message, text) = numbered.map_or((None, text), |(number, rest)| (Some(number), rest));
    (!text.is_empty()).then(|| (message, text.to_owned()))
}

/// Parses the number of a message. An empty text means none. `None` if the text is no number.
pub(super) fn number(text: &str) -> Option<Option<u64>> {
    if text.is_empty() {
        return Some(None);
    }
    let (number, rest) = numbered(text)?;
    rest.is_empty().then_some(Some(number))
}

/// Splits a text into words. A text in quotes is one word. Commas separate words as blanks do.
pub(super) fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in text.chars() {
        match c {
            '"' | '“' | '”' => quoted = !quoted,
            c if !quoted && (c.is_whitespace() || c == ',') => words.push(String::new()),
            c => words.last_mut().into_iter().for_each(|word| word.push(c)),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

pub(super) fn unquote(text: &str) -> String {
    text.trim_matches(['"', '“', '”']).to_owned()
}

/// Parses a time, as in `30s`, `10m`, `8h`, `1d` or `2w`, into seconds. `None` if the text is no such time.
pub(super) fn seconds(text: &str) -> Option<u32> {
    let unit = text.chars().next_back()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 24 * 3600,
        'w' => 7 * 24 * 3600,
        _ => return None,
    };
    let number: u32 = text.strip_suffix(unit)?.parse().ok()?;
    number.checked_mul(seconds)
}
