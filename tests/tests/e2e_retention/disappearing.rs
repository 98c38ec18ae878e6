//! A message disappears from the server and from all devices when its time is over.

use std::time::Duration;

use tern_local::until;
use tern_proto::error::reason_of;
use tern_proto::v1::entry_content::Content;
use tern_proto::v1::{Entry, ErrorReason, MessageKind, Retention};
use tern_tests::acts::{
    Act, BOTH, By, TARGET_NOT_FOUND, act, call, content, delete, done, edit, has_no_gap, is_refused, pin,
    react, say, with_file,
};
use tern_tests::files::{download, upload};
use tern_tests::groups::set_retention;
use tern_tests::world::BOUND;
use tern_tests::{Phone, World};
use tern_types::{ChatId, RequestId};

use crate::store::{disappears, left, moves, nothing_left, older};

/// The shortest time after which messages may disappear.
const SHORTEST_S: u32 = 5;
/// A time that is over only for messages which a test makes older.
const HOUR_S: u32 = 3_600;

/// Makes the messages from now on disappear.
async fn disappear(phone: &Phone, chat: ChatId, after_s: u32) -> u64 {
    let retention = Retention {
        disappear_after_s: after_s,
        ..Default::default()
    };
    set_retention(&phone.api(), chat, retention).await.unwrap()
}

fn expires(entry: &Entry) -> u32 {
    entry.decoded_content().unwrap().expires_after_s
}

/// Returns the kind and the target of an entry that has expired.
fn expired(entry: &Entry) -> (MessageKind, u64) {
    match content(entry) {
        Content::Erased(erased) if erased.expired => (erased.kind(), erased.target_seq),
        other => panic!("not expired: {other:?}"),
    }
}

#[tokio::test]
async fn who_is_there_reads_it_who_was_away_gets_its_place_and_the_store_has_nothing() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let tablet = world.phone(&bob).await;
    let group = hers.create_group(&[&bob]).await;
    tablet.has(group, 1).await;
    tablet.disconnect().await;
    let before = hers.say(group, "this stays").await.seq;
    disappear(&hers, group, HOUR_S).await;
    let request = RequestId::random();
    let sent = call(&hers.api(), group, request, &say("this does not"))
        .await
        .unwrap();
    let message = sent.seq;
    let edited = done(&hers, By::Stream, group, &edit(message, "nor this"))
        .await
        .seq;
    let reacted = done(&his, By::Call, group, &react(message, "nor that")).await.seq;
    let log = his.has(group, reacted).await;
    assert_eq!(expires(&log.entries[&before]), 0);
    assert_eq!(expires(&log.entries[&message]), HOUR_S);
    assert_eq!(act(&log.entries[&message]).body, "this does not");

    let store = world.store().await;
    older(&store, group, reacted, Duration::from_secs(HOUR_S.into())).await;
    moves(&world, group).await;
    let gone = [message, edited, reacted];
    nothing_left(&store, group, &gone).await;
    assert_eq!(left(&store, group, &[before]).await.0, 1);
    store.close().await;
    for phone in [&hers, &his] {
        disappears(&phone.api(), group, message).await;
    }
    tablet.connect().await;
    let log = tablet.has(group, reacted).await;
    has_no_gap(&log);
    let places = gone.map(|seq| expired(&log.entries[&seq]));
    assert_eq!(
        places,
        [
            (MessageKind::Message, 0),
            (MessageKind::Edit, message),
            (MessageKind::Reaction, message),
        ]
    );
    assert_eq!(act(&log.entries[&before]).body, "this stays");
    for act in [
        edit(message, "x"),
        delete(message),
        react(message, "+"),
        pin(message),
    ] {
        is_refused(&hers, group, &act, TARGET_NOT_FOUND).await;
    }
    // A repetition of the send is answered with its first result all the same.
    let again = call(&hers.api(), group, request, &say("this does not")).await;
    assert_eq!(again.unwrap().seq, message);
    world.end().await;
}

/// Nothing is nudged here: the time is over by itself, and the chat's owner has known the message since it was sent.
#[tokio::test]
async fn when_its_time_is_over_a_message_and_its_file_are_gone_by_themselves() {
    let world = World::with(|builder| builder.media(1)).await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let chat: ChatId = hers.say(bob.id, "this stays").await.chat_id.parse().unwrap();
    let file = upload(&hers.api(), "a picture").await;
    let kept_file = upload(&hers.api(), "another picture").await;
    let kept = done(&hers, By::Stream, chat, &with_file(say("look"), &kept_file)).await;
    let set = disappear(&hers, chat, SHORTEST_S).await;
    his.has(chat, set).await;
    let sent = done(&hers, By::Stream, chat, &with_file(say("look at this"), &file)).await;
    disappears(&his.api(), chat, sent.seq).await;
    until::some("a file that is gone", BOUND, || async {
        match download(&his.api(), chat, &file).await {
            Ok(()) => anyhow::bail!("it is still there"),
            Err(status) => {
                assert_eq!(reason_of(&status), Some(ErrorReason::MediaNotFound), "{status:?}");
                Ok(())
            }
        }
    })
    .await
    .unwrap();
    download(&his.api(), chat, &kept_file).await.unwrap();
    for act in [react(sent.seq, "+"), pin(sent.seq)] {
        is_refused(&his, chat, &act, TARGET_NOT_FOUND).await;
    }
    is_refused(&hers, chat, &edit(sent.seq, "x"), TARGET_NOT_FOUND).await;
    done(&his, By::Stream, chat, &react(kept.seq, "+")).await;
    let store = world.store().await;
    until::some("nothing left of it in the store", BOUND, || async {
        let left = left(&store, chat, &[sent.seq]).await;
        anyhow::ensure!(left == (0, 0, 0), "{left:?}");
        Ok(())
    })
    .await
    .unwrap();
    store.close().await;
    world.end().await;
}

/// Returns a message that its sender wants to disappear after this time.
fn short_lived(seconds: u32) -> Act {
    let mut act = say("not for long");
    act.envelope.time_to_live_s = seconds;
    act
}

#[tokio::test]
async fn the_shorter_of_the_chats_time_and_the_messages_own_counts() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let group = hers.create_group(&[&bob]).await;
    for (of_chat, of_message, expected) in [
        (0, 0, 0),
        (0, 600, 600),
        (HOUR_S, 0, HOUR_S),
        (HOUR_S, 600, 600),
        (HOUR_S, HOUR_S + 1, HOUR_S),
        (0, 31_536_000, 31_536_000),
    ] {
        // It is 0 where nothing was to be changed.
        disappear(&hers, group, of_chat).await;
        for by in BOTH {
            let sent = done(&hers, by, group, &short_lived(of_message)).await;
            let log = his.has(group, sent.seq).await;
            let found = expires(&log.entries[&sent.seq]);
            assert_eq!(found, expected, "{of_chat} and {of_message}, {by:?}");
        }
    }
    world.end().await;
}
