//! Tests of malformed requests, and of callers that may not make a call.

use tern_identity::principal::Scope;
use tern_proto::v1;
use tern_proto::v1::ErrorReason;
use tonic_types::StatusExt;

use crate::world::{World, admin, by, key, link_request, reason};

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
