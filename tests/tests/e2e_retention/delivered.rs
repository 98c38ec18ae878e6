//! Where messages are kept until they are delivered, their content goes when every device has it, and no sooner.

use sqlx::PgPool;
use tern_local::until;
use tern_proto::v1::entry_content::Content;
use tern_proto::v1::{self, Retention, RetentionMode};
use tern_tests::acts::content;
use tern_tests::groups::set_retention;
use tern_tests::world::BOUND;
use tern_tests::{Phone, World};
use tern_types::ChatId;

use crate::store::{disappears, left, look_now, nothing_left};

/// Has what is said in a chat kept until it is delivered.
async fn until_delivered(phone: &Phone, chat: ChatId) {
    let retention = Retention {
        mode: RetentionMode::UntilDelivered.into(),
        ..Default::default()
    };
    let set = set_retention(&phone.api(), chat, retention).await;
    assert!(set.unwrap() > 0);
}

/// Checks that a message is still there after another one, which everybody has, has been looked at and has gone.
async fn stays(store: &PgPool, (chat, seq): (ChatId, u64), marker: (ChatId, u64)) {
    look_now(store, chat).await;
    nothing_left(store, marker.0, &[marker.1]).await;
    assert_eq!(left(store, chat, &[seq]).await.0, 1, "a device lacks it");
}

#[tokio::test]
async fn a_message_stays_while_one_device_lacks_it_and_goes_when_all_have_it() {
    let world = World::start().await;
    let [alice, bob, carol] = world.users(["alice", "bob", "carol"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let (tablet, carols) = (world.phone(&bob).await, world.phone(&carol).await);
    let group = hers.create_group(&[&bob]).await;
    let other = hers.create_group(&[&carol]).await;
    until_delivered(&hers, group).await;
    until_delivered(&hers, other).await;
    tablet.has(group, 2).await;
    tablet.disconnect().await;
    let store = world.store().await;
    let message = hers.say(group, "for both of his devices").await.seq;
    his.has(group, message).await;
    hers.receipt(group, bob.id, message, 0).await;
    for _ in 0..2 {
        let marker = hers.say(other, "a marker").await.seq;
        carols.has(other, marker).await;
        stays(&store, (group, message), (other, marker)).await;
    }
    tablet.connect().await;
    let log = tablet.has(group, message).await;
    assert_eq!(log.texts(), ["for both of his devices"], "it was kept for it");
    nothing_left(&store, group, &[message]).await;
    store.close().await;

    // A device that is linked later gets no history, and the others keep what they have.
    let new = world.phone(&bob).await;
    disappears(&new.api(), group, message).await;
    let list = v1::ListEntriesRequest {
        chat_id: group.to_string(),
        from_seq: message,
        ..Default::default()
    };
    let found = hers
        .api()
        .chats()
        .list_entries(list)
        .await
        .unwrap()
        .into_inner()
        .entries;
    assert!(
        matches!(content(&found[0]), Content::Erased(erased) if erased.expired),
        "{found:?}"
    );
    assert_eq!(his.texts(group), ["for both of his devices"]);
    world.end().await;
}

#[tokio::test]
async fn what_everybody_has_goes_by_itself_also_after_the_chat_has_moved() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let group = hers.create_group(&[&bob]).await;
    until_delivered(&hers, group).await;
    let store = world.store().await;
    for moves in [false, true] {
        if moves {
            crate::store::moves(&world, group).await;
        }
        let message = hers.say(group, "hello").await.seq;
        his.has(group, message).await;
        until::some("it is gone", BOUND, || async {
            let left = left(&store, group, &[message]).await;
            anyhow::ensure!(left.0 == 0, "{left:?}");
            Ok(())
        })
        .await
        .unwrap();
        let reply = his.say(group, "hello yourself").await.seq;
        hers.has(group, reply).await;
    }
    store.close().await;
    world.end().await;
}
