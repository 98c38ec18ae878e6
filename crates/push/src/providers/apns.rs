//! Apple's push service: HTTP/2 requests with a provider token, as Apple's "Sending notification requests to APNs" and
//! "Handling notification responses from APNs" say.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use reqwest::Client;
use serde::Deserialize;
use serde_json::{Value, json};
use tern_proto::v1::PushClass;
use tern_types::{Clock, Timestamp};
use uuid::Uuid;

use super::http::{self, Answer};
use super::{Parcel, no_key, refused};
use crate::apps::ApnsApp;
use crate::jwt::EcKey;
use crate::provider::{Delivery, TOO_MANY};

/// The time for which a provider token is used. Apple accepts one for an hour.
const TOKEN_KEPT: Duration = Duration::from_secs(50 * 60);
/// The youngest age at which a token that Apple refuses is replaced. Apple refuses a server that makes new ones more
/// often. If it refuses a younger one, the key is wrong.
const TOKEN_MIN_AGE: Duration = Duration::from_secs(20 * 60);
/// The most bytes of a payload.
const MAX_PAYLOAD: usize = 4096;
/// The most bytes of the payload of a call.
const MAX_CALL_PAYLOAD: usize = 5120;

/// Apple's push service, for the apps whose keys this server has.
pub(crate) struct Apns {
    client: Client,
    apps: HashMap<String, App>,
}

struct App {
    settings: ApnsApp,
    /// The token is shared by the apps of one key, because Apple counts new ones by key.
    token: Arc<ProviderToken>,
}

/// The token by which this server proves that it may push for the apps of a team.
struct ProviderToken {
    key: EcKey,
    key_id: String,
    team_id: String,
    signed: Mutex<Option<Signed>>,
}

#[derive(Clone)]
struct Signed {
    /// The value of the header `authorization`.
    bearer: Arc<str>,
    /// The time at which it was signed, by the monotonic clock.
    at: Timestamp,
}

/// One request without its token.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Prepared {
    url: String,
    push_type: &'static str,
    topic: String,
    priority: &'static str,
    /// The time until which Apple keeps trying, in seconds since 1970. With 0 it tries once.
    expiration: i64,
    /// The identifier under which Apple and the device keep the newest alert only.
    collapse_id: Option<String>,
    payload: Bytes,
}

/// The meaning of an answer.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    delivery: Delivery,
    /// True if a new provider token may help.
    renew: bool,
}

/// The body of an answer that is not 200.
#[derive(Debug, Default, Deserialize)]
struct Reason {
    #[serde(default)]
    reason: String,
    /// The time since which the token is not valid, in milliseconds since 1970.
    timestamp: Option<i64>,
}

impl Apns {
    pub(crate) fn new(apps: &[ApnsApp], client: Client) -> Self {
        let mut tokens: HashMap<(&str, &str), Arc<ProviderToken>> = HashMap::new();
        let apps = apps.iter().map(|app| {
            let token = tokens
                .entry((app.team_id.as_str(), app.key_id.as_str()))
                .or_insert_with(|| {
                    Arc::new(ProviderToken {
                        key: app.key.clone(),
                        key_id: app.key_id.clone(),
                        team_id: app.team_id.clone(),
                        signed: Mutex::default(),
                    })
                });
            let (settings, token) = (app.clone(), token.clone());
            (app.bundle_id.clone(), App { settings, token })
        });
        let apps = apps.collect();
        Self { client, apps }
    }

    /// Returns whether there is a key for the app.
    pub(crate) fn serves(&self, app: &str) -> bool {
        self.apps.contains_key(app)
    }

    /// Sends a push, and once more with a new provider token if Apple refuses an old one.
    pub(crate) async fn send(&self, parcel: &Parcel) -> Delivery {
        let Some(app) = self.apps.get(&parcel.token.app) else {
            return no_key(&parcel.token);
        };
        let prepared = match prepare(&app.settings, parcel, Clock::wall()) {
            Ok(prepared) => prepared,
            Err(delivery) => return delivery,
        };
        let signed = match app.token.current(Clock::monotonic(), Clock::wall()) {
            Ok(signed) => signed,
            Err(error) => return refused("provider_token", &format!("{error:#}")),
        };
        let verdict = self.ask(&prepared, &signed, parcel.class).await;
        if !verdict.renew {
            return verdict.delivery;
        }
        let renewed = app.token.renewed(&signed, Clock::monotonic(), Clock::wall());
        match renewed {
            Some(renewed) => self.ask(&prepared, &renewed, parcel.class).await.delivery,
            None => verdict.delivery,
        }
    }

    async fn ask(&self, prepared: &Prepared, signed: &Signed, class: PushClass) -> Verdict {
        let mut request = self
            .client
            .post(&prepared.url)
            .header("authorization", &*signed.bearer)
            .header("apns-id", Uuid::new_v4().to_string())
            .header("apns-push-type", prepared.push_type)
            .header("apns-topic", &prepared.topic)
            .header("apns-priority", prepared.priority)
            .header("apns-expiration", prepared.expiration)
            .body(prepared.payload.clone());
        if let Some(id) = &prepared.collapse_id {
            request = request.header("apns-collapse-id", id);
        }
        match http::ask(request).await {
            Ok(answer) => judge(&answer, class),
            Err(delivery) => Verdict {
                delivery,
                renew: false,
            },
        }
    }
}

impl ProviderToken {
    /// Returns the token in use, or a new one if that is too old.
    fn current(&self, now: Timestamp, wall: Timestamp) -> anyhow::Result<Signed> {
        let mut signed = self.signed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(signed) = &*signed
            && now.since(signed.at) < TOKEN_KEPT
        {
            return Ok(signed.clone());
        }
        Ok(signed.insert(self.sign(now, wall)?).clone())
    }

    /// Returns another token than the one that Apple refused, and `None` if that one is too young to be replaced.
    fn renewed(&self, refused: &Signed, now: Timestamp, wall: Timestamp) -> Option<Signed> {
        let mut signed = self.signed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(signed) = &*signed
            && signed.bearer != refused.bearer
        {
            return Some(signed.clone());
        }
        if now.since(refused.at) < TOKEN_MIN_AGE {
            return None;
        }
        Some(signed.insert(self.sign(now, wall).ok()?).clone())
    }

    fn sign(&self, now: Timestamp, wall: Timestamp) -> anyhow::Result<Signed> {
        let claims = json!({"iss": self.team_id, "iat": wall.0.div_euclid(1000)});
        let token = self.key.sign(Some(&self.key_id), &claims)?;
        Ok(Signed {
            bearer: format!("bearer {token}").into(),
            at: now,
        })
    }
}

/// Makes the request of a push. Returns `Err` with what becomes of the push if it cannot be sent.
fn prepare(app: &ApnsApp, parcel: &Parcel, wall: Timestamp) -> Result<Prepared, Delivery> {
    let token = &parcel.token;
    let (push_type, priority, most, device) = match parcel.class {
        PushClass::Alert => ("alert", "10", MAX_PAYLOAD, Some(&token.token)),
        PushClass::Badge => ("alert", "5", MAX_PAYLOAD, Some(&token.token)),
        PushClass::Withdraw | PushClass::Silent => ("background", "5", MAX_PAYLOAD, Some(&token.token)),
        PushClass::Call => ("voip", "10", MAX_CALL_PAYLOAD, token.second_key.as_ref()),
        PushClass::Unspecified => return Err(refused("class", "the push has no class")),
    };
    let Some(device) = device else {
        return Err(refused("voip_token", "the device has no token for calls"));
    };
    let (topic, expiration) = match parcel.class {
        PushClass::Call => (format!("{}.voip", app.bundle_id), 0),
        PushClass::Alert
        | PushClass::Badge
        | PushClass::Withdraw
        | PushClass::Silent
        | PushClass::Unspecified => (app.bundle_id.clone(), expiration(parcel.lifetime, wall)),
    };
    let payload = payload(&app.text, parcel).to_string();
    if payload.len() > most {
        let detail = format!("the payload has {} bytes", payload.len());
        return Err(refused("payload_too_large", &detail));
    }
    let url = if token.sandbox { &app.sandbox_url } else { &app.url };
    Ok(Prepared {
        url: format!("{url}/3/device/{}", hex::encode(device)),
        push_type,
        topic,
        priority,
        expiration,
        collapse_id: (parcel.class == PushClass::Alert).then(|| parcel.tag.0.clone()),
        payload: payload.into(),
    })
}

fn expiration(lifetime: Duration, wall: Timestamp) -> i64 {
    if lifetime.is_zero() {
        return 0;
    }
    (wall + lifetime).0.div_euclid(1000)
}

fn payload(text: &str, parcel: &Parcel) -> Value {
    let (tag, badge) = (&parcel.tag.0, parcel.badge);
    let mut payload = match parcel.class {
        PushClass::Alert => json!({
            "aps": {
                "alert": {"body": parcel.text.as_deref().unwrap_or(text)},
                "sound": "default",
                "badge": badge,
                "mutable-content": 1,
                "interruption-level": "active",
                "thread-id": tag,
            },
            "tern": {"tag": tag},
        }),
        PushClass::Badge => json!({"aps": {"badge": badge}, "tern": {"tag": tag}}),
        PushClass::Withdraw => json!({
            "aps": {"content-available": 1},
            "tern": {"tag": tag, "badge": badge, "withdraw": true},
        }),
        PushClass::Silent | PushClass::Unspecified => json!({
            "aps": {"content-available": 1},
            "tern": {"tag": tag, "badge": badge},
        }),
        PushClass::Call => json!({"aps": {}, "tern": {"tag": tag, "badge": badge}}),
    };
    if let Some(sealed) = &parcel.sealed
        && matches!(parcel.class, PushClass::Alert | PushClass::Call)
    {
        payload["tern"]["sealed"] = STANDARD.encode(sealed).into();
    }
    payload
}

/// Understands an answer.
fn judge(answer: &Answer, class: PushClass) -> Verdict {
    let Reason { reason, timestamp } = serde_json::from_slice(&answer.body).unwrap_or_default();
    let detail = answer.detail((!reason.is_empty()).then_some(reason.as_str()));
    let refused = |reason| Delivery::Refused {
        reason,
        detail: detail.clone(),
    };
    let delivery = match (answer.status, reason.as_str()) {
        (200, _) => Delivery::Sent,
        // Only the token for calls is refused, which says nothing about the device's other token.
        (400, "BadDeviceToken" | "DeviceTokenNotForTopic") | (410, _) if class == PushClass::Call => {
            refused("voip_token")
        }
        (400, "BadDeviceToken") => Delivery::TokenEnded {
            since: None,
            reason: detail,
        },
        // The token is another app's, or the key's topic is: a mistake in the file must not end all tokens.
        (400, "DeviceTokenNotForTopic") => refused("mismatch"),
        (410, _) => Delivery::TokenEnded {
            since: timestamp.map(Timestamp),
            reason: detail,
        },
        // The operator can mend it, and then what waits is still wanted.
        (403, _) => answer.later("provider_token", detail),
        (413, _) => refused("payload_too_large"),
        (429, _) => answer.later(TOO_MANY, detail),
        (400, "IdleTimeout") => answer.later("broken", detail),
        (400..=499, _) => refused("request"),
        (500..=599, _) => answer.later("unavailable", detail),
        _ => answer.later("unexpected", detail),
    };
    let renew = answer.status == 403
        && matches!(
            reason.as_str(),
            "ExpiredProviderToken" | "InvalidProviderToken" | "MissingProviderToken"
        );
    Verdict { delivery, renew }
}

#[cfg(test)]
mod tests;
