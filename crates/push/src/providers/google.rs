//! Gets access tokens of a Google service account (OAuth 2.0, RFC 7523): a signed JWT is exchanged for a token that is
//! valid for about an hour.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Client;
use serde::Deserialize;
use serde_json::{Value, json};
use tern_types::{Clock, Timestamp};
use tokio::sync::Mutex;

use super::http::{self, Answer};
use super::refused;
use crate::apps::ServiceAccount;
use crate::jwt;
use crate::provider::Delivery;

/// The scope that is asked for: sending messages.
const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";
/// The kind of exchange: a signed JWT proves who asks.
const GRANT: &str = "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer";
/// The time for which the signed JWT is valid: the longest that Google accepts.
const ASSERTION_LIFETIME: Duration = Duration::from_secs(3600);
/// The time before its end at which a token is not used any more.
const RENEWED_BEFORE: Duration = Duration::from_secs(5 * 60);
/// The shortest time for which a token is used, also if it ends sooner.
const SHORTEST_USE: Duration = Duration::from_secs(30);
/// The youngest age at which a token that FCM refuses is replaced. A younger one would be refused again, and each push
/// would ask Google for another.
const MIN_AGE: Duration = Duration::from_secs(60);
/// The time for which a failure is the answer to all pushes, so that they do not ask Google one after the other.
const FAILURE_KEPT: Duration = Duration::from_secs(1);

/// The access token of a service account. One request for a new one is under way at a time.
pub(crate) struct AccessToken {
    client: Client,
    account: ServiceAccount,
    known: Mutex<Option<Known>>,
}

/// The result of the last exchange. The times are of the monotonic clock.
struct Known {
    token: Result<Arc<str>, Delivery>,
    /// The time of the exchange.
    at: Timestamp,
    /// The time until which the result is used.
    until: Timestamp,
}

impl Known {
    /// Returns the result for a push, or `None` if a new token is to be asked for. `not` is a token that FCM refused.
    fn answer(&self, not: Option<&str>, now: Timestamp) -> Option<Result<Arc<str>, Delivery>> {
        if now >= self.until {
            return None;
        }
        let is_refused = self.token.as_ref().is_ok_and(|token| Some(&**token) == not);
        if !is_refused {
            return Some(self.token.clone());
        }
        if now.since(self.at) < MIN_AGE {
            return Some(Err(Delivery::Later {
                after: None,
                reason: "provider_token",
                detail: "FCM refuses an access token that is new".to_owned(),
            }));
        }
        None
    }
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    expires_in: u64,
}

impl AccessToken {
    pub(crate) fn new(client: Client, account: ServiceAccount) -> Self {
        Self {
            client,
            account,
            known: Mutex::default(),
        }
    }

    /// Returns a token. It is not the token `not`, which FCM refused. Returns `Err` with what becomes of the push if
    /// Google gives none.
    pub(crate) async fn get(&self, not: Option<&str>) -> Result<Arc<str>, Delivery> {
        let mut known = self.known.lock().await;
        let answer = known
            .as_ref()
            .and_then(|known| known.answer(not, Clock::monotonic()));
        if let Some(answer) = answer {
            return answer;
        }
        let exchanged = self.exchange().await;
        let kept = match &exchanged {
            Ok((_, lifetime)) => lifetime.saturating_sub(RENEWED_BEFORE).max(SHORTEST_USE),
            Err(_) => FAILURE_KEPT,
        };
        let (token, now) = (exchanged.map(|(token, _)| token), Clock::monotonic());
        *known = Some(Known {
            token: token.clone(),
            at: now,
            until: now + kept,
        });
        token
    }

    async fn exchange(&self) -> Result<(Arc<str>, Duration), Delivery> {
        let claims = claims(&self.account, Clock::wall());
        let signed = jwt::sign_rsa(&self.account.key, self.account.key_id.as_deref(), &claims)
            .map_err(|error| refused("provider_token", &format!("{error:#}")))?;
        let request = self
            .client
            .post(&self.account.token_url)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(format!("grant_type={GRANT}&assertion={signed}"));
        understand(&http::ask(request).await?)
    }
}

fn claims(account: &ServiceAccount, wall: Timestamp) -> Value {
    json!({
        "iss": account.email,
        "scope": SCOPE,
        "aud": account.token_url,
        "iat": wall.0.div_euclid(1000),
        "exp": (wall + ASSERTION_LIFETIME).0.div_euclid(1000),
    })
}

fn understand(answer: &Answer) -> Result<(Arc<str>, Duration), Delivery> {
    if answer.is_success() {
        // The error does not have the body, because a token may be in it.
        let granted: Granted = serde_json::from_slice(&answer.body)
            .map_err(|_| answer.later("unexpected", "Google gave no access token".to_owned()))?;
        return Ok((
            granted.access_token.into(),
            Duration::from_secs(granted.expires_in),
        ));
    }
    let detail = format!("access token: {}", answer.detail(None));
    match answer.status {
        429 | 500..=599 => Err(answer.later("access_token", detail)),
        // The operator can mend it: the key is revoked, or the clock is wrong.
        400..=499 => Err(answer.later("provider_token", detail)),
        _ => Err(answer.later("unexpected", detail)),
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{Algorithm, EncodingKey, Header};

    use super::*;
    use crate::providers::tests::{ACCOUNT, RSA_PEM};

    fn answer(status: u16, body: &str) -> Answer {
        Answer {
            status,
            body: body.as_bytes().to_vec(),
            ..Answer::default()
        }
    }

    fn account() -> ServiceAccount {
        ServiceAccount {
            project_id: "ferry".into(),
            email: ACCOUNT.into(),
            key_id: Some("kid".into()),
            key: EncodingKey::from_rsa_pem(RSA_PEM.as_bytes()).unwrap(),
            token_url: "https://oauth2.googleapis.com/token".into(),
        }
    }

    #[test]
    fn the_assertion_says_who_asks_for_what() {
        let claims = claims(&account(), Timestamp(1_700_000_000_999));
        let expected = json!({
            "iss": ACCOUNT,
            "scope": "https://www.googleapis.com/auth/firebase.messaging",
            "aud": "https://oauth2.googleapis.com/token",
            "iat": 1_700_000_000,
            "exp": 1_700_003_600,
        });
        assert_eq!(claims, expected);
        let account = account();
        let signed = jwt::sign_rsa(&account.key, account.key_id.as_deref(), &claims).unwrap();
        let header = jsonwebtoken::decode_header(&signed).unwrap();
        let expected = Header {
            kid: Some("kid".into()),
            ..Header::new(Algorithm::RS256)
        };
        assert_eq!(header, expected);
        assert!(
            signed
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)),
            "it needs no escapes in a form"
        );
    }

    #[test]
    fn a_token_is_kept_and_one_that_is_refused_is_replaced_if_it_is_not_new() {
        let known = Known {
            token: Ok("a".into()),
            at: Timestamp(0),
            until: Timestamp(100_000),
        };
        let at = |not, now| known.answer(not, Timestamp(now));
        assert_eq!(at(None, 99_999), Some(Ok("a".into())));
        assert_eq!(at(Some("b"), 99_999), Some(Ok("a".into())), "replaced already");
        assert_eq!(at(None, 100_000), None);
        assert_eq!(at(Some("a"), 60_000), None);
        let new = at(Some("a"), 59_999);
        let reason = match new {
            Some(Err(Delivery::Later { reason, .. })) => reason,
            _ => panic!("{new:?}"),
        };
        assert_eq!(reason, "provider_token");
        let failed = Known {
            token: Err(refused("x", "y")),
            ..known
        };
        assert_eq!(failed.answer(None, Timestamp(1)), Some(Err(refused("x", "y"))));
    }

    #[test]
    fn an_answer_is_a_token_or_says_what_becomes_of_the_push() {
        let granted = understand(&answer(
            200,
            r#"{"access_token":"a","expires_in":3599,"token_type":"Bearer"}"#,
        ));
        assert_eq!(granted, Ok(("a".into(), Duration::from_secs(3599))));
        for (status, body, expected) in [
            (400, r#"{"error":"invalid_grant"}"#, "provider_token"),
            (401, "", "provider_token"),
            (429, "", "access_token"),
            (500, "", "access_token"),
            (503, "", "access_token"),
            (302, "", "unexpected"),
            (200, "{}", "unexpected"),
        ] {
            let delivery = understand(&answer(status, body)).unwrap_err();
            let later = matches!(&delivery, Delivery::Later { reason, .. } if *reason == expected);
            assert!(later, "{status}: {delivery:?}");
        }
    }
}
