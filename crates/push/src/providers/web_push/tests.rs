use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tern_proto::v1::Notification;

use super::*;
use crate::provider::Provider;
use crate::providers::tests::{outgoing, token, web_push_app};

const AUTH: [u8; 16] = [5; 16];

fn secret() -> p256::SecretKey {
    p256::SecretKey::from_slice(&[7; 32]).unwrap()
}

fn subscription(endpoint: &str) -> Token {
    Token {
        provider: Provider::WebPush,
        app: String::new(),
        token: Bytes::from(endpoint.to_owned()),
        second_key: Some(Bytes::from(secret().public_key().to_sec1_bytes().to_vec())),
        auth: Some(Bytes::from_static(&AUTH)),
        ..token()
    }
}

fn web_push() -> WebPush {
    WebPush::new(&web_push_app(), &RootCertStore::empty()).unwrap()
}

fn opened(body: Vec<u8>) -> (usize, Value) {
    let text = web_push_native::decrypt(body, &secret(), &Auth::from(AUTH)).unwrap();
    (text.len(), serde_json::from_slice(&text).unwrap())
}

#[test]
fn the_subscription_alone_reads_what_a_push_says() {
    let push = outgoing(subscription("https://push.example.com:8443/a/b"));
    let prepared = web_push().prepare(&push).unwrap();
    assert_eq!(prepared.origin, "https://push.example.com:8443");
    assert_eq!(prepared.url.as_str(), "https://push.example.com:8443/a/b");
    assert_eq!((prepared.ttl, prepared.urgency), (259_200, "high"));
    assert_eq!(prepared.body[RECORD_SIZE_AT], RECORD.to_be_bytes());
    let (_, content) = opened(prepared.body);
    let bytes = STANDARD
        .decode(content["notification"].as_str().unwrap())
        .unwrap();
    let notification = Notification::decode(bytes.as_slice()).unwrap();
    assert_eq!(Some(Arc::new(notification)), push.notification);
    assert_eq!((&content["tag"], &content["badge"]), (&json!("tag"), &json!(3)));
}

#[test]
fn each_class_has_its_content_and_headers() {
    let mut push = outgoing(subscription("https://push.example.com/a"));
    push.notification = None;
    let plain = json!({"tag": "tag", "badge": 3});
    let withdraw = json!({"tag": "tag", "badge": 3, "withdraw": true});
    for (class, urgency, topic, content) in [
        (PushClass::Alert, "high", "tag", &plain),
        (PushClass::Call, "high", "tag", &plain),
        (PushClass::Badge, "normal", "tern-badge", &plain),
        (PushClass::Withdraw, "normal", "tag", &withdraw),
        (PushClass::Silent, "low", "tern-silent", &plain),
    ] {
        push.class = class;
        let prepared = web_push().prepare(&push).unwrap();
        assert_eq!(
            (prepared.urgency, prepared.topic.as_str()),
            (urgency, topic),
            "{class:?}"
        );
        assert_eq!(&opened(prepared.body).1, content, "{class:?}");
    }
}

#[test]
fn the_length_tells_nothing_of_the_names() {
    let length = |name: usize| {
        let mut push = outgoing(subscription("https://push.example.com/a"));
        push.notification = Some(Arc::new(Notification {
            sender_name: "a".repeat(name),
            ..Notification::default()
        }));
        let (length, _) = opened(web_push().prepare(&push).unwrap().body);
        assert_eq!(length % PAD_TO, 0);
        length
    };
    assert_eq!(length(1), length(100));
    assert_eq!(length(128), length(10_000), "names are cut");
}

#[test]
fn what_cannot_be_sent_is_refused() {
    let good = || subscription("https://push.example.com/a");
    let no_key = Token {
        second_key: Some(Bytes::from_static(&[4; 65])),
        ..good()
    };
    let no_auth = Token {
        auth: Some(Bytes::from_static(&[5; 15])),
        ..good()
    };
    for (token, expected) in [
        (no_key, "subscription"),
        (no_auth, "subscription"),
        (subscription("push"), "subscription"),
        (subscription("http://push.example.com/a"), "private_address"),
        (subscription("https://10.0.0.1/a"), "private_address"),
    ] {
        let refused = web_push().prepare(&outgoing(token)).unwrap_err();
        assert!(
            matches!(refused, Delivery::Refused { reason, .. } if reason == expected),
            "{expected}"
        );
    }
}

#[test]
fn an_answer_says_what_became_of_the_push() {
    for (status, expected) in [
        (200, "sent"),
        (201, "sent"),
        (202, "sent"),
        (404, "ended"),
        (410, "ended"),
        (400, "request"),
        (401, "provider_token"),
        (403, "provider_token"),
        (413, "payload_too_large"),
        (429, "too_many"),
        (500, "unavailable"),
        (503, "unavailable"),
        (301, "unexpected"),
    ] {
        let answer = Answer {
            status,
            retry_after: Some(Duration::from_secs(9)),
            body: Vec::new(),
        };
        let got = match judge(&answer) {
            Delivery::Sent => "sent",
            Delivery::TokenEnded { since, .. } => {
                assert_eq!(since, None);
                "ended"
            }
            Delivery::Later { after, reason, .. } => {
                assert_eq!(after, answer.retry_after);
                reason
            }
            Delivery::Refused { reason, .. } => reason,
        };
        assert_eq!(got, expected, "{status}");
    }
}
