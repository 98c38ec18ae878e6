//! A browser vendor's service.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tern_local::push::Subscription;
use web_push_native::p256::PublicKey;
use web_push_native::p256::SecretKey;
use web_push_native::p256::elliptic_curve::sec1::ToEncodedPoint as _;
use web_push_native::p256::pkcs8::DecodePrivateKey as _;
use web_push_native::{Auth, encrypt};

use super::client::{Answered, Client};
use super::{now_s, servers};

/// A push, of which a test changes a part.
struct Push {
    id: String,
    claims: Value,
    key: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Push {
    fn to(subscription: &Subscription, dir: &Path) -> Self {
        let pem = std::fs::read_to_string(dir.join("vapid.pem")).unwrap();
        let key = SecretKey::from_pkcs8_pem(&pem)
            .unwrap()
            .public_key()
            .to_encoded_point(false);
        let reader = PublicKey::from_sec1_bytes(&subscription.p256dh).unwrap();
        let auth = Auth::from(<[u8; 16]>::try_from(subscription.auth.as_slice()).unwrap());
        let plaintext = json!({ "tag": "tag", "badge": 1, "notification": "AAEC" }).to_string();
        Self {
            id: subscription.id.clone(),
            claims: json!({
                "aud": subscription.endpoint.split("/push/").next().unwrap(),
                "exp": now_s() + 3600,
                "sub": "mailto:development@example.com",
            }),
            key: URL_SAFE_NO_PAD.encode(key.as_bytes()),
            headers: vec![
                ("ttl", "60".to_owned()),
                ("urgency", "high".to_owned()),
                ("topic", "tag".to_owned()),
                ("content-encoding", "aes128gcm".to_owned()),
            ],
            body: encrypt(plaintext.into_bytes(), &reader, &auth).unwrap(),
        }
    }

    /// Replaces a header.
    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.retain(|(known, _)| *known != name);
        self.headers.push((name, value.to_owned()));
        self
    }

    /// Replaces a claim.
    fn claiming(mut self, name: &str, value: Value) -> Self {
        self.claims[name] = value;
        self
    }

    async fn send(&self, client: &Client, dir: &Path) -> Answered {
        let key = EncodingKey::from_ec_pem(&std::fs::read(dir.join("vapid.pem")).unwrap()).unwrap();
        let token = jsonwebtoken::encode(&Header::new(Algorithm::ES256), &self.claims, &key).unwrap();
        let authorization = format!("vapid t={token}, k={}", self.key);
        let mut headers: Vec<(&str, &str)> = vec![("authorization", authorization.as_str())];
        headers.extend(self.headers.iter().map(|(name, value)| (*name, value.as_str())));
        client
            .post(&format!("/push/{}", self.id), &headers, &self.body)
            .await
            .unwrap()
    }
}

#[tokio::test]
async fn a_push_is_decrypted_and_others_are_refused() {
    let (servers, dir) = servers().await;
    let dir = dir.path();
    let one = servers.web_push.subscribe();
    let client = Client::connect(one.endpoint.split("/push/").next().unwrap(), None).await;
    let answer = Push::to(&one, dir).send(&client, dir).await;
    assert!(
        answer.status == 201 && answer.headers.contains_key("location"),
        "{answer:?}"
    );
    let push = servers.web_push.received().pop().unwrap();
    assert_eq!(
        (push.token.as_str(), push.tag(), push.badge()),
        (one.id.as_str(), Some("tag"), Some(1))
    );
    assert_eq!(push.notification(), Some(vec![0, 1, 2]));
    assert!(push.alerts());

    let good = || Push::to(&one, dir);
    let large = Push {
        body: vec![0; 4097],
        ..good()
    };
    let of_another = Push {
        body: Push::to(&servers.web_push.subscribe(), dir).body,
        ..good()
    };
    let other_key = Push {
        key: "AAAA".to_owned(),
        ..good()
    };
    let unknown = Push {
        id: "unknown".to_owned(),
        ..good()
    };
    let cases = [
        (other_key, 403),
        (good().claiming("aud", json!("https://other.example")), 403),
        (good().claiming("exp", json!(now_s() - 60)), 403),
        (good().claiming("exp", json!(now_s() + 90_000)), 403),
        (good().claiming("sub", json!("somebody")), 403),
        (good().with("ttl", ""), 400),
        (good().with("topic", &"x".repeat(33)), 400),
        (good().with("topic", "a+b"), 400),
        (good().with("urgency", "immediate"), 400),
        (good().with("content-encoding", "aesgcm"), 415),
        (large, 413),
        (of_another, 400),
        (unknown, 410),
    ];
    for (number, (push, status)) in cases.into_iter().enumerate() {
        assert_eq!(push.send(&client, dir).await.status, status, "case {number}");
    }
    assert_eq!(servers.web_push.taken(), 1);
    servers.web_push.unsubscribe(&one.id);
    assert_eq!(good().send(&client, dir).await.status, 410);
}
