//! Who may see what, and what follows when that changes.

use tern_proto::v1::{Audience, BlockRequest, UnblockRequest};
use tern_tests::{Shown, World};
use tern_types::UserId;

use crate::cast::{background, contacts, foreground, person, seen_by, share_with};

#[tokio::test]
async fn who_is_shown_nothing_cannot_tell_why_and_sees_as_soon_as_they_may() {
    let world = World::start().await;
    let alice = person(&world, "alice").await;
    let bob = person(&world, "bob").await;
    let nobody = UserId::random();
    let his = foreground(&world, 1, &bob).await;
    let hers = background(&world, 0, &alice).await;
    hers.watch(&[bob.id(), nobody]).await;
    let said = hers.said();
    assert_eq!(said.of(bob.id()), Some(Shown::Hidden), "a stranger");
    assert_eq!(said.of(nobody), Some(Shown::Hidden), "no such person");
    // Without asking again:
    contacts(&world, bob.id(), &[alice.id()], &[]).await;
    hers.sees_online(bob.id()).await;
    contacts(&world, bob.id(), &[], &[alice.id()]).await;
    hers.sees(bob.id(), |shown| shown == Shown::Hidden).await;
    share_with(&world, bob.id(), Audience::Everyone).await;
    hers.sees_online(bob.id()).await;
    share_with(&world, bob.id(), Audience::Nobody).await;
    hers.sees(bob.id(), |shown| shown == Shown::Hidden).await;
    // What he does now is none of hers; his next state that she may see is the next that she sees.
    let before = hers.said().all_of(bob.id());
    his.active(false).await;
    his.settled(1).await;
    share_with(&world, bob.id(), Audience::Everyone).await;
    let seen = hers.sees_offline(bob.id()).await;
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
    share_with(&world, alice.id(), Audience::Nobody).await;
    hers.sees(bob.id(), |shown| shown == Shown::Hidden).await;
    share_with(&world, alice.id(), Audience::Contacts).await;
    hers.sees_online(bob.id()).await;
    drop(his);
    world.end().await;
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
    let block = BlockRequest {
        user_id: bob.id().to_string(),
        blocked_user_id: alice.id().to_string(),
    };
    world
        .back_end()
        .await
        .users()
        .block(block)
        .await
        .expect("a block");
    hers.sees(bob.id(), |shown| shown == Shown::Hidden).await;
    his.sees(alice.id(), |shown| shown == Shown::Hidden).await;
    let unblock = UnblockRequest {
        user_id: bob.id().to_string(),
        blocked_user_id: alice.id().to_string(),
    };
    let unblocked = world.back_end().await.users().unblock(unblock).await;
    unblocked.expect("the opposite of a block");
    hers.sees_online(bob.id()).await;
    his.sees_online(alice.id()).await;
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
