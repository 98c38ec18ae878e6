use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};

use super::*;
use crate::provider::Token;
use crate::providers::tests::{apns_app, parcel, token};

const WALL: Timestamp = Timestamp(1_700_000_000_999);

fn prepared(parcel: &Parcel) -> (Prepared, Value) {
    let prepared = prepare(&apns_app(), parcel, WALL).unwrap();
    let payload = serde_json::from_slice(&prepared.payload).unwrap();
    (prepared, payload)
}

#[test]
fn each_class_has_its_payload() {
    let aps = json!({
        "alert": {"body": "New message"},
        "sound": "default",
        "badge": 3,
        "mutable-content": 1,
        "interruption-level": "active",
        "thread-id": "tag",
    });
    let mut clear = aps.clone();
    clear["alert"]["body"] = "Alice".into();
    let background = json!({"content-available": 1});
    for (class, sealed, text, aps, tern) in [
        (PushClass::Alert, false, None, aps.clone(), json!({"tag": "tag"})),
        (
            PushClass::Alert,
            true,
            None,
            aps,
            json!({"tag": "tag", "sealed": "AQID"}),
        ),
        (
            PushClass::Alert,
            false,
            Some("Alice"),
            clear,
            json!({"tag": "tag"}),
        ),
        (
            PushClass::Badge,
            true,
            None,
            json!({"badge": 3}),
            json!({"tag": "tag"}),
        ),
        (
            PushClass::Withdraw,
            false,
            None,
            background.clone(),
            json!({"tag": "tag", "badge": 3, "withdraw": true}),
        ),
        (
            PushClass::Silent,
            false,
            None,
            background,
            json!({"tag": "tag", "badge": 3}),
        ),
        (
            PushClass::Call,
            true,
            None,
            json!({}),
            json!({"tag": "tag", "badge": 3, "sealed": "AQID"}),
        ),
    ] {
        let mut parcel = parcel(class);
        parcel.sealed = sealed.then(|| vec![1, 2, 3]);
        parcel.text = text.map(str::to_owned);
        let (_, payload) = prepared(&parcel);
        assert_eq!(payload, json!({"aps": aps, "tern": tern}), "{class:?}");
    }
}

#[test]
fn each_class_has_its_headers() {
    let device = "https://apns.invalid/3/device/746f6b656e";
    let voip = "https://apns.invalid/3/device/766f6970";
    let (app, calls) = ("com.example.chat", "com.example.chat.voip");
    let until = 1_700_259_200;
    for (class, url, push_type, topic, priority, expiration, collapse) in [
        (PushClass::Alert, device, "alert", app, "10", until, Some("tag")),
        (PushClass::Badge, device, "alert", app, "5", until, None),
        (PushClass::Withdraw, device, "background", app, "5", until, None),
        (PushClass::Silent, device, "background", app, "5", until, None),
        (PushClass::Call, voip, "voip", calls, "10", 0, None),
    ] {
        let (mut got, _) = prepared(&parcel(class));
        got.payload = Bytes::new();
        let expected = Prepared {
            url: url.into(),
            push_type,
            topic: topic.into(),
            priority,
            expiration,
            collapse_id: collapse.map(str::to_owned),
            payload: Bytes::new(),
        };
        assert_eq!(got, expected, "{class:?}");
    }
    let mut parcel = parcel(PushClass::Alert);
    parcel.lifetime = Duration::ZERO;
    assert_eq!(prepared(&parcel).0.expiration, 0, "once");
    parcel.token = Arc::new(Token {
        sandbox: true,
        ..token()
    });
    assert!(prepared(&parcel).0.url.starts_with("https://sandbox.invalid/"));
}

#[test]
fn what_cannot_be_sent_is_refused() {
    let mut call = parcel(PushClass::Call);
    call.token = Arc::new(Token {
        second_key: None,
        ..token()
    });
    let mut large = parcel(PushClass::Alert);
    large.sealed = Some(vec![0; MAX_PAYLOAD]);
    for (parcel, expected) in [
        (call, "voip_token"),
        (large, "payload_too_large"),
        (parcel(PushClass::Unspecified), "class"),
    ] {
        let refused = prepare(&apns_app(), &parcel, WALL).unwrap_err();
        assert!(
            matches!(refused, Delivery::Refused { reason, .. } if reason == expected),
            "{expected}"
        );
    }
}

#[test]
fn the_longest_names_fit_into_a_payload() {
    let long = tern_proto::v1::Notification {
        chat_id: "c".repeat(36),
        group: true,
        chat_title: "t".repeat(1000),
        sender_user_id: "u".repeat(36),
        sender_name: "s".repeat(1000),
        seq: u64::MAX,
        reason: 1,
        sent_at_ms: i64::MAX,
    };
    let mut parcel = parcel(PushClass::Alert);
    let sealed = crate::seal::seal(&[9; 32], &parcel.tag, &long).unwrap();
    parcel.sealed = Some(sealed);
    parcel.text = Some("\u{1}".repeat(300));
    assert!(prepare(&apns_app(), &parcel, WALL).is_ok());
}

fn client() -> Client {
    http::http2(&rustls::RootCertStore::empty(), None).unwrap()
}

fn provider_token() -> ProviderToken {
    let app = apns_app();
    ProviderToken {
        key: app.key,
        key_id: app.key_id,
        team_id: app.team_id,
        signed: Mutex::default(),
    }
}

fn minutes(minutes: i64) -> Timestamp {
    Timestamp(minutes * 60_000)
}

#[test]
fn the_provider_token_names_the_team_and_the_key() {
    let token = provider_token();
    let signed = token.current(minutes(0), WALL).unwrap();
    let jwt = signed.bearer.strip_prefix("bearer ").unwrap();
    let mut validation = Validation::new(Algorithm::ES256);
    validation.validate_exp = false;
    validation.set_required_spec_claims::<&str>(&[]);
    let key = DecodingKey::from_ec_der(token.key.public());
    let decoded = jsonwebtoken::decode::<Value>(jwt, &key, &validation).unwrap();
    assert_eq!(decoded.claims, json!({"iss": "TEAM", "iat": 1_700_000_000}));
    let header = Header {
        kid: Some("KEY".into()),
        ..Header::new(Algorithm::ES256)
    };
    assert_eq!(decoded.header, header);
}

#[test]
fn a_provider_token_is_kept_and_never_renewed_too_often() {
    let token = provider_token();
    let wall = |minutes: i64| Timestamp(WALL.0 + minutes * 60_000);
    let current = |at| token.current(minutes(at), wall(at)).unwrap().bearer;
    let renewed = |refused: &Signed, at| {
        let renewed = token.renewed(refused, minutes(at), wall(at));
        renewed.map(|renewed| renewed.bearer)
    };
    let first = token.current(minutes(0), wall(0)).unwrap();
    assert_eq!(current(49), first.bearer);
    assert_eq!(renewed(&first, 19), None, "too young");
    let second = renewed(&first, 20).unwrap();
    assert_ne!(second, first.bearer);
    assert_eq!(renewed(&first, 21), Some(second.clone()), "renewed already");
    assert_eq!(current(69), second);
    assert_ne!(current(70), second);
}

#[test]
fn apps_of_one_key_share_a_token() {
    let mut other = apns_app();
    other.bundle_id = "com.example.other".into();
    let mut foreign = apns_app();
    foreign.bundle_id = "com.example.foreign".into();
    foreign.team_id = "FOREIGN".into();
    let apns = Apns::new(&[apns_app(), other, foreign], client());
    let token = |app: &str| &apns.apps[app].token;
    assert!(Arc::ptr_eq(token("com.example.chat"), token("com.example.other")));
    assert!(!Arc::ptr_eq(
        token("com.example.chat"),
        token("com.example.foreign")
    ));
}

#[test]
fn an_answer_says_what_became_of_the_push() {
    for (status, reason, expected, renew) in [
        (200, "", "sent", false),
        (400, "BadDeviceToken", "ended", false),
        (400, "DeviceTokenNotForTopic", "mismatch", false),
        (410, "Unregistered", "ended since 7", false),
        (410, "ExpiredToken", "ended since 7", false),
        (400, "BadTopic", "request", false),
        (400, "PayloadEmpty", "request", false),
        (400, "IdleTimeout", "broken", false),
        (403, "ExpiredProviderToken", "provider_token", true),
        (403, "InvalidProviderToken", "provider_token", true),
        (403, "BadCertificate", "provider_token", false),
        (404, "BadPath", "request", false),
        (405, "MethodNotAllowed", "request", false),
        (413, "PayloadTooLarge", "payload_too_large", false),
        (429, "TooManyRequests", "too_many", false),
        (429, "TooManyProviderTokenUpdates", "too_many", false),
        (500, "InternalServerError", "unavailable", false),
        (503, "ServiceUnavailable", "unavailable", false),
        (503, "Shutdown", "unavailable", false),
        (302, "", "unexpected", false),
    ] {
        let timestamp = (status == 410).then_some(7);
        let body = json!({"reason": reason, "timestamp": timestamp}).to_string();
        let answer = Answer {
            status,
            retry_after: Some(Duration::from_secs(9)),
            body: body.into_bytes(),
        };
        let verdict = judge(&answer, PushClass::Alert);
        let got = match verdict.delivery {
            Delivery::Sent => "sent".to_owned(),
            Delivery::TokenEnded { since: None, .. } => "ended".to_owned(),
            Delivery::TokenEnded {
                since: Some(since), ..
            } => format!("ended since {}", since.0),
            Delivery::Later { after, reason, .. } => {
                assert_eq!(after, answer.retry_after);
                reason.to_owned()
            }
            Delivery::Refused { reason, detail } => {
                assert!(detail.starts_with(&status.to_string()), "{detail}");
                reason.to_owned()
            }
        };
        assert_eq!(
            (got.as_str(), verdict.renew),
            (expected, renew),
            "{status} {reason}"
        );
    }
}

#[test]
fn the_end_of_a_token_for_calls_is_not_the_end_of_the_devices_token() {
    for (status, reason) in [(400, "BadDeviceToken"), (410, "Unregistered")] {
        let answer = Answer {
            status,
            body: json!({"reason": reason}).to_string().into_bytes(),
            ..Answer::default()
        };
        let verdict = judge(&answer, PushClass::Call);
        assert!(matches!(
            verdict.delivery,
            Delivery::Refused {
                reason: "voip_token",
                ..
            }
        ));
    }
}
