//! A browser vendor's push service (RFC 8030), which checks who sends (RFC 8292). It plays the browsers too: each
//! subscription has keys of its own, with which the service decrypts what a real one could not (RFC 8291).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;
use web_push_native::p256::SecretKey;
use web_push_native::p256::elliptic_curve::sec1::ToEncodedPoint as _;
use web_push_native::{Auth, decrypt};

use super::jwt::{Verifier, now_s};
use super::record::{Provider, Record};
use super::server::{Reply, Server, Service, carry_out, listener, text};

/// The largest body that every push service takes, in bytes (RFC 8030, section 7.2).
const BODY_BYTES: usize = 4096;
/// The longest topic, in characters (RFC 8030, section 5.4).
const TOPIC_CHARACTERS: usize = 32;
/// The longest time for which a VAPID token may be valid, in seconds (RFC 8292, section 2).
const TOKEN_LIVES_S: i64 = 24 * 60 * 60;
/// The bytes before the sender's public key in a body: salt, record size and the key's length (RFC 8188, section 2.1).
const HEADER_BYTES: usize = 21;
/// The smallest record size (RFC 8188, section 2.1).
const SMALLEST_RECORD: u32 = 18;

/// A browser vendor's push service. [`Record`] has what came to it, decrypted.
#[derive(Debug)]
pub struct WebPush {
    vendor: Arc<Vendor>,
    _server: Server,
}

/// A subscription, as a browser gives it to the app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// The id of the subscription: the end of its endpoint, and the token in [`Received`].
    pub id: String,
    /// The URL at which pushes are taken.
    pub endpoint: String,
    /// The subscription's P-256 public key, 65 bytes, uncompressed.
    pub p256dh: Vec<u8>,
    /// The subscription's secret, 16 bytes.
    pub auth: Vec<u8>,
}

#[derive(Debug)]
struct Vendor {
    record: Arc<Record>,
    address: SocketAddr,
    /// The key that the subscriptions are restricted to, as senders write it.
    key: String,
    tokens: Verifier,
    browsers: Mutex<HashMap<String, Browser>>,
}

/// The secrets of a subscription.
#[derive(Debug, Clone)]
struct Browser {
    secret: SecretKey,
    auth: [u8; 16],
}

/// A status and a reason.
type Refusal = (u16, &'static str);

impl WebPush {
    /// Starts the service, in plain text. It takes pushes of whoever has the private key of this public one.
    pub(super) async fn start(key: &[u8]) -> anyhow::Result<Self> {
        let listener = listener().await?;
        let vendor = Arc::new(Vendor {
            record: Arc::new(Record::new(Provider::WebPush)),
            address: listener.local_addr()?,
            key: URL_SAFE_NO_PAD.encode(key),
            tokens: Verifier::new(DecodingKey::from_ec_der(key), Algorithm::ES256),
            browsers: Mutex::default(),
        });
        Ok(Self {
            _server: Server::on(listener, vendor.clone(), None)?,
            vendor,
        })
    }

    /// Makes a subscription, as a browser does for an app.
    pub fn subscribe(&self) -> Subscription {
        let browser = Browser {
            secret: secret(),
            auth: rand::random(),
        };
        let id = format!("{:032x}", rand::random::<u128>());
        let subscription = Subscription {
            endpoint: format!("{}/push/{id}", self.vendor.origin()),
            p256dh: browser
                .secret
                .public_key()
                .to_encoded_point(false)
                .as_bytes()
                .to_vec(),
            auth: browser.auth.to_vec(),
            id: id.clone(),
        };
        self.vendor.browsers().insert(id, browser);
        subscription
    }

    /// Ends a subscription, as a browser does when the person takes the permission away: pushes to it are refused with
    /// status 410.
    pub fn unsubscribe(&self, id: &str) {
        self.vendor.browsers().remove(id);
    }

    pub(super) fn record(&self) -> &Arc<Record> {
        &self.vendor.record
    }
}

impl Deref for WebPush {
    type Target = Record;

    fn deref(&self) -> &Record {
        &self.vendor.record
    }
}

impl Service for Vendor {
    fn handle(&self, request: &Parts, body: &Bytes) -> Reply {
        let id = request.uri.path().strip_prefix("/push/").unwrap_or_default();
        let mut push = self.record.coming(id, &request.headers);
        match self.judge(request, id, body) {
            Ok(plaintext) => {
                push.payload = plaintext;
                let location = format!("{}/message/{:032x}", self.origin(), rand::random::<u128>());
                let took = || Reply::new(201, String::new()).header("location", location);
                carry_out(&self.record, push, took, refusal)
            }
            Err((status, reason)) => {
                push.status = status;
                push.reason = reason.to_owned();
                self.record.add(push);
                refusal(status, reason, None)
            }
        }
    }

    fn record(&self) -> &Record {
        &self.record
    }
}

impl Vendor {
    fn browsers(&self) -> std::sync::MutexGuard<'_, HashMap<String, Browser>> {
        self.browsers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Checks a push, and returns its plaintext.
    fn judge(&self, request: &Parts, id: &str, body: &Bytes) -> Result<Value, Refusal> {
        if request.method != Method::POST {
            return Err((405, "a push is a POST"));
        }
        self.authorized(&request.headers)?;
        headers_in_order(&request.headers)?;
        if body.len() > BODY_BYTES {
            return Err((413, "the body is too large"));
        }
        let browser = self
            .browsers()
            .get(id)
            .cloned()
            .ok_or::<Refusal>((410, "there is no such subscription"))?;
        let plaintext = browser
            .decrypt(body)
            .ok_or::<Refusal>((400, "the body cannot be decrypted"))?;
        serde_json::from_slice(&plaintext).map_err(|_| (400, "the plaintext is no JSON"))
    }

    /// Checks who sends: `Authorization: vapid t=…, k=…`.
    fn authorized(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let authorization = text(headers, "authorization");
        let (scheme, parameters) = authorization.split_once(' ').unwrap_or_default();
        if !scheme.eq_ignore_ascii_case("vapid") {
            return Err((401, "no vapid authorization"));
        }
        let parameter = |name: &str| {
            let mut all = parameters
                .split(',')
                .filter_map(|part| part.trim().split_once('='));
            all.find(|(known, _)| *known == name).map(|(_, value)| value)
        };
        if parameter("k") != Some(self.key.as_str()) {
            return Err((403, "the subscription is restricted to another key"));
        }
        let claims = parameter("t").and_then(|token| self.tokens.claims(token));
        let claims = claims.ok_or::<Refusal>((403, "the token is not signed by the key"))?;
        if claims.text("aud") != Some(self.origin().as_str()) {
            return Err((403, "the token is for another audience"));
        }
        let contact = claims.text("sub").unwrap_or_default();
        if !contact.starts_with("mailto:") && !contact.starts_with("https:") {
            return Err((403, "the token names no contact"));
        }
        match claims.time("exp").map(|ends| ends - now_s()) {
            Some(1..=TOKEN_LIVES_S) => Ok(()),
            _ => Err((403, "the token has ended, or is valid for more than a day")),
        }
    }
}

/// Checks the headers of a push, besides who sends it.
fn headers_in_order(headers: &HeaderMap) -> Result<(), Refusal> {
    if text(headers, "ttl").parse::<u32>().is_err() {
        return Err((400, "there is no TTL"));
    }
    let topic = text(headers, "topic");
    let base64url = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if topic.len() > TOPIC_CHARACTERS || !topic.bytes().all(base64url) {
        return Err((400, "the topic is not valid"));
    }
    if !["", "very-low", "low", "normal", "high"].contains(&text(headers, "urgency")) {
        return Err((400, "the urgency is not valid"));
    }
    match text(headers, "content-encoding") {
        "aes128gcm" => Ok(()),
        _ => Err((415, "the content encoding is not aes128gcm")),
    }
}

impl Browser {
    /// Decrypts a body, or returns `None` if it is not for this subscription.
    fn decrypt(&self, body: &[u8]) -> Option<Vec<u8>> {
        // The library does not check the record size.
        let size = body.get(..HEADER_BYTES)?.get(16..20)?;
        if u32::from_be_bytes(size.try_into().ok()?) < SMALLEST_RECORD {
            return None;
        }
        decrypt(body.to_vec(), &self.secret, &Auth::from(self.auth)).ok()
    }
}

/// Draws a private key.
fn secret() -> SecretKey {
    loop {
        // One of four billion numbers is not a key.
        if let Ok(secret) = SecretKey::from_slice(&rand::random::<[u8; 32]>()) {
            return secret;
        }
    }
}

/// Makes the answer with a reason, which is a text for people: push services have no common form.
fn refusal(status: u16, reason: &str, _since: Option<i64>) -> Reply {
    Reply::new(status, reason.to_owned()).header("content-type", "text/plain".to_owned())
}

#[cfg(test)]
mod tests {
    use web_push_native::encrypt;

    use super::*;

    #[test]
    fn only_the_subscription_itself_reads_a_push() {
        let [one, other] = [secret(), secret()].map(|secret| Browser {
            secret,
            auth: rand::random(),
        });
        let auth = Auth::from(one.auth);
        let body = encrypt(b"{}".to_vec(), &one.secret.public_key(), &auth).unwrap();
        assert_eq!(one.decrypt(&body).as_deref(), Some(&b"{}"[..]));
        assert_eq!(other.decrypt(&body), None);
        assert_eq!(one.decrypt(&body[..20]), None);
        let mut tiny = body;
        tiny[16..20].fill(0);
        assert_eq!(one.decrypt(&tiny), None);
    }
}
