//! Tests of making, renaming and reading users.

use futures::future::join_all;
use tern_identity::principal::{Principal, Scope};
use tern_proto::v1;
use tern_proto::v1::ErrorReason;
use tern_types::UserId;

use crate::world::{World, admin, by, device, key, reason};

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
