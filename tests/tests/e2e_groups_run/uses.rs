//! Links end, are used up, are bounded in number, and are not guessed.

use futures::future::join_all;
use tern_local::until;
use tern_proto::error::{reason_of, retry_after_of};
use tern_proto::v1::{self, ErrorReason};
use tern_tests::groups::{invite, invites, join, link, look_up, revoke, roles, why};
use tern_tests::world::BOUND;
use tern_tests::{Api, World};

/// The most links of a group that are in force.
const MOST_LINKS: usize = 64;
/// The links that a user may ask for in an hour.
const ASKS_AN_HOUR: usize = 30;

#[tokio::test]
async fn a_link_for_one_lets_one_of_two_in_who_come_at_once() {
    let world = World::start().await;
    let alice = world.user("alice").await;
    let hers = world.phone(&alice).await;
    for _ in 0..5 {
        let group = hers.create_group(&[]).await;
        let ask = v1::CreateInviteRequest {
            max_uses: 1,
            ..link(group)
        };
        let made = invite(&hers.api(), ask).await.unwrap();
        let users = world.users(["bob", "carol"]).await;
        let mut devices = Vec::new();
        for user in &users {
            let device = world.device(user).await;
            devices.push(Api::new(world.channel(devices.len() % 2), &device.access_token));
        }
        let joined = join_all(devices.iter().map(|api| join(api, group, &made.token))).await;
        let (came, others): (Vec<_>, Vec<_>) = joined.into_iter().partition(Result::is_ok);
        assert_eq!((came.len(), others.len()), (1, 1), "{came:?}, {others:?}");
        for refused in others {
            assert_eq!(why(refused), ErrorReason::InviteNotFound);
        }
        assert_eq!(roles(&hers.api(), group).await.unwrap().len(), 2);
        assert_eq!(invites(&hers.api(), group).await.unwrap(), [], "it is used up");
    }
    world.end().await;
}

#[tokio::test]
async fn a_link_ends_when_its_time_is_over() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let group = hers.create_group(&[]).await;
    let ask = v1::CreateInviteRequest {
        expires_after_s: 1,
        ..link(group)
    };
    let made = invite(&hers.api(), ask).await.unwrap();
    assert_eq!(made.expires_at_ms, made.created_at_ms + 1_000);
    until::holds("the link has ended", BOUND, || async {
        Ok(invites(&hers.api(), group).await?.is_empty())
    })
    .await
    .unwrap();
    let api = his.api();
    assert_eq!(
        why(look_up(&api, group, &made.token).await),
        ErrorReason::InviteNotFound
    );
    assert_eq!(
        why(join(&api, group, &made.token).await),
        ErrorReason::InviteNotFound
    );
    for wrong in [
        v1::CreateInviteRequest {
            expires_after_s: 31_536_001,
            ..link(group)
        },
        v1::CreateInviteRequest {
            max_uses: 100_001,
            ..link(group)
        },
    ] {
        let refused = invite(&hers.api(), wrong.clone()).await;
        assert_eq!(why(refused), ErrorReason::InvalidField, "{wrong:?}");
    }
    world.end().await;
}

#[tokio::test]
async fn a_group_has_so_many_links_until_one_is_revoked() {
    let world = World::start().await;
    let alice = world.user("alice").await;
    let hers = world.phone(&alice).await;
    let group = hers.create_group(&[]).await;
    let api = hers.api();
    let mut made = Vec::new();
    for _ in 0..MOST_LINKS {
        made.push(invite(&api, link(group)).await.unwrap());
    }
    assert_eq!(why(invite(&api, link(group)).await), ErrorReason::ListFull);
    assert_eq!(invites(&api, group).await.unwrap().len(), MOST_LINKS);
    revoke(&api, group, &made[7]).await.unwrap();
    invite(&api, link(group)).await.unwrap();
    world.end().await;
}

/// Tokens are too long to be guessed, and nobody gets to try many.
#[tokio::test]
async fn who_asks_for_many_links_has_to_wait() {
    let world = World::start().await;
    let [alice, bob] = world.users(["alice", "bob"]).await;
    let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
    let group = hers.create_group(&[]).await;
    let made = invite(&hers.api(), link(group)).await.unwrap();
    let api = his.api();
    for number in 0..ASKS_AN_HOUR {
        let guess = format!("{number:0>42}0");
        let refused = look_up(&api, group, &guess).await;
        assert_eq!(why(refused), ErrorReason::InviteNotFound, "{number}");
    }
    for refused in [
        look_up(&api, group, &made.token).await.map(drop),
        join(&api, group, &made.token).await.map(drop),
    ] {
        let status = refused.unwrap_err();
        assert_eq!(reason_of(&status), Some(ErrorReason::RateLimited), "{status:?}");
        assert!(retry_after_of(&status).is_some(), "{status:?}");
    }
    world.end().await;
}
