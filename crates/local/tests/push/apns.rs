//! Apple's service.

use std::path::Path;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tern_local::push::{APP, Answer, KEY_ID, TEAM_ID};
use tern_types::Timestamp;

use super::client::{Answered, Client};
use super::{BOUND, now_s, servers};

const TOKEN: &str = "00aa11bb";

/// A push that is in order, for tables of what is wrong with others.
#[derive(Clone)]
struct Push {
    token: String,
    key_id: &'static str,
    team_id: &'static str,
    issued_at: i64,
    headers: Vec<(&'static str, String)>,
    payload: Value,
}

impl Push {
    fn alert() -> Self {
        Self {
            token: TOKEN.to_owned(),
            key_id: KEY_ID,
            team_id: TEAM_ID,
            issued_at: now_s(),
            headers: vec![
                ("apns-topic", APP.to_owned()),
                ("apns-push-type", "alert".to_owned()),
                ("apns-priority", "10".to_owned()),
                ("apns-collapse-id", "tag".to_owned()),
                ("apns-expiration", (now_s() + 60).to_string()),
            ],
            payload: json!({
                "aps": { "alert": { "body": "New message" }, "badge": 3, "mutable-content": 1 },
                "tern": { "tag": "tag", "sealed": "AAEC" },
            }),
        }
    }

    /// Replaces a header.
    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.retain(|(known, _)| *known != name);
        self.headers.push((name, value.to_owned()));
        self
    }

    async fn send(&self, client: &Client, dir: &Path) -> Option<Answered> {
        let key = std::fs::read(dir.join("apns.p8")).unwrap();
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.key_id.to_owned());
        let claims = json!({ "iss": self.team_id, "iat": self.issued_at });
        let token = jsonwebtoken::encode(&header, &claims, &EncodingKey::from_ec_pem(&key).unwrap()).unwrap();
        let authorization = format!("bearer {token}");
        let mut headers: Vec<(&str, &str)> = vec![("authorization", authorization.as_str())];
        headers.extend(self.headers.iter().map(|(name, value)| (*name, value.as_str())));
        let path = format!("/3/device/{}", self.token);
        client
            .post(&path, &headers, self.payload.to_string().as_bytes())
            .await
    }
}

#[tokio::test]
async fn a_push_that_is_in_order_is_taken() {
    let (servers, dir) = servers().await;
    for (url, sandbox) in [(servers.apns.url(), false), (servers.apns.sandbox_url(), true)] {
        let client = Client::connect(&url, Some(&dir.path().join("ca.pem"))).await;
        let seen = servers.apns.taken();
        let answer = Push::alert().send(&client, dir.path()).await.unwrap();
        assert!(
            answer.status == 200 && answer.headers.contains_key("apns-id"),
            "{answer:?}"
        );
        let push = servers.apns.after(seen).pop().unwrap();
        assert_eq!((push.sandbox, push.token.as_str()), (sandbox, TOKEN));
        assert_eq!((push.tag(), push.badge()), (Some("tag"), Some(3)));
        assert_eq!(push.notification(), Some(vec![0, 1, 2]));
        assert!(push.alerts() && !push.withdraws());
    }
    let client = Client::connect(&servers.apns.url(), Some(&dir.path().join("ca.pem"))).await;
    let silent = Push {
        payload: json!({ "aps": { "content-available": 1 }, "tern": { "tag": "t", "badge": 2, "withdraw": true } }),
        ..Push::alert()
            .with("apns-push-type", "background")
            .with("apns-priority", "5")
    };
    assert_eq!(silent.send(&client, dir.path()).await.unwrap().status, 200);
    let push = servers.apns.received().pop().unwrap();
    assert!(push.withdraws() && !push.alerts() && push.badge() == Some(2));
    let call = Push::alert()
        .with("apns-push-type", "voip")
        .with("apns-topic", &format!("{APP}.voip"))
        .with("apns-expiration", "0");
    assert_eq!(call.send(&client, dir.path()).await.unwrap().status, 200);
}

/// Sends pushes that are each to be refused with a status and a reason.
async fn are_refused(cases: Vec<(Push, u16, &str)>) {
    let (servers, dir) = servers().await;
    let client = Client::connect(&servers.apns.url(), Some(&dir.path().join("ca.pem"))).await;
    for (number, (push, status, reason)) in cases.into_iter().enumerate() {
        let answer = push.send(&client, dir.path()).await.unwrap();
        assert_eq!(
            (answer.status, answer.json()),
            (status, json!({ "reason": reason })),
            "case {number}"
        );
        let refused = servers.apns.refused().pop().unwrap();
        assert_eq!((refused.status, refused.reason.as_str()), (status, reason));
    }
    assert_eq!(
        client.post("/3/device/00", &[], b"{}").await.unwrap().status,
        403,
        "no token"
    );
    assert_eq!(servers.apns.taken(), 0);
}

#[tokio::test]
async fn tokens_that_are_not_in_order_are_refused() {
    let good = Push::alert;
    let with_token = |token: &str| Push {
        token: token.to_owned(),
        ..good()
    };
    let issued_at = |issued_at| Push { issued_at, ..good() };
    let of_key = |key_id| Push { key_id, ..good() };
    let of_team = |team_id| Push { team_id, ..good() };
    are_refused(vec![
        (of_key("OTHER"), 403, "InvalidProviderToken"),
        (of_team("OTHER"), 403, "InvalidProviderToken"),
        (issued_at(now_s() - 3700), 403, "ExpiredProviderToken"),
        (issued_at(now_s() + 3700), 403, "InvalidProviderToken"),
        (with_token(""), 400, "MissingDeviceToken"),
        (with_token("xyz0"), 400, "BadDeviceToken"),
    ])
    .await;
}

#[tokio::test]
async fn headers_and_payloads_that_are_not_in_order_are_refused() {
    let good = Push::alert;
    let payload = |payload| Push { payload, ..good() };
    let background = good().with("apns-push-type", "background");
    let call = format!("{APP}.voip");
    are_refused(vec![
        (good().with("apns-topic", ""), 400, "MissingTopic"),
        (good().with("apns-topic", "org.other"), 400, "TopicDisallowed"),
        (good().with("apns-topic", &call), 400, "DeviceTokenNotForTopic"),
        (good().with("apns-push-type", "push"), 400, "InvalidPushType"),
        (good().with("apns-priority", "7"), 400, "BadPriority"),
        (background.clone(), 400, "BadPriority"),
        (background.with("apns-priority", "5"), 400, "InvalidPushType"),
        (
            good().with("apns-collapse-id", &"x".repeat(65)),
            400,
            "BadCollapseId",
        ),
        (good().with("apns-expiration", "1000"), 400, "BadExpirationDate"),
        (payload(json!([])), 400, "PayloadEmpty"),
        (payload(json!({ "tern": {} })), 400, "InvalidPushType"),
        (
            payload(json!({ "aps": { "alert": "x".repeat(4096) } })),
            413,
            "PayloadTooLarge",
        ),
    ])
    .await;
}

#[tokio::test]
async fn answers_are_as_the_test_says() {
    let (servers, dir) = servers().await;
    let ca = dir.path().join("ca.pem");
    let client = Client::connect(&servers.apns.url(), Some(&ca)).await;
    let gone = Answer::Status {
        status: 410,
        reason: "Unregistered".to_owned(),
        since: Some(Timestamp(1234)),
        retry_after: None,
    };
    servers.apns.answer(TOKEN, gone);
    let answer = Push::alert().send(&client, dir.path()).await.unwrap();
    assert_eq!(answer.status, 410);
    assert_eq!(
        answer.json(),
        json!({ "reason": "Unregistered", "timestamp": 1234 })
    );
    let other = Push {
        token: "ff".to_owned(),
        ..Push::alert()
    };
    assert_eq!(other.send(&client, dir.path()).await.unwrap().status, 200);
    servers.apns.answer_all(Answer::Status {
        status: 429,
        reason: "TooManyRequests".to_owned(),
        since: None,
        retry_after: Some(BOUND),
    });
    let answer = Push::alert().send(&client, dir.path()).await.unwrap();
    assert_eq!(
        (answer.status, answer.headers["retry-after"].to_str().unwrap()),
        (429, "60")
    );

    servers.apns.answer_all(Answer::Reset);
    assert!(Push::alert().send(&client, dir.path()).await.is_none());
    servers.apns.answer_all(Answer::GoAway);
    let answer = Push::alert().send(&client, dir.path()).await;
    assert_eq!(answer.unwrap().status, 200, "a reset ends one stream only");
    let seen = servers.apns.taken();
    servers.apns.answer_all(Answer::Cut);
    let client = Client::connect(&servers.apns.url(), Some(&ca)).await;
    assert!(Push::alert().send(&client, dir.path()).await.is_none());
    servers.apns.answer_all(Answer::Ok);
    assert_eq!(servers.apns.taken(), seen);
    let client = Client::connect(&servers.apns.url(), Some(&ca)).await;
    assert!(Push::alert().send(&client, dir.path()).await.is_some());
    assert_eq!(servers.apns.connections(), 3);
    let found = servers
        .apns
        .until("a push", BOUND, |pushes| (pushes.len() == 3).then_some(()));
    found.await.unwrap();
}
