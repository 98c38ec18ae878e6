//! Sends Web Pushes (RFC 8030), which UnifiedPush takes too. Each push is encrypted to the subscription's keys (RFC
//! 8291), and this server identifies itself by VAPID (RFC 8292).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use reqwest::{Client, Url};
use rustls::RootCertStore;
use serde_json::{Value, json};
use tern_proto::v1::PushClass;
use tern_types::Clock;
use web_push_native::{Auth, p256};

use super::http::{self, Answer};
use super::refused;
use super::vapid::Vapid;
use crate::apps::WebPushApp;
use crate::provider::{Delivery, Outgoing, TOO_MANY, Token};
use crate::seal;

/// The plaintext is filled up to a multiple of so many bytes, so that its length tells nothing of the names in it.
const PAD_TO: usize = 256;
/// The size of a record. RFC 8291 wants one record alone, which is shorter than this; services take 4,096 bytes.
const RECORD: u32 = 4096;
/// The most bytes of a plaintext that fit into 4,096 bytes with what encryption adds (RFC 8291, section 4).
const MAX_PLAINTEXT: usize = 3993;
/// The place of the size of a record in an encrypted push (RFC 8188, section 2.1).
const RECORD_SIZE_AT: std::ops::Range<usize> = 16..20;
/// The topic of pushes that change the badge alone. With the tag as their topic, one of them would take the place of an
/// alert that the browser has not got yet.
const TOPIC_BADGE: &str = "tern-badge";
/// The topic of pushes that only wake the app.
const TOPIC_SILENT: &str = "tern-silent";

/// The Web Push services that devices name.
pub(crate) struct WebPush {
    client: Client,
    vapid: Vapid,
    allow_private: bool,
}

/// A request that is ready to go.
#[derive(Debug)]
pub(crate) struct Prepared {
    url: Url,
    /// The service's scheme, host and port.
    origin: String,
    body: Vec<u8>,
    /// The time for which the service keeps trying, in seconds.
    ttl: u64,
    urgency: &'static str,
    topic: String,
}

impl WebPush {
    /// Makes the client. Fails if the roots are of no use to it.
    pub(crate) fn new(app: &WebPushApp, roots: &RootCertStore) -> anyhow::Result<Self> {
        Ok(Self {
            client: http::guarded(roots, app.allow_private, app.proxy.as_ref())?,
            vapid: Vapid::new(app),
            allow_private: app.allow_private,
        })
    }

    /// Returns the public key by which this server identifies itself, 65 bytes.
    pub(crate) fn key(&self) -> &[u8] {
        self.vapid.key()
    }

    /// Encrypts a push. Returns `Err` with what becomes of it if it cannot be sent.
    pub(crate) fn prepare(&self, push: &Outgoing) -> Result<Prepared, Delivery> {
        let url = str::from_utf8(&push.token.token).ok();
        let Some(url) = url.and_then(|url| Url::parse(url).ok()) else {
            return Err(refused("subscription", "the endpoint is no URL"));
        };
        if !http::may_be_named(&url, self.allow_private) {
            return Err(http::private_address());
        }
        let (urgency, topic) = match push.class {
            PushClass::Alert | PushClass::Call => ("high", push.tag.0.as_str()),
            PushClass::Badge => ("normal", TOPIC_BADGE),
            // A withdrawal takes the place of the alert that it withdraws, if the browser has not got that yet.
            PushClass::Withdraw => ("normal", push.tag.0.as_str()),
            PushClass::Silent => ("low", TOPIC_SILENT),
            PushClass::Unspecified => return Err(refused("class", "the push has no class")),
        };
        Ok(Prepared {
            origin: url.origin().ascii_serialization(),
            url,
            body: encrypted(padded(&content(push))?, &push.token)?,
            ttl: push.lifetime.as_secs(),
            urgency,
            topic: topic.to_owned(),
        })
    }

    /// Sends a push.
    pub(crate) async fn send(&self, prepared: Prepared) -> Delivery {
        let header = self
            .vapid
            .header(&prepared.origin, Clock::monotonic(), Clock::wall());
        let header = match header {
            Ok(header) => header,
            Err(error) => return refused("provider_token", &format!("{error:#}")),
        };
        let request = self
            .client
            .post(prepared.url)
            .header("authorization", &*header)
            .header("ttl", prepared.ttl)
            .header("urgency", prepared.urgency)
            .header("topic", prepared.topic)
            .header("content-encoding", "aes128gcm")
            .header("content-type", "application/octet-stream")
            .body(prepared.body);
        match http::ask(request).await {
            Ok(answer) => judge(&answer),
            Err(delivery) => delivery,
        }
    }
}

/// Returns the content that the app gets.
fn content(push: &Outgoing) -> Value {
    let mut content = json!({"tag": push.tag.0, "badge": push.badge});
    if push.class == PushClass::Withdraw {
        content["withdraw"] = true.into();
    } else if let Some(notification) = &push.notification {
        let bytes = seal::shortened(notification).encode_to_vec();
        content["notification"] = STANDARD.encode(bytes).into();
    }
    content
}

/// Writes JSON, and fills it up with blanks, which JSON allows at its end.
fn padded(content: &Value) -> Result<Vec<u8>, Delivery> {
    let mut text = content.to_string().into_bytes();
    let length = text.len().next_multiple_of(PAD_TO);
    if length > MAX_PLAINTEXT {
        return Err(refused("payload_too_large", &format!("{} bytes", text.len())));
    }
    text.resize(length, b' ');
    Ok(text)
}

/// Encrypts a text to the keys of a subscription.
fn encrypted(text: Vec<u8>, token: &Token) -> Result<Vec<u8>, Delivery> {
    let key = token.second_key.as_deref().unwrap_or_default();
    let auth: Option<[u8; 16]> = token.auth.as_deref().and_then(|auth| auth.try_into().ok());
    let (Ok(key), Some(auth)) = (p256::PublicKey::from_sec1_bytes(key), auth) else {
        return Err(refused("subscription", "the subscription's keys are of no use"));
    };
    let encrypted = web_push_native::encrypt(text, &key, &Auth::from(auth));
    let mut encrypted = encrypted.map_err(|error| refused("subscription", &error.to_string()))?;
    // The library writes the exact size of the record, and RFC 8291 wants a larger one. Neither a key nor the tag of
    // the cipher depends on this number, so it can be changed here.
    if let Some(size) = encrypted.get_mut(RECORD_SIZE_AT) {
        size.copy_from_slice(&RECORD.to_be_bytes());
    }
    Ok(encrypted)
}

/// Understands an answer.
fn judge(answer: &Answer) -> Delivery {
    let detail = answer.detail(None);
    match answer.status {
        200..=299 => Delivery::Sent,
        404 | 410 => Delivery::TokenEnded {
            since: None,
            reason: detail,
        },
        413 => refused("payload_too_large", &detail),
        429 => answer.later(TOO_MANY, detail),
        401 | 403 => refused("provider_token", &detail),
        400..=499 => refused("request", &detail),
        500..=599 => answer.later("unavailable", detail),
        _ => answer.later("unexpected", detail),
    }
}

#[cfg(test)]
mod tests;
