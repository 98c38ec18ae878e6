//! Tests of linking devices.

use futures::future::join_all;
use tern_accounts::accounts::NewDevice;
use tern_accounts::domain::linking::{Asked, REPEATABLE};
use tern_identity::token::Verifier;
use tern_proto::v1;
use tern_proto::v1::ErrorReason;
use tern_types::{Clock, RequestId, Timestamp, UserId};
use tonic_types::StatusExt;

use crate::world::{World, admin, by, link_request, reason};
use crate::{HOUR, MOMENT, device_id};

#[tokio::test]
async fn a_linked_device_is_listed_and_its_access_token_says_who_it_is() {
    let world = World::start().await;
    let user = world.user("e-1").await;
    assert_eq!(world.device_ids(user).await, [] as [String; 0]);
    let linked = world.link(user).await;
    let shown = linked.device.clone().unwrap();
    assert_eq!(
        (shown.display_name.as_str(), shown.platform.as_str()),
        ("phone", "ios")
    );
    assert_eq!(
        world.device_ids(user).await,
        std::slice::from_ref(&shown.device_id)
    );

    let tokens = linked.tokens.unwrap();
    let verifier = Verifier::from_pems([&world.pem]).unwrap();
    let token = verifier.verify(&tokens.access_token, Clock::wall()).unwrap();
    assert_eq!((token.user, token.device.to_string()), (user, shown.device_id));
    assert_eq!(token.expires_at, Timestamp(tokens.access_expires_at_ms));

    let nobody = world
        .devices()
        .link_device(by(&admin(), link_request(UserId::random())))
        .await
        .unwrap_err();
    assert_eq!(reason(&nobody), ErrorReason::UserNotFound);
    let request = v1::ListDevicesRequest {
        user_id: UserId::random().to_string(),
    };
    let nobody = world
        .devices()
        .list_devices(by(&admin(), request))
        .await
        .unwrap_err();
    assert_eq!(reason(&nobody), ErrorReason::UserNotFound);
}

#[tokio::test]
async fn linking_again_gives_the_same_device_for_a_day_and_its_present_token() {
    let world = World::start().await;
    let user = world.user("e-1").await;
    let now = Clock::wall();
    let new = NewDevice {
        user,
        request: RequestId::random(),
        asked: Asked {
            display_name: "phone".into(),
            platform: "ios".into(),
        },
    };
    let (first, one) = world
        .accounts
        .link_device(&admin(), new.clone(), now)
        .await
        .unwrap();
    let (again, two) = world
        .accounts
        .link_device(&admin(), new.clone(), now + HOUR)
        .await
        .unwrap();
    assert_eq!(first, again);
    assert_eq!(one.refresh, two.refresh);
    assert_eq!(world.device_ids(user).await.len(), 1);
    // The first answer may have arrived in spite of the retries, so its token has to work, also between them.
    let used = world.accounts.refresh(&one.refresh, now + HOUR).await.unwrap();
    assert_ne!(used.refresh, one.refresh);
    for _ in 0..2 {
        let (_, late) = world
            .accounts
            .link_device(&admin(), new.clone(), now + HOUR)
            .await
            .unwrap();
        assert_eq!(late.refresh, used.refresh);
    }
    world.accounts.refresh(&used.refresh, now + HOUR).await.unwrap();

    let other = NewDevice {
        asked: Asked {
            display_name: "tablet".into(),
            ..new.asked.clone()
        },
        ..new.clone()
    };
    for (name, new, when) in [
        ("other content", other, now),
        ("a day later", new, now + REPEATABLE + MOMENT),
    ] {
        let refused = world
            .accounts
            .link_device(&admin(), new, when)
            .await
            .map(drop)
            .unwrap_err();
        assert_eq!(refused.reason, ErrorReason::RequestIdReused, "{name}");
    }
}

/// A token that was made under another key cannot be made again, so the repetition makes the next one. The token of the
/// first answer gives that one, too.
#[tokio::test]
async fn linking_again_after_a_change_of_the_signing_key_makes_one_more_token() {
    let world = World::start().await;
    let now = Clock::wall();
    let new = NewDevice {
        user: world.user("e-1").await,
        request: RequestId::random(),
        asked: Asked {
            display_name: "phone".into(),
            platform: "ios".into(),
        },
    };
    let first = world.accounts.link_device(&admin(), new.clone(), now).await;
    let first = first.unwrap().1.refresh;
    let changed = world.with_new_signing_key();
    let mut again = Vec::new();
    for _ in 0..2 {
        let linked = changed.link_device(&admin(), new.clone(), now).await;
        again.push(linked.unwrap().1.refresh);
    }
    assert_ne!(again[0], first);
    assert_eq!(again[0], again[1]);
    assert_eq!(changed.refresh(&first, now).await.unwrap().refresh, again[0]);
    changed.refresh(&again[0], now).await.unwrap();
}

#[tokio::test]
async fn linking_that_broke_off_goes_on_with_the_same_device() {
    let world = World::start().await;
    let user = world.user("e-1").await;
    let request = link_request(user);
    world.chat.fail(usize::MAX);
    let refused = world
        .devices()
        .link_device(by(&admin(), request.clone()))
        .await
        .unwrap_err();
    assert_eq!(reason(&refused), ErrorReason::Unavailable);
    assert!(refused.get_error_details().retry_info().is_some());
    assert_eq!(
        world.device_ids(user).await.len(),
        0,
        "it is not linked before the chats know it"
    );

    world.chat.fail(1);
    let linked = world
        .devices()
        .link_device(by(&admin(), request.clone()))
        .await
        .unwrap()
        .into_inner();
    let again = world
        .devices()
        .link_device(by(&admin(), request))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(linked.device, again.device);
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM devices")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert_eq!(rows, 1);
}

#[tokio::test]
async fn a_device_whose_linking_never_succeeded_is_forgotten_after_a_day() {
    let world = World::start().await;
    let user = world.user("e-1").await;
    let now = Clock::wall();
    let link = |request, when| {
        let new = NewDevice {
            user,
            request,
            asked: Asked {
                display_name: "phone".into(),
                platform: "ios".into(),
            },
        };
        let accounts = world.accounts.clone();
        async move { accounts.link_device(&admin(), new, when).await }
    };
    let (given_up, other) = (RequestId::random(), RequestId::random());
    world.chat.fail(usize::MAX);
    link(given_up, now).await.map(drop).unwrap_err();
    world.chat.fail(0);
    let count = || async {
        let count = sqlx::query_scalar("SELECT count(*) FROM devices");
        let count: i64 = count.fetch_one(&world.pool).await.unwrap();
        count
    };
    link(other, now + REPEATABLE).await.unwrap();
    assert_eq!(count().await, 2, "it may be gone on with");
    link(RequestId::random(), now + REPEATABLE + MOMENT)
        .await
        .unwrap();
    assert_eq!(count().await, 2, "the one that was given up is gone");
}

#[tokio::test]
async fn a_user_has_ten_devices_however_many_are_linked_at_once() {
    let world = World::start().await;
    let user = world.user("e-1").await;
    for _ in 0..9 {
        world.link(user).await;
    }
    // The connections are opened beforehand, so that the requests run at the same time.
    join_all((0..8).map(|_| world.device_ids(user))).await;
    let links = join_all((0..8).map(|_| {
        let mut devices = world.devices();
        async move { devices.link_device(by(&admin(), link_request(user))).await }
    }))
    .await;
    let refused: Vec<_> = links
        .iter()
        .filter_map(|link| link.as_ref().err())
        .map(reason)
        .collect();
    assert_eq!(refused, [ErrorReason::TooManyDevices; 7]);
    assert_eq!(world.device_ids(user).await.len(), 10);

    let first = links.into_iter().flatten().next().unwrap().into_inner();
    let revoke = v1::RevokeDeviceRequest {
        device_id: device_id(&first).to_string(),
    };
    world.devices().revoke_device(by(&admin(), revoke)).await.unwrap();
    world.link(user).await;
}
