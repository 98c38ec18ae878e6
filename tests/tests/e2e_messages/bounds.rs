//! A person may edit a message and react to it so often, each person and each message apart.

use tern_tests::acts::{By, TOO_MANY_ACTS, delete, done, edit, is_refused, react, read, take_back, text};
use tern_tests::{Wire, World};

/// The edits of one message, and the reactions of one person to one message, with those taken back.
const MOST: usize = 100;

#[tokio::test]
async fn a_message_is_edited_a_hundred_times_whoever_owns_the_chat() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let group = hers.create_group(&[&bob]).await;
    let message = hers.say(group, "the first text").await.seq;
    for number in 1..=MOST {
        done(
            &hers,
            By::Stream,
            group,
            &edit(message, &format!("text {number}")),
        )
        .await;
    }
    let owner = world.owner_of(group).await;
    for moves in [false, true] {
        if moves {
            world.platform.drain(&owner).unwrap();
            world.platform.drained(&owner).await.unwrap();
        }
        is_refused(&hers, group, &edit(message, "one too many"), TOO_MANY_ACTS).await;
    }
    let now = read(&his.api(), group, message).await.unwrap();
    assert_eq!(text(&now), Some(format!("text {MOST}")));

    // Other messages have bounds of their own, and a deletion has none.
    let other = hers.say(group, "another message").await.seq;
    done(&hers, By::Call, group, &edit(other, "another text")).await;
    done(&hers, By::Stream, group, &react(message, "+")).await;
    let deletion = done(&hers, By::Stream, group, &delete(message)).await;
    his.has(group, deletion.seq).await;
    world.end().await;
}

#[tokio::test]
async fn a_person_reacts_and_takes_back_a_hundred_times() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let group = hers.create_group(&[&bob]).await;
    let message = hers.say(group, "hello").await.seq;
    for _ in 0..MOST / 2 {
        done(&his, By::Stream, group, &react(message, "+")).await;
        done(&his, By::Stream, group, &take_back(react(message, "+"))).await;
    }
    for act in [react(message, "+"), react(message, "-")] {
        is_refused(&his, group, &act, TOO_MANY_ACTS).await;
    }
    // Each person has a bound of their own.
    let last = done(&hers, By::Call, group, &react(message, "+")).await;
    his.has(group, last.seq).await;
    let now = read(&his.api(), group, message).await.unwrap();
    assert_eq!(now.reactions.len(), 1, "{now:?}");
    world.end().await;
}

#[tokio::test]
async fn a_device_learns_the_bounds_when_it_opens_its_stream() {
    let world = World::start().await;
    let device = world.device(&world.user("alice").await).await;
    let (_wire, opened) = Wire::open(world.new_channel(0), &device).await.unwrap();
    let acts = opened
        .limits
        .unwrap()
        .acts
        .expect("what may be done to a message");
    assert_eq!((acts.edit_window_s, acts.delete_window_s), (15 * 60, 48 * 3600));
    assert_eq!((acts.max_reaction_bytes, acts.max_acts_per_person), (64, 100));
    world.end().await;
}
