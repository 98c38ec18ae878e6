//! A larger load on the store, after which no word of an erased message may be in its files: SQLite moves rows and does
//! not overwrite their former places, and this test finds what is left there.

use std::collections::HashSet;
use std::path::Path;

use super::messages::{deletion, edited, put, said};
use super::*;
use crate::search_text::SearchText;

/// The number of commits.
const COMMITS: usize = 250;
/// The length of a word.
const WORD: usize = 14;
/// The length of the end of a word that is looked for. In the index words are stored without the letters in which they
/// begin like the word before.
const END: usize = 9;

/// A source of numbers that are the same in each run (xorshift).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    fn text(&mut self) -> String {
        let count = [1, 2, 3, 8, 40, 120][self.below(6)];
        let words: Vec<String> = (0..count).map(|_| self.word()).collect();
        words.join(" ")
    }

    fn word(&mut self) -> String {
        let letter = |_| char::from(b'a' + u8::try_from(self.next() % 26).unwrap());
        (0..WORD).map(letter).collect()
    }
}

/// Messages that are in the store, each with all words that it has or had.
#[derive(Default)]
struct Load {
    messages: Vec<(u64, String)>,
    last: u64,
    erased: Vec<String>,
}

impl Load {
    fn next_seq(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Lets about ten things happen in one commit or two.
    fn commit(&mut self, store: &mut Store, numbers: &mut Numbers) {
        let (mut entries, mut hidden) = (Vec::new(), Vec::new());
        for _ in 0..10 {
            let seq = self.next_seq();
            let chosen = numbers.below(self.messages.len() + 1);
            match (numbers.below(10), self.messages.len()) {
                (0..=5, _) | (_, 0..=10) => {
                    let text = numbers.text();
                    entries.push(written(store, seq, &text));
                    self.messages.push((seq, text));
                }
                (6, len) => {
                    let text = numbers.text();
                    let (message, all) = &mut self.messages[chosen % len];
                    entries.push(edited(seq, *message, text.clone()));
                    all.push(' ');
                    all.push_str(&text);
                }
                (by, len) => {
                    let (message, words) = self.messages.swap_remove(chosen % len);
                    self.erased.push(words);
                    // The seq of the entry is used also if the person hides the message.
                    match by {
                        7 | 8 => entries.push(deletion(seq, message)),
                        _ => hidden.push(Seq(message)),
                    }
                }
            }
        }
        put(store, entries);
        if !hidden.is_empty() {
            let (chat, seqs) = (CHAT, hidden);
            store.commit(&[Change::Hide { chat, seqs }]).unwrap();
        }
    }
}

/// Returns the entry of a new message. Every third one is sent by this device and was in the outbox before.
fn written(store: &mut Store, seq: u64, text: &str) -> Entry {
    let said = said(seq, text.to_owned());
    if !seq.is_multiple_of(3) {
        return said;
    }
    let message = QueuedMessage {
        message: Outgoing::new(CHAT, text.to_owned()),
        ..queued("")
    };
    let entry = Entry {
        content: said.content,
        ..own(&message, seq)
    };
    store.commit(&[Change::Queue(message)]).unwrap();
    entry
}

/// Returns the ends of all words in the store's files, and what else there is as long.
fn ends(directory: &Path) -> HashSet<[u8; END]> {
    let mut ends = HashSet::new();
    for file in std::fs::read_dir(directory).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        let letters = bytes
            .windows(END)
            .filter(|part| part.iter().all(u8::is_ascii_lowercase));
        ends.extend(letters.filter_map(|part| <[u8; END]>::try_from(part).ok()));
    }
    ends
}

/// Returns how many words of these texts are missing, and how many words there are.
fn missing<'a>(ends: &HashSet<[u8; END]>, texts: impl Iterator<Item = &'a String>) -> (usize, usize) {
    let (mut missing, mut words) = (0, 0);
    for word in texts.flat_map(|text| text.split(' ')) {
        let end: [u8; END] = word.as_bytes()[WORD - END..].try_into().unwrap();
        words += 1;
        missing += usize::from(!ends.contains(&end));
    }
    (missing, words)
}

#[test]
fn thousands_of_messages_come_and_go_and_no_word_of_the_erased_ones_is_left() {
    let directory = tempfile::tempdir().unwrap();
    let location = StoreLocation::File(directory.path().join("device.db"));
    let mut store = Store::open(&location, true).unwrap();
    store.put_credentials(&credentials()).unwrap();
    store.set_search(&SearchText::Plain).unwrap();
    let (mut load, mut numbers) = (Load::default(), Numbers(0x9e37_79b9_7f4a_7c15));
    for commit in 1..=COMMITS {
        load.commit(&mut store, &mut numbers);
        if commit % 60 > 0 {
            continue;
        }
        let ends = ends(directory.path());
        let (gone, erased) = missing(&ends, load.erased.iter());
        assert_eq!(gone, erased, "after {commit} commits {} are left", erased - gone);
        let there = missing(&ends, load.messages.iter().map(|(_, text)| text)).0;
        assert_eq!(there, 0, "the words of the others are found");
    }
    assert!(load.erased.len() > 500 && load.last == 10 * COMMITS as u64);
    store.indexed(CHAT);
}
