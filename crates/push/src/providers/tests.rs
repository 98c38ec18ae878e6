use bytes::Bytes;
use tern_types::{DeviceId, Timestamp};

use super::*;
use crate::apps::{ApnsApp, FcmApp, RelayApp, Secret, ServiceAccount, WebPushApp};
use crate::jwt::{self, EcKey};

/// A key of P-256 that is used nowhere else.
pub(crate) const EC_PEM: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgqOR4XYAX1gznbMLV
5aQFidlzDmtePixEMfZZCrwZcWKhRANCAAQJf9EJcqUB9xyBSwyoEZ6vk9lcLThV
FllHC38IZdKog1JCyeFQjEgufZ/9WPTL535Uw7dWgLVg6OyMXEazV1NA
-----END PRIVATE KEY-----
";
/// An RSA key that is used nowhere else. It is short, so that it is quick.
pub(crate) const RSA_PEM: &str = "-----BEGIN PRIVATE KEY-----
MIICeAIBADANBgkqhkiG9w0BAQEFAASCAmIwggJeAgEAAoGBAKySzqBBQbdX35Yd
MNwFUcn/0uuGjWv60ryNwtPFZZDoL8Rx7TrszBGsUkVF9cqpNPhEGUqCGtT8cfXv
dNFoBHxX8CtIBdR5XxoAIg9DgMFutWraWEM66NLtelEmUA+CJIG73UzUN6T6kc5+
91qlLz53jtBwFugawY9UuJ6kBiXbAgMBAAECgYBLyWkeranbh6a0OPuVFGz3xfZt
4rhGvG9ByQvPjrfs7FrV7aZeI1H3TPMQYwnvR2HwyY9Fzl9UO80cUV2+/OxCqfJ/
yaU2wj1pADUdiKtDyXQOZyPbaI+GHopOhG9Th+CsrizAIoc/kIMVKqmLlBwackHb
KWMWLSt6plJ+4BU10QJBAOPBfA7iz12IyzutKvVrMNRYg66kZsM/9/Ac4DTuX5M7
32SIVKy6U5irxXwEFiP2NjmhicnREZ5YSK1DI4k3vIkCQQDB+XXpuXHKLEFtvZdJ
iCt0TbrWZkj/XhR+Zb+VcBjYV0Vka9E15UdsI7tqeplj+IN5vc0JyP6yZ80SzvXb
Kd5DAkEAiKgAowHuQIYiw5Tc8NK3QsI1iOV2D3NjdjwtPzVEPZiwKqcuf1FxdWqj
nQzqp/tEgAHwJhr/Ak6glO1y9hNuWQJBAIf8lF6TxKNg3UnLJZnGXfh+WeLe+IQW
97UZLfPdD33zyNE7CQOIxsaYUla2tnywh7O8jVcz0uNOBCYQc6n/MzMCQQC5VQy9
57+48n73DlSLitp8gQ/w3fvQ9Klj0FK2mSdWq39BinL/TOQy+IfmqYVme3IwiS34
IwZ/VBY3yhWBzM4o
-----END PRIVATE KEY-----
";
/// The service account of the tests.
pub(crate) const ACCOUNT: &str = "push@ferry.iam.gserviceaccount.com";

/// Returns a token of Apple's production service, with one for calls.
pub(crate) fn token() -> Token {
    Token {
        provider: Provider::Apns,
        app: "com.example.chat".into(),
        sandbox: false,
        token: Bytes::from_static(b"token"),
        second_key: Some(Bytes::from_static(b"voip")),
        auth: None,
        sealing_key: None,
        registered_at: Timestamp(0),
    }
}

/// Returns a push that says nothing, for [`token`].
pub(crate) fn parcel(class: PushClass) -> Parcel {
    Parcel {
        token: Arc::new(token()),
        class,
        tag: Tag("tag".into()),
        badge: 3,
        sealed: None,
        text: None,
        lifetime: Duration::from_secs(259_200),
    }
}

/// Returns a push of a message.
pub(crate) fn outgoing(token: Token) -> Outgoing {
    let notification = Notification {
        chat_title: "Ferry".into(),
        sender_name: "Alice".into(),
        seq: 7,
        ..Notification::default()
    };
    Outgoing {
        device: DeviceId::random(),
        token: Arc::new(token),
        class: PushClass::Alert,
        tag: Tag("tag".into()),
        badge: 3,
        notification: Some(Arc::new(notification)),
        lifetime: Duration::from_secs(259_200),
    }
}

pub(crate) fn apns_app() -> ApnsApp {
    ApnsApp {
        bundle_id: "com.example.chat".into(),
        team_id: "TEAM".into(),
        key_id: "KEY".into(),
        key: EcKey::from_pem(EC_PEM.as_bytes()).unwrap(),
        text: "New message".into(),
        url: "https://apns.invalid".into(),
        sandbox_url: "https://sandbox.invalid".into(),
    }
}

pub(crate) fn web_push_app() -> WebPushApp {
    WebPushApp {
        key: EcKey::from_pem(EC_PEM.as_bytes()).unwrap(),
        subject: "mailto:ops@example.com".into(),
        allow_private: false,
    }
}

fn apps() -> Apps {
    Apps {
        apns: vec![apns_app()],
        ..Apps::default()
    }
}

fn fcm_app() -> FcmApp {
    FcmApp {
        app: "com.example.droid".into(),
        account: ServiceAccount {
            project_id: "ferry".into(),
            email: ACCOUNT.into(),
            key_id: None,
            key: jwt::rsa_key(RSA_PEM.as_bytes()).unwrap(),
            token_url: "https://token.invalid".into(),
        },
        url: "https://fcm.invalid".into(),
    }
}

#[tokio::test]
async fn a_push_goes_the_way_for_which_there_is_a_key() {
    let all = Apps {
        fcm: vec![fcm_app()],
        web_push: Some(web_push_app()),
        relay: Some(RelayApp {
            url: "http://127.0.0.1:1".into(),
            key: Secret("key".into()),
        }),
        ..apps()
    };
    let (none, one, all) = (
        Providers::new(&Apps::default()).unwrap(),
        Providers::new(&apps()).unwrap(),
        Providers::new(&all).unwrap(),
    );
    let of = |provider, app: &str| Token {
        provider,
        app: app.into(),
        ..token()
    };
    use Route::{Direct, Nobody, Relay};
    for (token, expected) in [
        (of(Provider::Apns, "com.example.chat"), [Nobody, Direct, Direct]),
        (of(Provider::Apns, "com.example.droid"), [Nobody, Nobody, Relay]),
        (of(Provider::Fcm, "com.example.chat"), [Nobody, Nobody, Relay]),
        (of(Provider::Fcm, "com.example.droid"), [Nobody, Nobody, Direct]),
        (of(Provider::WebPush, ""), [Nobody, Nobody, Direct]),
    ] {
        let routes = [&none, &one, &all].map(|providers| providers.serves(&token));
        assert_eq!(routes, expected, "{token:?}");
    }
    assert_eq!(none.web_push_key(), None);
    let key = all.web_push_key().unwrap();
    assert_eq!((key.len(), key[0]), (65, 4), "uncompressed");
}

#[tokio::test]
async fn a_push_for_an_app_without_a_key_is_refused() {
    let providers = Providers::new(&apps()).unwrap();
    for provider in Provider::ALL {
        let token = Token {
            provider,
            app: "com.example.other".into(),
            ..token()
        };
        let sent = providers.send(&outgoing(token)).await;
        assert!(
            matches!(sent, Delivery::Refused { reason: "no_key", .. }),
            "{sent:?}"
        );
    }
    let mut push = outgoing(token());
    push.class = PushClass::Unspecified;
    let sent = providers.send(&push).await;
    assert!(
        matches!(sent, Delivery::Refused { reason: "class", .. }),
        "{sent:?}"
    );
}

#[tokio::test]
async fn what_a_push_says_is_sealed_and_readable_only_by_choice() {
    let templates = Apps {
        templates: true,
        ..apps()
    };
    let (usual, templates) = (
        Providers::new(&apps()).unwrap(),
        Providers::new(&templates).unwrap(),
    );
    let with_key = Token {
        sealing_key: Some(vec![9_u8; 32].into()),
        ..token()
    };
    let useless_key = Token {
        sealing_key: Some(vec![0_u8; 32].into()),
        ..token()
    };
    for (token, sealed) in [(with_key, true), (useless_key, false), (token(), false)] {
        let push = outgoing(token);
        let (plain, clear) = (usual.parcel(&push), templates.parcel(&push));
        assert_eq!((plain.sealed.is_some(), plain.text), (sealed, None));
        let text = Some("Alice in Ferry".to_owned());
        assert_eq!((clear.sealed.is_some(), clear.text), (sealed, text));
    }
    let mut push = outgoing(token());
    push.notification = None;
    assert_eq!(templates.parcel(&push).text, None);
}

#[test]
fn clear_texts_name_who_and_where() {
    let text = |sender: &str, title: &str| {
        clear_text(&Notification {
            sender_name: sender.into(),
            chat_title: title.into(),
            ..Notification::default()
        })
    };
    assert_eq!(text("Alice", "Ferry").as_deref(), Some("Alice in Ferry"));
    assert_eq!(text("Alice", "").as_deref(), Some("Alice"));
    assert_eq!(text("", "Ferry").as_deref(), Some("Ferry"));
    assert_eq!(text("", ""), None);
}
