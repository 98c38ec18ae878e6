//! Google's service.

use std::path::Path;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tern_local::push::Answer;

use super::client::{Answered, Client};
use super::{now_s, servers};

const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";

/// Returns the service account's file.
fn account(dir: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(dir.join("fcm.json")).unwrap()).unwrap()
}

/// Asks for an access token with these claims.
async fn access(client: &Client, dir: &Path, claims: &Value) -> Answered {
    let key = account(dir)["private_key"].as_str().unwrap().to_owned();
    let key = EncodingKey::from_rsa_pem(key.as_bytes()).unwrap();
    let assertion = jsonwebtoken::encode(&Header::new(Algorithm::RS256), claims, &key).unwrap();
    let form =
        format!("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={assertion}");
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    client.post("/token", &headers, form.as_bytes()).await.unwrap()
}

/// Returns claims for which there is an access token.
fn claims(dir: &Path) -> Value {
    let account = account(dir);
    json!({
        "iss": account["client_email"],
        "aud": account["token_uri"],
        "scope": SCOPE,
        "iat": now_s(),
        "exp": now_s() + 3600,
    })
}

async fn send(client: &Client, dir: &Path, access: &str, message: Value) -> Answered {
    let path = format!(
        "/v1/projects/{}/messages:send",
        account(dir)["project_id"].as_str().unwrap()
    );
    let authorization = format!("Bearer {access}");
    let headers = [
        ("authorization", authorization.as_str()),
        ("content-type", "application/json"),
    ];
    let body = json!({ "message": message }).to_string();
    client.post(&path, &headers, body.as_bytes()).await.unwrap()
}

#[tokio::test]
async fn only_the_service_account_gets_access() {
    let (servers, dir) = servers().await;
    let client = Client::connect(&servers.fcm.url(), Some(&dir.path().join("ca.pem"))).await;
    let wrong = [
        ("iss", json!("other@example.com")),
        ("aud", json!("https://other.example/token")),
        ("scope", json!("https://www.googleapis.com/auth/cloud-platform")),
        ("exp", json!(now_s() - 10)),
        ("exp", json!(now_s() + 7200)),
        ("iat", json!(now_s() + 3000)),
    ];
    for (name, value) in wrong {
        let mut claims = claims(dir.path());
        claims[name] = value;
        let answer = access(&client, dir.path(), &claims).await;
        assert_eq!(
            (answer.status, &answer.json()["error"]),
            (400, &json!("invalid_grant")),
            "{name}"
        );
    }
    let answer = access(&client, dir.path(), &claims(dir.path())).await;
    assert!(
        answer.status == 200 && answer.json()["expires_in"].is_number(),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_message_is_checked_and_answered() {
    let (servers, dir) = servers().await;
    let client = Client::connect(&servers.fcm.url(), Some(&dir.path().join("ca.pem"))).await;
    let answer = access(&client, dir.path(), &claims(dir.path())).await.json();
    let access = answer["access_token"].as_str().unwrap();
    let message = json!({
        "token": "a-token",
        "data": { "tag": "tag", "badge": "4", "sealed": "AAEC" },
        "android": { "priority": "HIGH", "ttl": "259200s" },
    });
    let answer = send(&client, dir.path(), access, message.clone()).await;
    assert!(
        answer.status == 200 && answer.json()["name"].is_string(),
        "{answer:?}"
    );
    let push = servers.fcm.received().pop().unwrap();
    assert_eq!((push.tag(), push.badge()), (Some("tag"), Some(4)));
    assert_eq!(push.notification(), Some(vec![0, 1, 2]));
    assert!(push.token == "a-token" && push.alerts());

    let mut unknown = message.clone();
    unknown["colour"] = json!("red");
    let mut numbers = message.clone();
    numbers["data"]["badge"] = json!(4);
    for bad in [unknown, numbers, json!({ "data": {} })] {
        let answer = send(&client, dir.path(), access, bad.clone()).await;
        let error = &answer.json()["error"];
        assert_eq!(
            (answer.status, &error["status"]),
            (400, &json!("INVALID_ARGUMENT")),
            "{bad}"
        );
    }
    servers.fcm.answer("a-token", Answer::status(404, "UNREGISTERED"));
    let answer = send(&client, dir.path(), access, message.clone()).await;
    let error = &answer.json()["error"];
    assert_eq!((answer.status, &error["status"]), (404, &json!("NOT_FOUND")));
    assert_eq!(error["details"][0]["errorCode"], "UNREGISTERED");
    servers.fcm.answer_all(Answer::Ok);
    for access in ["another", access] {
        servers.fcm.end_access();
        let answer = send(&client, dir.path(), access, message.clone()).await;
        assert_eq!(answer.json()["error"]["status"], "UNAUTHENTICATED");
    }
    assert_eq!(servers.fcm.taken(), 1);
}
