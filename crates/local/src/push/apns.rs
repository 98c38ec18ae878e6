//! Apple's push service, as <https://developer.apple.com/documentation/usernotifications> describes it: "Sending
//! notification requests to APNs", "Handling notification responses from APNs" and "Establishing a token-based
//! connection to APNs".

use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::{Value, json};

use super::jwt::{Verifier, now_s};
use super::record::{Provider, Received, Record};
use super::server::{Reply, Server, Service, carry_out, text};
use super::{APP, KEY_ID, TEAM_ID, Tls};

/// The largest payload, in bytes.
const PAYLOAD_BYTES: usize = 4096;
/// The largest payload of a push for a call, in bytes.
const VOIP_PAYLOAD_BYTES: usize = 5120;
/// The longest apns-collapse-id, in bytes.
const COLLAPSE_ID_BYTES: usize = 64;
/// The age of a provider token from which it is refused, in seconds.
const TOKEN_LIVES_S: i64 = 60 * 60;

/// Apple's push service. [`Record`] has what came to it and to its sandbox.
#[derive(Debug)]
pub struct Apns {
    record: Arc<Record>,
    production: Server,
    sandbox: Server,
}

/// One of the two environments.
struct Environment {
    record: Arc<Record>,
    tokens: Arc<Verifier>,
    sandbox: bool,
}

/// A status and a reason.
type Refusal = (u16, &'static str);

impl Apns {
    /// Starts the service, which verifies tokens by this public key.
    pub(super) async fn start(key: &[u8], tls: Tls) -> anyhow::Result<Self> {
        let record = Arc::new(Record::new(Provider::Apns));
        let tokens = Arc::new(Verifier::new(DecodingKey::from_ec_der(key), Algorithm::ES256));
        let environment = |sandbox| {
            Arc::new(Environment {
                record: record.clone(),
                tokens: tokens.clone(),
                sandbox,
            })
        };
        Ok(Self {
            production: Server::start(environment(false), tls.clone()).await?,
            sandbox: Server::start(environment(true), tls).await?,
            record: record.clone(),
        })
    }

    /// Returns the URL of production.
    pub fn url(&self) -> String {
        format!("https://{}", self.production.address)
    }

    /// Returns the URL of the sandbox.
    pub fn sandbox_url(&self) -> String {
        format!("https://{}", self.sandbox.address)
    }

    pub(super) fn record(&self) -> &Arc<Record> {
        &self.record
    }
}

impl Deref for Apns {
    type Target = Record;

    fn deref(&self) -> &Record {
        &self.record
    }
}

impl Service for Environment {
    fn handle(&self, request: &Parts, body: &Bytes) -> Reply {
        let token = request.uri.path().strip_prefix("/3/device/").unwrap_or_default();
        let mut push = Received {
            sandbox: self.sandbox,
            payload: serde_json::from_slice(body).unwrap_or_default(),
            ..self.record.coming(token, &request.headers)
        };
        let id = match text(&request.headers, "apns-id") {
            "" => uuid(),
            given => given.to_owned(),
        };
        match self.judge(request, token, body.len(), &push.payload) {
            Ok(()) => carry_out(&self.record, push, || Reply::new(200, String::new()), refusal),
            Err((status, reason)) => {
                push.status = status;
                push.reason = reason.to_owned();
                self.record.add(push);
                refusal(status, reason, None)
            }
        }
        .header("apns-id", id)
    }

    fn record(&self) -> &Record {
        &self.record
    }
}

impl Environment {
    /// Checks a request in the order in which Apple seems to.
    fn judge(&self, request: &Parts, token: &str, bytes: usize, payload: &Value) -> Result<(), Refusal> {
        if request.method != Method::POST {
            return Err((405, "MethodNotAllowed"));
        }
        if !request.uri.path().starts_with("/3/device/") {
            return Err((404, "BadPath"));
        }
        self.authorized(&request.headers)?;
        if token.is_empty() {
            return Err((400, "MissingDeviceToken"));
        }
        if !token.len().is_multiple_of(2) || !token.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err((400, "BadDeviceToken"));
        }
        let kind = text(&request.headers, "apns-push-type");
        headers_in_order(&request.headers, kind)?;
        let most = match kind {
            "voip" => VOIP_PAYLOAD_BYTES,
            _ => PAYLOAD_BYTES,
        };
        match bytes {
            0 => Err((400, "PayloadEmpty")),
            bytes if bytes > most => Err((413, "PayloadTooLarge")),
            _ => payload_in_order(kind, payload),
        }
    }

    /// Checks the provider token.
    fn authorized(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let authorization = text(headers, "authorization");
        let (scheme, token) = authorization.split_once(' ').unwrap_or_default();
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err((403, "MissingProviderToken"));
        }
        let invalid: Refusal = (403, "InvalidProviderToken");
        let claims = self.tokens.claims(token).ok_or(invalid)?;
        if claims.key_id.as_deref() != Some(KEY_ID) || claims.text("iss") != Some(TEAM_ID) {
            return Err(invalid);
        }
        match claims.age().ok_or(invalid)? {
            age if age > TOKEN_LIVES_S => Err((403, "ExpiredProviderToken")),
            _ => Ok(()),
        }
    }
}

/// Checks the headers of a push of this type.
fn headers_in_order(headers: &HeaderMap, kind: &str) -> Result<(), Refusal> {
    if !["alert", "background", "voip"].contains(&kind) {
        return Err((400, "InvalidPushType"));
    }
    let topic = text(headers, "apns-topic");
    let expected = match kind {
        "voip" => format!("{APP}.voip"),
        _ => APP.to_owned(),
    };
    match topic {
        "" => return Err((400, "MissingTopic")),
        topic if !topic.starts_with(APP) => return Err((400, "TopicDisallowed")),
        topic if topic != expected => return Err((400, "DeviceTokenNotForTopic")),
        _ => {}
    }
    match (text(headers, "apns-priority"), kind) {
        ("5", _) | ("10", "alert" | "voip") => {}
        _ => return Err((400, "BadPriority")),
    }
    if text(headers, "apns-collapse-id").len() > COLLAPSE_ID_BYTES {
        return Err((400, "BadCollapseId"));
    }
    match text(headers, "apns-expiration").parse::<i64>() {
        Ok(0) => Ok(()),
        Ok(at) if at > now_s() => Ok(()),
        _ => Err((400, "BadExpirationDate")),
    }
}

/// Checks that a payload fits its type. Apple takes others too, but does nothing with them on the phone.
fn payload_in_order(kind: &str, payload: &Value) -> Result<(), Refusal> {
    let Some(payload) = payload.as_object() else {
        return Err((400, "PayloadEmpty"));
    };
    let aps = payload.get("aps").and_then(Value::as_object);
    let has = |name| aps.is_some_and(|aps| aps.contains_key(name));
    let fits = match kind {
        "alert" => has("alert") || has("badge") || has("sound"),
        "background" => {
            aps.is_some_and(|aps| aps.get("content-available") == Some(&json!(1)))
                && !has("alert")
                && !has("badge")
                && !has("sound")
        }
        _ => true,
    };
    if fits {
        Ok(())
    } else {
        Err((400, "InvalidPushType"))
    }
}

/// Makes the answer with a reason. `since` belongs to status 410.
fn refusal(status: u16, reason: &str, since: Option<i64>) -> Reply {
    let mut body = json!({ "reason": reason });
    if let Some(since) = since {
        body["timestamp"] = json!(since);
    }
    Reply::new(status, body.to_string()).header("content-type", "application/json".to_owned())
}

/// Draws an id in the form of a UUID.
fn uuid() -> String {
    let hex = format!("{:032X}", rand::random::<u128>());
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}
