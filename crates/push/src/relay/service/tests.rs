use bytes::Bytes;
use sha2::{Digest, Sha256};
use tern_proto::v1::{ApnsToken, FcmToken};
use tonic::Code;

use super::*;
use crate::apps::{ApnsApp, Apps};
use crate::providers::tests::apns_app;

fn relayed() -> RelayedPush {
    RelayedPush {
        provider: Some(Named::Apns(ApnsToken {
            token: Bytes::from_static(b"token"),
            bundle_id: "com.example.chat".into(),
            sandbox: true,
            voip_token: Bytes::new(),
        })),
        push_class: PushClass::Alert.into(),
        tag: "tag".into(),
        badge: 3,
        sealed: Bytes::from_static(&[1, 2, 3]),
        lifetime_s: 60,
    }
}

fn fcm(token: String) -> Option<Named> {
    let app = "com.example.chat".into();
    Some(Named::Fcm(FcmToken { token, app }))
}

#[test]
fn a_push_is_forwarded_as_it_came() {
    let made = parcel(relayed()).unwrap();
    assert_eq!(made.token.provider, Provider::Apns);
    assert_eq!(
        (made.token.app.as_str(), made.token.sandbox),
        ("com.example.chat", true)
    );
    assert_eq!(
        (&made.token.token[..], &made.token.second_key),
        (&b"token"[..], &None)
    );
    assert_eq!(
        (made.class, made.tag, made.badge),
        (PushClass::Alert, Tag("tag".into()), 3)
    );
    assert_eq!((made.sealed, made.text), (Some(vec![1, 2, 3]), None));
    assert_eq!(made.lifetime, Duration::from_secs(60));
    let long = RelayedPush {
        provider: fcm("t".repeat(MAX_FCM_TOKEN)),
        sealed: Bytes::new(),
        lifetime_s: u32::MAX,
        ..relayed()
    };
    let made = parcel(long).unwrap();
    assert_eq!(made.token.provider, Provider::Fcm);
    assert_eq!((made.sealed, made.lifetime), (None, MAX_LIFETIME));
}

#[test]
fn what_is_of_no_use_is_refused_alone() {
    let apns = |token: Bytes, voip_token: Bytes| {
        Some(Named::Apns(ApnsToken {
            token,
            voip_token,
            ..ApnsToken::default()
        }))
    };
    let long = || Bytes::from(vec![0; MAX_APNS_TOKEN + 1]);
    let long_app = Some(Named::Fcm(FcmToken {
        token: "t".into(),
        app: "a".repeat(MAX_APP + 1),
    }));
    let class = |push_class| RelayedPush {
        push_class,
        ..relayed()
    };
    let tag = |tag: String| RelayedPush { tag, ..relayed() };
    let sealed = |length| RelayedPush {
        sealed: vec![0_u8; length].into(),
        ..relayed()
    };
    let with = |provider| RelayedPush {
        provider,
        ..relayed()
    };
    for (field, push) in [
        ("push_class", class(0)),
        ("push_class", class(99)),
        ("tag", tag(String::new())),
        ("tag", tag("t".repeat(MAX_TAG + 1))),
        ("tag", tag("a\nb".into())),
        ("sealed", sealed(MAX_SEALED + 1)),
        ("provider", with(None)),
        ("token", with(apns(Bytes::new(), Bytes::new()))),
        ("token", with(apns(long(), Bytes::new()))),
        ("token", with(apns(Bytes::from_static(b"t"), long()))),
        ("token", with(fcm(String::new()))),
        ("token", with(fcm("t".repeat(MAX_FCM_TOKEN + 1)))),
        ("token", with(long_app)),
    ] {
        let refused = parcel(push).unwrap_err();
        let expected = Delivery::Refused {
            reason: "request",
            detail: format!("{field} is of no use"),
        };
        assert_eq!(refused, expected);
    }
}

#[test]
fn a_result_says_what_became_of_the_push() {
    let made = |became| {
        let made = result(became);
        (made.outcome(), made.time_ms, made.detail)
    };
    let later = |after| Delivery::Later {
        after,
        reason: "unavailable",
        detail: "503".into(),
    };
    let ended = |since| Delivery::TokenEnded {
        since,
        reason: "410".into(),
    };
    let words = || "unavailable: 503".to_owned();
    assert_eq!(made(Delivery::Sent), (PushOutcome::Sent, 0, String::new()));
    assert_eq!(made(later(None)), (PushOutcome::Later, 0, words()));
    assert_eq!(
        made(later(Some(Duration::from_secs(9)))),
        (PushOutcome::Later, 9000, words())
    );
    assert_eq!(made(ended(None)), (PushOutcome::TokenEnded, 0, "410".to_owned()));
    assert_eq!(
        made(ended(Some(Timestamp(7)))),
        (PushOutcome::TokenEnded, 7, "410".to_owned())
    );
    assert_eq!(
        made(refused("no_key", "x")),
        (PushOutcome::Refused, 0, "no_key: x".to_owned())
    );
}

/// Returns a relay that has a key of Apple's for one app and lets one caller, with the key "one", forward one push a
/// second, and 256 at once.
fn service() -> Service {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys");
    let hash = hex::encode(Sha256::digest(b"one"));
    std::fs::write(&path, format!("acme {hash}\n")).unwrap();
    let nobody = ApnsApp {
        sandbox_url: "https://127.0.0.1:1".into(),
        ..apns_app()
    };
    let apps = Apps {
        apns: vec![nobody],
        ..Apps::default()
    };
    let keys = Keys::read(&path, 1).unwrap();
    Service::new(Providers::new(&apps).unwrap(), keys)
}

fn request(key: Option<&str>, pushes: usize) -> Request<ForwardRequest> {
    // The relay has no key for this provider, so nothing goes out.
    let push = RelayedPush {
        provider: fcm("token".to_owned()),
        ..relayed()
    };
    let pushes = vec![push; pushes];
    let mut request = Request::new(ForwardRequest { pushes });
    if let Some(key) = key {
        let value = key.parse().unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    request
}

#[tokio::test]
async fn only_who_has_a_key_is_served_and_only_for_apps_of_this_relay() {
    let service = service();
    for key in [None, Some("Bearer two"), Some("one"), Some("Bearer ")] {
        let refused = service.forward(request(key, 1)).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{key:?}");
    }
    let results = service.forward(request(Some("Bearer one"), 1)).await.unwrap();
    let [result] = &results.get_ref().results[..] else {
        panic!("one result")
    };
    assert_eq!(result.outcome(), PushOutcome::Refused);
    assert!(result.detail.starts_with("no_key: "), "{}", result.detail);
}

#[tokio::test]
async fn a_call_and_a_key_have_their_limits() {
    let service = service();
    let too_many = service.forward(request(Some("Bearer one"), MAX_PUSHES + 1)).await;
    assert_eq!(too_many.unwrap_err().code(), Code::InvalidArgument);
    let outcomes = async |pushes| {
        let answer = service
            .forward(request(Some("Bearer one"), pushes))
            .await
            .unwrap();
        let results = answer.into_inner().results;
        let of = |outcome: PushOutcome| results.iter().filter(|one| one.outcome() == outcome).count();
        (of(PushOutcome::Refused), of(PushOutcome::Later))
    };
    assert_eq!(outcomes(MAX_PUSHES - 6).await, (MAX_PUSHES - 6, 0));
    let (forwarded, limited) = outcomes(100).await;
    assert_eq!(forwarded + limited, 100);
    assert!((6..50).contains(&forwarded), "{forwarded}");
}

#[tokio::test]
async fn a_provider_that_is_away_is_left_alone() {
    let service = service();
    let away = async || {
        let made = parcel(relayed()).unwrap();
        service.forward_one(made).await
    };
    let mut reasons = Vec::new();
    for _ in 0..11 {
        let Delivery::Later { reason, .. } = away().await else {
            panic!("nobody is there")
        };
        reasons.push(reason);
    }
    assert_eq!(reasons[10], "breaker", "{reasons:?}");
    assert!(
        reasons[..10].iter().all(|reason| *reason != "breaker"),
        "{reasons:?}"
    );
}
