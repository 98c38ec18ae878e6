//! Tests of the messages of all chats of a user, by their time and by what was not delivered.

use sqlx::PgConnection;
use tern_chat::store::history::Bounds;
use tern_chat::store::timeline::{Page, Place, Timeline, Which};
use tern_chat::store::{commit, settle};
use tern_chat_core::change::Action;
use tern_chat_core::{EntryKind, NewEntry};
use tern_proto::v1;
use tern_types::{Cells, Seq, Timestamp, UserId};

use crate::harness::{self, Known, Store, new_entry};

const BOUNDS: Bounds = Bounds {
    limit: 100,
    bytes: 1 << 20,
};
const ALL: Which = Which::SentBefore(Timestamp(i64::MAX));

impl Store {
    fn timeline(&self, user: UserId) -> Timeline<'_> {
        Timeline {
            pools: &self.pools,
            master: &self.master,
            user,
        }
    }

    /// Returns the seqs of the messages that a user finds, of all pages.
    async fn listed(&self, user: UserId, which: Which) -> Vec<u64> {
        let places = all(self.timeline(user), which, Timestamp(0), BOUNDS).await;
        places.iter().map(|place| place.seq.0).collect()
    }
}

/// Commits an entry with this time, and returns its place.
async fn put(db: &mut PgConnection, chat: &mut Known, new: NewEntry, at: i64) -> Place {
    let mut batch = chat.batch(vec![new]);
    batch.entries[0].sent_at = Timestamp(at);
    let stored = commit::commit(db, std::slice::from_ref(&batch)).await.unwrap();
    assert!(stored.contains(&chat.id));
    chat.head = batch.head();
    chat.ordinal = batch.entries[0].ordinal;
    Place {
        at: Timestamp(at),
        chat: chat.id,
        seq: chat.head,
    }
}

fn place(message: &v1::HistoryMessage) -> Place {
    let entry = message.entry.as_ref().unwrap();
    Place {
        at: Timestamp(entry.sent_at_ms),
        chat: entry.chat_id.parse().unwrap(),
        seq: Seq(entry.seq),
    }
}

/// Reads all pages from a time on.
async fn all(timeline: Timeline<'_>, which: Which, since: Timestamp, bounds: Bounds) -> Vec<Place> {
    let (mut found, mut from) = (Vec::new(), Some(Place::before(since)));
    while let Some(after) = from {
        let page: Page = timeline.page(which, after, bounds).await.unwrap();
        assert!(!page.partial && page.messages.len() <= bounds.limit as usize);
        found.extend(page.messages.iter().map(place));
        from = page.next;
        assert!(from.is_none_or(|next| next > after), "each page begins later");
    }
    found
}

#[tokio::test]
async fn the_messages_of_all_chats_come_in_the_order_of_their_times_whatever_the_pages() {
    let store = Store::with_cells(None).await;
    let me = store.user().await;
    let mut chats = Vec::new();
    for _ in 0..6 {
        let other = store.user().await;
        chats.push((store.direct(me, other).await, other));
    }
    let mut said = Vec::new();
    for n in 0..48 {
        let (chat, other) = &mut chats[(n * n + n / 6) % 6];
        let mut db = store.shard_of(Cells::DEFAULT.of_chat(chat.id)).await;
        let is_message = n % 4 != 3;
        let kind = if is_message {
            EntryKind::Message
        } else {
            EntryKind::Reaction
        };
        let sender = if n % 3 == 0 { me } else { *other };
        // Two entries in a row have the same time.
        let at = 1_000 + n as i64 / 2;
        let put = put(&mut db, chat, new_entry(sender, kind, b"x"), at).await;
        said.extend(is_message.then_some(put));
    }
    said.sort_unstable();
    let timeline = store.timeline(me);
    for (limit, bytes) in [(1, 1 << 20), (3, 1 << 20), (100, 1 << 20), (10, 1)] {
        let bounds = Bounds { limit, bytes };
        let found = all(timeline, ALL, Timestamp(0), bounds).await;
        assert_eq!(found, said, "pages of {limit} messages and {bytes} bytes");
        let (since, before) = (Timestamp(1_005), Timestamp(1_016));
        let found = all(timeline, Which::SentBefore(before), since, bounds).await;
        let expected: Vec<Place> = said
            .iter()
            .copied()
            .filter(|place| (since..before).contains(&place.at))
            .collect();
        assert_eq!(found, expected, "pages of {limit} messages and {bytes} bytes");
    }
    let nobody = store.user().await;
    assert_eq!(store.listed(nobody, ALL).await, [0; 0]);
}

#[tokio::test]
async fn a_user_is_shown_what_was_sent_while_they_were_a_member() {
    let (store, [a, b], _, mut chat, mut db) = harness::group().await;
    let first = store.say(&mut db, &mut chat, a, "with both").await;
    store.change(&mut db, &mut chat, a, Action::Remove(b)).await;
    let hidden = store.say(&mut db, &mut chat, a, "without").await;
    store.change(&mut db, &mut chat, a, Action::Add(vec![b])).await;
    let last = store.say(&mut db, &mut chat, a, "with both again").await;
    assert_eq!(store.listed(a, ALL).await, [first.0, hidden.0, last.0]);
    assert_eq!(store.listed(b, ALL).await, [first.0, last.0]);
    store.change(&mut db, &mut chat, a, Action::Remove(b)).await;
    store.say(&mut db, &mut chat, a, "without").await;
    assert_eq!(
        store.listed(b, ALL).await,
        [first.0, last.0],
        "also after they left"
    );
}

#[tokio::test]
async fn what_no_device_of_a_user_has_acknowledged_is_listed_until_one_does() {
    let (store, [a, b], [a1, b1], mut chat, mut db) = harness::group().await;
    let mut said = Vec::new();
    for _ in 0..3 {
        said.push(store.say(&mut db, &mut chat, a, "hello").await.0);
    }
    let own = store.say(&mut db, &mut chat, b, "hello").await.0;
    assert_eq!(
        store.listed(b, Which::Undelivered).await,
        said,
        "what is not settled"
    );
    assert_eq!(store.listed(a, Which::Undelivered).await, [own]);

    let acks = [(a1, own), (b1, said[0])];
    store.settle(&mut db, chat.id, Seq(own), &acks).await;
    settle::close(&mut db, &[(chat.id, Seq(own))]).await.unwrap();
    assert_eq!(store.listed(a, Which::Undelivered).await, [0; 0]);
    assert_eq!(store.listed(b, Which::Undelivered).await, said[1..]);
    assert_eq!(store.listed(b, Which::UndeliveredIn(chat.id)).await, said[1..]);
    store.ack(&mut db, chat.id, b, b1, said[1]).await;
    assert_eq!(store.listed(b, Which::Undelivered).await, said[2..]);

    // One of two devices is enough.
    let b2 = store.device(b).await;
    let last = store.say(&mut db, &mut chat, a, "and more").await;
    store.settle(&mut db, chat.id, last, &[(a1, last.0)]).await;
    settle::close(&mut db, &[(chat.id, last)]).await.unwrap();
    assert_eq!(store.listed(b, Which::Undelivered).await, [last.0]);
    store.ack(&mut db, chat.id, b, b2, last.0).await;
    assert_eq!(store.listed(b, Which::Undelivered).await, [0; 0]);
}

#[tokio::test]
async fn what_waits_for_somebody_without_a_device_or_membership_is_listed_too() {
    let store = Store::new().await;
    let (a, b) = (store.user().await, store.user().await);
    let a1 = store.device(a).await;
    let (mut group, mut direct) = (store.group(a, &[b]).await, store.direct(a, b).await);
    let mut db = store.shard().await;
    let mut said = Vec::new();
    for chat in [&mut group, &mut direct] {
        let seq = store.say(&mut db, chat, a, "hello").await;
        store.settle(&mut db, chat.id, seq, &[(a1, seq.0)]).await;
        settle::close(&mut db, &[(chat.id, seq)]).await.unwrap();
        said.push(seq.0);
        assert_eq!(store.listed(b, Which::UndeliveredIn(chat.id)).await, [seq.0]);
    }
    let listed = async || {
        let mut seqs = store.listed(b, Which::Undelivered).await;
        seqs.sort_unstable();
        seqs
    };
    said.sort_unstable();
    assert_eq!(listed().await, said);
    // The removal and what came before it are still sent to the person who was removed.
    store.change(&mut db, &mut group, a, Action::Remove(b)).await;
    store.say(&mut db, &mut group, a, "not for b").await;
    assert_eq!(listed().await, said);
}
