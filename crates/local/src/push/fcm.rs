//! Google's push service, as <https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages> and
//! <https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode> describe it, with the access tokens of
//! <https://developers.google.com/identity/protocols/oauth2/service-account#httprest>.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::{Map, Value, json};

use super::jwt::{Verifier, now_s};
use super::record::{Provider, Received, Record};
use super::server::{Reply, Server, Service, carry_out, listener, text};
use super::{APP, Tls};

/// A service account's key. To make an RSA key takes seconds in a program that is not optimised, and this one guards
/// nothing: it is for tests and development only.
const TEST_KEY: &str = include_str!("fcm/key.pem");
/// The public key of that key.
const TEST_PUBLIC_KEY: &str = include_str!("fcm/key.pub.pem");
/// The project.
const PROJECT: &str = "tern-development";
/// The service account's address.
const ACCOUNT: &str = "push@tern-development.iam.gserviceaccount.com";
/// The scope that an access token has to have.
const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";
/// The kind of request for an access token.
const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// The time for which an access token is valid, and the longest for which an assertion may be, in seconds.
const TOKEN_LIVES_S: i64 = 3600;
/// The access tokens that are remembered: a push node has one. When there are more, all are forgotten.
const TOKENS: usize = 64;
/// The most bytes of `data`, names and values.
const DATA_BYTES: usize = 4096;
/// The longest ttl in seconds: four weeks.
const LONGEST_TTL_S: f64 = 2_419_200.0;
/// The fields of a message.
const MESSAGE_FIELDS: [&str; 10] = [
    "name",
    "data",
    "notification",
    "android",
    "webpush",
    "apns",
    "fcm_options",
    "token",
    "topic",
    "condition",
];
/// The fields of a message's `android`.
const ANDROID_FIELDS: [&str; 9] = [
    "collapse_key",
    "priority",
    "ttl",
    "restricted_package_name",
    "data",
    "notification",
    "fcm_options",
    "direct_boot_ok",
    "bandwidth_constrained_ok",
];

/// Google's push service. [`Record`] has what came to it.
#[derive(Debug)]
pub struct Fcm {
    google: Arc<Google>,
    server: Server,
}

#[derive(Debug)]
struct Google {
    record: Arc<Record>,
    assertions: Verifier,
    /// The URL at which access tokens are given out.
    token_uri: String,
    /// The time at which each access token ends, in seconds since 1970.
    tokens: Mutex<BTreeMap<String, i64>>,
}

impl Fcm {
    /// Starts the service.
    pub(super) async fn start(tls: Tls) -> anyhow::Result<Self> {
        let listener = listener().await?;
        let key = DecodingKey::from_rsa_pem(TEST_PUBLIC_KEY.as_bytes())?;
        let google = Arc::new(Google {
            record: Arc::new(Record::new(Provider::Fcm)),
            assertions: Verifier::new(key, Algorithm::RS256),
            token_uri: format!("https://{}/token", listener.local_addr()?),
            tokens: Mutex::default(),
        });
        let server = Server::on(listener, google.clone(), tls)?;
        Ok(Self { google, server })
    }

    /// Returns the URL of the service.
    pub fn url(&self) -> String {
        format!("https://{}", self.server.address)
    }

    /// Ends all access tokens that were given out: a push with one is refused with status 401.
    pub fn end_access(&self) {
        self.google.tokens().clear();
    }

    /// Returns the file that Google gives to whoever may send: the name and the key of a service account.
    pub(super) fn service_account(&self) -> Value {
        json!({
            "type": "service_account",
            "project_id": PROJECT,
            "private_key_id": "development",
            "private_key": TEST_KEY,
            "client_email": ACCOUNT,
            "token_uri": self.google.token_uri,
        })
    }

    pub(super) fn record(&self) -> &Arc<Record> {
        &self.google.record
    }
}

impl Deref for Fcm {
    type Target = Record;

    fn deref(&self) -> &Record {
        &self.google.record
    }
}

impl Service for Google {
    fn handle(&self, request: &Parts, body: &Bytes) -> Reply {
        if request.uri.path() == "/token" {
            return self.give_access(request, body);
        }
        let whole: Value = serde_json::from_slice(body).unwrap_or_default();
        let message = whole.get("message").cloned().unwrap_or_default();
        let token = message.get("token").and_then(Value::as_str).unwrap_or_default();
        let mut push = Received {
            payload: message.clone(),
            ..self.record.coming(token, &request.headers)
        };
        match self.judge(request, &whole) {
            Ok(()) => {
                let name = format!("projects/{PROJECT}/messages/{:016x}", rand::random::<u64>());
                let took = || answer(200, &json!({ "name": name }));
                carry_out(&self.record, push, took, refusal)
            }
            Err(refused) => {
                push.status = refused.status;
                push.reason = format!("{}: {}", refused.code, refused.why);
                self.record.add(push);
                refused.reply()
            }
        }
    }

    fn record(&self) -> &Record {
        &self.record
    }
}

/// The reason why a message is refused.
struct Refused {
    status: u16,
    /// An error code of FCM; empty if FCM itself has not seen the message.
    code: &'static str,
    why: String,
}

impl Refused {
    fn reply(&self) -> Reply {
        answer(self.status, &error(self.status, self.code, &self.why))
    }
}

/// Returns the error of a message that is not as the reference says.
fn malformed(why: impl Into<String>) -> Refused {
    Refused {
        status: 400,
        code: "INVALID_ARGUMENT",
        why: why.into(),
    }
}

impl Google {
    fn tokens(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, i64>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives out an access token for an assertion that the service account has signed.
    fn give_access(&self, request: &Parts, body: &[u8]) -> Reply {
        match self.assertion(request, body) {
            Ok(()) => {
                let token = format!("ya29.{:032x}", rand::random::<u128>());
                let mut tokens = self.tokens();
                if tokens.len() == TOKENS {
                    tokens.clear();
                }
                tokens.insert(token.clone(), now_s() + TOKEN_LIVES_S);
                let given =
                    json!({ "access_token": token, "expires_in": TOKEN_LIVES_S - 1, "token_type": "Bearer" });
                answer(200, &given)
            }
            Err(why) => answer(
                400,
                &json!({ "error": "invalid_grant", "error_description": why }),
            ),
        }
    }

    /// Checks a request for an access token.
    fn assertion(&self, request: &Parts, body: &[u8]) -> Result<(), &'static str> {
        if request.method != Method::POST {
            return Err("not a POST");
        }
        if !text(&request.headers, "content-type").starts_with("application/x-www-form-urlencoded") {
            return Err("not a form");
        }
        let form = form(body);
        let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
        if field("grant_type") != GRANT {
            return Err("an unknown grant_type");
        }
        let claims = self
            .assertions
            .claims(field("assertion"))
            .ok_or("Invalid JWT Signature.")?;
        if claims.text("iss") != Some(ACCOUNT) {
            return Err("not the service account");
        }
        if claims.text("aud") != Some(self.token_uri.as_str()) {
            return Err("another audience");
        }
        let scope = claims.text("scope").unwrap_or_default();
        if !scope.split(' ').any(|scope| scope == SCOPE) {
            return Err("another scope");
        }
        let (issued, ends) = (
            claims.time("iat").unwrap_or_default(),
            claims.time("exp").unwrap_or_default(),
        );
        match claims.age() {
            Some(_) if ends > now_s() && ends - issued <= TOKEN_LIVES_S => Ok(()),
            _ => Err("the token must be short-lived and in a reasonable timeframe"),
        }
    }

    /// Checks a message.
    fn judge(&self, request: &Parts, whole: &Value) -> Result<(), Refused> {
        let path = format!("/v1/projects/{PROJECT}/messages:send");
        if request.method != Method::POST || request.uri.path() != path {
            return Err(Refused {
                status: 404,
                code: "",
                why: "no such method".to_owned(),
            });
        }
        self.authorized(&request.headers)?;
        let whole = known_fields(Some(whole), "the request", &["message", "validate_only"])?;
        let message = known_fields(whole.get("message"), "message", &MESSAGE_FIELDS)?;
        match message.get("token").and_then(Value::as_str) {
            Some(token) if !token.is_empty() => {}
            _ => {
                return Err(malformed(
                    "The registration token is not a valid FCM registration token",
                ));
            }
        }
        if let Some(data) = message.get("data") {
            data_in_order(data)?;
        }
        match message.get("android") {
            Some(android) => android_in_order(android),
            None => Ok(()),
        }
    }

    /// Checks the access token.
    fn authorized(&self, headers: &HeaderMap) -> Result<(), Refused> {
        let token = text(headers, "authorization")
            .strip_prefix("Bearer ")
            .unwrap_or_default();
        match self.tokens().get(token) {
            Some(ends) if *ends > now_s() => Ok(()),
            _ => Err(Refused {
                status: 401,
                code: "",
                why: "Request had invalid authentication credentials.".to_owned(),
            }),
        }
    }
}

/// Returns the fields of an object that has none but these.
fn known_fields<'a>(
    object: Option<&'a Value>,
    name: &str,
    known: &[&str],
) -> Result<&'a Map<String, Value>, Refused> {
    let fields = object.and_then(Value::as_object);
    let fields = fields.ok_or_else(|| malformed(format!("{name} is no object")))?;
    match fields.keys().find(|field| !known.contains(&field.as_str())) {
        Some(field) => Err(malformed(format!("Unknown name \"{field}\" at '{name}'"))),
        None => Ok(fields),
    }
}

/// Checks `data`: texts, with names that are not reserved.
fn data_in_order(data: &Value) -> Result<(), Refused> {
    let data = data.as_object().ok_or_else(|| malformed("data is no object"))?;
    let mut bytes = 0;
    for (name, value) in data {
        let value = value
            .as_str()
            .ok_or_else(|| malformed(format!("data.{name} is no text")))?;
        bytes += name.len() + value.len();
        let reserved = ["from", "message_type", "notification"].contains(&name.as_str());
        if reserved || name.starts_with("google") || name.starts_with("gcm") {
            return Err(malformed(format!("Invalid data payload key: {name}")));
        }
    }
    if bytes > DATA_BYTES {
        return Err(malformed("Android message is too big"));
    }
    Ok(())
}

/// Checks `android`.
fn android_in_order(android: &Value) -> Result<(), Refused> {
    let android = known_fields(Some(android), "message.android", &ANDROID_FIELDS)?;
    if let Some(priority) = android.get("priority")
        && priority != "HIGH"
        && priority != "NORMAL"
    {
        return Err(malformed(format!(
            "Invalid value at 'message.android.priority': {priority}"
        )));
    }
    if let Some(ttl) = android.get("ttl") {
        let seconds = ttl
            .as_str()
            .and_then(|ttl| ttl.strip_suffix('s')?.parse::<f64>().ok());
        if !seconds.is_some_and(|seconds| (0.0..=LONGEST_TTL_S).contains(&seconds)) {
            return Err(malformed(format!(
                "Invalid value at 'message.android.ttl': {ttl}"
            )));
        }
    }
    let package = android.get("restricted_package_name");
    if package.is_some_and(|package| package != APP) {
        return Err(malformed("The registration token is of another package"));
    }
    match android.get("collapse_key").is_none_or(Value::is_string) {
        true => Ok(()),
        false => Err(malformed("message.android.collapse_key is no text")),
    }
}

/// Makes the answer with a status and an error code of FCM that a test has set.
fn refusal(status: u16, code: &str, _since: Option<i64>) -> Reply {
    answer(status, &error(status, code, "as the test says"))
}

/// Returns Google's error. `code` is FCM's own, and empty if there is none.
fn error(status: u16, code: &str, why: &str) -> Value {
    let canonical = match status {
        400 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        429 => "RESOURCE_EXHAUSTED",
        503 => "UNAVAILABLE",
        _ => "INTERNAL",
    };
    let mut error = json!({ "code": status, "message": why, "status": canonical });
    if !code.is_empty() {
        error["details"] = json!([{
            "@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError",
            "errorCode": code,
        }]);
    }
    json!({ "error": error })
}

fn answer(status: u16, body: &Value) -> Reply {
    Reply::new(status, body.to_string()).header("content-type", "application/json; charset=UTF-8".to_owned())
}

/// Reads a form (`application/x-www-form-urlencoded`).
fn form(body: &[u8]) -> BTreeMap<String, String> {
    let body = String::from_utf8_lossy(body);
    let pairs = body.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect()
}

/// Decodes a name or a value of a form.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        let byte = match (first, after) {
            (b'+', _) => b' ',
            (b'%', [high, low, after @ ..]) => {
                rest = after;
                let digits = [*high, *low];
                let hex = std::str::from_utf8(&digits).ok();
                hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())
                    .unwrap_or(b'%')
            }
            (other, _) => *other,
        };
        bytes.push(byte);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_decoded() {
        let form = form(b"grant_type=urn%3aietf%3Aparams&assertion=a.b-_c&empty=&space=a+b%20c&broken=%zz%4");
        let expected = [
            ("grant_type", "urn:ietf:params"),
            ("assertion", "a.b-_c"),
            ("empty", ""),
            ("space", "a b c"),
            ("broken", "%%4"),
        ];
        for (name, value) in expected {
            assert_eq!(form[name], value, "{name}");
        }
    }

    #[test]
    fn a_message_has_no_other_fields_and_texts_as_data() {
        let cases = [
            (
                json!({ "tag": "t", "badge": "1" }),
                json!({ "priority": "HIGH", "ttl": "259200s" }),
                true,
            ),
            (json!({ "badge": 1 }), json!({}), false),
            (json!({ "from": "x" }), json!({}), false),
            (json!({ "a": "x".repeat(DATA_BYTES) }), json!({}), false),
            (json!({}), json!({ "priority": "high" }), false),
            (json!({}), json!({ "ttl": "1" }), false),
            (json!({}), json!({ "ttl": "2419201s" }), false),
            (json!({}), json!({ "color": "red" }), false),
            (json!({}), json!({ "collapse_key": 1 }), false),
        ];
        for (data, android, fine) in cases {
            let judged = data_in_order(&data).and_then(|()| android_in_order(&android));
            assert_eq!(judged.is_ok(), fine, "{data} {android}");
        }
    }
}
