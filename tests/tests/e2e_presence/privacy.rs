//! Privacy settings, contacts and blocks decide who sees whose presence, and a change takes effect on running watches.

use tern_local::until;
use tern_proto::v1::{Audience, BlockRequest, UnblockRequest};
use tern_tests::world::BOUND;
use tern_tests::{Shown, World};
use tern_types::UserId;

use crate::cast::{background, contacts, foreground, person, seen_by, share_with, until_seen};

#[tokio::test]
async fn who_is_shown_nothing_cannot_tell_why_and_sees_as_soon_as_they_may() {
    let world = World::start().await;
    let alice = person(&world, "alice").await;
    let bob = person(&world, "bob").await;
    let marker = seen_by(&world, "marker", &[&alice]).await;
    let nobody = UserId::random();
    let his = foreground(&world, 1, &bob).await;
    let markers = background(&world, 1, &marker).await;
    let hers = background(&world, 0, &alice).await;
    hers.watch(&[bob.id(), marker.id(), nobody]).await;
    let said = hers.said();
    assert_eq!(said.of(bob.id()), Some(Shown::Hidden), "a stranger");
    assert_eq!(said.of(nobody), Some(Shown::Hidden), "no such person");
    // From here on she does not ask again.
    let adds = async || contacts(&world, bob.id(), &[alice.id()], &[]).await;
    until_seen(adds, hers.sees_online(bob.id())).await;
    let removes = async || contacts(&world, bob.id(), &[], &[alice.id()]).await;
    until_seen(removes, hers.sees(bob.id(), |shown| shown == Shown::Hidden)).await;
    let shares = async || share_with(&world, bob.id(), Audience::Everyone).await;
    until_seen(shares, hers.sees_online(bob.id())).await;
    let hides = async || share_with(&world, bob.id(), Audience::Nobody).await;
    until_seen(hides, hers.sees(bob.id(), |shown| shown == Shown::Hidden)).await;
    // She is not told what he does now. The next thing that she is told is his next state that she may see.
    let before = hers.said().all_of(bob.id());
    his.active(false).await;
    his.settled(1).await;
    // This comes from the same gateway, so it reaches presence after his change.
    markers.active(true).await;
    hers.sees_online(marker.id()).await;
    let shares = async || share_with(&world, bob.id(), Audience::Everyone).await;
    let seen = until_seen(shares, hers.sees_offline(bob.id())).await;
    let said = hers.said().all_of(bob.id());
    assert_eq!(said[before.len()..], [Shown::LastSeen(seen)]);
    world.end().await;
}

#[tokio::test]
async fn who_shares_with_nobody_sees_nobody() {
    let world = World::start().await;
    let alice = person(&world, "alice").await;
    let bob = seen_by(&world, "bob", &[&alice]).await;
    let his = foreground(&world, 1, &bob).await;
    let hers = background(&world, 0, &alice).await;
    hers.watch(&[bob.id()]).await;
    hers.sees_online(bob.id()).await;
    let hides = async || share_with(&world, alice.id(), Audience::Nobody).await;
    until_seen(hides, hers.sees(bob.id(), |shown| shown == Shown::Hidden)).await;
    let shares = async || share_with(&world, alice.id(), Audience::Contacts).await;
    until_seen(shares, hers.sees_online(bob.id())).await;
    drop(his);
    world.end().await;
}

async fn block(world: &World, user: UserId, blocked: UserId) {
    let request = BlockRequest {
        user_id: user.to_string(),
        blocked_user_id: blocked.to_string(),
    };
    let done = until::some("a block", BOUND, || async {
        let mut users = world.back_end().await.users();
        Ok(users.block(request.clone()).await?)
    });
    done.await.expect("a block");
}

async fn unblock(world: &World, user: UserId, blocked: UserId) {
    let request = UnblockRequest {
        user_id: user.to_string(),
        blocked_user_id: blocked.to_string(),
    };
    let done = until::some("the opposite of a block", BOUND, || async {
        let mut users = world.back_end().await.users();
        Ok(users.unblock(request.clone()).await?)
    });
    done.await.expect("the opposite of a block");
}

#[tokio::test]
async fn neither_of_two_sees_the_other_once_one_has_blocked() {
    let world = World::start().await;
    let alice = person(&world, "alice").await;
    let bob = seen_by(&world, "bob", &[&alice]).await;
    contacts(&world, alice.id(), &[bob.id()], &[]).await;
    let (hers, his) = (
        foreground(&world, 0, &alice).await,
        foreground(&world, 1, &bob).await,
    );
    hers.watch(&[bob.id()]).await;
    his.watch(&[alice.id()]).await;
    hers.sees_online(bob.id()).await;
    his.sees_online(alice.id()).await;
    let blocks = async || block(&world, bob.id(), alice.id()).await;
    let neither = async {
        hers.sees(bob.id(), |shown| shown == Shown::Hidden).await;
        his.sees(alice.id(), |shown| shown == Shown::Hidden).await;
    };
    until_seen(blocks, neither).await;
    let unblocks = async || unblock(&world, bob.id(), alice.id()).await;
    let both = async {
        hers.sees_online(bob.id()).await;
        his.sees_online(alice.id()).await;
    };
    until_seen(unblocks, both).await;
    world.end().await;
}

#[tokio::test]
async fn strangers_beyond_the_days_number_are_named_and_hidden() {
    let world = World::with(|builder| builder.env("TERN_MAX_NEW_STRANGERS_A_DAY", "2")).await;
    let alice = person(&world, "alice").await;
    let mut strangers = Vec::new();
    for _ in 0..3 {
        let stranger = person(&world, "stranger").await;
        share_with(&world, stranger.id(), Audience::Everyone).await;
        strangers.push(stranger.id());
    }
    let hers = background(&world, 0, &alice).await;
    let result = hers.watch(&strangers).await;
    let limited: Vec<UserId> = result
        .limited_user_ids
        .iter()
        .map(|user| user.parse().expect("an id"))
        .collect();
    assert_eq!(limited.len(), 1, "{result:?}");
    assert!(result.retry_after_ms > 0, "{result:?}");
    let said = hers.said();
    for stranger in &strangers {
        let hidden = said.of(*stranger) == Some(Shown::Hidden);
        assert_eq!(hidden, limited.contains(stranger), "{said:?}");
    }
    world.end().await;
}
