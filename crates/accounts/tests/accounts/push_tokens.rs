//! Tests of where devices get their pushes: what is stored, for how long, and of which device.

use tern_identity::principal::Principal;
use tern_proto::v1::push_token::Provider;
use tern_proto::v1::{self, ErrorReason};
use tern_types::DeviceId;
use tonic_types::StatusExt;
use uuid::Uuid;

use crate::world::{World, admin, by, device, reason};
use crate::{device_id, refresh_token};

/// A row without its times: device, user, provider, app, sandbox, token, second key, secret, sealing key.
type Row = (
    Uuid,
    Uuid,
    i16,
    String,
    bool,
    Vec<u8>,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
);

impl World {
    async fn set_push_token(&self, who: &Principal, token: Option<v1::PushToken>) -> Result<(), ErrorReason> {
        let request = v1::SetPushTokenRequest { token };
        let answer = self.devices().set_push_token(by(who, request)).await;
        answer.map(drop).map_err(|status| reason(&status))
    }

    async fn push_tokens(&self) -> Vec<Row> {
        let select = "SELECT device_id, user_id, provider, app, sandbox, token, second_key, auth, sealing_key
                      FROM push_tokens ORDER BY registered_at, app";
        sqlx::query_as(select).fetch_all(&self.pool).await.unwrap()
    }

    /// Returns the devices that have tokens.
    async fn with_push_tokens(&self) -> Vec<DeviceId> {
        let rows = self.push_tokens().await;
        rows.into_iter().map(|row| DeviceId(row.0)).collect()
    }

    /// Makes all tokens older by so many hours.
    async fn pass_hours(&self, hours: i32) {
        let age = "UPDATE push_tokens SET registered_at = registered_at - make_interval(hours => $1),
                                          named_at = named_at - make_interval(hours => $1)";
        sqlx::query(age).bind(hours).execute(&self.pool).await.unwrap();
    }

    /// Returns whether the one token was registered within the last hour, and whether it was named then.
    async fn is_new(&self) -> (bool, bool) {
        let select = "SELECT registered_at > now() - interval '1 hour', named_at > now() - interval '1 hour'
                      FROM push_tokens";
        sqlx::query_as(select).fetch_one(&self.pool).await.unwrap()
    }
}

fn token(provider: Provider) -> v1::PushToken {
    v1::PushToken {
        provider: Some(provider),
        sealing_key: Default::default(),
    }
}

/// Returns a token of Firebase Cloud Messaging.
pub fn fcm(token: &str) -> v1::PushToken {
    let fcm = v1::FcmToken {
        token: token.to_owned(),
        app: "com.example".to_owned(),
    };
    self::token(Provider::Fcm(fcm))
}

fn apns(sandbox: bool) -> v1::PushToken {
    token(Provider::Apns(v1::ApnsToken {
        token: vec![7; 32].into(),
        bundle_id: "com.example".to_owned(),
        sandbox,
        voip_token: vec![8; 32].into(),
    }))
}

fn web_push() -> v1::PushToken {
    let mut p256dh = vec![9; 65];
    p256dh[0] = 4;
    let subscription = v1::WebPushSubscription {
        endpoint: "https://push.example/1".to_owned(),
        p256dh: p256dh.into(),
        auth: vec![1; 16].into(),
    };
    token(Provider::WebPush(subscription))
}

#[tokio::test]
async fn a_device_has_the_token_that_it_named_last() {
    let world = World::start().await;
    let user = world.user("alice").await;
    let (linked, other) = (world.link(user).await, world.link(user).await);
    let (phone, id) = (device(&linked), device_id(&linked).0);
    let sealed = v1::PushToken {
        sealing_key: vec![3; 32].into(),
        ..apns(true)
    };
    world.set_push_token(&phone, Some(sealed)).await.unwrap();
    let app = || "com.example".to_owned();
    let (voip, sealing) = (Some(vec![8; 32]), Some(vec![3; 32]));
    let row: Row = (id, user.0, 1, app(), true, vec![7; 32], voip, None, sealing);
    assert_eq!(world.push_tokens().await, [row]);

    world.set_push_token(&phone, Some(fcm("t1"))).await.unwrap();
    let row: Row = (id, user.0, 2, app(), false, b"t1".to_vec(), None, None, None);
    assert_eq!(world.push_tokens().await, [row]);

    world.set_push_token(&phone, Some(web_push())).await.unwrap();
    let mut point = vec![9; 65];
    point[0] = 4;
    let endpoint = b"https://push.example/1".to_vec();
    let (point, auth) = (Some(point), Some(vec![1; 16]));
    let row: Row = (id, user.0, 3, String::new(), false, endpoint, point, auth, None);
    assert_eq!(world.push_tokens().await, [row]);

    let tablet = device(&other);
    world.set_push_token(&tablet, Some(fcm("t2"))).await.unwrap();
    for _ in 0..2 {
        world.set_push_token(&phone, None).await.unwrap();
        assert_eq!(world.with_push_tokens().await, [device_id(&other)]);
    }
}

#[tokio::test]
async fn a_token_that_is_named_again_stays_registered_since_it_was_first_named() {
    let world = World::start().await;
    let phone = device(&world.link(world.user("alice").await).await);
    let sealed = |sandbox: bool| v1::PushToken {
        sealing_key: vec![3; 32].into(),
        ..apns(sandbox)
    };
    let without_calls = match apns(true).provider {
        Some(Provider::Apns(apns)) => token(Provider::Apns(v1::ApnsToken {
            voip_token: Default::default(),
            ..apns
        })),
        other => panic!("{other:?}"),
    };
    for (name, hours, named, expected) in [
        ("the first one", 0, apns(false), (true, true)),
        ("the same again", 2, apns(false), (false, false)),
        ("the same after a day", 23, apns(false), (false, true)),
        ("with a sealing key", 2, sealed(false), (false, true)),
        ("with it again", 2, sealed(false), (false, false)),
        ("of the sandbox", 2, sealed(true), (true, true)),
        ("without a sealing key", 2, apns(true), (false, true)),
        ("without a token for calls", 2, without_calls, (true, true)),
        ("another one", 2, fcm("t1"), (true, true)),
        ("yet another one", 2, fcm("t2"), (true, true)),
    ] {
        world.pass_hours(hours).await;
        let sealing_key = named.sealing_key.to_vec();
        world.set_push_token(&phone, Some(named)).await.unwrap();
        assert_eq!(world.is_new().await, expected, "{name}");
        let stored = world.push_tokens().await[0].8.clone();
        assert_eq!(stored.unwrap_or_default(), sealing_key, "{name}");
    }
}

#[tokio::test]
async fn a_token_is_that_of_the_device_that_named_it_last() {
    let world = World::start().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let (hers, his) = (world.link(alice).await, world.link(bob).await);
    world
        .set_push_token(&device(&hers), Some(fcm("t1")))
        .await
        .unwrap();
    world.pass_hours(2).await;
    world
        .set_push_token(&device(&his), Some(fcm("t1")))
        .await
        .unwrap();
    let rows = world.push_tokens().await;
    let users: Vec<_> = rows.iter().map(|row| (row.0, row.1)).collect();
    assert_eq!(users, [(device_id(&his).0, bob.0)], "it is one phone");
    assert_eq!(world.is_new().await, (true, true));

    let other_app = v1::FcmToken {
        token: "t1".to_owned(),
        app: "com.example.other".to_owned(),
    };
    let other_app = token(Provider::Fcm(other_app));
    world
        .set_push_token(&device(&hers), Some(other_app))
        .await
        .unwrap();
    assert_eq!(
        world.with_push_tokens().await,
        [device_id(&his), device_id(&hers)],
        "tokens of two apps are two, whatever their bytes"
    );
}

#[tokio::test]
async fn of_two_devices_that_name_a_token_at_the_same_time_one_has_it() {
    let world = World::start().await;
    let user = world.user("alice").await;
    let (phone, tablet) = (device(&world.link(user).await), device(&world.link(user).await));
    for round in 0..20 {
        let token = || Some(fcm(&format!("t{round}")));
        let (one, other) = tokio::join!(
            world.set_push_token(&phone, token()),
            world.set_push_token(&tablet, token())
        );
        assert_eq!((one, other), (Ok(()), Ok(())), "round {round}");
        assert_eq!(world.push_tokens().await.len(), 1, "round {round}");
    }
}

#[tokio::test]
async fn a_revoked_device_has_no_token_and_gets_none() {
    let world = World::start().await;
    let user = world.user("alice").await;
    let (phone, stays) = (world.link(user).await, world.link(user).await);
    for (linked, token) in [(&phone, "t1"), (&stays, "t2")] {
        world
            .set_push_token(&device(linked), Some(fcm(token)))
            .await
            .unwrap();
    }
    let revoke = v1::RevokeDeviceRequest {
        device_id: device_id(&phone).to_string(),
    };
    world
        .devices()
        .revoke_device(by(&admin(), revoke.clone()))
        .await
        .unwrap();
    assert_eq!(world.with_push_tokens().await, [device_id(&stays)]);
    let refused = world.set_push_token(&device(&phone), Some(fcm("t1"))).await;
    assert_eq!(refused, Err(ErrorReason::DeviceRevoked));
    // The version before revoked devices and left their tokens.
    let left = "INSERT INTO push_tokens (device_id, user_id, provider, app, token, registered_at, named_at)
                VALUES ($1, $2, 2, 'com.example', 't1', now(), now())";
    let left = sqlx::query(left).bind(device_id(&phone).0).bind(user.0);
    left.execute(&world.pool).await.unwrap();
    world.devices().revoke_device(by(&admin(), revoke)).await.unwrap();
    assert_eq!(world.with_push_tokens().await, [device_id(&stays)]);
}

#[tokio::test]
async fn a_device_whose_refresh_token_was_copied_has_no_push_token() {
    let world = World::start().await;
    let linked = world.link(world.user("alice").await).await;
    world
        .set_push_token(&device(&linked), Some(fcm("t1")))
        .await
        .unwrap();
    let first = refresh_token(&linked);
    let second = world.refresh(&first).await.unwrap().refresh_token;
    world.refresh(&second).await.unwrap();
    assert_eq!(world.with_push_tokens().await.len(), 1);
    let reused = world.refresh(&first).await.unwrap_err();
    assert_eq!(reused, ErrorReason::RefreshTokenReused);
    assert_eq!(world.with_push_tokens().await, []);
}

#[tokio::test]
async fn a_suspended_user_keeps_the_tokens() {
    let world = World::start().await;
    let user = world.user("alice").await;
    let linked = world.link(user).await;
    world
        .set_push_token(&device(&linked), Some(fcm("t1")))
        .await
        .unwrap();
    let suspend = v1::SuspendUserRequest {
        user_id: user.to_string(),
    };
    world
        .operator()
        .suspend_user(by(&admin(), suspend))
        .await
        .unwrap();
    assert_eq!(world.with_push_tokens().await, [device_id(&linked)]);
}

#[tokio::test]
async fn back_ends_and_malformed_tokens_are_refused() {
    let world = World::start().await;
    let linked = world.link(world.user("alice").await).await;
    let refused = world.set_push_token(&admin(), Some(fcm("t1"))).await;
    assert_eq!(refused, Err(ErrorReason::DevicesOnly));
    let stranger = Principal::Device {
        user: tern_types::UserId::random(),
        device: device_id(&linked),
    };
    let refused = world.set_push_token(&stranger, Some(fcm("t1"))).await;
    assert_eq!(refused, Err(ErrorReason::TokenInvalid), "not that user's device");
    let request = v1::SetPushTokenRequest { token: Some(fcm("")) };
    let refused = world
        .devices()
        .set_push_token(by(&device(&linked), request))
        .await;
    let refused = refused.unwrap_err();
    assert_eq!(reason(&refused), ErrorReason::InvalidField);
    let details = refused.get_error_details();
    let fields = &details.bad_request().unwrap().field_violations;
    assert_eq!(fields[0].field, "token.fcm.token");
    assert_eq!(world.with_push_tokens().await, []);
}
