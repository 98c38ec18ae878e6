//! Tests of exchanging refresh tokens.

use futures::future::join_all;
use tern_accounts::domain::refresh::{SAME_PAIR_AGAIN, UNUSED_ENDS};
use tern_proto::v1::ErrorReason;
use tern_types::{Clock, DeviceId};

use crate::world::World;
use crate::{HOUR, device_id, refresh_token};

#[tokio::test]
async fn a_refresh_token_is_exchanged_once_and_copies_revoke_the_device() {
    let world = World::start().await;
    let user = world.user("e-1").await;
    let linked = world.link(user).await;
    let first = refresh_token(&linked);
    let second = world.refresh(&first).await.unwrap();
    assert_ne!(second.refresh_token, first);
    // The answer got lost, so the device presents the first token again.
    assert_eq!(
        world.refresh(&first).await.unwrap().refresh_token,
        second.refresh_token
    );
    let third = world.refresh(&second.refresh_token).await.unwrap();
    // The second token was used, so whoever presents the first one has a copy.
    assert_eq!(
        world.refresh(&first).await.unwrap_err(),
        ErrorReason::RefreshTokenReused
    );
    assert_eq!(
        world.refresh(&third.refresh_token).await.unwrap_err(),
        ErrorReason::DeviceRevoked
    );
    assert_eq!(world.chat.unlinked(), [device_id(&linked)]);
    assert_eq!(world.gateways.told(), [device_id(&linked); 2]);
    assert_eq!(world.device_ids(user).await.len(), 0);
}

#[tokio::test]
async fn exchanges_of_one_token_at_once_give_one_pair() {
    let world = World::start().await;
    let first = refresh_token(&world.link(world.user("e-1").await).await);
    let answers = join_all((0..8).map(|_| world.refresh(&first))).await;
    let tokens: Vec<_> = answers
        .into_iter()
        .map(|answer| answer.unwrap().refresh_token)
        .collect();
    assert!(tokens.iter().all(|token| *token == tokens[0]), "{tokens:?}");
}

#[tokio::test]
async fn a_guessed_refresh_token_revokes_nobody() {
    let world = World::start().await;
    let linked = world.link(world.user("e-1").await).await;
    let first = refresh_token(&linked);
    let known = device_id(&linked).0.simple().to_string();
    let guesses = [
        String::new(),
        "ternr_x".into(),
        format!("ternr_{known}_1_{}", "0".repeat(64)),
        format!("ternr_{known}_0_{}", "a".repeat(64)),
        format!("ternr_{known}_99999_{}", "a".repeat(64)),
        first.replace(&known, &DeviceId::random().0.simple().to_string()),
        format!("{first}0"),
        "x".repeat(100_000),
    ];
    for guess in guesses {
        assert_eq!(
            world.refresh(&guess).await.unwrap_err(),
            ErrorReason::RefreshTokenInvalid,
            "{guess:.100}"
        );
    }
    world.refresh(&first).await.unwrap();
}

#[tokio::test]
async fn refresh_tokens_have_their_times() {
    let world = World::start().await;
    let user = world.user("e-1").await;
    let now = Clock::wall();
    let accounts = &world.accounts;
    let outcome = |token: String, when| async move {
        accounts
            .refresh(&token, when)
            .await
            .map(|pair| pair.refresh)
            .map_err(|error| error.reason)
    };

    let lazy = refresh_token(&world.link(user).await);
    let late = now + UNUSED_ENDS + HOUR;
    assert_eq!(
        outcome(lazy.clone(), late).await,
        Err(ErrorReason::RefreshTokenInvalid),
        "unused for 60 days"
    );
    let second = outcome(lazy.clone(), now).await.unwrap();
    assert_eq!(
        outcome(lazy.clone(), now + SAME_PAIR_AGAIN - HOUR).await,
        Ok(second.clone())
    );
    assert_eq!(
        outcome(lazy, now + SAME_PAIR_AGAIN + HOUR).await,
        Err(ErrorReason::RefreshTokenReused)
    );
    assert_eq!(outcome(second, now).await, Err(ErrorReason::DeviceRevoked));
}

#[tokio::test]
async fn refresh_tokens_outlive_a_change_of_the_signing_key() {
    let world = World::start().await;
    let now = Clock::wall();
    let first = refresh_token(&world.link(world.user("e-1").await).await);
    let second = world.accounts.refresh(&first, now).await.unwrap().refresh;
    let changed = world.with_new_signing_key();
    // The second token cannot be made again under the new key. Another one takes its place.
    let again = changed.refresh(&first, now).await.unwrap().refresh;
    assert_ne!(again, second);
    assert_eq!(changed.refresh(&first, now).await.unwrap().refresh, again);
    changed.refresh(&again, now).await.unwrap();
}
