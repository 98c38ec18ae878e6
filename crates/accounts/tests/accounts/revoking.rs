//! Tests of revoking devices.

use std::collections::HashSet;

use tern_proto::v1;
use tern_proto::v1::ErrorReason;
use tern_types::{Clock, DeviceId, UserId};
use uuid::Uuid;

use crate::world::{World, admin, by, device, reason};
use crate::{HOUR, device_id, refresh_token};

#[tokio::test]
async fn a_revoked_device_is_gone_everywhere() {
    let world = World::start().await;
    let user = world.user("e-1").await;
    let linked = world.link(user).await;
    let device_id = device_id(&linked);
    let revoke = v1::RevokeDeviceRequest {
        device_id: device_id.to_string(),
    };
    for _ in 0..2 {
        world
            .devices()
            .revoke_device(by(&admin(), revoke.clone()))
            .await
            .unwrap();
        assert_eq!(world.chat.unlinked(), [device_id], "again changes nothing");
        assert_eq!(world.device_ids(user).await.len(), 0);
    }
    assert_eq!(
        world.gateways.told()[..2],
        [device_id; 2],
        "each gateway that lives is told"
    );
    assert_eq!(
        world.refresh(&refresh_token(&linked)).await.unwrap_err(),
        ErrorReason::DeviceRevoked
    );

    let itself = device(&linked);
    let own = v1::ListDevicesRequest::default();
    let refused = world.devices().list_devices(by(&itself, own)).await.unwrap_err();
    assert_eq!(
        reason(&refused),
        ErrorReason::DeviceRevoked,
        "its access token does not count any more"
    );
}

#[tokio::test]
async fn a_device_revokes_those_of_its_user_and_no_others() {
    let world = World::start().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let (phone, tablet, bobs) = (
        world.link(alice).await,
        world.link(alice).await,
        world.link(bob).await,
    );
    let revoke = |by_whom: &v1::LinkDeviceResponse, whom: DeviceId| {
        let request = by(
            &device(by_whom),
            v1::RevokeDeviceRequest {
                device_id: whom.to_string(),
            },
        );
        let mut devices = world.devices();
        async move {
            devices
                .revoke_device(request)
                .await
                .map(drop)
                .map_err(|status| reason(&status))
        }
    };
    assert_eq!(
        revoke(&phone, device_id(&bobs)).await,
        Err(ErrorReason::DeviceNotFound)
    );
    assert_eq!(
        revoke(&phone, DeviceId::random()).await,
        Err(ErrorReason::DeviceNotFound)
    );
    assert_eq!(revoke(&phone, device_id(&tablet)).await, Ok(()));
    assert_eq!(
        revoke(&tablet, device_id(&phone)).await,
        Err(ErrorReason::DeviceRevoked)
    );
    assert_eq!(revoke(&phone, device_id(&phone)).await, Ok(()));
    assert_eq!(
        revoke(&phone, device_id(&phone)).await,
        Ok(()),
        "a retry of its own end"
    );
    assert_eq!(world.device_ids(bob).await.len(), 1);
}

#[tokio::test]
async fn a_revocation_that_stopped_half_way_is_finished_later() {
    let world = World::start().await;
    let linked = world.link(world.user("e-1").await).await;
    let device_id = device_id(&linked);
    world.chat.fail(usize::MAX);
    let revoke = v1::RevokeDeviceRequest {
        device_id: device_id.to_string(),
    };
    let refused = world
        .devices()
        .revoke_device(by(&admin(), revoke))
        .await
        .unwrap_err();
    assert_eq!(reason(&refused), ErrorReason::Unavailable);
    assert_eq!(
        world.refresh(&refresh_token(&linked)).await.unwrap_err(),
        ErrorReason::DeviceRevoked
    );

    world.chat.fail(0);
    world.accounts.resume_revocations(Clock::wall()).await.unwrap();
    assert_eq!(
        world.chat.unlinked(),
        [],
        "the call that began it may still be at it"
    );
    for _ in 0..2 {
        world
            .accounts
            .resume_revocations(Clock::wall() + HOUR)
            .await
            .unwrap();
        assert_eq!(world.chat.unlinked(), [device_id], "once is enough");
    }
}

/// Makes devices of the user whose revocations began an hour ago and were not finished.
async fn half_revoked(world: &World, user: UserId, count: i32) -> Vec<DeviceId> {
    let insert = "INSERT INTO devices (device_id, user_id, request_id, display_name, platform, revoked_at)
                  SELECT gen_random_uuid(), $1, gen_random_uuid(), 'phone', 'ios', now() - interval '1 hour'
                  FROM generate_series(1, $2) RETURNING device_id";
    let ids: Vec<Uuid> = sqlx::query_scalar(insert)
        .bind(user.0)
        .bind(count)
        .fetch_all(&world.pool)
        .await
        .unwrap();
    ids.into_iter().map(DeviceId).collect()
}

#[tokio::test]
async fn a_revocation_that_cannot_be_finished_does_not_hold_up_the_others() {
    let world = World::start().await;
    let user = world.user("e-1").await;
    let devices = half_revoked(&world, user, 5).await;
    world.chat.sticks(&devices[..4]);
    let now = Clock::wall();
    let error = world.accounts.resume_revocations(now).await.unwrap_err();
    assert_eq!(error.reason, ErrorReason::Internal);
    assert_eq!(world.chat.unlinked(), [devices[4]]);
    let tried: HashSet<DeviceId> = world.gateways.told().into_iter().collect();
    assert_eq!(tried.len(), 5, "each is tried");

    // Now there are more of them than one round resumes.
    let others = half_revoked(&world, user, 30).await;
    world.chat.sticks(&others);
    let last = half_revoked(&world, user, 1).await[0];
    for _ in 0..100 {
        world.accounts.resume_revocations(now).await.unwrap_err();
        if world.chat.unlinked().contains(&last) {
            return;
        }
    }
    panic!("the last one is never read");
}
