//! Tests of history: messages as they are now.

use bytes::Bytes;
use sqlx::PgConnection;
use tern_chat::store::commit;
use tern_chat::store::history::{Begin, Bounds, Only, Page, Reader};
use tern_chat_core::change::Action;
use tern_chat_core::target::About;
use tern_chat_core::{EntryKind, MediaRef, NewEntry};
use tern_proto::{raw, v1};
use tern_types::{MediaId, Seq, Timestamp, UserId};

use crate::harness::{Known, Store, new_entry};

const BOUNDS: Bounds = Bounds {
    limit: 100,
    bytes: 1 << 20,
};
const NEWEST: Begin = Begin::Below(Seq(i64::MAX as u64));

/// Makes an entry with a real content.
fn entry(sender: UserId, kind: EntryKind, body: &str) -> NewEntry {
    let body = Bytes::copy_from_slice(body.as_bytes());
    NewEntry {
        content: raw::message_content(&Bytes::new(), &body),
        ..new_entry(sender, kind, b"")
    }
}

/// Makes an entry of this kind about the message at `target`.
fn about(sender: UserId, kind: EntryKind, target: Seq, body: &str) -> NewEntry {
    NewEntry {
        about: Some(About {
            target,
            take_back: false,
            reaction: Bytes::copy_from_slice(body.as_bytes()),
        }),
        ..entry(sender, kind, body)
    }
}

/// A chat of two people, and what is needed to write to it.
struct Two {
    store: Store,
    db: PgConnection,
    chat: Known,
    people: [UserId; 2],
}

impl Two {
    async fn new() -> Self {
        let store = Store::new().await;
        let people = [store.user().await, store.user().await];
        let chat = store.group(people[0], &[people[1]]).await;
        let db = store.shard().await;
        Self {
            store,
            db,
            chat,
            people,
        }
    }

    /// Commits an entry, and returns its seq.
    async fn put(&mut self, new: NewEntry) -> Seq {
        let batch = self.chat.batch(vec![new]);
        let stored = commit::commit(&mut self.db, std::slice::from_ref(&batch)).await;
        assert!(stored.unwrap().contains(&self.chat.id));
        self.chat.head = batch.head();
        self.chat.ordinal = batch.entries[0].ordinal;
        self.chat.head
    }

    async fn say(&mut self, person: usize, text: &str) -> Seq {
        let new = entry(self.people[person], EntryKind::Message, text);
        self.put(new).await
    }

    fn reader(&self, person: usize) -> Reader<'_> {
        Reader {
            pools: &self.store.pools,
            master: &self.store.master,
            chat: self.chat.id,
            user: self.people[person],
        }
    }

    async fn page(&self, only: Only, from: Begin, bounds: Bounds) -> Page {
        self.reader(1).page(only, from, bounds).await.unwrap()
    }

    /// Returns the seqs of all messages that the second person finds.
    async fn seqs(&self, only: Only) -> Vec<u64> {
        seqs(&self.page(only, NEWEST, BOUNDS).await)
    }
}

fn seqs(page: &Page) -> Vec<u64> {
    let seq = |message: &v1::HistoryMessage| message.entry.as_ref().unwrap().seq;
    page.messages.iter().map(seq).collect()
}

/// Returns the text of a message as it is now; `None` if it was erased.
fn text(message: &v1::HistoryMessage) -> Option<String> {
    let content = &message.entry.as_ref().unwrap().content;
    let body = raw::message_body(content);
    (!body.is_empty()).then(|| String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn a_message_is_read_as_it_is_now() {
    let mut two = Two::new().await;
    let [a, b] = two.people;
    let first = two.say(0, "helo").await;
    let plain = two.say(1, "plain").await;
    two.put(about(a, EntryKind::Edit, first, "hello")).await;
    let edit = two.put(about(a, EntryKind::Edit, first, "hello!")).await;
    for (user, reaction) in [(a, "+"), (b, "+"), (a, "-")] {
        two.put(about(user, EntryKind::Reaction, first, reaction)).await;
    }
    let pin = two.put(about(a, EntryKind::Pin, first, "")).await;
    let reply = NewEntry {
        thread_root: Some(first),
        ..entry(b, EntryKind::Message, "a reply")
    };
    let reply = two.put(reply).await;

    let page = two.page(Only::All, NEWEST, BOUNDS).await;
    assert_eq!(
        seqs(&page),
        [reply.0, plain.0, first.0],
        "messages only, each once"
    );
    assert_eq!(page.next, None);
    let message = two.reader(1).message(first).await.unwrap().unwrap();
    assert_eq!(message, page.messages[2], "one is read as a page has it");
    assert_eq!(text(&message).as_deref(), Some("hello!"));
    assert_eq!((message.edited_seq, message.pinned_seq), (edit.0, pin.0));
    assert!(message.edited_at_ms > 0 && message.deleted_at_ms == 0);
    assert_eq!(message.reply_count, 1);
    let reactions = message.reactions.iter();
    let reactions: Vec<_> = reactions
        .map(|one| (&one.reaction[..], one.count, one.own))
        .collect();
    assert_eq!(reactions, [(&b"+"[..], 2, true), (&b"-"[..], 1, false)]);
    let untouched = two.reader(1).message(plain).await.unwrap().unwrap();
    assert_eq!((untouched.edited_seq, untouched.reactions), (0, Vec::new()));

    let edits = two.page(Only::EditsOf(first), Begin::Above(Seq(0)), BOUNDS).await;
    let texts: Vec<_> = edits.messages.iter().filter_map(text).collect();
    assert_eq!(texts, ["hello", "hello!"]);
}

#[tokio::test]
async fn of_a_deleted_message_only_who_deleted_it_is_left() {
    let mut two = Two::new().await;
    let [a, b] = two.people;
    let message = two.say(1, "hello").await;
    two.put(about(b, EntryKind::Edit, message, "hallo")).await;
    two.put(about(a, EntryKind::Reaction, message, "+")).await;
    two.put(about(a, EntryKind::Pin, message, "")).await;
    assert_eq!(two.seqs(Only::Pinned).await, [message.0]);
    let deletion = two.put(about(a, EntryKind::Delete, message, "")).await;
    assert_eq!(two.seqs(Only::Pinned).await, [0; 0]);
    let left = two.reader(1).message(message).await.unwrap().unwrap();
    assert_eq!(text(&left), None);
    assert_eq!(
        (left.deleted_seq, left.deleted_by_user_id),
        (deletion.0, a.to_string())
    );
    assert_eq!(left.reactions, []);
    let edits = two
        .page(Only::EditsOf(message), Begin::Above(Seq(0)), BOUNDS)
        .await;
    assert_eq!(edits, Page::default());
}

#[tokio::test]
async fn pages_go_both_ways_and_miss_nothing() {
    let mut two = Two::new().await;
    let a = two.people[0];
    let mut said = Vec::new();
    for n in 0..7 {
        said.push(two.say(n % 2, "x").await.0);
        let target = Seq(said[n]);
        two.put(about(a, EntryKind::Reaction, target, "+")).await;
    }
    let bounds = Bounds { limit: 3, ..BOUNDS };
    let (mut down, mut from) = (Vec::new(), Some(NEWEST));
    while let Some(at) = from {
        let page = two.page(Only::All, at, bounds).await;
        down.extend(seqs(&page));
        from = page.next.map(Begin::Below);
    }
    let (mut up, mut from) = (Vec::new(), Some(Begin::Above(Seq(0))));
    while let Some(at) = from {
        let page = two.page(Only::All, at, bounds).await;
        up.extend(seqs(&page));
        from = page.next.map(Begin::Above);
    }
    assert_eq!(up, said);
    down.reverse();
    assert_eq!(down, said);
    let small = Bounds { bytes: 1, ..BOUNDS };
    let page = two.page(Only::All, NEWEST, small).await;
    assert_eq!(seqs(&page), [said[6]], "one always fits");
    assert_eq!(page.next, Some(Seq(said[6])));
}

#[tokio::test]
async fn a_page_has_only_what_was_asked_for() {
    let mut two = Two::new().await;
    let [a, b] = two.people;
    let root = two.say(0, "root").await;
    let other = two.say(1, "other").await;
    let reply = |sender| NewEntry {
        thread_root: Some(root),
        ..entry(sender, EntryKind::Message, "a reply")
    };
    let replies = [two.put(reply(a)).await.0, two.put(reply(b)).await.0];
    two.put(about(b, EntryKind::Pin, other, "")).await;
    two.put(about(a, EntryKind::Pin, root, "")).await;
    let mut unpin = about(a, EntryKind::Pin, root, "");
    unpin.about.as_mut().unwrap().take_back = true;
    two.put(unpin).await;
    let expires_at = Timestamp(i64::MAX);
    let mut picture = entry(a, EntryKind::Message, "two pictures");
    let refs = [MediaId::random(), MediaId::random()].map(|media| MediaRef { media, expires_at });
    picture.media = refs.to_vec();
    let picture = two.put(picture).await;

    assert_eq!(two.seqs(Only::InThread(root)).await, [replies[1], replies[0]]);
    assert_eq!(two.seqs(Only::OfSender(b)).await, [replies[1], other.0]);
    assert_eq!(two.seqs(Only::WithAttachments).await, [picture.0]);
    assert_eq!(two.seqs(Only::Pinned).await, [other.0]);
    let up = two.page(Only::InThread(root), Begin::Above(Seq(0)), BOUNDS).await;
    assert_eq!(seqs(&up), replies);
}

#[tokio::test]
async fn nobody_reads_messages_of_a_time_when_they_were_no_member() {
    let mut two = Two::new().await;
    let [a, b] = two.people;
    let mut db = two.store.shard().await;
    let first = two.say(0, "with both").await;
    two.store
        .change(&mut db, &mut two.chat, a, Action::Remove(b))
        .await;
    let hidden = two.say(0, "without").await;
    two.store
        .change(&mut db, &mut two.chat, a, Action::Add(vec![b]))
        .await;
    let last = two.say(0, "with both again").await;
    assert_eq!(two.seqs(Only::All).await, [last.0, first.0]);
    assert_eq!(two.reader(1).message(hidden).await.unwrap(), None);
    let found = two.reader(0).message(hidden).await.unwrap();
    assert_eq!(found.as_ref().and_then(text).as_deref(), Some("without"));
}

#[tokio::test]
async fn what_was_done_to_a_message_while_somebody_was_no_member_is_not_shown_to_them() {
    let mut two = Two::new().await;
    let [a, b] = two.people;
    let mut db = two.store.shard().await;
    let message = two.say(0, "hello").await;
    let seen = two.put(about(a, EntryKind::Edit, message, "hello, both")).await;
    two.put(about(b, EntryKind::Reaction, message, "+")).await;
    two.store
        .change(&mut db, &mut two.chat, a, Action::Remove(b))
        .await;
    let hidden = two.put(about(a, EntryKind::Edit, message, "about b")).await;
    two.put(about(a, EntryKind::Reaction, message, "+")).await;
    two.put(about(a, EntryKind::Reaction, message, "-")).await;
    two.store
        .change(&mut db, &mut two.chat, a, Action::Add(vec![b]))
        .await;
    let shown = |found: v1::HistoryMessage| {
        let reactions = found
            .reactions
            .iter()
            .map(|one| (one.reaction.to_vec(), one.count));
        (text(&found), found.edited_seq, reactions.collect::<Vec<_>>())
    };
    let of_b = shown(two.reader(1).message(message).await.unwrap().unwrap());
    let expected = (Some("hello, both".to_owned()), seen.0, vec![(b"+".to_vec(), 1)]);
    assert_eq!(of_b, expected);
    let of_a = shown(two.reader(0).message(message).await.unwrap().unwrap());
    assert_eq!(
        (of_a.0.as_deref(), of_a.1, of_a.2.len()),
        (Some("about b"), hidden.0, 2)
    );
    let edits = two
        .page(Only::EditsOf(message), Begin::Above(Seq(0)), BOUNDS)
        .await;
    assert_eq!(seqs(&edits), [seen.0]);
}

#[tokio::test]
async fn a_page_that_found_nothing_in_its_part_of_the_log_says_where_the_next_begins() {
    let mut two = Two::new().await;
    let first = two.say(0, "first").await;
    // The head is where it would be if 5,000 reactions had followed.
    let head = first.0 + 5_000;
    sqlx::query("UPDATE chat_heads SET head_seq = $2 WHERE chat_id = $1")
        .bind(two.chat.id.0)
        .bind(Seq(head).to_i64())
        .execute(two.store.pools.of(two.chat.id))
        .await
        .unwrap();
    let newest = two.page(Only::All, NEWEST, BOUNDS).await;
    assert_eq!(seqs(&newest), [0; 0]);
    assert_eq!(newest.next, Some(Seq(head - 4_095)));
    let next = two
        .page(Only::All, Begin::Below(newest.next.unwrap()), BOUNDS)
        .await;
    assert_eq!((seqs(&next), next.next), (vec![first.0], None));
    let up = two.page(Only::All, Begin::Above(first), BOUNDS).await;
    assert_eq!((seqs(&up), up.next), (vec![], Some(Seq(first.0 + 4_096))));
}

#[tokio::test]
async fn of_many_reactions_the_most_frequent_are_shown_and_ones_own() {
    let mut two = Two::new().await;
    let [a, b] = two.people;
    let message = two.say(0, "hello").await;
    for number in 0..40 {
        let reaction = format!("{number}");
        two.put(about(a, EntryKind::Reaction, message, &reaction)).await;
    }
    for own in ["39", "mine"] {
        two.put(about(b, EntryKind::Reaction, message, own)).await;
    }
    let found = two.reader(1).message(message).await.unwrap().unwrap();
    let shown = found.reactions.iter().map(|one| {
        let reaction = String::from_utf8(one.reaction.to_vec()).unwrap();
        (reaction, one.count, one.own)
    });
    // Each of the 40 has one person, so the 32 that came first are shown.
    let others = (0..32).map(|number| (format!("{number}"), 1, false));
    let mut expected = vec![("39".to_owned(), 2, true)];
    expected.extend(others);
    expected.push(("mine".to_owned(), 1, true));
    assert_eq!(shown.collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn a_request_leads_to_its_message() {
    let mut two = Two::new().await;
    let new = entry(two.people[0], EntryKind::Message, "hello");
    let request = new.request;
    let seq = two.put(new).await;
    assert_eq!(two.reader(0).seq_of(request).await.unwrap(), Some(seq));
    assert_eq!(
        two.reader(1).seq_of(request).await.unwrap(),
        None,
        "it is not theirs"
    );
}
