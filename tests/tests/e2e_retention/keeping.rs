//! Where messages are kept for a time, their content goes after it, and after 30 days their places in the log too.

use std::time::Duration;

use tern_local::until;
use tern_proto::v1::entry_content::Content;
use tern_proto::v1::{self, ErrorReason, MessageKind, Retention, RetentionMode, SkipReason};
use tern_tests::acts::{By, call, content, done, edit, react, say, with_file};
use tern_tests::files::{download, upload};
use tern_tests::groups::{set_retention, view, why};
use tern_tests::world::BOUND;
use tern_tests::{Api, Phone, World};
use tern_types::{ChatId, RequestId};

use crate::store::{disappears, left, look_now, moves, nothing_left, older};

/// The time for which these tests have messages kept.
const KEPT: Duration = Duration::from_secs(3_600);
/// The time after which an entry that has no content any more is trimmed.
const TRIMMED: Duration = Duration::from_secs(30 * 24 * 3_600);

/// Has what is said in a chat kept for an hour.
async fn keep(phone: &Phone, chat: ChatId) -> u64 {
    let retention = Retention {
        mode: RetentionMode::ForTime.into(),
        keep_s: 3_600,
        ..Default::default()
    };
    set_retention(&phone.api(), chat, retention).await.unwrap()
}

async fn entries(api: &Api, chat: ChatId) -> Vec<v1::Entry> {
    let list = v1::ListEntriesRequest {
        chat_id: chat.to_string(),
        ..Default::default()
    };
    api.chats().list_entries(list).await.unwrap().into_inner().entries
}

#[tokio::test]
async fn after_the_time_the_content_goes_and_what_was_done_to_it_and_its_files() {
    let world = World::with(|builder| builder.media(1)).await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let group = hers.create_group(&[&bob]).await;
    keep(&hers, group).await;
    let file = upload(&hers.api(), "a map").await;
    let sent = done(&hers, By::Call, group, &with_file(say("a map"), &file))
        .await
        .seq;
    let edited = done(&hers, By::Stream, group, &with_file(edit(sent, "the map"), &file))
        .await
        .seq;
    let reacted = done(&his, By::Stream, group, &react(sent, "+")).await.seq;
    let fresh = hers.say(group, "fresh").await.seq;
    let log = his.has(group, fresh).await;
    download(&his.api(), group, &file).await.unwrap();

    let store = world.store().await;
    older(&store, group, reacted, KEPT).await;
    moves(&world, group).await;
    nothing_left(&store, group, &[sent, edited, reacted]).await;
    assert_eq!(left(&store, group, &[fresh]).await.0, 1);
    store.close().await;
    disappears(&his.api(), group, sent).await;
    assert_eq!(
        why(download(&his.api(), group, &file).await),
        ErrorReason::MediaNotFound
    );
    let found = entries(&his.api(), group).await;
    let of = |seq: u64| found.iter().find(|entry| entry.seq == seq).map(content);
    for (seq, kind, target_seq) in [
        (sent, MessageKind::Message, 0),
        (edited, MessageKind::Edit, sent),
        (reacted, MessageKind::Reaction, sent),
    ] {
        let erased = v1::Erased {
            kind: kind.into(),
            target_seq,
            expired: true,
        };
        assert_eq!(of(seq), Some(Content::Erased(erased)));
    }
    assert!(matches!(of(fresh), Some(Content::Message(_))));
    // The devices have the message, so something may still be done to it.
    done(&his, By::Stream, group, &react(sent, "-")).await;
    done(&his, By::Stream, group, &react(fresh, "+")).await;
    // Devices keep what they have.
    assert_eq!(his.texts(group)[..3], log.texts()[..3]);
    world.end().await;
}

#[tokio::test]
async fn after_thirty_days_the_places_go_and_devices_are_told_that_they_are_skipped() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let tablet = world.phone(&bob).await;
    let group = hers.create_group(&[&bob]).await;
    tablet.has(group, 1).await;
    tablet.disconnect().await;
    keep(&hers, group).await;
    let mut last = 0;
    for number in 0..5 {
        last = hers.say(group, format!("old {number}")).await.seq;
    }
    his.has(group, last).await;
    world.settled().await;
    assert_eq!(view(&his.api(), group).await.unwrap().first_seq, 1);
    let store = world.store().await;
    older(&store, group, last, TRIMMED + KEPT).await;
    moves(&world, group).await;
    let fresh = call(&hers.api(), group, RequestId::random(), &say("fresh")).await;
    let fresh = fresh.unwrap().seq;
    until::some("a log without its old entries", BOUND, || async {
        let first = view(&his.api(), group).await?.first_seq;
        if first != fresh {
            look_now(&store, group).await;
            anyhow::bail!("it begins at {first}");
        }
        Ok(())
    })
    .await
    .unwrap();
    store.close().await;
    let found = entries(&his.api(), group).await;
    assert_eq!(found.iter().map(|entry| entry.seq).min(), Some(fresh));

    tablet.connect().await;
    let log = tablet.has(group, fresh).await;
    assert_eq!(log.texts(), ["fresh"]);
    let skipped = log.skipped.last().unwrap();
    assert_eq!(
        (skipped.reason(), skipped.to_seq),
        (SkipReason::Retention, fresh - 1)
    );
    let log = his.has(group, fresh).await;
    assert_eq!(log.texts().len(), 6, "devices keep what they have");
    let next = his.say(group, "it goes on").await.seq;
    assert_eq!(next, fresh + 1);
    tablet.has(group, next).await;
    world.end().await;
}
