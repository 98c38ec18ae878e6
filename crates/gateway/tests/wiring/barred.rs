//! Callers who are on the list of those who are barred, although their access tokens are good.

use std::sync::Arc;

use tern_cluster::{ClusterMap, Role};
use tern_proto::error::reason_of;
use tern_proto::internal::ListBarredResponse;
use tern_proto::v1::{CloseCode, ErrorReason};
use tern_types::{ChatId, DeviceId, UserId};
use tonic::{Code, Status};

use crate::calls::get_chat;
use crate::support::items::people;
use crate::support::world::node;
use crate::support::{World, soon};

fn list(users: &[UserId], devices: &[DeviceId]) -> ListBarredResponse {
    ListBarredResponse {
        user_ids: users.iter().map(|user| user.to_vec().into()).collect(),
        device_ids: devices.iter().map(|device| device.to_vec().into()).collect(),
    }
}

/// Makes a call of a device.
async fn call(world: &World, user: UserId, device: DeviceId) -> Result<(), Status> {
    let token = world.token(user, device);
    get_chat(world.channel().await, &token, ChatId::own(user))
        .await
        .map(drop)
}

#[tokio::test]
async fn who_was_barred_before_the_gateway_started_is_refused_by_its_first_call() {
    let ((alice, lost), (bob, phone)) = (people(), people());
    let world = World::barring(&[], Some(list(&[bob], &[lost]))).await;
    for (user, device, reason) in [
        (alice, lost, ErrorReason::DeviceRevoked),
        (bob, phone, ErrorReason::UserSuspended),
    ] {
        let refused = call(&world, user, device).await.unwrap_err();
        assert_eq!(
            (refused.code(), reason_of(&refused)),
            (refused.code(), Some(reason))
        );
    }
    call(&world, alice, DeviceId::random()).await.unwrap();
}

#[tokio::test]
async fn a_gateway_that_cannot_ask_who_is_barred_is_not_ready_and_takes_no_calls_of_devices() {
    let world = World::barring(&[], None).await;
    let mut readiness = world.ctx.readiness.clone();
    readiness.set(true);
    let (user, device) = people();
    let refused = call(&world, user, device).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(!readiness.is_ready());
    get_chat(world.channel().await, "tern_good", ChatId::own(user))
        .await
        .expect("a back end has no access token");

    *world.chat.barred.lock().unwrap() = Some(list(&[], &[]));
    soon(async {
        while !readiness.is_ready() {
            readiness.changed().await;
        }
    })
    .await;
    call(&world, user, device).await.unwrap();
}

/// A gateway that was not told of the revocation finds it on the list, at the latest on the first one that it asks
/// for once accounts nodes know of it.
#[tokio::test]
async fn the_stream_of_a_device_that_was_revoked_unheard_ends() {
    let mut world = World::start(&[]).await;
    let ((alice, lost), (bob, phone)) = (people(), people());
    let (mut hers, mut his) = (world.open(alice, lost).await, world.open(bob, phone).await);
    *world.chat.barred.lock().unwrap() = Some(list(&[bob], &[lost]));
    world
        .nodes
        .push((Role::Gateway, node("gateway-0", &world.internal.clone())));
    world
        .map
        .send_replace(Arc::new(ClusterMap::new(2, world.nodes.clone())));
    assert_eq!(hers.end().await.0.code(), CloseCode::DeviceRevoked);
    assert_eq!(his.end().await.0.code(), CloseCode::UserSuspended);
    let refused = call(&world, alice, lost).await.unwrap_err();
    assert_eq!(reason_of(&refused), Some(ErrorReason::DeviceRevoked));
}
