//! Tests rule 10: watermarks only rise, also when another owner continues.

use tern_chat::store::heads::Heads;
use tern_chat::store::listing;
use tern_chat_core::EntryKind;
use tern_chat_core::receipts::Watermark;
use tern_chat_core::shard::{Event, Pushed, ReadMark};
use tern_types::{ChatId, DeviceId, Seq, UserId};

use crate::harness::{Store, direct, new_entry};
use crate::owner::Owner;

/// Returns the member's watermark as a load brings it.
async fn mark(store: &Store, chat: ChatId, user: UserId) -> Watermark {
    let members = store.snapshot(chat).await.members;
    members.iter().find(|(member, ..)| *member == user).unwrap().2
}

fn watermark(delivered: u64, read: u64) -> Watermark {
    Watermark {
        delivered: Seq(delivered),
        read: Seq(read),
        read_receipts_off: false,
    }
}

fn read(chat: ChatId, user: UserId, seq: u64) -> ReadMark {
    ReadMark {
        chat,
        user,
        seq: Seq(seq),
        off: false,
        own_unread: 0,
        withdraws: false,
    }
}

/// Takes the receipts that the owner pushed about the user `of`: who is told, and the watermark.
fn told(owner: &mut Owner<'_>, of: UserId) -> Vec<(Vec<UserId>, Watermark)> {
    let told = owner.pushed.drain(..).filter_map(|(mut users, what)| match what {
        Pushed::Receipt { user, mark } if user == of => {
            users.sort_unstable();
            Some((users, mark))
        }
        _ => None,
    });
    told.collect()
}

#[tokio::test]
async fn rule_10_delivered_is_loaded_from_the_inbox_and_stands_at_what_is_settled() {
    let store = Store::new().await;
    let (a, b, none) = (store.user().await, store.user().await, store.user().await);
    let (a1, b1, b2) = (
        store.device(a).await,
        store.device(b).await,
        store.device(b).await,
    );
    let mut chat = store.group(a, &[b, none]).await;
    let mut db = store.shard().await;
    for _ in 0..3 {
        store.say(&mut db, &mut chat, a, "x").await;
    }
    let acks = [(a1, 4), (b1, 2), (b2, 1)];
    store.settle(&mut db, chat.id, Seq(4), &acks).await;
    assert_eq!(mark(&store, chat.id, b).await, watermark(0, 0), "not settled yet");
    tern_chat::store::settle::close(&mut db, &[(chat.id, Seq(4))])
        .await
        .unwrap();
    assert_eq!(mark(&store, chat.id, b).await, watermark(2, 0), "its best device");
    assert_eq!(mark(&store, chat.id, a).await, watermark(4, 0));
    assert_eq!(mark(&store, chat.id, none).await, watermark(0, 0), "no device");
    store.say(&mut db, &mut chat, a, "y").await;
    assert_eq!(
        mark(&store, chat.id, a).await,
        watermark(4, 0),
        "5 is not settled"
    );

    let reads = [read(chat.id, b, 3)];
    tern_chat::store::ack::mark_read(&mut db, &reads, Heads::Wait)
        .await
        .unwrap();
    assert_eq!(
        mark(&store, chat.id, b).await,
        watermark(3, 3),
        "read is delivered"
    );
}

#[tokio::test]
async fn rule_10_a_new_owner_tells_no_less_than_the_one_before() {
    let (store, [a, b], [a1, b1], mut chat, mut db) = direct().await;
    for _ in 0..3 {
        store.say(&mut db, &mut chat, a, "x").await;
    }
    store.settle(&mut db, chat.id, Seq(3), &[(a1, 3), (b1, 3)]).await;

    let mut owner = Owner::new(&store);
    let (chat, user, seq) = (chat.id, b, Seq(2));
    let off = false;
    owner.run(vec![Event::Read { chat, user, seq, off }]).await;
    let mut both = vec![a, b];
    both.sort_unstable();
    assert_eq!(told(&mut owner, b), [(both, watermark(3, 2))]);
}

#[tokio::test]
async fn rule_10_who_sent_before_what_is_remembered_is_told_that_it_was_read() {
    let store = Store::new().await;
    let (a, b, c) = (store.user().await, store.user().await, store.user().await);
    let chat = store.group(a, &[b, c]).await.id;
    let mut owner = Owner::new(&store);
    let message = |sender| new_entry(sender, EntryKind::Message, b"x");
    owner.send(chat, &message(a)).await; // 2
    for _ in 0..300 {
        owner.send(chat, &message(c)).await;
    }
    let mut cold = Owner::new(&store);
    let read = Event::Read {
        chat,
        user: b,
        seq: Seq(302),
        off: false,
    };
    cold.run(vec![read]).await;
    let told = told(&mut cold, b);
    assert_eq!(told.len(), 1);
    assert!(told[0].0.contains(&a) && told[0].0.contains(&c), "{told:?}");
}

#[tokio::test]
async fn rule_10_an_acknowledgement_of_old_entries_is_no_news_to_a_new_owner() {
    let (store, [a, b], [a1, b1], mut chat, mut db) = direct().await;
    for _ in 0..3 {
        store.say(&mut db, &mut chat, a, "x").await;
    }
    store.settle(&mut db, chat.id, Seq(3), &[(a1, 3), (b1, 3)]).await;
    let mut owner = Owner::new(&store);
    let ack = |device: DeviceId, write| Event::Ack {
        origin: tern_chat_core::Origin::Call(u64::MAX),
        chat: chat.id,
        user: b,
        device,
        seq: Seq(2),
        write,
    };
    owner.run(vec![ack(b1, true)]).await;
    assert_eq!(told(&mut owner, b), [], "delivered stands at 3 already");
}

#[tokio::test]
async fn rule_10_a_reply_before_the_read_mark_tells_that_it_was_read() {
    let store = Store::new().await;
    let (a, b) = (store.user().await, store.user().await);
    let b1 = store.device(b).await;
    let chat = store.direct(a, b).await.id;
    let mut owner = Owner::new(&store);
    owner
        .send(chat, &new_entry(a, EntryKind::Message, b"question"))
        .await;
    let ack = Event::Ack {
        origin: tern_chat_core::Origin::Call(u64::MAX),
        chat,
        user: b,
        device: b1,
        seq: Seq(1),
        write: false,
    };
    owner.run(vec![ack]).await;
    assert_eq!(told(&mut owner, b), [(vec![a], watermark(1, 0))]);
    owner
        .send(chat, &new_entry(b, EntryKind::Message, b"answer"))
        .await;
    let mut both = vec![a, b];
    both.sort_unstable();
    assert_eq!(told(&mut owner, b), [(both, watermark(2, 2))]);
}

/// Returns the member's unread count, as a listing shows it.
async fn unread(store: &Store, chat: ChatId, user: UserId) -> u64 {
    let view = listing::chat(&store.pools, &store.master, user, None, chat)
        .await
        .unwrap();
    view.unwrap().unread()
}

/// Bob (b) answers entry 1 while entry 2 is on its way to him.
#[tokio::test]
async fn rule_10_what_crossed_a_send_is_neither_read_nor_delivered_to_a_new_owner() {
    let store = Store::new().await;
    let (a, b) = (store.user().await, store.user().await);
    let b1 = store.device(b).await;
    let chat = store.direct(a, b).await.id;
    let mut owner = Owner::new(&store);
    let message = |sender| new_entry(sender, EntryKind::Message, b"x");
    let ack = |seq, write| Event::Ack {
        origin: tern_chat_core::Origin::Call(u64::MAX),
        chat,
        user: b,
        device: b1,
        seq: Seq(seq),
        write,
    };
    owner.send(chat, &message(a)).await;
    owner.run(vec![ack(1, false)]).await;
    owner.send(chat, &message(a)).await;
    owner.send(chat, &message(b)).await;
    assert_eq!(
        told(&mut owner, b).last().map(|told| told.1),
        Some(watermark(1, 1))
    );
    // The mark is written within a second of the send.
    let mut db = store.shard().await;
    let own_unread = 1;
    let written = ReadMark {
        own_unread,
        ..read(chat, b, 1)
    };
    tern_chat::store::ack::mark_read(&mut db, &[written], Heads::Wait)
        .await
        .unwrap();
    assert_eq!(unread(&store, chat, b).await, 1, "2, and not his own");

    // Nothing is settled, so a new owner knows of no acknowledgement but the mark.
    assert_eq!(mark(&store, chat, b).await, watermark(1, 1));
    assert_eq!(
        store
            .snapshot(chat)
            .await
            .members
            .iter()
            .map(|(_, member, _)| member.own_unread)
            .max(),
        Some(1)
    );
    store.settle(&mut db, chat, Seq(3), &[(b1, 1)]).await;
    tern_chat::store::settle::close(&mut db, &[(chat, Seq(3))])
        .await
        .unwrap();
    assert_eq!(
        mark(&store, chat, b).await,
        watermark(1, 1),
        "2 is still on its way"
    );

    let mut next = Owner::new(&store);
    next.run(vec![ack(2, true)]).await;
    assert_eq!(told(&mut next, b), [(vec![a], watermark(2, 1))]);

    // A mark that Bob set himself may go further than his devices' acknowledgements.
    next.send(chat, &message(a)).await;
    tern_chat::store::ack::mark_read(&mut db, &[read(chat, b, 4)], Heads::Wait)
        .await
        .unwrap();
    assert_eq!(mark(&store, chat, b).await, watermark(4, 4));
    assert_eq!(unread(&store, chat, b).await, 0);
}

/// The owner counts the entries itself, because after a crash the count in the store may not have been written.
#[tokio::test]
async fn a_new_owner_counts_what_a_member_sent_behind_their_read_mark() {
    let store = Store::new().await;
    let (a, b) = (store.user().await, store.user().await);
    let chat = store.direct(a, b).await.id;
    let mut owner = Owner::new(&store);
    for sender in [a, b, a, b, b] {
        owner
            .send(chat, &new_entry(sender, EntryKind::Message, b"x"))
            .await;
    }
    let mut cold = Owner::new(&store);
    let event = |seq| Event::Read {
        chat,
        user: b,
        seq: Seq(seq),
        off: false,
    };
    cold.run(vec![event(3)]).await;
    cold.upkeep().await;
    assert_eq!(unread(&store, chat, b).await, 0, "4 and 5 are his");
}

#[tokio::test]
async fn rule_10_who_catches_up_after_the_chat_was_forgotten_is_told_of_all_the_same() {
    let (store, [a, b], [a1, b1], mut chat, mut db) = direct().await;
    for _ in 0..3 {
        store.say(&mut db, &mut chat, a, "x").await;
    }
    store.settle(&mut db, chat.id, Seq(3), &[(a1, 3)]).await;
    tern_chat::store::settle::close(&mut db, &[(chat.id, Seq(3))])
        .await
        .unwrap();
    let ack = |seq| Event::Ack {
        origin: tern_chat_core::Origin::Call(u64::MAX),
        chat: chat.id,
        user: b,
        device: b1,
        seq: Seq(seq),
        write: true,
    };
    for seq in [2, 3] {
        let mut cold = Owner::new(&store);
        cold.run(vec![ack(seq)]).await;
        assert_eq!(told(&mut cold, b), [(vec![a], watermark(seq, 0))]);
        cold.run(vec![ack(seq)]).await;
        assert_eq!(told(&mut cold, b), [], "once");
    }
}

#[tokio::test]
async fn a_new_owner_knows_who_keeps_reading_to_themselves_until_the_next_mark() {
    let (store, [a, b], [a1, b1], mut chat, mut db) = direct().await;
    for _ in 0..3 {
        store.say(&mut db, &mut chat, a, "x").await;
    }
    store.settle(&mut db, chat.id, Seq(3), &[(a1, 3), (b1, 3)]).await;
    let quietly = |seq, off| ReadMark {
        off,
        ..read(chat.id, b, seq)
    };
    for (mark, kept) in [
        (quietly(2, true), true),
        (quietly(1, false), true),
        (quietly(2, false), false),
        (quietly(2, true), true),
    ] {
        tern_chat::store::ack::mark_read(&mut db, &[mark], Heads::Wait)
            .await
            .unwrap();
        let stored = self::mark(&store, chat.id, b).await;
        assert_eq!(
            (stored.read, stored.read_receipts_off),
            (Seq(2), kept),
            "{mark:?}"
        );
    }
    let event = |seq, off| Event::Read {
        chat: chat.id,
        user: b,
        seq: Seq(seq),
        off,
    };
    let mut owner = Owner::new(&store);
    owner.run(vec![event(1, false)]).await;
    assert_eq!(told(&mut owner, b), [], "an old mark");
    owner.run(vec![event(3, false)]).await;
    let mut both = vec![a, b];
    both.sort_unstable();
    assert_eq!(told(&mut owner, b), [(both, watermark(3, 3))]);
}

#[tokio::test]
async fn rule_10_a_new_owner_knows_whose_messages_were_read() {
    let store = Store::new().await;
    let (a, b, c) = (store.user().await, store.user().await, store.user().await);
    let chat = store.group(a, &[b, c]).await.id;
    let mut owner = Owner::new(&store);
    // User a also sent an entry that is not read yet.
    for sender in [a, b, a] {
        owner
            .send(chat, &new_entry(sender, EntryKind::Message, b"x"))
            .await;
    }
    let mut db = store.shard().await;
    tern_chat::store::ack::mark_read(&mut db, &[read(chat, c, 2)], Heads::Wait)
        .await
        .unwrap();
    let mut cold = Owner::new(&store);
    cold.run(vec![Event::Read {
        chat,
        user: c,
        seq: Seq(3),
        off: false,
    }])
    .await;
    let mut to = vec![b, c];
    to.sort_unstable();
    assert_eq!(told(&mut cold, c), [(to, watermark(3, 3))]);
}
