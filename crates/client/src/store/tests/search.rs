//! Tests of the search: what is found, in which order, and what is left of what was deleted.

use std::sync::Arc;

use tern_proto::v1;
use tern_types::{MediaId, Timestamp};

use super::messages::{deletion, edited, found, put, reaction, said, sent};
use super::versions::make;
use super::*;
use crate::media::{Attachment, with_files};
use crate::search_text::SearchText;

fn searching() -> Store {
    let mut store = memory();
    store.set_search(&SearchText::Plain).unwrap();
    store
}

/// Returns the seqs of the messages that are found, in the order in which they are.
fn hits(store: &Store, words: &str) -> Vec<u64> {
    let hits = store.search(words, None, None, 100).unwrap();
    hits.iter().map(|hit| hit.message.entry.seq.0).collect()
}

impl Store {
    /// Returns the texts of a chat that are in the index, ascending by seq. Fails if FTS5 has others.
    pub fn indexed(&self, chat: ChatId) -> Vec<(Seq, String)> {
        check(self);
        let texts = "SELECT seq, text FROM texts WHERE chat = ?1 AND trim(text) <> '' ORDER BY seq";
        let mut texts = self.connection.prepare(texts).unwrap();
        let rows = texts.query_map([chat.as_bytes()], |row| {
            Ok((Seq::from_i64(row.get(0)?), row.get(1)?))
        });
        rows.unwrap().map(Result::unwrap).collect()
    }
}

/// Fails if the index does not have exactly the texts that it should have.
fn check(store: &Store) {
    let check = "INSERT INTO search (search, rank) VALUES ('integrity-check', 1)";
    store.connection.execute(check, []).unwrap();
}

fn in_chat(chat: ChatId, sent_at: i64, entry: Entry) -> Entry {
    let sent_at = Timestamp(NOW.0 + sent_at);
    Entry {
        chat,
        sent_at,
        ..entry
    }
}

#[test]
fn messages_are_found_by_all_their_words_the_newest_first() {
    let mut store = searching();
    put(
        &mut store,
        [
            said(1, "The quick brown fox"),
            said(2, "the lazy dog"),
            said(3, "a fox and a DOG"),
            reaction(4, 1, 2, "fox"),
            said(5, b"fox \xff\xfe".to_vec()),
        ],
    );
    for (words, expected) in [
        ("fox", vec![3, 1]),
        ("FOX dog", vec![3]),
        ("the", vec![2, 1]),
        ("th", vec![2, 1]),
        // Only the last word may be a beginning.
        ("th fox", vec![]),
        ("fox th", vec![1]),
        ("cat", vec![]),
        ("", vec![]),
    ] {
        assert_eq!(hits(&store, words), expected, "{words:?}");
    }
    check(&store);
}

#[test]
fn languages_are_searched_as_they_are_written() {
    let texts = [
        "Grüße aus Köln",
        "明天在会议室开会",
        "東京タワーへ行きました",
        "สวัสดีครับ",
        "회의는 내일입니다",
        "हिन्दी में लिखा",
        "Привет, мир",
        "good 👍🏽 and ❤\u{fe0f}",
    ];
    let mut store = searching();
    put(&mut store, (1..).zip(texts).map(|(seq, text)| said(seq, text)));
    for (words, expected) in [
        ("koln", vec![1]),
        ("GRÜSSE", vec![]),
        ("gruß", vec![1]),
        ("会议", vec![2]),
        ("会室", vec![]),
        ("开会 明天", vec![2]),
        ("タワー", vec![3]),
        ("ครับ", vec![4]),
        ("회의", vec![5]),
        ("내일", vec![5]),
        ("हिन्दी", vec![6]),
        ("привет", vec![7]),
        ("👍", vec![8]),
        ("❤", vec![8]),
    ] {
        assert_eq!(hits(&store, words), expected, "{words:?}");
    }
    check(&store);
}

#[test]
fn nothing_that_is_typed_is_an_operator_or_an_error() {
    let mut store = searching();
    put(
        &mut store,
        [said(
            1,
            "he said \"no\" AND left (it's C++), didn't he? text: a*b",
        )],
    );
    for words in [
        "\"no\"", "no\"", "AND", "and left", "(it's", "C++", "didn't", "text:", "a*b", "left (it", "he^ ",
    ] {
        assert_eq!(hits(&store, words), [1], "{words:?}");
    }
    for words in [
        "NOT",
        "no NOT left",
        "left OR right",
        "NEAR(no left)",
        "text : right",
        "-left",
        "{text}",
        "'",
        "\u{0}",
        "*",
        "\"\"\"",
        "a\u{0}\"b",
        "+",
        "\\",
        "%",
    ] {
        let found = store.search(words, None, None, 10);
        assert!(found.is_ok(), "{words:?}: {found:?}");
    }
}

#[test]
fn an_edit_replaces_the_text_and_a_deletion_takes_it_out() {
    let mut store = searching();
    put(
        &mut store,
        [said(1, "first"), said(2, "other"), edited(3, 1, "second")],
    );
    assert_eq!((hits(&store, "first"), hits(&store, "second")), (vec![], vec![1]));
    let hit = store.search("sec", None, None, 1).unwrap().remove(0);
    assert_eq!((hit.text.as_str(), hit.places.first()), ("second", Some(&(0..6))));
    assert!(hit.message.edited_at.is_some());

    // Only the sender's edits count, and an older one that comes late does not.
    put(
        &mut store,
        [sent(6, 3, edit(1, "strange")), edited(5, 1, "fifth")],
    );
    put(&mut store, [edited(4, 1, "fourth")]);
    assert_eq!(
        (hits(&store, "strange"), hits(&store, "fourth")),
        (vec![], vec![])
    );
    assert_eq!(hits(&store, "fifth"), [1]);
    // All of it comes again.
    put(&mut store, [said(1, "first"), edited(3, 1, "second")]);
    assert_eq!((hits(&store, "first"), hits(&store, "fifth")), (vec![], vec![1]));
    check(&store);

    put(&mut store, [deletion(7, 1)]);
    assert_eq!((hits(&store, "fifth"), hits(&store, "other")), (vec![], vec![2]));
    put(&mut store, [edited(8, 1, "eighth"), said(1, "first")]);
    assert_eq!((hits(&store, "eighth"), hits(&store, "first")), (vec![], vec![]));
    check(&store);
}

fn edit(message: u64, body: &'static str) -> Outgoing {
    let mut edit = Outgoing::new(CHAT, body);
    edit.envelope.kind = v1::MessageKind::Edit.into();
    edit.envelope.target_seq = message;
    edit
}

#[test]
fn no_word_of_a_deleted_message_is_left_on_the_disk() {
    // Each word is in no other message. In the index words are stored without the letters in which they begin like the
    // word before, so their ends are looked for.
    const SECRET: &str = "zebra-marzipan quokkapudding";
    const ENDS: [&str; 3] = ["ebra", "arzipan", "uokkapudding"];
    let directory = tempfile::tempdir().unwrap();
    let location = StoreLocation::File(directory.path().join("device.db"));
    let mut store = Store::open(&location, true).unwrap();
    store.set_search(&SearchText::Plain).unwrap();
    // Enough other messages, in several commits, for an index of several parts and pages.
    for part in 0..20_u64 {
        let others = (1..=50).map(|seq| said(100 + part * 50 + seq, format!("word{seq} part{part} other")));
        put(&mut store, others);
        if part == 10 {
            put(
                &mut store,
                [said(1, SECRET), said(2, "innocent"), edited(3, 2, SECRET)],
            );
        }
    }
    assert_eq!(hits(&store, "marzipan"), [2, 1]);
    put(&mut store, [deletion(4, 1), deletion(5, 2)]);
    assert!(hits(&store, "marzipan").is_empty());
    for end in ENDS {
        assert_eq!(found(directory.path(), end), 0, "{end}");
    }
    check(&store);
}

#[test]
fn pages_follow_each_other_in_one_chat_and_in_all() {
    let (one, two) = (CHAT, ChatId(Uuid::from_u128(2)));
    let mut store = searching();
    // The times of chat one fall once, and equal times are in both chats.
    put(
        &mut store,
        [
            in_chat(one, 10, said(1, "word a")),
            in_chat(one, 5, said(2, "word b")),
            in_chat(two, 10, said(1, "word c")),
            in_chat(two, 20, said(2, "word d")),
            in_chat(one, 10, said(3, "word e")),
        ],
    );
    let pages = |chat| {
        let (mut texts, mut before) = (Vec::new(), None);
        loop {
            let page = store.search("word", chat, before, 2).unwrap();
            let Some(last) = page.last() else { break };
            assert!(page.len() <= 2);
            before = Some(last.place());
            texts.extend(page.iter().map(|hit| hit.text[5..].to_owned()));
        }
        texts.concat()
    };
    assert_eq!(pages(Some(one)), "eba");
    assert_eq!(pages(Some(two)), "dc");
    assert_eq!(pages(None), "dceab");
    assert_eq!(store.search("word", None, None, 0).unwrap(), []);
    put(&mut store, (10..400).map(|seq| said(seq, "word")));
    assert_eq!(store.search("word", None, None, usize::MAX).unwrap().len(), 256);
}

#[test]
fn files_are_found_by_their_names_and_the_text_beside_them() {
    let media = MediaId::random().to_string();
    let file = Attachment {
        file: v1::AttachedFile {
            media_id: media.clone(),
            name: "Holiday_2024.jpg".to_owned(),
            ..Default::default()
        },
        ticket: v1::MediaTicket {
            media_id: media,
            ..Default::default()
        },
    };
    let mut store = searching();
    put(
        &mut store,
        [sent(1, 2, with_files(CHAT, "our beach", vec![file]))],
    );
    for words in ["beach", "holiday", "2024", "holiday_2024.jpg"] {
        assert_eq!(hits(&store, words), [1], "{words:?}");
    }
}

#[test]
fn an_app_says_by_which_texts_messages_are_found() {
    let mut store = memory();
    let shout = |entry: &Entry| entry.text().map(|text| text.replace("x", "secret "));
    store.set_search(&SearchText::By(Arc::new(shout))).unwrap();
    put(&mut store, [said(1, "xone"), said(2, "two")]);
    assert_eq!(hits(&store, "secret one"), [1]);

    store.set_search(&SearchText::Off).unwrap();
    assert!(matches!(
        store.search("two", None, None, 1),
        Err(ClientError::Config(_))
    ));
    put(&mut store, [said(3, "two again"), deletion(4, 1)]);
    store.set_search(&SearchText::Plain).unwrap();
    assert!(store.has_unindexed().unwrap());
    assert!(!store.index_older().unwrap());
    assert_eq!(
        (hits(&store, "two"), hits(&store, "secret")),
        (vec![3, 2], vec![])
    );
    check(&store);
}

#[test]
fn no_app_brings_a_deleted_message_back_into_the_index() {
    let mut store = memory();
    let remembers = |_: &Entry| Some("secret".to_owned());
    store.set_search(&SearchText::By(Arc::new(remembers))).unwrap();
    put(&mut store, [said(1, "xyz")]);
    assert_eq!(hits(&store, "secret"), [1]);
    put(&mut store, [deletion(2, 1)]);
    assert_eq!(hits(&store, "secret"), [0; 0]);
    check(&store);
}

/// Indexes a step of what is not indexed yet, and opens the store anew as after a crash.
fn step_and_open(mut store: Store, location: &StoreLocation) -> (Store, bool) {
    let more = store.index_older().unwrap();
    drop(store);
    let mut store = Store::open(location, true).unwrap();
    store.set_search(&SearchText::Plain).unwrap();
    (store, more)
}

#[test]
fn a_store_of_version_2_is_indexed_in_steps_beside_everything_else() {
    const MANY: u64 = 450;
    let directory = tempfile::tempdir().unwrap();
    let location = StoreLocation::File(directory.path().join("device.db"));
    let entries = (1..=MANY).map(|seq| said(seq, format!("word n{seq}")));
    let acts = [edited(1001, 1, "changed n1"), deletion(1002, 2)];
    let entries: Vec<Entry> = entries.chain(acts).collect();
    make(&directory.path().join("device.db"), 2, &entries);

    let mut store = Store::open(&location, true).unwrap();
    store.set_search(&SearchText::Plain).unwrap();
    assert!(store.has_unindexed().unwrap());
    assert!(hits(&store, "word").is_empty());
    let (next, more) = step_and_open(store, &location);
    store = next;
    assert!(more && store.has_unindexed().unwrap());
    assert_eq!(hits(&store, &format!("n{MANY}")), [MANY]);
    assert!(hits(&store, "n4 word").is_empty());
    // Messages that the next steps have not reached are edited and deleted, and new ones come.
    put(
        &mut store,
        [
            edited(1003, 3, "late n3"),
            deletion(1004, 4),
            said(1005, "word new"),
        ],
    );
    assert_eq!(hits(&store, "late"), [3]);
    for expected in [true, false] {
        let (next, more) = step_and_open(store, &location);
        store = next;
        assert_eq!(more, expected);
    }
    assert!(!store.has_unindexed().unwrap());
    let missing = (1..=MANY).filter(|seq| hits(&store, &format!("n{seq} n")).is_empty());
    assert_eq!(missing.collect::<Vec<_>>(), [2, 4], "the deleted ones");
    assert_eq!(
        (hits(&store, "changed"), hits(&store, "late")),
        (vec![1], vec![3])
    );
    assert_eq!(hits(&store, "new"), [1005]);
    check(&store);
}

#[test]
fn a_new_epoch_empties_the_index() {
    let mut store = searching();
    put(&mut store, [said(1, "hello")]);
    let reset = Change::Reset {
        epoch: Uuid::from_u128(2),
        since: NOW,
    };
    store.commit(&[reset]).unwrap();
    assert!(hits(&store, "hello").is_empty());
    put(&mut store, [said(1, "hello again")]);
    assert_eq!(hits(&store, "again"), [1]);
    check(&store);
}

#[test]
fn without_history_there_is_no_index() {
    let mut store = Store::open(&StoreLocation::Memory, false).unwrap();
    store.set_search(&SearchText::Plain).unwrap();
    assert!(store.search("hello", None, None, 1).is_err());
    put(&mut store, [said(1, "hello")]);
    assert!(!store.has_unindexed().unwrap());
}
