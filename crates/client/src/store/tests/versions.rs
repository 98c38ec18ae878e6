//! Tests of stores that earlier versions have made.

use std::path::Path;

use prost::encoding::{self, WireType};
use rusqlite::{Connection, params};
use tern_proto::v1::MessageKind;

use tern_client_core::model::{Deletion, Only};

use super::messages::{deletion, edited, found, message, put, reaction, said, sent, seqs};
use super::*;
use crate::search_text::SearchText;
use crate::store::{migrate, rows};

/// The tables of version 3.
const VERSION_3: &str = include_str!("version_3.sql");

/// Makes a store of this version with these entries, which have what that version knew of their contents.
pub(super) fn make(path: &Path, version: i64, entries: &[Entry]) {
    let store = Connection::open(path).unwrap();
    store.execute_batch(VERSION_3).unwrap();
    let older = match version {
        1 => {
            "DROP INDEX entries_about; ALTER TABLE entries DROP COLUMN kind; \
             ALTER TABLE entries DROP COLUMN target; ALTER TABLE entries DROP COLUMN text; \
             PRAGMA user_version = 1;"
        }
        2 => "ALTER TABLE entries DROP COLUMN text; PRAGMA user_version = 2;",
        _ => "PRAGMA user_version = 3;",
    };
    store.execute_batch(older).unwrap();
    let me = "INSERT INTO meta (key, value) VALUES ('user', ?1), ('listed', x'01')";
    store.execute(me, [user(1).as_bytes()]).unwrap();
    for entry in entries {
        let put = "INSERT INTO entries (chat, seq, sent_at, sender, ordinal, counts, content) \
             VALUES (?1, ?2, ?3, ?4, ?2, 1, ?5)";
        let sender = entry.sender.map(|id| *id.as_bytes());
        let content = entry.content.encoded().to_vec();
        let (chat, seq) = (entry.chat.as_bytes(), entry.seq.to_i64());
        let of = params![chat, seq, entry.sent_at.0, sender, content];
        store.execute(put, of).unwrap();
        if version > 1 {
            let put = "UPDATE entries SET kind = ?1, target = ?2 WHERE seq = ?3";
            let target = entry.target().map(Seq::to_i64);
            store
                .execute(put, params![rows::kind(entry), target, seq])
                .unwrap();
        }
    }
}

/// Returns a directory, and the place of a store in it.
fn place() -> (tempfile::TempDir, StoreLocation) {
    let directory = tempfile::tempdir().unwrap();
    let location = StoreLocation::File(directory.path().join("device.db"));
    (directory, location)
}

fn path(directory: &tempfile::TempDir) -> std::path::PathBuf {
    directory.path().join("device.db")
}

#[test]
fn a_store_of_version_1_shows_what_that_version_did_not_understand() {
    const SECRET: &str = "a secret of version 1";
    let (directory, location) = place();
    let entries = [
        said(1, SECRET),
        said(2, "two"),
        edited(3, 2, "zwei"),
        reaction(4, 1, 2, "👍"),
        deletion(5, 1),
    ];
    make(&path(&directory), 1, &entries);
    let store = Store::open(&location, true).unwrap();
    assert_eq!(found(directory.path(), SECRET), 0);
    let messages = store.messages(CHAT, None, 10).unwrap();
    assert_eq!(seqs(&messages), [1, 2]);
    assert_eq!(messages[0].deleted, Some(Deletion { by: Some(user(3)) }));
    assert_eq!(messages[1].entry.text().as_deref(), Some("zwei"));
    assert_eq!(messages[1].reactions.len(), 1);
    drop(store);
    assert!(Store::open(&location, true).is_ok(), "it is up to date now");
}

#[test]
fn stores_of_every_version_have_what_the_present_one_knows_of_their_entries() {
    for version in 1..=3 {
        let (directory, location) = place();
        let mut reply = Outgoing::new(CHAT, "and so").in_thread(Seq(1));
        reply.envelope.mentioned_user_ids = vec![user(1).to_string()];
        reply.envelope.attachments = vec![v1::Attachment::default()];
        make(&path(&directory), version, &[said(1, "root"), sent(2, 2, reply)]);
        let mut store = Store::open(&location, true).unwrap();
        let only = |store: &Store, only| seqs(&store.messages_only(CHAT, only, None, 10).unwrap());
        for chosen in [Only::Thread(Seq(1)), Only::WithAttachments] {
            assert_eq!(only(&store, chosen), [2], "{version} {chosen:?}");
        }
        assert_eq!(message(&store, 1).reply_count, 1, "{version}");
        assert!(!store.load().unwrap().listed, "{version}: chats are listed again");
        let read_none = ChatRow {
            listed_head: Seq::ZERO,
            chat: Chat {
                read: Seq::ZERO,
                ..row(None).chat
            },
            ..row(None)
        };
        store.commit(&[Change::Chat(read_none)]).unwrap();
        assert_eq!(store.load().unwrap().chats[0].mentions, [Seq(2)], "{version}");
    }
}

/// The index of version 3 goes on, and what version 3 has erased stays erased.
#[test]
fn a_store_of_version_3_keeps_its_index() {
    let (directory, location) = place();
    let gone = Entry {
        content: tern_client_core::model::erased(MessageKind::Message, None),
        ..said(2, "")
    };
    make(&path(&directory), 3, &[said(1, "hello there"), gone]);
    let index = Connection::open(path(&directory)).unwrap();
    index.execute_batch(include_str!("../search.sql")).unwrap();
    let text = "INSERT INTO texts (id, chat, seq, sent_at, text) VALUES (7, ?1, 1, 1, 'hello there')";
    index.execute(text, [CHAT.as_bytes()]).unwrap();
    index
        .execute_batch(
            "INSERT INTO search (rowid, text) VALUES (7, 'hello there'); \
             UPDATE entries SET text = 7 WHERE seq = 1;",
        )
        .unwrap();
    drop(index);
    let mut store = Store::open(&location, true).unwrap();
    store.set_search(&SearchText::Plain).unwrap();
    assert_eq!(store.search("hello", None, None, 10).unwrap().len(), 1);
    assert_eq!(message(&store, 2).deleted, Some(Deletion { by: None }));
    put(&mut store, [deletion(3, 1)]);
    assert_eq!(store.search("hello", None, None, 10).unwrap().len(), 0);
}

/// The first start of this version was killed after the migration, or had no room for a new file.
#[test]
fn what_an_earlier_version_left_in_free_pages_is_removed_by_a_later_start() {
    const SECRET: &str = "deleted by version 1";
    let (directory, location) = place();
    make(&path(&directory), 1, &[]);
    // It did not overwrite what it deleted.
    let mut version_1 = Connection::open(path(&directory)).unwrap();
    version_1.pragma_update(None, "secure_delete", false).unwrap();
    version_1
        .execute_batch("CREATE TABLE deleted (body TEXT)")
        .unwrap();
    let body = SECRET.repeat(2000);
    version_1
        .execute("INSERT INTO deleted (body) VALUES (?1)", [body])
        .unwrap();
    version_1.execute_batch("DROP TABLE deleted").unwrap();
    migrate::from(1, &mut version_1).unwrap();
    drop(version_1);
    assert!(found(directory.path(), SECRET) > 0);
    drop(Store::open(&location, true).unwrap());
    assert_eq!(found(directory.path(), SECRET), 0);
}

#[test]
fn entries_that_were_not_stored_as_a_whole_are_noted_until_they_were_read_again() {
    let unknown = |seq| Entry {
        content: v1::EntryContent::default(),
        ..entry(CHAT, seq)
    };
    let pin = sent(4, 3, Outgoing::pin(CHAT, Seq(1), false));
    let entries = [
        said(1, "one"),
        unknown(2),
        reaction(3, 3, 1, "👍"),
        pin,
        unknown(5),
    ];
    for (version, expected) in [(1, vec![2, 3, 4, 5]), (2, vec![2, 5]), (3, vec![2, 5])] {
        let (directory, location) = place();
        make(&path(&directory), version, &entries);
        let mut store = Store::open(&location, true).unwrap();
        assert_eq!(store.first_lost().unwrap(), Some((CHAT, Seq(2))), "{version}");
        let all: Vec<Seq> = (1..=5).map(Seq).collect();
        let lost = store.lost_of(CHAT, &all).unwrap();
        assert_eq!(lost.iter().map(|seq| seq.0).collect::<Vec<_>>(), expected);
        let back = sent(3, 3, Outgoing::reaction(CHAT, Seq(1), "👍", true));
        put(&mut store, [back]);
        assert!(
            message(&store, 1).reactions.is_empty(),
            "{version}: it was taken back"
        );
        store.forget_lost(CHAT, Some(Seq(4))).unwrap();
        assert_eq!(store.first_lost().unwrap(), Some((CHAT, Seq(5))), "{version}");
        store.forget_lost(CHAT, None).unwrap();
        assert_eq!(store.first_lost().unwrap(), None, "{version}");
    }
}

#[test]
fn a_content_is_stored_as_it_came() {
    let mut newer = said(1, "one").content.encoded().to_vec();
    encoding::encode_key(1000, WireType::Varint, &mut newer);
    encoding::encode_varint(3, &mut newer);
    let came = Entry {
        unknown: newer.into(),
        ..said(1, "one")
    };
    let mut store = memory();
    put(&mut store, [came.clone()]);
    assert_eq!(store.history(CHAT, None, 1).unwrap(), [came]);
}
