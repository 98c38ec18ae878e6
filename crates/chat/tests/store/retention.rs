//! Tests of what the store keeps of a chat, and of what it keeps no longer.

mod dump;
mod slow;
mod two;

use std::time::Duration;

use tern_chat::store::history::Only;
use tern_chat::store::trim::disappear::{Disappeared, disappear};
use tern_chat::store::trim::{self, Trimmed};
use tern_chat::store::{listing, own};
use tern_chat_core::retention::Mode;
use tern_chat_core::{EntryKind, NewEntry};
use tern_types::{ChatId, Clock, Seq};
use uuid::Uuid;

use crate::harness::{Store, new_entry};
use two::{Two, about};

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
const MINUTE: Duration = Duration::from_secs(60);
const KEPT_FOR_AN_HOUR: Mode = Mode::ForTime(3_600);

#[tokio::test]
async fn what_was_kept_for_its_time_is_in_no_table_any_more_and_the_rest_is() {
    let mut two = Two::new().await;
    two.fill().await;
    two.fill_young().await;
    let filled = [1, 2, 3, 4, 5, 6, 7, 8];
    assert_eq!(two.left().await, filled);
    two.retain(KEPT_FOR_AN_HOUR).await;
    assert_eq!(two.left().await, filled);

    let now = Clock::wall() + Duration::from_secs(1);
    // The bodies of 1 to 5, and that of the young reaction to an old message.
    let trimmed = Trimmed {
        erased: 6,
        forgotten: 0,
    };
    assert_eq!(two.trim(now).await, trimmed);
    assert_eq!(two.left().await, [6, 7]);
    assert!(two.store.refs(two.chat.id).await.is_empty());
    let expected = [
        "1 expired kind 1 of 0",
        "2 expired kind 1 of 0",
        "3 expired kind 2 of 1",
        "4 expired kind 4 of 1",
        "5 expired kind 5 of 1",
        "6",
        "7",
        "8 expired kind 4 of 2",
        "9",
    ];
    assert_eq!(two.window(1).await, expected);
    assert_eq!(two.history(Only::All).await, [6]);
    assert_eq!(two.history(Only::OfSender(two.people[1])).await, [] as [u64; 0]);
    assert_eq!(two.history(Only::Pinned).await, [] as [u64; 0]);
    let alone = two.reader().message(Seq(1)).await.unwrap();
    assert!(alone.is_some(), "its sender may ask whether it was stored");
    // Message 6 was sent a minute before the chat was made.
    let next = two.next_look().await.unwrap();
    assert_eq!(next, two.now - MINUTE + HOUR);

    assert_eq!(two.hint(now).await, Trimmed::default(), "all is done");
    assert_eq!(two.next_look().await, Some(next), "a hint does not put it off");
    let trimmed = Trimmed {
        erased: 2,
        forgotten: 0,
    };
    assert_eq!(two.trim(next).await, trimmed);
    assert_eq!(two.left().await, [] as [i64; 0]);
}

#[tokio::test]
async fn what_is_kept_until_it_is_delivered_stays_for_the_devices_that_lack_it() {
    let mut two = Two::new().await;
    let [hers, his] = two.devices;
    two.fill().await;
    two.settle(&[hers, his]).await;
    two.fill_young().await;
    two.retain(Mode::UntilDelivered).await; // 9
    let now = Clock::wall() + Duration::from_secs(1);
    assert_eq!(two.trim(now).await.erased, 5);
    assert_eq!(two.left().await, [6, 7, 8], "nobody knows yet who has these");
    two.settle(&[hers]).await;
    assert_eq!(two.hint(now).await.erased, 0, "he lacks these");
    assert_eq!(two.left().await, [6, 7, 8]);
    assert_eq!(two.window(6).await, ["6", "7", "8", "9"], "and gets them");
    let (id, b) = (two.chat.id, two.people[1]);
    assert_eq!(two.store.ack(&mut two.db, id, b, his, 6).await, Some(Seq(7)));
    assert_eq!(two.hint(now).await.erased, 1);
    assert_eq!(two.left().await, [7, 8]);
    assert_eq!(two.store.ack(&mut two.db, id, b, his, 9).await, None);
    assert_eq!(two.hint(now).await.erased, 2);
    assert_eq!(two.left().await, [] as [i64; 0]);
    assert_eq!(two.history(Only::All).await, [] as [u64; 0]);

    // The devices have the message, so something may still be done to it.
    assert!(!two.target(6).await.erased);
    two.put(vec![about(b, EntryKind::Reaction, 6, "+")], Duration::ZERO)
        .await;
    two.put(vec![about(b, EntryKind::Pin, 6, "")], Duration::ZERO)
        .await;
    assert_eq!(two.left().await, [6, 10, 11]);
    two.settle(&[hers, his]).await;
    assert_eq!(two.hint(now).await.erased, 2);
    assert_eq!(two.left().await, [] as [i64; 0]);
}

#[tokio::test]
async fn a_message_disappears_at_its_time_with_what_was_done_to_it() {
    let mut two = Two::new().await;
    let [a, b] = two.people;
    let short = NewEntry {
        expires_after_s: 60,
        mentions: vec![b],
        ..new_entry(a, EntryKind::Message, b"short")
    };
    two.put(vec![short], Duration::ZERO).await;
    two.say(1, "stays", Duration::ZERO).await;
    let edit = NewEntry {
        expires_after_s: 60,
        ..about(a, EntryKind::Edit, 1, "edited")
    };
    let (react, pin) = (
        about(b, EntryKind::Reaction, 1, "+"),
        about(b, EntryKind::Pin, 1, ""),
    );
    for new in [edit, react, pin, about(a, EntryKind::Reaction, 2, "+")] {
        two.put(vec![new], Duration::ZERO).await;
    }
    let before = two.target(1).await;
    assert_eq!((before.erased, before.expires_after_s), (false, 60));
    assert_eq!(two.target(2).await.expires_after_s, 0);

    let (early, due) = (two.now + Duration::from_secs(59), two.now + MINUTE);
    let nothing = Disappeared::default();
    assert_eq!(disappear(two.pool(), early, 10).await.unwrap(), nothing);
    assert_eq!(two.left().await, [1, 2, 3, 4, 5, 6]);
    let gone = Disappeared {
        messages: 1,
        erased: 4,
        since: Some(due),
    };
    assert_eq!(disappear(two.pool(), due, 10).await.unwrap(), gone);
    assert_eq!(two.left().await, [2, 6]);
    assert!(two.target(1).await.erased, "nothing is done to it any more");
    assert_eq!(two.history(Only::All).await, [2]);
    let expected = ["1 expired kind 1 of 0", "2", "3 expired kind 2 of 1"];
    assert_eq!(two.window(1).await[..3], expected);
    assert_eq!(disappear(two.pool(), due, 10).await.unwrap(), nothing);
}

/// The owner may decide while the message is still there, and its commit may wait for the store.
#[tokio::test]
async fn what_comes_to_the_store_after_its_message_has_disappeared_goes_too() {
    let mut two = Two::new().await;
    let [a, b] = two.people;
    let short = NewEntry {
        expires_after_s: 5,
        ..new_entry(a, EntryKind::Message, b"short")
    };
    two.put(vec![short], Duration::ZERO).await;
    let due = two.now + MINUTE;
    assert_eq!(disappear(two.pool(), due, 10).await.unwrap().erased, 1);
    for late in [
        about(a, EntryKind::Edit, 1, "edited"),
        about(b, EntryKind::Reaction, 1, "+"),
        about(b, EntryKind::Pin, 1, ""),
    ] {
        let what = late.kind;
        two.put(vec![late], Duration::ZERO).await;
        let gone = disappear(two.pool(), due, 10).await.unwrap();
        assert_eq!((gone.messages, gone.erased), (1, 1), "{what:?}");
        assert_eq!(two.left().await, [] as [i64; 0], "{what:?}");
    }
    let reply = NewEntry {
        thread_root: Some(Seq(1)),
        ..new_entry(b, EntryKind::Message, b"reply")
    };
    two.put(vec![reply], Duration::ZERO).await;
    let gone = disappear(two.pool(), due, 10).await.unwrap();
    assert_eq!(gone.messages, 0, "a reply stays");
}

#[tokio::test]
async fn a_message_disappears_whatever_many_people_did_to_it_and_with_two_trimmers() {
    let mut two = Two::new().await;
    let [a, b] = two.people;
    let short = || NewEntry {
        expires_after_s: 5,
        ..new_entry(a, EntryKind::Message, b"short")
    };
    two.put(vec![short(), short()], Duration::ZERO).await;
    // Their bodies are more than one statement erases.
    let reactions = (0..1_100).map(|n: u64| about(b, EntryKind::Reaction, 1 + n % 2, &n.to_string()));
    two.put(reactions.collect(), Duration::ZERO).await;
    let due = two.now + MINUTE;
    let (one, other) = tokio::join!(disappear(two.pool(), due, 10), disappear(two.pool(), due, 10));
    let erased = one.unwrap().erased + other.unwrap().erased;
    assert_eq!(erased, 1_102, "each body is erased once");
    assert_eq!(two.left().await, [] as [i64; 0]);
}

#[tokio::test]
async fn an_entry_goes_after_thirty_days_and_its_readers_skip_it() {
    let mut two = Two::new().await;
    let [hers, _] = two.devices;
    for day in [50, 45, 40] {
        two.say(0, "old", DAY * day).await;
    }
    let reaction = about(two.people[1], EntryKind::Reaction, 1, "+");
    two.put(vec![reaction], DAY * 35).await;
    two.settle(&[hers]).await;
    two.say(0, "young", DAY * 5).await; // 5
    two.retain(Mode::ForTime(86_400)).await; // 6
    let now = Clock::wall() + Duration::from_secs(1);
    let trimmed = Trimmed {
        erased: 5,
        forgotten: 4,
    };
    assert_eq!(two.trim(now).await, trimmed, "although he lacks all of them");
    let (id, b) = (two.chat.id, two.people[1]);
    assert_eq!(two.store.log(id).await, [5, 6]);
    let expected = ["to 4 SKIP_REASON_RETENTION", "5 expired kind 1 of 0", "6"];
    assert_eq!(two.window(1).await, expected);
    let view = listing::chat(&two.store.pools, &two.store.master, b, None, id).await;
    let view = view.unwrap().unwrap();
    assert_eq!(
        (view.first, view.unread()),
        (Seq(5), 1),
        "what is gone is not unread"
    );
    assert_eq!(view.retention.mode, Mode::ForTime(86_400));
    // Beside the log there is nothing of the entries that are gone.
    let targets: i64 = sqlx::query_scalar("SELECT count(*) FROM entry_targets")
        .fetch_one(two.pool())
        .await
        .unwrap();
    assert_eq!(targets, 0);
    // The thread goes on although its first message is gone.
    let reply = NewEntry {
        thread_root: Some(Seq(1)),
        ..new_entry(b, EntryKind::Message, b"late")
    };
    two.put(vec![reply], Duration::ZERO).await;
    // The last entry stays, because the list of chats goes by its time.
    assert_eq!(two.trim(now + DAY * 60).await.forgotten, 2);
    assert_eq!(two.store.log(id).await, [7]);
    let states: i64 = sqlx::query_scalar("SELECT count(*) FROM message_state")
        .fetch_one(two.pool())
        .await
        .unwrap();
    assert_eq!(states, 0, "not even of what was gone before");
}

/// A device that was away for long learns what it has to erase.
#[tokio::test]
async fn a_deletion_stays_as_long_as_its_row() {
    let mut two = Two::new().await;
    let a = two.people[0];
    two.say(0, "old", HOUR * 2).await;
    two.put(vec![about(a, EntryKind::Delete, 1, "")], HOUR * 2).await;
    two.retain(KEPT_FOR_AN_HOUR).await;
    two.trim(Clock::wall() + Duration::from_secs(1)).await;
    assert_eq!(two.window(1).await, ["1 deleted kind 1 of 0", "2", "3"]);
    assert_eq!(two.history(Only::All).await, [1], "as a message that was deleted");
}

#[tokio::test]
async fn chats_of_any_length_are_trimmed_together_and_by_two_trimmers_at_once() {
    const LONG: usize = 700;
    let mut two = Two::new().await;
    let [a, _] = two.people;
    let other = two.store.user().await;
    let messages = || {
        (0..LONG)
            .map(|_| new_entry(a, EntryKind::Message, b"x"))
            .collect()
    };
    two.put(messages(), HOUR * 2).await;
    let (first, second) = (two.chat.clone(), two.store.direct(a, other).await);
    two.chat = second.clone();
    two.put(messages(), HOUR * 2).await;
    let (pool, now) = (two.pool(), two.now);
    let ids = [first.id, second.id];
    let trim = || trim::chats(pool, &ids, KEPT_FOR_AN_HOUR, now, None);
    let (one, again) = tokio::join!(trim(), trim());
    let erased = one.unwrap().erased + again.unwrap().erased;
    assert_eq!(erased as usize, 2 * LONG, "each body is erased once");
    let seqs: Vec<i64> = sqlx::query_scalar("SELECT trimmed_seq FROM chats")
        .fetch_all(pool)
        .await
        .unwrap();
    assert_eq!(seqs, [LONG as i64; 2]);
    assert_eq!(two.left().await, [] as [i64; 0]);
    assert_eq!(
        two.next_look().await,
        Some(now + HOUR / 10),
        "it had no time before"
    );
}

#[tokio::test]
async fn an_own_log_is_kept_until_it_is_delivered_whatever_the_operator_chose() {
    let store = Store::new().await;
    let user = store.user().await;
    let made = own::make(&store.pools, &store.master, user).await.unwrap();
    assert_eq!(made, own::Made::Done);
    let log = ChatId::own(user);
    let (pool, now) = (store.pools.of(log), Clock::wall());
    let begun = trim::begin(pool, ChatId(Uuid::nil()), 100, now, HOUR).await;
    assert_eq!(begun.unwrap(), None);
    let mode = sqlx::query_scalar("SELECT retention_mode FROM chats WHERE chat_id = $1").bind(log.0);
    let mode: i16 = mode.fetch_one(pool).await.unwrap();
    assert_eq!(mode, 3, "UNTIL_DELIVERED");
    let due = trim::claim(pool, now + 2 * DAY, now + 3 * DAY, 100)
        .await
        .unwrap();
    assert_eq!(due.len(), 1, "it is looked at");
    let trimmed = trim::chats(pool, &[log], KEPT_FOR_AN_HOUR, now, Some(now + 3 * DAY)).await;
    assert_eq!(trimmed.unwrap(), Trimmed::default(), "there is nothing in it");
    let again = trim::claim(pool, now + 2 * DAY, now + 3 * DAY, 100)
        .await
        .unwrap();
    assert_eq!(again.len(), 1, "it is looked at each day");
}

#[tokio::test]
async fn the_operators_choice_reaches_chats_that_nobody_uses_and_no_others() {
    let mut two = Two::new().await;
    two.retain(Mode::Forever).await;
    assert_eq!(two.next_look().await, None);
    let me = two.people[0];
    let mut left_to_the_operator = Vec::new();
    for _ in 0..3 {
        let person = two.store.user().await;
        left_to_the_operator.push(two.store.direct(me, person).await.id);
    }
    left_to_the_operator.sort_unstable();
    let (mut after, mut pages) = (Some(ChatId(Uuid::nil())), 0);
    while let Some(last) = after {
        after = trim::begin(two.pool(), last, 2, two.now, HOUR).await.unwrap();
        pages += 1;
    }
    assert_eq!(pages, 3, "two full ones, and an empty one");

    let (now, claim) = (two.now + HOUR, two.now + DAY);
    let claimed = trim::claim(two.pool(), now, claim, 10).await.unwrap();
    let mut chats: Vec<ChatId> = claimed.into_iter().map(|(chat, _)| chat).collect();
    chats.sort_unstable();
    assert_eq!(chats, left_to_the_operator);
    let again = trim::claim(two.pool(), now, claim, 10).await.unwrap();
    assert!(again.is_empty(), "each is claimed once");
    // The operator has chosen again meanwhile: everything is kept.
    trim::chats(two.pool(), &chats, Mode::Forever, now, Some(claim))
        .await
        .unwrap();
    let timed: i64 = sqlx::query_scalar("SELECT count(*) FROM chats WHERE trim_at IS NOT NULL")
        .fetch_one(two.pool())
        .await
        .unwrap();
    assert_eq!(timed, 0);
}

#[tokio::test]
async fn a_choice_that_is_made_while_the_chat_is_trimmed_is_not_overlooked() {
    let mut two = Two::new().await;
    two.retain(Mode::UntilDelivered).await;
    let now = Clock::wall() + Duration::from_secs(1);
    let claim = now + MINUTE;
    trim::claim(two.pool(), now, claim, 10).await.unwrap();
    two.retain(KEPT_FOR_AN_HOUR).await;
    let chosen = two.next_look().await;
    assert!(chosen.is_some_and(|at| at < claim), "it is due at once");
    trim::chats(two.pool(), &[two.chat.id], Mode::Default, now, Some(claim))
        .await
        .unwrap();
    assert_eq!(two.next_look().await, chosen);
}
