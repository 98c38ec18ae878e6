//! Prepares texts for the index, and what a person types for FTS5.
//!
//! FTS5 splits a text into words where there is no letter, which is right for most scripts. Chinese, Japanese, Thai and
//! some others put nothing between words, and Korean hangs endings on them. Of these scripts each character is a token
//! of its own, and a word is found as a phrase: 会议 as 会 followed by 议. FTS5's own answer, the tokenizer `trigram`,
//! finds no word of two characters, as most Chinese ones are, and takes twice the time for each message.

use std::ops::Range;

/// The mark at which a place begins in a marked text. No prepared text has a control character.
pub(super) const BEGIN: char = '\u{1}';
/// The mark at which a place ends.
pub(super) const END: char = '\u{2}';
/// The largest number of characters of what a person types that are looked at.
const MAX_TYPED: usize = 1000;
/// The largest number of words that are looked for.
const MAX_WORDS: usize = 32;

/// Returns the text in the form in which it is indexed.
pub(super) fn prepared(text: &str) -> String {
    let mut prepared = String::with_capacity(text.len());
    each_character(text, |c, _| prepared.push(c));
    prepared
}

/// Makes a query for FTS5 of what a person has typed: each word as a phrase in quotes, so that nothing in it is an
/// operator, and the last one also as the beginning of a word. Returns `None` if no word was typed.
pub(super) fn query(typed: &str) -> Option<String> {
    let typed: String = typed.chars().take(MAX_TYPED).collect();
    let words = typed.split(|c: char| c.is_whitespace() || c.is_control() || c == '"');
    let has_token = |word: &&str| word.chars().any(|c| c.is_alphanumeric() || stands_alone(c));
    let words = words.filter(has_token).take(MAX_WORDS);
    let phrases: Vec<String> = words.map(|word| format!("\"{}\"", prepared(word))).collect();
    (!phrases.is_empty()).then(|| phrases.join(" ") + "*")
}

/// Returns the places of `text` that stand between marks in `marked`, which is the prepared text with marks. Returns
/// none if it is another text.
pub(super) fn places(text: &str, marked: &str) -> Vec<Range<usize>> {
    let mut characters = Vec::with_capacity(text.len());
    each_character(text, |c, at| characters.push((c, at)));
    let mut characters = characters.into_iter();
    let mut places = Vec::new();
    let (mut inside, mut place): (bool, Option<Range<usize>>) = (false, None);
    for c in marked.chars() {
        match c {
            BEGIN => inside = true,
            END => {
                inside = false;
                places.extend(place.take());
            }
            _ => match characters.next() {
                Some((known, at)) if known == c => {
                    if inside {
                        place = Some(place.map_or(at.start, |place| place.start)..at.end);
                    }
                }
                _ => return Vec::new(),
            },
        }
    }
    places
}

/// Calls `put` with each character of the prepared text, and with the place in the text from which it comes. A blank
/// that is not in the text comes from the empty place where it is put in.
fn each_character(text: &str, mut put: impl FnMut(char, Range<usize>)) {
    let mut after_blank = true;
    for (start, c) in text.char_indices() {
        let end = start + c.len_utf8();
        if is_invisible(c) {
            continue;
        }
        if !stands_alone(c) {
            let c = if c.is_control() { ' ' } else { c };
            put(c, start..end);
            after_blank = c == ' ';
            continue;
        }
        if !after_blank {
            put(' ', start..start);
        }
        put(c, start..end);
        put(' ', end..end);
        after_blank = true;
    }
}

/// Returns whether a character is a token of its own.
fn stands_alone(c: char) -> bool {
    matches!(c,
        // Thai and Lao, Burmese, Khmer.
        '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}'
        // Signs of Chinese and Japanese, Bopomofo, the parts of Korean characters.
        | '\u{3005}'..='\u{3007}' | '\u{3041}'..='\u{318f}' | '\u{31a0}'..='\u{31ff}'
        | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}'
        | '\u{ff66}'..='\u{ff9d}' | '\u{20000}'..='\u{3ffff}'
        // Korean.
        | '\u{ac00}'..='\u{d7af}'
        // Symbols and emojis.
        | '\u{2600}'..='\u{27bf}' | '\u{1f000}'..='\u{1faff}')
}

/// Returns whether a character cannot be seen and is left out, so that ❤ is found as ❤️ too.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn characters_of_scripts_without_blanks_are_tokens_of_their_own() {
        for (text, expected) in [
            ("Grüße aus Köln", "Grüße aus Köln"),
            ("会议室", "会 议 室 "),
            ("see 会议 now", "see 会 议  now"),
            ("one\ntwo\u{0}three", "one two three"),
            ("❤\u{fe0f}", "❤ "),
            ("cö\u{ad}öp", "cööp"),
        ] {
            assert_eq!(prepared(text), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_typed_becomes_phrases() {
        for (typed, expected) in [
            ("hello", Some("\"hello\"*")),
            ("  hello   wor ", Some("\"hello\" \"wor\"*")),
            ("a AND NOT b*", Some("\"a\" \"AND\" \"NOT\" \"b*\"*")),
            ("say \"hi there\"", Some("\"say\" \"hi\" \"there\"*")),
            ("hello !", Some("\"hello\"*")),
            ("会议", Some("\"会 议 \"*")),
            ("\u{0}", None),
            (" -- \"\" ", None),
            ("", None),
        ] {
            assert_eq!(query(typed).as_deref(), expected, "{typed:?}");
        }
        let many = "word ".repeat(500);
        assert_eq!(query(&many).unwrap().matches("word").count(), MAX_WORDS);
        assert!(query(&"x".repeat(100_000)).unwrap().len() < 2 * MAX_TYPED);
    }

    #[test]
    fn places_are_those_of_the_text_as_it_was_written() {
        let marked = |text: &str, words: &[&str]| {
            let prepared = prepared(text);
            words.iter().fold(prepared, |text, word| {
                text.replace(*word, &format!("{BEGIN}{word}{END}"))
            })
        };
        for (text, words, expected) in [
            ("to be or not", vec!["be", "not"], vec!["be", "not"]),
            ("在会议室里", vec!["会 议"], vec!["会议"]),
            ("I ❤\u{fe0f} it", vec!["❤"], vec!["❤"]),
            ("nothing", vec![], vec![]),
        ] {
            let places = places(text, &marked(text, &words));
            let found: Vec<&str> = places.into_iter().map(|place| &text[place]).collect();
            assert_eq!(found, expected, "{text:?}");
        }
        assert_eq!(places("another text", "\u{1}one\u{2} text"), []);
    }

    proptest! {
        #[test]
        fn a_place_can_be_all_of_any_text(text in any::<String>()) {
            let all = prepared(&text);
            prop_assert!(!all.contains([BEGIN, END]));
            let places = places(&text, &format!("{BEGIN}{all}{END}"));
            prop_assert_eq!(places.is_empty(), all.is_empty());
            prop_assert!(places.iter().all(|place| text.get(place.clone()).is_some()));
        }
    }
}
