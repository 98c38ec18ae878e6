//! Firebase Cloud Messaging: HTTP v1 requests with an access token, as Google's "FCM error codes" and "Send messages
//! with the FCM HTTP v1 API" say. A push is a data message, because only the app can open what is sealed.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use reqwest::Client;
use serde::Deserialize;
use serde_json::{Value, json};
use tern_proto::v1::PushClass;

use super::google::AccessToken;
use super::http::{self, Answer};
use super::{Parcel, no_key, refused};
use crate::apps::FcmApp;
use crate::provider::{Delivery, TOO_MANY};

/// The key of alerts that say only that something waits. Google keeps the newest push of a key, which is enough,
/// because the app then fetches everything. A sealed alert has no key, because it is about its chat alone.
const COLLAPSE: &str = "tern";
/// The key of pushes that show nothing. With [`COLLAPSE`], one of them would take the place of an alert.
const COLLAPSE_QUIET: &str = "tern-quiet";
/// The wait that Google wants after an answer that too much is sent, if the answer says none.
const QUOTA_WAIT: Duration = Duration::from_secs(60);
/// The most bytes of the data of a message.
const MAX_DATA: usize = 4096;

/// Firebase Cloud Messaging, for the apps whose service accounts this server has.
pub(crate) struct Fcm {
    client: Client,
    apps: HashMap<String, App>,
}

struct App {
    url: String,
    access: AccessToken,
}

/// The meaning of an answer.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    delivery: Delivery,
    /// True if a new access token may help.
    renew: bool,
}

/// The body of an answer that is no success: google.rpc.Status in JSON.
#[derive(Debug, Default, Deserialize)]
struct Failure {
    #[serde(default)]
    error: Status,
}

#[derive(Debug, Default, Deserialize)]
struct Status {
    #[serde(default)]
    status: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    details: Vec<Detail>,
}

/// A detail of an error. Each kind of detail has some of the fields.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Detail {
    error_code: Option<String>,
    #[serde(default)]
    field_violations: Vec<Violation>,
}

#[derive(Debug, Default, Deserialize)]
struct Violation {
    #[serde(default)]
    field: String,
}

impl Fcm {
    pub(crate) fn new(apps: &[FcmApp], client: Client) -> Self {
        let apps = apps.iter().map(|app| {
            let url = format!("{}/v1/projects/{}/messages:send", app.url, app.account.project_id);
            let access = AccessToken::new(client.clone(), app.account.clone());
            (app.app.clone(), App { url, access })
        });
        let apps = apps.collect();
        Self { client, apps }
    }

    /// Returns whether there is a service account for the app.
    pub(crate) fn serves(&self, app: &str) -> bool {
        self.apps.contains_key(app)
    }

    /// Sends a push, and once more with a new access token if FCM refuses the one in use.
    pub(crate) async fn send(&self, parcel: &Parcel) -> Delivery {
        let Some(app) = self.apps.get(&parcel.token.app) else {
            return no_key(&parcel.token);
        };
        let sent = self.send_for(app, parcel).await;
        sent.unwrap_or_else(|delivery| delivery)
    }

    /// Sends a push. Returns `Err` with what became of it if FCM gave no answer.
    async fn send_for(&self, app: &App, parcel: &Parcel) -> Result<Delivery, Delivery> {
        let body = body(parcel)?;
        let token = app.access.get(None).await?;
        let verdict = self.ask(&app.url, &token, body.clone()).await?;
        if !verdict.renew {
            return Ok(verdict.delivery);
        }
        let token = app.access.get(Some(&token)).await?;
        Ok(self.ask(&app.url, &token, body).await?.delivery)
    }

    async fn ask(&self, url: &str, token: &str, body: Bytes) -> Result<Verdict, Delivery> {
        let request = self
            .client
            .post(url)
            .bearer_auth(token)
            .header("content-type", "application/json")
            .body(body);
        Ok(judge(&http::ask(request).await?))
    }
}

/// Makes the body of the request. Returns `Err` with what becomes of the push if it cannot be sent.
fn body(parcel: &Parcel) -> Result<Bytes, Delivery> {
    let message = message(parcel)?;
    let data = message["message"]["data"].to_string();
    if data.len() > MAX_DATA {
        let detail = format!("the data has {} bytes", data.len());
        return Err(refused("payload_too_large", &detail));
    }
    Ok(message.to_string().into())
}

fn message(parcel: &Parcel) -> Result<Value, Delivery> {
    let Ok(token) = str::from_utf8(&parcel.token.token) else {
        return Err(refused("request", "the token is not UTF-8"));
    };
    let mut data = json!({"tag": parcel.tag.0, "badge": parcel.badge.to_string()});
    let mut android = json!({"ttl": format!("{}s", parcel.lifetime.as_secs())});
    let sealed = parcel.sealed.as_ref().map(|sealed| STANDARD.encode(sealed));
    match parcel.class {
        PushClass::Alert => {
            android["priority"] = "HIGH".into();
            match sealed {
                Some(sealed) => data["sealed"] = sealed.into(),
                None => android["collapse_key"] = COLLAPSE.into(),
            }
        }
        PushClass::Call => {
            android["priority"] = "HIGH".into();
            if let Some(sealed) = sealed {
                data["sealed"] = sealed.into();
            }
        }
        PushClass::Badge | PushClass::Silent => {
            android["priority"] = "NORMAL".into();
            android["collapse_key"] = COLLAPSE_QUIET.into();
        }
        // Each of these is about its chat alone, so none takes the place of another.
        PushClass::Withdraw => {
            android["priority"] = "NORMAL".into();
            data["withdraw"] = "true".into();
        }
        PushClass::Unspecified => return Err(refused("class", "the push has no class")),
    }
    Ok(json!({"message": {"token": token, "data": data, "android": android}}))
}

/// Understands an answer.
fn judge(answer: &Answer) -> Verdict {
    if answer.is_success() {
        return Verdict {
            delivery: Delivery::Sent,
            renew: false,
        };
    }
    let Failure { error } = serde_json::from_slice(&answer.body).unwrap_or_default();
    let code = error
        .details
        .iter()
        .find_map(|detail| detail.error_code.as_deref());
    let code = code.unwrap_or(&error.status);
    let about_token = error
        .details
        .iter()
        .flat_map(|detail| &detail.field_violations)
        .any(|violation| violation.field == "message.token");
    let words = format!("{code} {}", error.message);
    let detail = answer.detail((words != " ").then_some(words.as_str()));
    let refused = |reason| Delivery::Refused {
        reason,
        detail: detail.clone(),
    };
    let ended = || Delivery::TokenEnded {
        since: None,
        reason: detail.clone(),
    };
    let delivery = match (answer.status, code) {
        (_, "UNREGISTERED") => ended(),
        // The token is another project's: a mistake in the file must not end all tokens.
        (_, "SENDER_ID_MISMATCH") => refused("mismatch"),
        (400, _) if about_token => ended(),
        (429, _) | (_, "QUOTA_EXCEEDED") => Delivery::Later {
            after: answer.retry_after.or(Some(QUOTA_WAIT)),
            reason: TOO_MANY,
            detail: detail.clone(),
        },
        // The operator can mend it, and then what waits is still wanted.
        (_, "THIRD_PARTY_AUTH_ERROR") | (401 | 403, _) => answer.later("provider_token", detail.clone()),
        (400..=499, _) => refused("request"),
        (500..=599, _) => answer.later("unavailable", detail.clone()),
        _ => answer.later("unexpected", detail.clone()),
    };
    Verdict {
        delivery,
        renew: answer.status == 401,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::tests::parcel;

    #[test]
    fn a_push_is_a_data_message() {
        let mut push = parcel(PushClass::Alert);
        let android = |priority: &str, key: Option<&str>| {
            let mut android = json!({"priority": priority, "ttl": "259200s"});
            if let Some(key) = key {
                android["collapse_key"] = key.into();
            }
            android
        };
        let data = json!({"tag": "tag", "badge": "3"});
        let with = |name: &str, value: &str| {
            let mut data = data.clone();
            data[name] = value.into();
            data
        };
        for (class, sealed, data, android) in [
            (
                PushClass::Alert,
                true,
                with("sealed", "AQID"),
                android("HIGH", None),
            ),
            (
                PushClass::Alert,
                false,
                data.clone(),
                android("HIGH", Some("tern")),
            ),
            (
                PushClass::Call,
                true,
                with("sealed", "AQID"),
                android("HIGH", None),
            ),
            (PushClass::Call, false, data.clone(), android("HIGH", None)),
            (
                PushClass::Badge,
                false,
                data.clone(),
                android("NORMAL", Some("tern-quiet")),
            ),
            (
                PushClass::Silent,
                false,
                data.clone(),
                android("NORMAL", Some("tern-quiet")),
            ),
            (
                PushClass::Withdraw,
                false,
                with("withdraw", "true"),
                android("NORMAL", None),
            ),
        ] {
            push.class = class;
            push.sealed = sealed.then(|| vec![1, 2, 3]);
            let body = body(&push).unwrap();
            let sent: Value = serde_json::from_slice(&body).unwrap();
            let expected = json!({"message": {"token": "token", "data": data, "android": android}});
            assert_eq!(sent, expected, "{class:?}");
        }
    }

    #[test]
    fn a_push_that_is_too_large_is_refused() {
        let mut push = parcel(PushClass::Alert);
        push.sealed = Some(vec![0; MAX_DATA]);
        assert!(matches!(
            body(&push),
            Err(Delivery::Refused {
                reason: "payload_too_large",
                ..
            })
        ));
    }

    /// Returns the body of an answer with an error code of FCM.
    fn code(status: &str, code: &str) -> String {
        format!(
            r#"{{"error":{{"status":"{status}","message":"m","details":[
                {{"@type":"type.googleapis.com/google.firebase.fcm.v1.FcmError","errorCode":"{code}"}}]}}}}"#
        )
    }

    /// Returns the body of an answer that refuses a field of the request.
    fn violation(field: &str) -> String {
        format!(
            r#"{{"error":{{"status":"INVALID_ARGUMENT","details":[
                {{"@type":"type.googleapis.com/google.firebase.fcm.v1.FcmError","errorCode":"INVALID_ARGUMENT"}},
                {{"@type":"type.googleapis.com/google.rpc.BadRequest","fieldViolations":[
                    {{"field":"{field}","description":"d"}}]}}]}}}}"#
        )
    }

    #[test]
    fn an_answer_says_what_became_of_the_push() {
        for (status, body, expected, renew) in [
            (
                200,
                r#"{"name":"projects/p/messages/1"}"#.to_owned(),
                "sent",
                false,
            ),
            (404, code("NOT_FOUND", "UNREGISTERED"), "ended", false),
            (
                403,
                code("PERMISSION_DENIED", "SENDER_ID_MISMATCH"),
                "mismatch",
                false,
            ),
            (400, violation("message.token"), "ended", false),
            (400, violation("message.data"), "request", false),
            (
                400,
                code("INVALID_ARGUMENT", "INVALID_ARGUMENT"),
                "request",
                false,
            ),
            (404, String::new(), "request", false),
            (
                401,
                code("UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR"),
                "provider_token",
                true,
            ),
            (401, String::new(), "provider_token", true),
            (
                403,
                r#"{"error":{"status":"PERMISSION_DENIED"}}"#.to_owned(),
                "provider_token",
                false,
            ),
            (
                429,
                code("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"),
                "too_many",
                false,
            ),
            (503, code("UNAVAILABLE", "UNAVAILABLE"), "unavailable", false),
            (500, code("INTERNAL", "INTERNAL"), "unavailable", false),
            (302, "not JSON".to_owned(), "unexpected", false),
        ] {
            let answer = Answer {
                status,
                retry_after: Some(Duration::from_secs(9)),
                body: body.clone().into_bytes(),
            };
            let verdict = judge(&answer);
            let got = match &verdict.delivery {
                Delivery::Sent => "sent",
                Delivery::TokenEnded { since, .. } => {
                    assert_eq!(*since, None);
                    "ended"
                }
                Delivery::Later { after, reason, .. } => {
                    assert_eq!(*after, Some(Duration::from_secs(9)));
                    *reason
                }
                Delivery::Refused { reason, .. } => *reason,
            };
            assert_eq!((got, verdict.renew), (expected, renew), "{status} {body}");
        }
    }

    #[test]
    fn too_much_is_a_minute_too_early_unless_google_says_when() {
        let busy = Answer {
            status: 429,
            ..Answer::default()
        };
        let Delivery::Later { after, .. } = judge(&busy).delivery else {
            panic!("it is not for later")
        };
        assert_eq!(after, Some(QUOTA_WAIT));
    }
}
