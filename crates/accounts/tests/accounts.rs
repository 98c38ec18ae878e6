//! The services over gRPC, on a real Postgres.

#![allow(clippy::unwrap_used, reason = "tests")]

mod world;

use std::time::Duration;

use futures::future::join_all;
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgPoolOptions;
use tern_accounts::accounts::NewDevice;
use tern_accounts::domain::link::{Asked, REPEATABLE};
use tern_accounts::domain::refresh::{SAME_PAIR_AGAIN, UNUSED_ENDS};
use tern_accounts::keys;
use tern_node::postgres::PostgresArgs;
use tern_node::principal::{Principal, Scope};
use tern_node::token::Verifier;
use tern_proto::v1::users_client::UsersClient;
use tern_proto::v1::{self, ErrorReason};
use tern_types::{DeviceId, RequestId, Timestamp, UserId};
use tonic::service::RoutesBuilder;
use tonic_types::StatusExt;
use world::{World, admin, by, device, key, link_request, reason};

const HOUR: Duration = Duration::from_secs(3600);
const MOMENT: Duration = Duration::from_millis(1);

fn device_id(linked: &v1::LinkDeviceResponse) -> DeviceId {
    linked.device.as_ref().unwrap().device_id.parse().unwrap()
}

fn refresh_token(linked: &v1::LinkDeviceResponse) -> String {
    linked.tokens.as_ref().unwrap().refresh_token.clone()
}

#[tokio::test]
async fn making_a_user_again_gives_the_same_one() {
    let world = World::start().await;
    let request = |name: &str| v1::CreateUserRequest {
        external_id: "e-1".into(),
        display_name: name.into(),
    };
    let create = |name: &'static str| {
        let mut users = world.users();
        async move {
            users
                .create_user(by(&admin(), request(name)))
                .await
                .unwrap()
                .into_inner()
        }
    };
    let first = create("Alice").await;
    assert!(first.created);
    let again = create("Somebody else").await;
    assert!(!again.created);
    assert_eq!(again.user, first.user);

    let at_once = join_all((0..8).map(|_| {
        let mut users = world.users();
        let request = v1::CreateUserRequest {
            external_id: "e-2".into(),
            display_name: "Bob".into(),
        };
        async move {
            users
                .create_user(by(&admin(), request))
                .await
                .unwrap()
                .into_inner()
        }
    }))
    .await;
    assert_eq!(at_once.iter().filter(|answer| answer.created).count(), 1);
    assert!(at_once.iter().all(|answer| answer.user == at_once[0].user));
}

#[tokio::test]
async fn a_user_is_renamed_by_a_back_end_only() {
    let world = World::start().await;
    let user = world.user("e-1").await;
    let request = |user: UserId| v1::UpdateUserRequest {
        user_id: user.to_string(),
        display_name: "New".into(),
    };
    let updated = world
        .users()
        .update_user(by(&admin(), request(user)))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(updated.user.unwrap().display_name, "New");
    let nobody = world
        .users()
        .update_user(by(&admin(), request(UserId::random())))
        .await
        .unwrap_err();
    assert_eq!(reason(&nobody), ErrorReason::UserNotFound);
    let phone = device(&world.link(user).await);
    let refused = world
        .users()
        .update_user(by(&phone, request(user)))
        .await
        .unwrap_err();
    assert_eq!(reason(&refused), ErrorReason::NotForDevices);
}

#[tokio::test]
async fn devices_read_names_and_back_ends_external_ids_too() {
    let world = World::start().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let phone = device(&world.link(alice).await);
    let request = |users: &[UserId], external: &[&str]| v1::BatchGetUsersRequest {
        user_ids: users.iter().map(ToString::to_string).collect(),
        external_ids: external.iter().map(ToString::to_string).collect(),
    };
    let get = |principal: Principal, request: v1::BatchGetUsersRequest| {
        let mut users = world.users();
        async move {
            let answer = users.batch_get_users(by(&principal, request)).await?;
            let mut users = answer.into_inner().users;
            users.sort_by(|a, b| a.display_name.cmp(&b.display_name));
            Ok::<_, tonic::Status>(
                users
                    .into_iter()
                    .map(|user| (user.display_name, user.external_id))
                    .collect::<Vec<_>>(),
            )
        }
    };
    let names = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .map(|(name, id)| ((*name).to_owned(), (*id).to_owned()))
            .collect::<Vec<_>>()
    };
    let seen = get(phone.clone(), request(&[alice, bob, UserId::random()], &[]))
        .await
        .unwrap();
    assert_eq!(
        seen,
        names(&[("ALICE", ""), ("BOB", "")]),
        "unknown ones are left out"
    );
    let seen = get(
        key(&[Scope::UsersRead]),
        request(&[alice], &["bob", "alice", "'; DROP TABLE users; --"]),
    )
    .await;
    assert_eq!(
        seen.unwrap(),
        names(&[("ALICE", "alice"), ("BOB", "bob")]),
        "each once"
    );
    let refused = get(phone, request(&[], &["bob"])).await.unwrap_err();
    assert_eq!(reason(&refused), ErrorReason::NotForDevices);
    let many = get(admin(), request(&[alice; 200], &["bob"; 57]))
        .await
        .unwrap_err();
    assert_eq!(reason(&many), ErrorReason::InvalidField);
}

#[tokio::test]
async fn bad_input_names_its_field() {
    let world = World::start().await;
    let user = world.user("e-1").await;
    let external = |id: &str| v1::CreateUserRequest {
        external_id: id.into(),
        display_name: String::new(),
    };
    for bad in ["", &"x".repeat(257), "nul\0"] {
        let refused = world
            .users()
            .create_user(by(&admin(), external(bad)))
            .await
            .unwrap_err();
        assert_eq!(reason(&refused), ErrorReason::InvalidField);
        let details = refused.get_error_details();
        let fields = &details.bad_request().unwrap().field_violations;
        assert_eq!(fields[0].field, "external_id");
    }
    let links = [
        v1::LinkDeviceRequest {
            user_id: "nobody".into(),
            ..link_request(user)
        },
        v1::LinkDeviceRequest {
            request_id: String::new(),
            ..link_request(user)
        },
        v1::LinkDeviceRequest {
            display_name: "x".repeat(129),
            ..link_request(user)
        },
        v1::LinkDeviceRequest {
            platform: "x".repeat(33),
            ..link_request(user)
        },
    ];
    for bad in links {
        let refused = world.devices().link_device(by(&admin(), bad)).await.unwrap_err();
        assert_eq!(reason(&refused), ErrorReason::InvalidField);
    }
}

#[tokio::test]
async fn who_may_not_is_told_why() {
    let world = World::start().await;
    let user = world.user("e-1").await;
    let anybody = world.devices().link_device(link_request(user)).await.unwrap_err();
    assert_eq!(reason(&anybody), ErrorReason::CredentialsMissing);
    let reader = key(&[Scope::UsersRead]);
    let refused = world
        .devices()
        .link_device(by(&reader, link_request(user)))
        .await
        .unwrap_err();
    assert_eq!(reason(&refused), ErrorReason::ScopeMissing);
    let details = refused.get_error_details();
    assert_eq!(details.error_info().unwrap().metadata["scope"], "devices:link");
}

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
    let token = verifier.verify(&tokens.access_token, Timestamp::now()).unwrap();
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
async fn linking_again_gives_the_same_device_for_a_day_and_new_tokens() {
    let world = World::start().await;
    let user = world.user("e-1").await;
    let now = Timestamp::now();
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
    assert_ne!(one.refresh, two.refresh);
    assert_eq!(world.device_ids(user).await.len(), 1);
    // The first answer may have arrived after all.
    assert_eq!(
        world
            .accounts
            .refresh(&one.refresh, now + HOUR)
            .await
            .unwrap()
            .refresh,
        two.refresh
    );

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
async fn a_user_has_ten_devices_however_many_are_linked_at_once() {
    let world = World::start().await;
    let user = world.user("e-1").await;
    for _ in 0..9 {
        world.link(user).await;
    }
    // Connections that are open already let the requests run beside each other.
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
    world.accounts.resume_revocations(Timestamp::now()).await.unwrap();
    assert_eq!(
        world.chat.unlinked(),
        [],
        "the call that began it may still be at it"
    );
    for _ in 0..2 {
        world
            .accounts
            .resume_revocations(Timestamp::now() + HOUR)
            .await
            .unwrap();
        assert_eq!(world.chat.unlinked(), [device_id], "once is enough");
    }
}

#[tokio::test]
async fn a_refresh_token_is_exchanged_once_and_copies_revoke_the_device() {
    let world = World::start().await;
    let user = world.user("e-1").await;
    let linked = world.link(user).await;
    let first = refresh_token(&linked);
    let second = world.refresh(&first).await.unwrap();
    assert_ne!(second.refresh_token, first);
    // The answer got lost.
    assert_eq!(
        world.refresh(&first).await.unwrap().refresh_token,
        second.refresh_token
    );
    let third = world.refresh(&second.refresh_token).await.unwrap();
    // The second was used: whoever comes with the first has a copy.
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
    let now = Timestamp::now();
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
    let now = Timestamp::now();
    let first = refresh_token(&world.link(world.user("e-1").await).await);
    let second = world.accounts.refresh(&first, now).await.unwrap().refresh;
    let changed = world.with_new_signing_key();
    // The second cannot be made again; another one takes its place.
    let again = changed.refresh(&first, now).await.unwrap().refresh;
    assert_ne!(again, second);
    assert_eq!(changed.refresh(&first, now).await.unwrap().refresh, again);
    changed.refresh(&again, now).await.unwrap();
}

#[tokio::test]
async fn no_secret_is_stored() {
    let world = World::start().await;
    let token = refresh_token(&world.link(world.user("e-1").await).await);
    let key = keys::create(&world.pool, "back end", &[Scope::Admin])
        .await
        .unwrap()
        .reveal();
    for (secret, table) in [(token, "devices"), (key, "api_keys")] {
        // Bytes show as hex digits too.
        let secret = secret.rsplit('_').next().unwrap();
        let count = format!("SELECT count(*) FROM {table} t WHERE t::text LIKE '%' || $1 || '%'");
        let rows = sqlx::query_scalar(AssertSqlSafe(count))
            .bind(secret)
            .fetch_one(&world.pool);
        let rows: i64 = rows.await.unwrap();
        assert_eq!(rows, 0, "{table}");
    }
}

#[tokio::test]
async fn an_api_key_is_known_until_it_is_revoked() {
    let world = World::start().await;
    let scopes = [Scope::UsersRead, Scope::MessagesSend, Scope::UsersRead];
    let made = keys::create(&world.pool, "back end", &scopes).await.unwrap();
    let holder = world.accounts.authenticate_key(&made.reveal()).await.unwrap();
    assert_eq!(holder.key_id, made.key_id.to_string());
    assert_eq!(holder.scopes, ["messages:send", "users:read"]);

    let other = keys::create(&world.pool, "other", &[Scope::Admin])
        .await
        .unwrap()
        .reveal();
    let crossed = other.replace(&other[..37], &made.reveal()[..37]);
    assert_eq!(crossed.len(), other.len());
    for bad in ["", "tern_", "Bearer x", &crossed, &made.reveal().to_uppercase()] {
        let refused = world.accounts.authenticate_key(bad).await.unwrap_err();
        assert_eq!(refused.reason, ErrorReason::ApiKeyInvalid, "{bad}");
    }

    keys::revoke(&world.pool, made.key_id).await.unwrap();
    let refused = world.accounts.authenticate_key(&made.reveal()).await.unwrap_err();
    assert_eq!(refused.reason, ErrorReason::ApiKeyInvalid);
    let listed = keys::list(&world.pool).await.unwrap();
    let listed: Vec<_> = listed
        .iter()
        .map(|key| (key.name.as_str(), key.revoked))
        .collect();
    assert_eq!(listed, [("back end", true), ("other", false)]);
    assert!(keys::revoke(&world.pool, uuid::Uuid::new_v4()).await.is_err());
    assert!(keys::create(&world.pool, "", &[Scope::Admin]).await.is_err());
    assert!(keys::create(&world.pool, "no scope", &[]).await.is_err());
}

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
    tokio::time::timeout(Duration::from_secs(10), done)
        .await
        .unwrap()
        .unwrap();
}
