//! Tests of the ends of tokens.

use std::collections::HashSet;
use std::time::Duration;

use tern_push::provider::{Provider, Token};
use tern_push::store::{people, tokens};
use tern_types::{Clock, DeviceId};

use crate::world::World;

async fn token(world: &World, device: DeviceId) -> Option<Token> {
    let devices = people::devices(world.pools.people(), &HashSet::from([device])).await;
    let token = devices.unwrap().remove(&device)?.token?;
    Some((*token).clone())
}

#[tokio::test]
async fn a_token_ends_only_if_it_was_named_before_its_providers_time() {
    let world = World::start().await;
    let day = Duration::from_secs(24 * 3600);
    let user = world.user("Bob").await;
    for (since, change, ends) in [
        (None, "", true),
        (Some(Clock::wall() - day), "", true),
        (Some(Clock::wall() - day * 3), "", false),
        (None, "another", false),
        (None, "named anew", false),
    ] {
        let device = world.device(user).await;
        world.token(device, user, 2).await;
        let mut named = token(&world, device).await.unwrap();
        assert_eq!(named.provider, Provider::Fcm);
        match change {
            "another" => named.token = "another".into(),
            // The push went to what the device had named a day earlier.
            "named anew" => named.registered_at = named.registered_at - day,
            _ => {}
        }
        let ended = tokens::end(world.pools.people(), device, &named, since)
            .await
            .unwrap();
        assert_eq!(ended, ends, "{since:?}, {change}");
        assert_eq!(token(&world, device).await.is_none(), ends);
    }
}

#[tokio::test]
async fn a_token_ends_that_no_device_has_named_for_270_days() {
    let world = World::start().await;
    let user = world.user("Bob").await;
    let [old, young] = [world.device(user).await, world.device(user).await];
    world.token(old, user, 271).await;
    world.token(young, user, 269).await;
    let (ended, more) = tokens::end_unnamed(world.pools.people()).await.unwrap();
    assert_eq!((ended, more), (vec![Provider::Fcm], false));
    assert!(token(&world, old).await.is_none() && token(&world, young).await.is_some());
}
