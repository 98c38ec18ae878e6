use serde_json::{Value, json};

use super::*;
use crate::providers::tests::{ACCOUNT, EC_PEM, RSA_PEM};

/// Writes all files that `apps` names, and the file itself, and reads it.
fn read(apps: &Value) -> anyhow::Result<Apps> {
    let dir = tempfile::tempdir()?;
    let account = json!({
        "type": "service_account",
        "project_id": "ferry",
        "private_key_id": "kid",
        "private_key": RSA_PEM,
        "client_email": ACCOUNT,
        "token_uri": "https://oauth2.googleapis.com/token",
    });
    let mut bad_account = account.clone();
    bad_account["private_key"] = EC_PEM.into();
    let (account, bad_account) = (account.to_string(), bad_account.to_string());
    for (name, content) in [
        ("apns.p8", EC_PEM),
        ("fcm.json", account.as_str()),
        ("bad.json", bad_account.as_str()),
        ("rsa.pem", RSA_PEM),
        ("relay.key", "  secret-of-the-relay\n"),
        ("empty", " \n"),
    ] {
        std::fs::write(dir.path().join(name), content)?;
    }
    let path = dir.path().join("apps.json");
    std::fs::write(&path, apps.to_string())?;
    Apps::read(&path)
}

fn full() -> Value {
    json!({
        "apns": [{
            "bundle_id": "com.example.chat",
            "team_id": "ABCDE12345",
            "key_id": "ABC123DEFG",
            "key_file": "apns.p8",
            "text": "Something waits",
            "url": "https://apns.example.com/",
        }],
        "fcm": [{"app": "com.example.chat", "service_account_file": "fcm.json"}],
        "web_push": {"key_file": "apns.p8", "subject": "mailto:ops@example.com"},
        "relay": {"url": "https://push.builder.example", "key_file": "relay.key"},
        "templates": true,
        "proxy": "http://user:PRIVATE@proxy.example.com:3128",
    })
}

#[test]
fn what_is_left_out_has_the_providers_addresses() {
    let apps = read(&full()).unwrap();
    let apns = &apps.apns[0];
    assert_eq!(apns.text, "Something waits");
    assert_eq!(apns.url, "https://apns.example.com");
    assert_eq!(apns.sandbox_url, "https://api.sandbox.push.apple.com");
    let fcm = &apps.fcm[0];
    assert_eq!(fcm.url, "https://fcm.googleapis.com");
    assert_eq!(
        (fcm.account.project_id.as_str(), fcm.account.email.as_str()),
        ("ferry", ACCOUNT)
    );
    assert_eq!(apps.relay.unwrap().key, Secret("secret-of-the-relay".into()));
    assert!(apps.proxy.is_some());
    assert!(apps.templates && !apps.web_push.unwrap().allow_private);
    let empty = read(&json!({})).unwrap();
    assert!(empty.apns.is_empty() && empty.fcm.is_empty() && empty.web_push.is_none());
}

#[test]
fn debug_shows_no_key() {
    let shown = format!("{:?}", read(&full()).unwrap());
    for secret in ["secret-of-the-relay", "MII", "PRIVATE"] {
        assert!(!shown.contains(secret), "{secret}: {shown}");
    }
}

#[test]
fn an_error_names_the_file_and_the_field() {
    let cases: [(&str, Value, &str); 18] = [
        ("/extra", json!(1), "unknown field `extra`"),
        ("/apns/0/extra", json!(1), "unknown field `extra`"),
        ("/apns/0/bundle_id", json!(""), "apns[0]: bundle_id"),
        ("/apns/0/team_id", json!("a b"), "apns[0]: team_id"),
        ("/apns/0/key_file", json!("none.p8"), "apns[0]: key_file"),
        (
            "/apns/0/key_file",
            json!("rsa.pem"),
            "apns[0]: key_file: it must have a P-256",
        ),
        ("/apns/0/text", json!(""), "apns[0]: text"),
        (
            "/apns/0/url",
            json!("http://apns.example.com"),
            "it must begin with https://",
        ),
        (
            "/apns/0/sandbox_url",
            json!("https://u@apns.example.com"),
            "sandbox_url",
        ),
        ("/fcm/0/app", json!(7), "invalid type"),
        (
            "/fcm/0/service_account_file",
            json!("bad.json"),
            "private_key: it must be an RSA",
        ),
        (
            "/fcm/0/service_account_file",
            json!("relay.key"),
            "service_account_file",
        ),
        ("/web_push/subject", json!("ops"), "web_push: subject"),
        ("/web_push/key_file", json!("empty"), "web_push: key_file"),
        ("/relay/key_file", json!("empty"), "relay: key_file"),
        ("/ca_file", json!("empty"), "ca_file"),
        (
            "/proxy",
            json!("MII:pass@proxy.example.com"),
            "proxy: it must begin",
        ),
        ("/web_push/proxy", json!("socks5://proxy"), "web_push: proxy"),
    ];
    for (pointer, value, expected) in cases {
        let mut apps = full();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        apps.pointer_mut(parent).unwrap()[name] = value;
        let error = format!("{:#}", read(&apps).unwrap_err());
        assert!(error.contains("apps.json: "), "{error}");
        assert!(error.contains(expected), "{pointer}: {error}");
        assert!(!error.contains("MII"), "{error}");
    }
}

#[test]
fn an_app_is_there_once_and_the_file_is_json() {
    let mut twice = full();
    let again = twice["fcm"][0].clone();
    twice["fcm"].as_array_mut().unwrap().push(again);
    let error = format!("{:#}", read(&twice).unwrap_err());
    assert!(error.contains("fcm: com.example.chat is there twice"), "{error}");
    let error = format!("{:#}", read(&json!([])).unwrap_err());
    assert!(error.contains("apps.json: "), "{error}");
    let error = format!("{:#}", Apps::read(Path::new("/nowhere/apps.json")).unwrap_err());
    assert!(error.starts_with("/nowhere/apps.json: "), "{error}");
}

#[test]
fn keys_are_shown_to_https_or_to_this_machine() {
    for (url, expected) in [
        ("https://push.example.com", true),
        ("https://push.example.com/prefix", true),
        ("http://127.0.0.1:8080", true),
        ("http://[::1]:8080", true),
        ("http://localhost:8080", true),
        ("http://push.example.com", false),
        ("http://127.0.0.1.example.com", false),
        ("https://push.example.com/?x", false),
        ("https://push.example.com/#x", false),
        ("https://user:pass@push.example.com", false),
        ("push.example.com", false),
    ] {
        assert_eq!(checked_url(url).is_ok(), expected, "{url}");
    }
}
