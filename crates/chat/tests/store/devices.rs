//! Tests linking and revoking devices, and the reserved device.

use tern_chat::store::{commit, devices, inboxes, listing, people};
use tern_chat_core::change::Action;
use tern_types::{DeviceId, Seq, UserId};

use crate::harness::{Store, direct, group};

#[tokio::test]
async fn the_first_device_takes_over_what_waited_and_the_last_one_hands_it_back() {
    let store = Store::new().await;
    let (a, b) = (store.user().await, store.user().await);
    let a1 = store.device(a).await;
    let mut chat = store.direct(a, b).await;
    let mut db = store.shard().await;
    store.say(&mut db, &mut chat, a, "x").await;
    store.settle(&mut db, chat.id, Seq(1), &[(a1, 1)]).await;

    let b1 = store.device(b).await;
    assert_eq!(store.inbox(chat.id).await, [(b1, 1)]);
    tern_chat::store::settle::close(&mut db, &[(chat.id, Seq(1))])
        .await
        .unwrap();
    let b2 = store.device(b).await;
    assert_eq!(
        store.inbox(chat.id).await,
        [(b1, 1)],
        "the second one starts at the head"
    );

    devices::unlink(&store.pools, b, b2).await.unwrap();
    assert_eq!(store.inbox(chat.id).await, [(b1, 1)]);
    devices::unlink(&store.pools, b, b1).await.unwrap();
    assert_eq!(store.inbox(chat.id).await, [(DeviceId::reserved(b), 1)]);
    assert!(
        !devices::link(&store.pools, b, b1).await.unwrap(),
        "a revoked device stays revoked"
    );
}

#[tokio::test]
async fn a_first_device_linked_while_a_settle_runs_gets_what_it_wrote() {
    let store = Store::new().await;
    let (a, b) = (store.user().await, store.user().await);
    let a1 = store.device(a).await;
    let mut chat = store.direct(a, b).await;
    for round in 1..=20 {
        let mut db = store.shard().await;
        let seq = store.say(&mut db, &mut chat, a, "x").await;
        let b1 = store.unlinked_device(b).await;
        let link = devices::link(&store.pools, b, b1);
        let acks = [(a1, seq.0)];
        let settle = store.settle(&mut db, chat.id, seq, &acks);
        let (linked, missing) = tokio::join!(link, settle);
        assert!(linked.unwrap());
        assert_eq!(missing.len(), 1);
        assert_eq!(
            store.inbox(chat.id).await.len(),
            1,
            "round {round}: one row, not lost and not doubled"
        );
        assert_eq!(store.inbox(chat.id).await[0].0, b1);
        tern_chat::store::settle::close(&mut db, &[(chat.id, seq)])
            .await
            .unwrap();
        devices::unlink(&store.pools, b, b1).await.unwrap();
    }
}

#[tokio::test]
async fn linking_and_being_added_exclude_each_other() {
    let store = Store::new().await;
    let (a, b) = (store.user().await, store.user().await);
    for _ in 0..20 {
        let mut chat = store.group(a, &[]).await;
        let device = store.unlinked_device(b).await;
        let mut db = store.shard().await;
        let link = devices::link(&store.pools, b, device);
        let add = store.change(&mut db, &mut chat, a, Action::Add(vec![b]));
        let (linked, _) = tokio::join!(link, add);
        assert!(linked.unwrap());
        let known: bool =
            sqlx::query_scalar("SELECT $3 = ANY(devices) FROM members WHERE chat_id = $1 AND user_id = $2")
                .bind(chat.id.0)
                .bind(b.0)
                .bind(device.0)
                .fetch_one(&store.pool)
                .await
                .unwrap();
        assert!(known, "whichever came second saw the other");
    }
}

#[tokio::test]
async fn an_inbox_tells_which_devices_exist() {
    let (store, [a, _], [a1, b1], mut chat, mut db) = direct().await;
    store.say(&mut db, &mut chat, a, "x").await;
    store.settle(&mut db, chat.id, Seq(1), &[(a1, 1)]).await;

    let gone = DeviceId::random();
    let inboxes = inboxes::inboxes(&store.pools, &[a1, b1, gone]).await.unwrap();
    assert!(inboxes.devices.len() == 2 && !inboxes.partial);
    let rows = |device| {
        inboxes
            .devices
            .iter()
            .find(|(d, _)| *d == device)
            .map(|(_, inbox)| inbox.rows.len())
    };
    assert_eq!((rows(a1), rows(b1)), (Some(0), Some(1)));
}

#[tokio::test]
async fn an_inbox_tells_the_setting_of_its_user() {
    let (store, [a, b], [a1, b1], ..) = direct().await;
    sqlx::query("UPDATE users SET read_receipts_off = true WHERE user_id = $1")
        .bind(b.0)
        .execute(&store.pool)
        .await
        .unwrap();
    let inboxes = inboxes::inboxes(&store.pools, &[a1, b1]).await.unwrap();
    for (device, off) in [(a1, false), (b1, true)] {
        let inbox = inboxes.devices.iter().find(|(of, _)| *of == device);
        assert_eq!(inbox.map(|(_, inbox)| inbox.read_receipts_off), Some(off));
    }
    for (user, off) in [(a, Some(false)), (b, Some(true)), (UserId::random(), None)] {
        assert_eq!(people::read_receipts_off(&store.pool, user).await.unwrap(), off);
    }
}

#[tokio::test]
async fn resume_seq_is_what_the_device_is_not_owed() {
    let (store, [a, b], [a1, b1], mut chat, mut db) = direct().await;
    let id = chat.id;
    let resume = async |user, device| {
        let view = listing::chat(&store.pools, &store.master, user, Some(device), id)
            .await
            .unwrap();
        view.unwrap().resume
    };
    for _ in 0..3 {
        store.say(&mut db, &mut chat, a, "x").await;
    }
    assert_eq!(resume(b, b1).await, Seq(0), "unsettled entries may still be owed");
    store.settle(&mut db, chat.id, Seq(3), &[(a1, 3), (b1, 1)]).await;
    tern_chat::store::settle::close(&mut db, &[(chat.id, Seq(3))])
        .await
        .unwrap();
    assert_eq!((resume(a, a1).await, resume(b, b1).await), (Seq(3), Seq(1)));
    let b2 = store.device(b).await;
    assert_eq!(resume(b, b2).await, Seq(3), "a new device starts at the head");
}

#[tokio::test]
async fn a_device_linked_between_a_settle_and_its_wakes_is_owed_what_it_was_told_to_wait_for() {
    let (store, [a, b], [a1, _], mut chat, mut db) = direct().await;
    store.say(&mut db, &mut chat, a, "x").await;
    store.settle(&mut db, chat.id, Seq(1), &[(a1, 1)]).await;
    let b2 = store.device(b).await;
    let (pools, master) = (&store.pools, &store.master);
    let view = listing::chat(pools, master, b, Some(b2), chat.id)
        .await
        .unwrap()
        .unwrap();
    tern_chat::store::settle::close(&mut db, &[(chat.id, Seq(1))])
        .await
        .unwrap();
    let rows = store.inbox(chat.id).await;
    assert!(
        rows.contains(&(b2, view.resume.next().0)),
        "{rows:?}, told {}",
        view.resume
    );
    // The device is linked again, which changes nothing: it is not owed the entry a second time.
    assert_eq!(store.ack(&mut db, chat.id, b, b2, 1).await, None);
    store.say(&mut db, &mut chat, a, "y").await;
    assert!(devices::link(pools, b, b2).await.unwrap());
    assert!(store.inbox(chat.id).await.iter().all(|(device, _)| *device != b2));
}

#[tokio::test]
async fn resume_seq_does_not_pass_over_what_is_owed_from_before_a_removal() {
    let (store, [a, b], _, mut chat, mut db) = group().await;
    store.settle(&mut db, chat.id, chat.head, &[]).await;
    tern_chat::store::settle::close(&mut db, &[(chat.id, chat.head)])
        .await
        .unwrap();
    let b2 = store.device(b).await;
    let said = store.say(&mut db, &mut chat, a, "for b2 too").await;
    store.change(&mut db, &mut chat, a, Action::Remove(b)).await;
    store.change(&mut db, &mut chat, a, Action::Add(vec![b])).await;
    let (pools, master) = (&store.pools, &store.master);
    let view = listing::chat(pools, master, b, Some(b2), chat.id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(view.resume, said.previous());
}

#[tokio::test]
async fn two_links_of_one_user_and_a_commit_do_not_deadlock_for_ever() {
    let store = Store::new().await;
    let (a, b) = (store.user().await, store.user().await);
    let chat = store.direct(a, b).await;
    let mut db = store.shard().await;
    let (one, two) = (store.unlinked_device(a).await, store.unlinked_device(a).await);
    let batch = chat.batch(vec![crate::harness::new_entry(
        a,
        tern_chat_core::EntryKind::Message,
        b"x",
    )]);
    let batches = [batch];
    let (first, second, stored) = tokio::join!(
        devices::link(&store.pools, a, one),
        devices::link(&store.pools, a, two),
        commit::commit(&mut db, &batches)
    );
    assert!(first.unwrap() && second.unwrap());
    assert_eq!(stored.unwrap().len(), 1);
}
