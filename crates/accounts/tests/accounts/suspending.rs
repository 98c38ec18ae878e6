//! Tests of suspending users, and of what operators see of them.

use metrics_exporter_prometheus::PrometheusBuilder;
use tern_identity::principal::Scope;
use tern_proto::internal::{ListBarredRequest, ListBarredResponse};
use tern_proto::v1::{self, ErrorReason};
use tern_types::{Clock, DeviceId, UserId};

use crate::world::{World, admin, by, device, key, link_request, reason};
use crate::{MOMENT, device_id, refresh_token};

async fn suspend(world: &World, user: UserId) -> v1::SuspendUserResponse {
    let user_id = user.to_string();
    let request = by(&admin(), v1::SuspendUserRequest { user_id });
    world.operator().suspend_user(request).await.unwrap().into_inner()
}

async fn resume(world: &World, user: UserId) -> v1::ResumeUserResponse {
    let user_id = user.to_string();
    let request = by(&admin(), v1::ResumeUserRequest { user_id });
    world.operator().resume_user(request).await.unwrap().into_inner()
}

async fn barred(world: &World) -> ListBarredResponse {
    let list = world.node().list_barred(ListBarredRequest {}).await;
    list.unwrap().into_inner()
}

async fn suspended(world: &World) -> Vec<UserId> {
    let ids = barred(world).await.user_ids;
    ids.iter().map(|id| UserId::from_slice(id).unwrap()).collect()
}

async fn revoked(world: &World) -> Vec<DeviceId> {
    let ids = barred(world).await.device_ids;
    ids.iter().map(|id| DeviceId::from_slice(id).unwrap()).collect()
}

#[tokio::test]
async fn a_suspended_user_gets_no_tokens_until_they_are_resumed() {
    let world = World::start().await;
    let user = world.user("e-1").await;
    let linked = world.link(user).await;
    let first = suspend(&world, user).await;
    assert_eq!(first.closed, 2, "one stream on each gateway that lives");
    assert_eq!(first.gateways_missed, ["g3"]);
    let told = world.gateways.suspensions().pop().unwrap();
    assert!(told.suspended);
    assert_eq!(told.user_id, user.to_vec());
    assert_eq!(told.device_ids, [device_id(&linked).to_vec()]);
    assert_eq!(suspended(&world).await, [user]);

    let again = suspend(&world, user).await;
    assert_eq!(again.user, first.user, "the first time stays");
    assert_eq!(
        world.refresh(&refresh_token(&linked)).await.unwrap_err(),
        ErrorReason::UserSuspended
    );
    let link = by(&admin(), link_request(user));
    let refused = world.devices().link_device(link).await.unwrap_err();
    assert_eq!(reason(&refused), ErrorReason::UserSuspended);
    assert_eq!(world.device_ids(user).await.len(), 1, "devices stay linked");

    let resumed = resume(&world, user).await;
    assert_eq!(resumed.user.unwrap().suspended_at_ms, 0);
    assert!(!world.gateways.suspensions().pop().unwrap().suspended);
    assert_eq!(suspended(&world).await, []);
    assert!(world.refresh(&refresh_token(&linked)).await.is_ok());
}

#[tokio::test]
async fn what_is_repeated_is_counted_once() {
    let world = World::start().await;
    let recorder = PrometheusBuilder::new().build_recorder();
    let _counts = metrics::set_default_local_recorder(&recorder);
    let user = world.user("e-1").await;
    let device = device_id(&world.link(user).await);
    // The revocation stays unfinished.
    world.chat.sticks(&[device]);
    let now = Clock::wall();
    for when in [now, now + MOMENT] {
        suspend(&world, user).await;
        let revoked = world.accounts.revoke_device(&admin(), device, when).await;
        assert_eq!(revoked.unwrap_err().reason, ErrorReason::Internal);
    }
    for _ in 0..2 {
        resume(&world, user).await;
    }
    let page = recorder.handle().render();
    for line in [
        "tern_accounts_suspensions_total{what=\"suspended\"} 1",
        "tern_accounts_suspensions_total{what=\"resumed\"} 1",
        "tern_accounts_devices_revoked_total{cause=\"asked\"} 1",
    ] {
        assert!(page.lines().any(|shown| shown == line), "{line}\n{page}");
    }
}

#[tokio::test]
async fn who_was_suspended_long_ago_has_no_good_token_and_is_not_listed() {
    let world = World::start().await;
    let user = world.user("e-1").await;
    suspend(&world, user).await;
    sqlx::query("UPDATE users SET suspended_at = now() - interval '2 hours'")
        .execute(&world.pool)
        .await
        .unwrap();
    assert_eq!(suspended(&world).await, []);
}

#[tokio::test]
async fn devices_are_listed_as_revoked_while_they_may_have_a_good_token() {
    let world = World::start().await;
    let user = world.user("e-1").await;
    let (kept, lost) = (world.link(user).await, world.link(user).await);
    assert_eq!(revoked(&world).await, []);
    let revoke = v1::RevokeDeviceRequest {
        device_id: device_id(&lost).to_string(),
    };
    world.devices().revoke_device(by(&admin(), revoke)).await.unwrap();
    assert_eq!(revoked(&world).await, [device_id(&lost)]);
    assert_eq!(world.device_ids(user).await, [device_id(&kept).to_string()]);
    sqlx::query("UPDATE devices SET revoked_at = now() - interval '2 hours' WHERE revoked_at IS NOT NULL")
        .execute(&world.pool)
        .await
        .unwrap();
    assert_eq!(revoked(&world).await, []);
}

#[tokio::test]
async fn users_are_listed_page_by_page() {
    let world = World::start().await;
    let mut users = Vec::new();
    for name in ["a", "b", "c"] {
        users.push(world.user(name).await);
    }
    suspend(&world, users[1]).await;
    users.sort();
    let (mut seen, mut page) = (Vec::new(), v1::ListUsersRequest::default());
    page.page_size = 2;
    loop {
        let answer = world.operator().list_users(by(&admin(), page.clone())).await;
        let answer = answer.unwrap().into_inner();
        seen.extend(
            answer
                .users
                .iter()
                .map(|user| user.user_id.parse::<UserId>().unwrap()),
        );
        if answer.next_page_token.is_empty() {
            break;
        }
        page.page_token = answer.next_page_token;
    }
    assert_eq!(seen, users);
    let only = v1::ListUsersRequest {
        suspended_only: true,
        ..Default::default()
    };
    let only = world.operator().list_users(by(&admin(), only)).await.unwrap();
    let only = only.into_inner().users;
    assert_eq!(only.len(), 1);
    assert!(only[0].suspended_at_ms > 0 && only[0].external_id == "b");
}

#[tokio::test]
async fn a_user_is_shown_with_every_device_that_they_had() {
    let world = World::start().await;
    let user = world.user("e-1").await;
    let (kept, lost) = (world.link(user).await, world.link(user).await);
    let revoke = v1::RevokeDeviceRequest {
        device_id: device_id(&lost).to_string(),
    };
    world.devices().revoke_device(by(&admin(), revoke)).await.unwrap();
    let ask = |user_id: &str, external_id: &str| {
        let request = v1::GetUserRequest {
            user_id: user_id.into(),
            external_id: external_id.into(),
        };
        let mut operator = world.operator();
        async move { operator.get_user(by(&admin(), request)).await }
    };
    let shown = ask("", "e-1").await.unwrap().into_inner();
    assert_eq!(ask(&user.to_string(), "").await.unwrap().into_inner(), shown);
    let find = |linked: &v1::LinkDeviceResponse| {
        let id = device_id(linked).to_string();
        shown
            .devices
            .iter()
            .find(|device| device.device_id == id)
            .unwrap()
    };
    assert!(find(&kept).active && find(&kept).tokens_issued_at_ms > 0);
    assert!(!find(&lost).active && find(&lost).revoked_at_ms > 0);
    for (user_id, external_id, expected) in [
        ("", "", ErrorReason::InvalidField),
        ("x", "", ErrorReason::InvalidField),
        ("", "nobody", ErrorReason::UserNotFound),
    ] {
        assert_eq!(reason(&ask(user_id, external_id).await.unwrap_err()), expected);
    }
}

#[tokio::test]
async fn only_the_scope_admin_lets_in() {
    let world = World::start().await;
    let user = world.user("e-1").await;
    let linked = world.link(user).await;
    let others: Vec<Scope> = Scope::ALL
        .into_iter()
        .filter(|scope| *scope != Scope::Admin)
        .collect();
    for (caller, expected) in [
        (key(&others), ErrorReason::ScopeMissing),
        (device(&linked), ErrorReason::NotForDevices),
    ] {
        let user_id = user.to_string();
        let request = by(&caller, v1::SuspendUserRequest { user_id });
        let refused = world.operator().suspend_user(request).await.unwrap_err();
        assert_eq!(reason(&refused), expected);
        let request = by(&caller, v1::ListUsersRequest::default());
        let refused = world.operator().list_users(request).await.unwrap_err();
        assert_eq!(reason(&refused), expected);
    }
    assert_eq!(suspended(&world).await, []);
    let nobody = v1::ResumeUserRequest {
        user_id: UserId::random().to_string(),
    };
    let refused = world
        .operator()
        .resume_user(by(&admin(), nobody))
        .await
        .unwrap_err();
    assert_eq!(reason(&refused), ErrorReason::UserNotFound);
}
