//! Decides whether a device's push token is well formed, and what is stored of it.

use std::fmt;
use std::time::Duration;

use http::Uri;
use tern_proto::v1::{self, push_token};
use tern_proto::{ApiError, parse};

/// The time after which it is stored anew that a device has named its token.
pub(crate) const NAMED_AGAIN_AFTER: Duration = Duration::from_secs(24 * 3600);

/// The most bytes of a token of Apple's push service. Today's have 32.
const MAX_APNS_TOKEN_BYTES: usize = 100;
/// The most bytes of a bundle id, which Apple limits to 155 characters.
const MAX_BUNDLE_ID_BYTES: usize = 155;
/// The most bytes of a token of Firebase Cloud Messaging. Today's have some 160, and Google names no limit.
const MAX_FCM_TOKEN_BYTES: usize = 4096;
/// The most bytes of the name of an Android package.
const MAX_PACKAGE_BYTES: usize = 255;
/// The most bytes of the URL at which a Web Push service takes pushes.
const MAX_ENDPOINT_BYTES: usize = 2048;
/// The bytes of an uncompressed point of the curve P-256: the byte [`UNCOMPRESSED`] and two coordinates.
const P256_POINT_BYTES: usize = 65;
/// The first byte of an uncompressed point.
const UNCOMPRESSED: u8 = 4;
/// The bytes of the secret of a Web Push subscription (RFC 8291).
const AUTH_BYTES: usize = 16;
/// The bytes of an X25519 public key.
const SEALING_KEY_BYTES: usize = 32;

/// A push service. The number is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i16)]
pub enum Provider {
    /// Apple's push service.
    Apns = 1,
    /// Firebase Cloud Messaging.
    Fcm = 2,
    /// A Web Push service, or a UnifiedPush distributor.
    WebPush = 3,
}

/// The token by which a device gets its pushes, as it is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct PushToken {
    /// The provider.
    pub provider: Provider,
    /// The bundle id or the package name; empty for Web Push.
    pub app: String,
    /// True if the token is for Apple's sandbox.
    pub sandbox: bool,
    /// The token; of Web Push the endpoint, as UTF-8.
    pub token: Vec<u8>,
    /// The token for calls (APNs), or the subscription's public key (Web Push).
    pub second_key: Option<Vec<u8>>,
    /// The subscription's secret (Web Push).
    pub auth: Option<Vec<u8>>,
    /// The X25519 public key to which notifications are sealed.
    pub sealing_key: Option<Vec<u8>>,
}

impl fmt::Debug for PushToken {
    /// Leaves out what lets others push to the device.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushToken")
            .field("provider", &self.provider)
            .field("app", &self.app)
            .field("sandbox", &self.sandbox)
            .finish_non_exhaustive()
    }
}

impl PushToken {
    /// Reads a token as a device names it. Returns `Err` with INVALID_FIELD and the field's name if a part of it is
    /// malformed, or no provider is named.
    pub fn read(token: v1::PushToken) -> Result<Self, ApiError> {
        use push_token::Provider as Named;

        let sealing_key = match token.sealing_key.len() {
            0 => None,
            SEALING_KEY_BYTES => Some(token.sealing_key.to_vec()),
            _ => {
                return Err(ApiError::invalid(
                    "token.sealing_key",
                    "must be empty or have 32 bytes",
                ));
            }
        };
        let read = match token.provider {
            Some(Named::Apns(apns)) => of_apns(apns)?,
            Some(Named::Fcm(fcm)) => of_fcm(fcm)?,
            Some(Named::WebPush(subscription)) => of_web_push(subscription)?,
            None => return Err(ApiError::invalid("token.apns", "or fcm or web_push is needed")),
        };
        Ok(Self { sealing_key, ..read })
    }
}

fn of_apns(apns: v1::ApnsToken) -> Result<PushToken, ApiError> {
    if !(1..=MAX_APNS_TOKEN_BYTES).contains(&apns.token.len()) {
        return Err(ApiError::invalid("token.apns.token", "must have 1 to 100 bytes"));
    }
    if apns.voip_token.len() > MAX_APNS_TOKEN_BYTES {
        return Err(ApiError::invalid(
            "token.apns.voip_token",
            "must have at most 100 bytes",
        ));
    }
    Ok(PushToken {
        provider: Provider::Apns,
        app: app("token.apns.bundle_id", apns.bundle_id, MAX_BUNDLE_ID_BYTES)?,
        sandbox: apns.sandbox,
        token: apns.token.to_vec(),
        second_key: (!apns.voip_token.is_empty()).then(|| apns.voip_token.to_vec()),
        auth: None,
        sealing_key: None,
    })
}

fn of_fcm(fcm: v1::FcmToken) -> Result<PushToken, ApiError> {
    let token = parse::text("token.fcm.token", fcm.token, MAX_FCM_TOKEN_BYTES)?;
    if token.is_empty() {
        return Err(ApiError::invalid("token.fcm.token", "must not be empty"));
    }
    Ok(PushToken {
        provider: Provider::Fcm,
        app: app("token.fcm.app", fcm.app, MAX_PACKAGE_BYTES)?,
        sandbox: false,
        token: token.into_bytes(),
        second_key: None,
        auth: None,
        sealing_key: None,
    })
}

/// Reads a subscription. Push nodes decide to which addresses they connect, so here an endpoint is just a URL of the
/// web: during development it may be a plain http one.
fn of_web_push(subscription: v1::WebPushSubscription) -> Result<PushToken, ApiError> {
    let field = "token.web_push.endpoint";
    let endpoint = parse::text(field, subscription.endpoint, MAX_ENDPOINT_BYTES)?;
    if !is_web_url(&endpoint) {
        return Err(ApiError::invalid(field, "must be an https URL with a host"));
    }
    let key = subscription.p256dh;
    if key.len() != P256_POINT_BYTES || key.first() != Some(&UNCOMPRESSED) {
        return Err(ApiError::invalid(
            "token.web_push.p256dh",
            "must be an uncompressed point of P-256: 65 bytes, the first of them 4",
        ));
    }
    if subscription.auth.len() != AUTH_BYTES {
        return Err(ApiError::invalid("token.web_push.auth", "must have 16 bytes"));
    }
    Ok(PushToken {
        provider: Provider::WebPush,
        app: String::new(),
        sandbox: false,
        token: endpoint.into_bytes(),
        second_key: Some(key.to_vec()),
        auth: Some(subscription.auth.to_vec()),
        sealing_key: None,
    })
}

/// Checks the name of an app, which goes into headers and paths at its provider.
fn app(field: &'static str, name: String, max: usize) -> Result<String, ApiError> {
    let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if !(1..=max).contains(&name.len()) || !name.bytes().all(is_fit) {
        return Err(ApiError::invalid(
            field,
            &format!("must have 1 to {max} letters, digits, '.', '_' and '-'"),
        ));
    }
    Ok(name)
}

fn is_web_url(text: &str) -> bool {
    let Ok(url) = text.parse::<Uri>() else {
        return false;
    };
    let is_web = matches!(url.scheme_str(), Some("https" | "http"));
    is_web && url.host().is_some_and(|host| !host.is_empty())
}

#[cfg(test)]
mod tests {
    use tern_proto::v1::push_token::Provider as Named;

    use super::*;

    /// Returns what has the form of an uncompressed point.
    fn point() -> Vec<u8> {
        let mut point = vec![9; P256_POINT_BYTES];
        point[0] = UNCOMPRESSED;
        point
    }

    fn apns() -> v1::ApnsToken {
        v1::ApnsToken {
            token: vec![7; 32].into(),
            bundle_id: "com.example.chat".to_owned(),
            sandbox: true,
            voip_token: vec![8; 32].into(),
        }
    }

    fn fcm() -> v1::FcmToken {
        v1::FcmToken {
            token: "dQw4:APA91b".to_owned(),
            app: "com.example.chat_two".to_owned(),
        }
    }

    fn web_push() -> v1::WebPushSubscription {
        v1::WebPushSubscription {
            endpoint: "https://push.example/send/1?a=b".to_owned(),
            p256dh: point().into(),
            auth: vec![1; 16].into(),
        }
    }

    fn named(provider: Named) -> v1::PushToken {
        v1::PushToken {
            provider: Some(provider),
            sealing_key: vec![3; 32].into(),
        }
    }

    #[test]
    fn a_token_of_each_provider_is_stored_as_it_was_named() {
        let sealing_key = Some(vec![3; 32]);
        let cases = [
            (
                Named::Apns(apns()),
                PushToken {
                    provider: Provider::Apns,
                    app: "com.example.chat".to_owned(),
                    sandbox: true,
                    token: vec![7; 32],
                    second_key: Some(vec![8; 32]),
                    auth: None,
                    sealing_key: sealing_key.clone(),
                },
            ),
            (
                Named::Fcm(fcm()),
                PushToken {
                    provider: Provider::Fcm,
                    app: "com.example.chat_two".to_owned(),
                    sandbox: false,
                    token: b"dQw4:APA91b".to_vec(),
                    second_key: None,
                    auth: None,
                    sealing_key: sealing_key.clone(),
                },
            ),
            (
                Named::WebPush(web_push()),
                PushToken {
                    provider: Provider::WebPush,
                    app: String::new(),
                    sandbox: false,
                    token: b"https://push.example/send/1?a=b".to_vec(),
                    second_key: Some(point()),
                    auth: Some(vec![1; 16]),
                    sealing_key,
                },
            ),
        ];
        for (provider, expected) in cases {
            let read = PushToken::read(named(provider)).unwrap();
            assert!(read == expected, "{expected:?}");
        }
    }

    #[test]
    fn what_is_empty_and_may_be_is_not_stored() {
        let without_calls = v1::ApnsToken {
            voip_token: Default::default(),
            ..apns()
        };
        let token = v1::PushToken {
            provider: Some(Named::Apns(without_calls)),
            sealing_key: Default::default(),
        };
        let read = PushToken::read(token).unwrap();
        assert_eq!((read.second_key, read.sealing_key), (None, None));
    }

    fn field(token: v1::PushToken) -> Option<&'static str> {
        PushToken::read(token).err().and_then(|error| error.field)
    }

    #[test]
    fn the_malformed_field_of_an_app_token_is_named() {
        type Change<T> = fn(&mut T);
        let of_apns: [(Change<v1::ApnsToken>, Option<&str>); 10] = [
            (|apns| apns.token = vec![0; 100].into(), None),
            (|apns| apns.bundle_id = "x".repeat(155), None),
            (|apns| apns.voip_token = vec![0; 100].into(), None),
            (|apns| apns.token.clear(), Some("token.apns.token")),
            (|apns| apns.token = vec![0; 101].into(), Some("token.apns.token")),
            (|apns| apns.bundle_id.clear(), Some("token.apns.bundle_id")),
            (
                |apns| apns.bundle_id = "x".repeat(156),
                Some("token.apns.bundle_id"),
            ),
            (
                |apns| apns.bundle_id = "com/example".to_owned(),
                Some("token.apns.bundle_id"),
            ),
            (
                |apns| apns.bundle_id = "com.exämple".to_owned(),
                Some("token.apns.bundle_id"),
            ),
            (
                |apns| apns.voip_token = vec![0; 101].into(),
                Some("token.apns.voip_token"),
            ),
        ];
        for (number, (change, expected)) in of_apns.into_iter().enumerate() {
            let mut apns = apns();
            change(&mut apns);
            assert_eq!(field(named(Named::Apns(apns))), expected, "case {number}");
        }
        let of_fcm: [(Change<v1::FcmToken>, Option<&str>); 7] = [
            (|fcm| fcm.token = "x".repeat(4096), None),
            (|fcm| fcm.app = "x".repeat(255), None),
            (|fcm| fcm.token.clear(), Some("token.fcm.token")),
            (|fcm| fcm.token = "x".repeat(4097), Some("token.fcm.token")),
            (|fcm| fcm.app.clear(), Some("token.fcm.app")),
            (|fcm| fcm.app = "x".repeat(256), Some("token.fcm.app")),
            (|fcm| fcm.app = "com.example\n".to_owned(), Some("token.fcm.app")),
        ];
        for (number, (change, expected)) in of_fcm.into_iter().enumerate() {
            let mut fcm = fcm();
            change(&mut fcm);
            assert_eq!(field(named(Named::Fcm(fcm))), expected, "case {number}");
        }
    }

    #[test]
    fn the_malformed_field_of_a_subscription_is_named() {
        let of_length = |bytes: usize| format!("{:x<bytes$}", "https://push.example/");
        let (longest, too_long) = (of_length(2048), of_length(2049));
        for (endpoint, good) in [
            ("http://127.0.0.1:9000/push", true),
            ("https://[2001:db8::1]/push", true),
            (longest.as_str(), true),
            (too_long.as_str(), false),
            ("", false),
            ("push.example", false),
            ("/push", false),
            ("https://", false),
            ("https://:443/push", false),
            ("ftp://push.example/", false),
            ("https://push.example/a b", false),
            ("https://push.example/\0", false),
        ] {
            let subscription = v1::WebPushSubscription {
                endpoint: endpoint.to_owned(),
                ..web_push()
            };
            let expected = (!good).then_some("token.web_push.endpoint");
            assert_eq!(field(named(Named::WebPush(subscription))), expected, "{endpoint}");
        }
        type Change = fn(&mut v1::WebPushSubscription);
        let cases: [(Change, &str); 5] = [
            (|it| it.p256dh.clear(), "token.web_push.p256dh"),
            (|it| it.p256dh = vec![4; 64].into(), "token.web_push.p256dh"),
            (|it| it.p256dh = vec![5; 65].into(), "token.web_push.p256dh"),
            (|it| it.auth = vec![0; 15].into(), "token.web_push.auth"),
            (|it| it.auth = vec![0; 17].into(), "token.web_push.auth"),
        ];
        for (number, (change, expected)) in cases.into_iter().enumerate() {
            let mut subscription = web_push();
            change(&mut subscription);
            let token = named(Named::WebPush(subscription));
            assert_eq!(field(token), Some(expected), "case {number}");
        }
    }

    #[test]
    fn a_token_without_a_provider_or_with_half_a_sealing_key_is_malformed() {
        let nobody = v1::PushToken::default();
        assert_eq!(field(nobody), Some("token.apns"));
        for bytes in [16, 31, 33] {
            let token = v1::PushToken {
                sealing_key: vec![3; bytes].into(),
                ..named(Named::Fcm(fcm()))
            };
            assert_eq!(field(token), Some("token.sealing_key"), "{bytes} bytes");
        }
    }

    #[test]
    fn what_is_logged_of_a_token_lets_nobody_push() {
        let token = PushToken::read(named(Named::WebPush(web_push()))).unwrap();
        let shown = format!("{token:?}");
        assert!(
            shown.contains("WebPush") && !shown.contains("push.example") && !shown.contains('9'),
            "{shown}"
        );
    }
}
