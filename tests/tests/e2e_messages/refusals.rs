//! The stream and a call refuse alike what a person may not do, and it leaves nothing in the log.

use tern_local::until;
use tern_proto::error::reason_of;
use tern_proto::v1::ErrorReason;
use tern_tests::World;
use tern_tests::acts::{
    By, NOT_A_MEMBER, NOT_ALLOWED, TARGET_NOT_FOUND, TOO_LATE, add, call, delete, done, edit, is_refused,
    pin, promote, react, say, take_back,
};
use tern_tests::world::BOUND;
use tern_types::{ChatId, RequestId};

#[tokio::test]
async fn what_is_somebody_elses_or_an_admins_is_not_allowed() {
    let world = World::start().await;
    let [alice, bob, carol] = world.users(["alice", "bob", "carol"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let carols = world.phone(&carol).await;
    let group = hers.create_group(&[&bob]).await;
    let (of_her, of_him) = (hers.say(group, "hers").await.seq, his.say(group, "his").await.seq);
    for (phone, act) in [
        (&his, edit(of_her, "x")),
        (&his, delete(of_her)),
        (&his, pin(of_her)),
        (&his, pin(of_him)),
        (&his, take_back(pin(of_her))),
        // Not even the owner puts words into his mouth.
        (&hers, edit(of_him, "x")),
    ] {
        is_refused(phone, group, &act, NOT_ALLOWED).await;
    }
    is_refused(&carols, group, &react(of_her, "+"), NOT_A_MEMBER).await;
    assert_eq!(hers.say(group, "next").await.seq, of_him + 1);

    // A direct chat has no admins, and both people may pin.
    let direct: ChatId = hers.say(bob.id, "hello").await.chat_id.parse().unwrap();
    his.has(direct, 1).await;
    for act in [edit(1, "x"), delete(1)] {
        is_refused(&his, direct, &act, NOT_ALLOWED).await;
    }
    let pinned = done(&his, By::Stream, direct, &pin(1)).await;
    assert_eq!(pinned.seq, 2);
    world.end().await;
}

#[tokio::test]
async fn what_is_no_message_was_deleted_or_was_before_ones_time_is_not_found() {
    let world = World::start().await;
    let [alice, bob, carol] = world.users(["alice", "bob", "carol"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let carols = world.phone(&carol).await;
    let group = hers.create_group(&[&bob]).await;
    let message = hers.say(group, "hello").await.seq;
    let edited = done(&hers, By::Stream, group, &edit(message, "hallo")).await.seq;
    let reacted = done(&his, By::Call, group, &react(message, "+")).await.seq;
    let added = add(&hers, group, &carol).await;
    carols.has(group, added).await;
    promote(&hers, group, &carol).await;
    let gone = hers.say(group, "gone").await.seq;
    let deletion = done(&hers, By::Stream, group, &delete(gone)).await.seq;
    for target in [
        1,
        edited,
        reacted,
        added,
        gone,
        deletion,
        deletion + 1,
        9_999,
        u64::MAX,
    ] {
        for act in [edit(target, "x"), delete(target), react(target, "+"), pin(target)] {
            is_refused(&hers, group, &act, TARGET_NOT_FOUND).await;
        }
    }
    // She is an admin, but what was written before she joined does not exist for her.
    for act in [
        edit(message, "x"),
        delete(message),
        react(message, "+"),
        pin(message),
    ] {
        is_refused(&carols, group, &act, TARGET_NOT_FOUND).await;
    }
    let since = hers.say(group, "welcome").await.seq;
    assert_eq!(since, deletion + 1);
    carols.has(group, since).await;
    for act in [react(since, "+"), pin(since), delete(since)] {
        done(&carols, By::Stream, group, &act).await;
    }
    world.end().await;
}

#[tokio::test]
async fn after_its_time_a_message_is_neither_edited_nor_deleted_by_its_sender() {
    let world = World::with(|builder| {
        builder
            .env("TERN_CHAT_EDIT_WINDOW", "1")
            .env("TERN_CHAT_DELETE_WINDOW", "1")
    })
    .await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let group = hers.create_group(&[&bob]).await;
    let back_end = world.back_end().await;
    let notice = call(back_end, group, RequestId::random(), &say("we are closed")).await;
    let notice = notice.unwrap().seq;
    let message = his.say(group, "his").await.seq;
    until::holds("the time for edits is over", BOUND, || async {
        let again = edit(message, "his, while it is time");
        match call(&his.api(), group, RequestId::random(), &again).await {
            Ok(_) => Ok(false),
            Err(status) => {
                assert_eq!(reason_of(&status), Some(ErrorReason::TooLate), "{status:?}");
                Ok(true)
            }
        }
    })
    .await
    .unwrap();
    for act in [edit(message, "x"), delete(message)] {
        is_refused(&his, group, &act, TOO_LATE).await;
    }
    // Nothing else has a time.
    done(&his, By::Stream, group, &react(message, "+")).await;
    done(&hers, By::Stream, group, &pin(message)).await;
    done(&hers, By::Call, group, &delete(message)).await;
    let opens = edit(notice, "we are open");
    let edited = call(back_end, group, RequestId::random(), &opens).await;
    his.has(group, edited.unwrap().seq).await;
    world.end().await;
}
