//! Tests of the whole node: while its store is away, while it serves, and while it drains.

use std::time::Duration;

use sqlx::postgres::PgPoolOptions;
use tern_accounts::accounts::{ContactChange, NewDevice};
use tern_accounts::domain::linking::Asked;
use tern_accounts::domain::notifications::{Notifications, QuietHours};
use tern_accounts::domain::push_tokens::PushToken;
use tern_identity::principal::Principal;
use tern_proto::v1;
use tern_proto::v1::ErrorReason;
use tern_proto::v1::users_client::UsersClient;
use tern_store::postgres::PostgresArgs;
use tern_types::{Clock, RequestId, UserId};
use tonic::service::RoutesBuilder;

use crate::HOUR;
use crate::push_tokens::fcm;
use crate::world::{self, World, admin, by};

#[tokio::test]
async fn a_store_that_is_away_is_unavailable_and_says_when_to_come_back() {
    let world = World::start().await;
    let nowhere = PgPoolOptions::new()
        .acquire_timeout(Duration::from_millis(200))
        .connect_lazy("postgres://tern@127.0.0.1:1/tern")
        .unwrap();
    let accounts = world::accounts(&nowhere, &world.ctx, &world.pem);
    let refused = accounts
        .users(&admin(), &[UserId::random()], &[])
        .await
        .unwrap_err();
    assert_eq!(refused.reason, ErrorReason::Unavailable);
    assert!(refused.retry_after.is_some());
}

/// If a call held one connection while it waited for another, as many calls as the pool has connections would all wait.
#[tokio::test]
async fn no_call_needs_two_connections_at_a_time() {
    let world = World::start().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let one = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(Duration::from_secs(60))
        .connect_lazy_with((*world.pool.connect_options()).clone());
    let accounts = world::accounts(&one, &world.ctx, &world.pem);
    let (who, now) = (admin(), Clock::wall());
    accounts.block(&who, Some(alice), bob, now).await.unwrap();
    accounts.unblock(&who, Some(alice), bob).await.unwrap();
    let change = ContactChange {
        add: vec![bob],
        ..Default::default()
    };
    accounts.set_contacts(&who, Some(alice), change).await.unwrap();
    let new = NewDevice {
        user: alice,
        request: RequestId::random(),
        asked: Asked {
            display_name: "phone".into(),
            platform: "ios".into(),
        },
    };
    let (device, first) = accounts.link_device(&who, new, now).await.unwrap();
    let itself = Principal::Device {
        user: alice,
        device: device.id,
    };
    let token = PushToken::read(fcm("t1")).unwrap();
    accounts.set_push_token(&itself, Some(&token), now).await.unwrap();
    let quiet_hours = Some(QuietHours {
        from: 0,
        to: 1,
        time_zone: "UTC".into(),
    });
    let settings = Notifications { quiet_hours };
    accounts
        .set_notifications(&who, Some(alice), &settings)
        .await
        .unwrap();
    assert_eq!(accounts.notifications(&who, Some(alice)).await.unwrap(), settings);
    let second = accounts.refresh(&first.refresh, now).await.unwrap();
    accounts.refresh(&second.refresh, now).await.unwrap();
    let copied = accounts.refresh(&first.refresh, now).await.map(drop).unwrap_err();
    assert_eq!(
        copied.reason,
        ErrorReason::RefreshTokenReused,
        "the device is revoked"
    );
    accounts.revoke_device(&who, device.id, now).await.unwrap();
    sqlx::query("UPDATE users SET presence_audience = 1")
        .execute(&world.pool)
        .await
        .unwrap();
    let watchable = accounts.may_watch(alice, &[bob], now).await.unwrap();
    assert_eq!(watchable.visible, [bob]);
    accounts.suspend(&who, bob, now).await.unwrap();
    accounts.resume(&who, bob).await.unwrap();
}

#[tokio::test]
async fn a_node_serves_and_drains() {
    let world = World::start().await;
    let dir = tempfile::tempdir().unwrap();
    let key_file = dir.path().join("token.pem");
    std::fs::write(&key_file, &world.pem).unwrap();
    let config = tern_accounts::Config {
        postgres: PostgresArgs::from_url(&world.database_url).unwrap(),
        token_key_file: Some(key_file),
        accounts_access_token_ttl: HOUR,
        max_new_strangers_a_day: 200,
    };
    let mut routes = RoutesBuilder::default();
    let running = tern_accounts::server::start(config, world.ctx.clone(), &mut routes)
        .await
        .unwrap();
    let address = world::serve(routes.routes()).await;
    let mut users = UsersClient::new(world.ctx.channels.get(&address).unwrap());
    let request = v1::CreateUserRequest {
        external_id: "e-1".into(),
        display_name: String::new(),
    };
    assert!(
        users
            .create_user(by(&admin(), request))
            .await
            .unwrap()
            .into_inner()
            .created
    );

    let done = tokio::spawn(running.done);
    assert!(!done.is_finished());
    world.ctx.drain.start();
    tokio::time::timeout(Duration::from_secs(60), done)
        .await
        .unwrap()
        .unwrap();
}
