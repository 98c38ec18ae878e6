//! Tests the calls of apps and operators.

use tern_local::push::Answer;
use tern_proto::error::reason_of;
use tern_proto::v1::push_token::Provider;
use tern_proto::v1::{self, ErrorReason, WebPushSubscription};
use tern_tests::Api;
use tern_tests::world::tern;
use tern_types::DeviceId;
use tokio::process::Command;
use tonic::Code;

use crate::scene::Scene;
use crate::services::Service;

fn test(device: DeviceId) -> v1::TestPushRequest {
    v1::TestPushRequest {
        device_id: device.to_string(),
    }
}

#[tokio::test]
async fn an_operator_sees_each_step_of_a_push_and_the_providers_answer() {
    let scene = Scene::start().await;
    let [bob, carol] = scene.world.users(["bob", "carol"]).await;
    let his = scene.away(&bob, Service::Apns).await;
    let mut admin = scene.world.back_end().await.admin();
    let answer = admin.test_push(test(his.device.id)).await.unwrap().into_inner();
    assert!(answer.sent, "{answer:?}");
    assert!(answer.steps.iter().all(|step| step.ok), "{answer:?}");
    let names: Vec<&str> = answer.steps.iter().map(|step| &*step.name).collect();
    assert_eq!(names, ["device", "token", "app", "seal", "provider"]);
    scene.pushes(&his, 1).await;

    // The last step is the one that failed.
    scene
        .services
        .answer(&his.address, Answer::status(400, "BadTopic"));
    let answer = admin.test_push(test(his.device.id)).await.unwrap().into_inner();
    let last = answer.steps.last().unwrap();
    assert_eq!((answer.sent, &*last.name, last.ok), (false, "provider", false));
    assert!(last.detail.contains("BadTopic"), "{answer:?}");
    let without = scene.world.device(&carol).await;
    let answer = admin.test_push(test(without.id)).await.unwrap().into_inner();
    let last = answer.steps.last().unwrap();
    assert_eq!((answer.sent, &*last.name, last.ok), (false, "token", false));
    let nobodys = admin.test_push(test(DeviceId::random())).await.unwrap_err();
    assert_eq!(reason_of(&nobodys), Some(ErrorReason::DeviceNotFound));
    // Devices may not call it.
    let refused = scene.api(&his).admin().test_push(test(his.device.id)).await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);

    scene.services.answer(&his.address, Answer::Ok);
    let output = Command::new(tern())
        .args(["admin", "push", "test", "--device", &his.device.id.to_string()])
        .env("TERN_ADMIN_SERVER", scene.world.platform.gateway_url(0))
        .env("TERN_ADMIN_CA_FILE", &scene.world.platform.secrets().ca)
        .env("TERN_API_KEY", scene.world.platform.api_key())
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("provider"), "{output:?}");
    scene.pushes(&his, 2).await;
    scene.end().await;
}

#[tokio::test]
async fn a_browser_is_told_the_key_that_it_subscribes_with() {
    let scene = Scene::start().await;
    let bob = scene.world.user("bob").await;
    let his = scene.away(&bob, Service::WebPush).await;
    let key = scene
        .api(&his)
        .push()
        .get_web_push_key(v1::GetWebPushKeyRequest {})
        .await;
    let key = key.unwrap().into_inner().key;
    assert_eq!((key.len(), key[0]), (65, 4), "a point, uncompressed");
    let back_end = scene.world.back_end().await;
    let refused = back_end
        .push()
        .get_web_push_key(v1::GetWebPushKeyRequest {})
        .await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
    scene.end().await;
}

#[tokio::test]
async fn without_a_push_node_its_calls_are_unavailable_and_tokens_are_kept_all_the_same() {
    let scene = Scene::start().await;
    let bob = scene.world.user("bob").await;
    let his = scene.away(&bob, Service::Fcm).await;
    scene.world.platform.kill(crate::scene::PUSH).await.unwrap();
    scene.world.platform.out_of_map(crate::scene::PUSH).await.unwrap();
    let once = Api::new(scene.world.channel(0), &his.device.access_token).once();
    let away = once.push().get_web_push_key(v1::GetWebPushKeyRequest {}).await;
    assert_eq!(away.unwrap_err().code(), Code::Unavailable);
    scene.register(&his).await.unwrap();
    assert_eq!(scene.tokens(&his).await.unwrap(), 1);
    scene.end().await;
}

/// Returns tokens that cannot be one, each with the name of the field that is wrong, and the bytes of its sealing key.
/// `good` is a subscription that can be one.
fn bad_tokens(good: WebPushSubscription) -> [(&'static str, Option<Provider>, usize); 9] {
    let apns = |token: usize, bundle_id: &str| v1::ApnsToken {
        token: vec![1; token].into(),
        bundle_id: bundle_id.to_owned(),
        ..Default::default()
    };
    [
        ("token.apns", None, 0),
        ("token", Some(Provider::Apns(apns(0, "com.example.chat"))), 0),
        ("token", Some(Provider::Apns(apns(101, "com.example.chat"))), 0),
        ("bundle_id", Some(Provider::Apns(apns(32, ""))), 0),
        ("bundle_id", Some(Provider::Apns(apns(32, &"a".repeat(156)))), 0),
        (
            "sealing_key",
            Some(Provider::Apns(apns(32, "com.example.chat"))),
            31,
        ),
        (
            "endpoint",
            Some(Provider::WebPush(WebPushSubscription {
                endpoint: "ftp://example.com/1".to_owned(),
                ..good.clone()
            })),
            0,
        ),
        (
            "p256dh",
            Some(Provider::WebPush(WebPushSubscription {
                p256dh: vec![4; 64].into(),
                ..good.clone()
            })),
            0,
        ),
        (
            "auth",
            Some(Provider::WebPush(WebPushSubscription {
                auth: vec![4; 17].into(),
                ..good
            })),
            0,
        ),
    ]
}

#[tokio::test]
async fn a_token_that_cannot_be_one_is_refused_by_the_name_of_its_field() {
    let scene = Scene::start().await;
    let bob = scene.world.user("bob").await;
    let his = scene.away(&bob, Service::WebPush).await;
    let Provider::WebPush(good) = his.address.provider.clone() else {
        panic!("a subscription")
    };
    for (field, provider, sealing) in bad_tokens(good) {
        let token = v1::PushToken {
            provider,
            sealing_key: vec![1; sealing].into(),
        };
        let request = v1::SetPushTokenRequest { token: Some(token) };
        let refused = scene
            .api(&his)
            .devices()
            .set_push_token(request)
            .await
            .expect_err(field);
        assert_eq!(
            reason_of(&refused),
            Some(ErrorReason::InvalidField),
            "{field}: {refused:?}"
        );
        let text = format!("{refused:?}");
        assert!(text.contains(field), "{field}: {text}");
    }
    assert_eq!(scene.tokens(&his).await.unwrap(), 1, "the good one stays");
    scene.end().await;
}
