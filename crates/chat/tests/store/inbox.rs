//! Tests the inbox: settling and acknowledging (rules 4 and 7; fine print 1, 2, 3, 4, 7 and 11).

use sqlx::Connection;
use tern_chat::store::heads::Heads;
use tern_chat::store::{commit, inboxes, joining, people, settle};
use tern_chat_core::EntryKind;
use tern_chat_core::change::Action;
use tern_chat_core::chat::Role;
use tern_types::{ChatId, DeviceId, Seq, Slot};

use crate::harness::{Store, direct, group, new_entry};

#[tokio::test]
async fn a_device_that_acknowledges_in_time_costs_no_row() {
    let store = Store::new().await;
    let (a, b) = (store.user().await, store.user().await);
    let (a1, b1, b2) = (
        store.device(a).await,
        store.device(b).await,
        store.device(b).await,
    );
    let mut chat = store.direct(a, b).await;
    let mut db = store.shard().await;
    store.say(&mut db, &mut chat, a, "x").await;
    store.say(&mut db, &mut chat, a, "y").await;

    let missing = store
        .settle(&mut db, chat.id, Seq(2), &[(a1, 2), (b1, 2), (b2, 1)])
        .await;
    assert_eq!(
        missing.iter().map(|m| (m.device, m.from)).collect::<Vec<_>>(),
        [(b2, Seq(2))]
    );
    assert_eq!(store.inbox(chat.id).await, [(b2, 2)]);
    assert_eq!(
        store.unsettled(chat.id).await,
        [1, 2],
        "somebody is missing: not settled yet"
    );

    store.say(&mut db, &mut chat, a, "z").await;
    let missing = store
        .settle(&mut db, chat.id, Seq(3), &[(a1, 3), (b1, 3), (b2, 3)])
        .await;
    assert!(missing.is_empty());
    assert!(
        store.unsettled(chat.id).await.is_empty(),
        "nobody is missing: settled at once"
    );
    assert!(
        store.inbox(chat.id).await.is_empty(),
        "and who has acknowledged everything is owed nothing"
    );
}

#[tokio::test]
async fn a_row_that_an_owner_left_and_died_ends_with_the_next_settle_that_knows_the_acknowledgement() {
    let (store, [a, _], [a1, b1], mut chat, mut db) = direct().await;
    store.say(&mut db, &mut chat, a, "x").await;
    // An owner settles, and dies before it has woken anybody.
    store.settle(&mut db, chat.id, Seq(1), &[]).await;
    assert_eq!(store.inbox(chat.id).await.len(), 2);
    store.say(&mut db, &mut chat, a, "y").await;

    store.settle(&mut db, chat.id, Seq(1), &[(a1, 1), (b1, 1)]).await;
    let mut moved = [(a1, 2), (b1, 2)];
    moved.sort_unstable();
    assert_eq!(store.inbox(chat.id).await, moved, "below the head it moves");
    store.settle(&mut db, chat.id, Seq(2), &[(a1, 2)]).await;
    assert_eq!(store.inbox(chat.id).await, [(b1, 2)], "at the head it ends");
}

#[tokio::test]
async fn a_row_that_a_dead_owner_left_to_a_removed_member_ends_with_the_removal() {
    let store = Store::new().await;
    let (a, b) = (store.user().await, store.user().await);
    let (a1, b1) = (store.device(a).await, store.device(b).await);
    let mut db = store.shard().await;
    for said_after in [0, 1] {
        let mut chat = store.group(a, &[b]).await;
        let removed = store.change(&mut db, &mut chat, a, Action::Remove(b)).await;
        // An owner settles, and dies before it has woken anybody.
        store.settle(&mut db, chat.id, removed, &[(a1, removed.0)]).await;
        assert_eq!(store.inbox(chat.id).await, [(b1, 1)]);
        let later = store.say(&mut db, &mut chat, a, "x").await;
        let upto = Seq(removed.0 + said_after);
        let acks = [(a1, upto.0), (b1, removed.0)];
        let missing = store.settle(&mut db, chat.id, upto, &acks).await;
        assert!(missing.is_empty(), "{missing:?}");
        assert!(
            store.inbox(chat.id).await.is_empty(),
            "settled up to {upto} of {later}: nothing after the removal is theirs"
        );
    }
}

#[tokio::test]
async fn a_row_that_a_dead_owner_left_moves_up_by_an_acknowledgement_of_a_part() {
    let (store, [a, _], [a1, b1], mut chat, mut db) = direct().await;
    for _ in 0..3 {
        store.say(&mut db, &mut chat, a, "x").await;
    }
    store.settle(&mut db, chat.id, Seq(3), &[(a1, 3)]).await;
    let missing = store.settle(&mut db, chat.id, Seq(3), &[(a1, 3), (b1, 2)]).await;
    assert_eq!(missing.len(), 1);
    assert_eq!(store.inbox(chat.id).await, [(b1, 3)]);
}

#[tokio::test]
async fn rule_4_and_fine_print_2_an_acknowledgement_ends_a_row_at_the_head_and_moves_it_below() {
    let (store, [a, b], [a1, b1], mut chat, mut db) = direct().await;
    for _ in 0..5 {
        store.say(&mut db, &mut chat, a, "x").await;
    }
    store.settle(&mut db, chat.id, Seq(5), &[(a1, 5)]).await;
    assert_eq!(store.inbox(chat.id).await, [(b1, 1)]);

    assert_eq!(
        store.ack(&mut db, chat.id, b, b1, 9).await,
        Some(Seq(1)),
        "above the head: dropped"
    );
    assert_eq!(store.ack(&mut db, chat.id, b, b1, 3).await, Some(Seq(4)));
    assert_eq!(
        store.ack(&mut db, chat.id, b, b1, 2).await,
        Some(Seq(4)),
        "a late one moves nothing back"
    );
    assert_eq!(store.inbox(chat.id).await, [(b1, 4)]);
    assert_eq!(store.ack(&mut db, chat.id, b, b1, 5).await, None);
    assert!(store.inbox(chat.id).await.is_empty());
}

#[tokio::test]
async fn fine_print_2_a_late_acknowledgement_does_not_end_a_row_that_covers_being_added_again() {
    let (store, [a, b], [a1, b1], mut chat, mut db) = group().await;
    let removed = store.change(&mut db, &mut chat, a, Action::Remove(b)).await;
    store.settle(&mut db, chat.id, chat.head, &[(a1, 2)]).await;
    assert_eq!(
        store.inbox(chat.id).await,
        [(b1, 1)],
        "rule 4: who was removed still has the removal to acknowledge"
    );
    let added = store.change(&mut db, &mut chat, a, Action::Add(vec![b])).await;

    assert_eq!(store.ack(&mut db, chat.id, b, b1, removed.0).await, Some(added));
    assert_eq!(store.ack(&mut db, chat.id, b, b1, added.0).await, None);
}

#[tokio::test]
async fn fine_print_2_an_acknowledgement_that_waits_while_its_user_is_added_again_does_not_decide_on_the_old_interval()
 {
    let (store, [a, b], [a1, b1], mut chat, mut owner) = group().await;
    let (mut stale, mut other) = (store.shard().await, store.shard().await);
    let removed = store.change(&mut owner, &mut chat, a, Action::Remove(b)).await;
    store
        .settle(&mut owner, chat.id, removed, &[(a1, removed.0)])
        .await;
    assert_eq!(store.inbox(chat.id).await, [(b1, 1)]);

    // This transaction adds the member as change::change does, and keeps the lock.
    let mut tx = other.begin().await.unwrap();
    let batch = chat.batch(vec![new_entry(a, EntryKind::MembersAdded, b"again")]);
    let added = batch.head();
    people::share(&mut tx, &[b]).await.unwrap();
    let its = people::devices(&mut tx, [b]).await.unwrap();
    assert_eq!(commit::commit(&mut tx, &[batch]).await.unwrap().len(), 1);
    joining::add_members(&mut tx, chat.id, &[b], &its, added, Role::Member)
        .await
        .unwrap();

    let late = store.ack(&mut stale, chat.id, b, b1, removed.0);
    let add = async {
        store.somebody_waits().await;
        tx.commit().await.unwrap();
    };
    let (row, ()) = tokio::join!(late, add);
    assert_eq!(row, Some(added), "the row covers being added again");
    assert_eq!(store.inbox(chat.id).await, [(b1, added.0)]);
}

#[tokio::test]
async fn rule_7_a_removed_member_s_row_ends_with_the_removal() {
    let (store, [a, b], [a1, b1], mut chat, mut db) = group().await;
    let removed = store.change(&mut db, &mut chat, a, Action::Remove(b)).await;
    let after = store.say(&mut db, &mut chat, a, "they are gone").await;
    let missing = store.settle(&mut db, chat.id, after, &[(a1, after.0)]).await;
    assert_eq!(missing.iter().map(|m| m.device).collect::<Vec<_>>(), [b1]);
    assert_eq!(store.ack(&mut db, chat.id, b, b1, removed.0).await, None);

    // Fine print 4: nothing unsettled overlaps their interval, so nothing is owed.
    tern_chat::store::settle::close(&mut db, &[(chat.id, after)])
        .await
        .unwrap();
    let last = store.say(&mut db, &mut chat, a, "really").await;
    let missing = store.settle(&mut db, chat.id, last, &[(a1, last.0)]).await;
    assert!(missing.is_empty());
    assert!(store.inbox(chat.id).await.is_empty());
}

#[tokio::test]
async fn fine_print_4_settle_takes_its_lowest_seq_from_the_store_and_says_what_is_missing_again() {
    let (store, [a, b], [a1, b1], mut chat, mut db) = direct().await;
    store.say(&mut db, &mut chat, a, "x").await;
    let first = store.settle(&mut db, chat.id, Seq(1), &[(a1, 1)]).await;
    let again = store.settle(&mut db, chat.id, Seq(1), &[(a1, 1)]).await;
    assert_eq!(first, again, "also who had a row before");

    tern_chat::store::settle::close(&mut db, &[(chat.id, Seq(1))])
        .await
        .unwrap();
    assert_eq!(store.ack(&mut db, chat.id, b, b1, 1).await, None);
    let late = store.settle(&mut db, chat.id, Seq(1), &[]).await;
    assert!(
        late.is_empty(),
        "a stale owner that settles late finds nothing to insert"
    );
    assert!(store.inbox(chat.id).await.is_empty());
}

#[tokio::test]
async fn fine_print_1_settle_and_acknowledge_wait_for_a_commit_under_way() {
    let (store, [a, b], [a1, b1], mut chat, mut owner) = direct().await;
    let (mut stale, mut third) = (store.shard().await, store.shard().await);
    store.say(&mut owner, &mut chat, a, "x").await;
    store.settle(&mut owner, chat.id, Seq(1), &[(a1, 1)]).await;

    // Another node commits, which will be visible when its transaction ends.
    let mut tx = third.begin().await.unwrap();
    let batch = chat.batch(vec![new_entry(a, EntryKind::Message, b"y")]);
    assert_eq!(commit::commit(&mut tx, &[batch]).await.unwrap().len(), 1);

    let ack = store.ack(&mut stale, chat.id, b, b1, 1);
    let commit = async {
        store.somebody_waits().await;
        tx.commit().await.unwrap();
    };
    let (row, ()) = tokio::join!(ack, commit);
    assert_eq!(
        row,
        Some(Seq(2)),
        "decided on the new head: the row covers the new entry"
    );
    assert_eq!(store.inbox(chat.id).await, [(b1, 2)]);
}

#[tokio::test]
async fn fine_print_7_and_11_a_device_linked_while_a_settle_waits_is_not_missed() {
    let (store, [a, b], [a1, b1], mut chat, mut db) = direct().await;
    let mut linker = store.shard().await;
    store.say(&mut db, &mut chat, a, "x").await;

    // This transaction links the device as devices::link does, and keeps the lock.
    let b2 = store.unlinked_device(b).await;
    let mut tx = linker.begin().await.unwrap();
    tern_chat::store::heads::lock_heads(&mut tx, [chat.id].into_iter(), Heads::Wait)
        .await
        .unwrap();
    sqlx::query(tern_chat::store::devices::JOIN)
        .bind(b.0)
        .bind(b2.0)
        .execute(&mut *tx)
        .await
        .unwrap();

    let acks = [(a1, 1), (b1, 1)];
    let settle = store.settle(&mut db, chat.id, Seq(1), &acks);
    let link = async {
        store.somebody_waits().await;
        tx.commit().await.unwrap();
    };
    let (missing, ()) = tokio::join!(settle, link);
    assert_eq!(missing.iter().map(|m| m.device).collect::<Vec<_>>(), [b2]);
}

#[tokio::test]
async fn a_user_without_a_device_has_one_row_under_the_reserved_device() {
    let store = Store::new().await;
    let (a, b) = (store.user().await, store.user().await);
    let a1 = store.device(a).await;
    let mut chat = store.direct(a, b).await;
    let mut db = store.shard().await;
    store.say(&mut db, &mut chat, a, "x").await;
    let missing = store.settle(&mut db, chat.id, Seq(1), &[(a1, 1)]).await;
    assert_eq!(
        missing.iter().map(|m| m.device).collect::<Vec<_>>(),
        [DeviceId::reserved(b)]
    );
}

#[tokio::test]
async fn a_device_that_acknowledged_a_part_is_missing_from_the_rest() {
    let (store, [a, _], [a1, b1], mut chat, mut db) = direct().await;
    for _ in 0..4 {
        store.say(&mut db, &mut chat, a, "x").await;
    }
    let missing = store.settle(&mut db, chat.id, Seq(4), &[(a1, 4), (b1, 3)]).await;
    assert_eq!(
        missing.iter().map(|m| (m.device, m.from)).collect::<Vec<_>>(),
        [(b1, Seq(4))]
    );
}

/// The store computes ages by its own clock, which may be set back like any other clock.
#[tokio::test]
async fn what_was_written_before_the_stores_clock_was_set_back_counts_as_old() {
    let (store, [a, _], [a1, b1], mut chat, mut db) = direct().await;
    store.say(&mut db, &mut chat, a, "x").await;
    store.settle(&mut db, chat.id, Seq(1), &[(a1, 1)]).await;
    let slots = vec![Slot::of_chat(chat.id).number() as i16];
    let none = ChatId(uuid::Uuid::nil());
    let young = settle::unsettled(&store.pool, &slots, 3000.0, none, 9).await;
    assert!(young.unwrap().is_empty());

    for ahead in [
        "UPDATE unsettled SET committed_at = now() + interval '1 hour' WHERE chat_id = $1",
        "UPDATE inbox SET since = now() + interval '1 hour' WHERE chat_id = $1",
    ] {
        let cell = store.pools.of(chat.id);
        let updated = sqlx::query(ahead).bind(chat.id.0).execute(cell).await;
        assert_eq!(updated.unwrap().rows_affected(), 1);
    }
    for age_s in [0.0, 5.0] {
        let old = settle::unsettled(&store.pool, &slots, age_s, none, 9).await;
        assert_eq!(
            old.unwrap(),
            [(chat.id, Seq(1), Seq(1))],
            "a dead owner's, found after {age_s} s"
        );
    }
    let inboxes = inboxes::inboxes(&store.pools, &[b1]).await.unwrap();
    let ages: Vec<i64> = inboxes.devices[0]
        .1
        .rows
        .iter()
        .map(|(_, _, age_ms)| *age_ms)
        .collect();
    assert!(
        ages.len() == 1 && ages[0] > 3_500_000,
        "the sweep looks at it: {ages:?}"
    );
}

#[tokio::test]
async fn unsettled_chats_come_page_by_page_until_all_were_seen() {
    let store = Store::new().await;
    let mut db = store.shard().await;
    let [a, b, c] = [store.user().await, store.user().await, store.user().await];
    let mut chats = Vec::new();
    for (one, other) in [(a, b), (b, c), (a, c)] {
        let mut chat = store.direct(one, other).await;
        store.say(&mut db, &mut chat, one, "x").await;
        chats.push(chat.id);
    }
    chats.sort_unstable();
    let slots: Vec<i16> = chats
        .iter()
        .map(|chat| Slot::of_chat(*chat).number() as i16)
        .collect();
    let (mut after, mut seen) = (ChatId(uuid::Uuid::nil()), Vec::new());
    for size in [2, 1, 0] {
        let page = settle::unsettled(&store.pool, &slots, 0.0, after, 2)
            .await
            .unwrap();
        assert_eq!(page.len(), size);
        seen.extend(page.into_iter().map(|(chat, _, _)| chat));
        after = seen.last().copied().unwrap_or(after);
    }
    assert_eq!(seen, chats);
}
