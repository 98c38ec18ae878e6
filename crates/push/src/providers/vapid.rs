//! Identifies this server to Web Push services (VAPID, RFC 8292) by a signed JWT for each service.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use tern_types::Timestamp;

use crate::apps::WebPushApp;
use crate::jwt::EcKey;

/// The time for which a JWT is valid. The RFC allows 24 hours; half of it leaves room for clocks that are wrong.
const LIFETIME: Duration = Duration::from_secs(12 * 3600);
/// The time for which a JWT is used. To sign one takes as long as ten requests.
const KEPT: Duration = Duration::from_secs(6 * 3600);
/// The most services whose JWTs are kept. Devices choose the services, so there may be any number; browsers have five.
const MAX_KEPT: usize = 1024;

/// The key of this server, and what it has signed.
pub(crate) struct Vapid {
    key: EcKey,
    /// The public key in the form that the header has.
    public: String,
    subject: String,
    signed: Mutex<HashMap<String, Signed>>,
}

struct Signed {
    /// The value of the header `authorization`.
    header: Arc<str>,
    /// The time until which it is used, by the monotonic clock.
    until: Timestamp,
}

impl Vapid {
    pub(crate) fn new(app: &WebPushApp) -> Self {
        Self {
            key: app.key.clone(),
            public: URL_SAFE_NO_PAD.encode(app.key.public()),
            subject: app.subject.clone(),
            signed: Mutex::default(),
        }
    }

    /// Returns the public key, 65 bytes.
    pub(crate) fn key(&self) -> &[u8] {
        self.key.public()
    }

    /// Returns the header `authorization` for requests to the service at `origin`. `now` is of the monotonic clock,
    /// `wall` of the other one. Fails if nothing can be signed.
    pub(crate) fn header(&self, origin: &str, now: Timestamp, wall: Timestamp) -> anyhow::Result<Arc<str>> {
        let mut signed = self.signed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Signed { header, until }) = signed.get(origin)
            && now < *until
        {
            return Ok(header.clone());
        }
        let claims = json!({
            "aud": origin,
            "exp": (wall + LIFETIME).0.div_euclid(1000),
            "sub": self.subject,
        });
        let token = self.key.sign(None, &claims)?;
        let header: Arc<str> = format!("vapid t={token}, k={}", self.public).into();
        if signed.len() >= MAX_KEPT {
            // The others are signed again when they are needed.
            signed.clear();
        }
        let kept = Signed {
            header: header.clone(),
            until: now + KEPT,
        };
        signed.insert(origin.to_owned(), kept);
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
    use serde_json::Value;

    use super::*;
    use crate::providers::tests::web_push_app;

    const ORIGIN: &str = "https://push.example.com";

    #[test]
    fn the_header_proves_who_sends_to_this_service_alone() {
        let vapid = Vapid::new(&web_push_app());
        let now = Timestamp(5_000);
        let header = vapid.header(ORIGIN, now, Timestamp(1_700_000_000_000)).unwrap();
        let (token, key) = header
            .strip_prefix("vapid t=")
            .unwrap()
            .split_once(", k=")
            .unwrap();
        assert_eq!(URL_SAFE_NO_PAD.decode(key).unwrap(), vapid.key());
        let mut validation = Validation::new(Algorithm::ES256);
        validation.validate_exp = false;
        validation.set_audience(&[ORIGIN]);
        let key = DecodingKey::from_ec_der(vapid.key());
        let token = jsonwebtoken::decode::<Value>(token, &key, &validation).unwrap();
        let claims = json!({"aud": ORIGIN, "exp": 1_700_043_200, "sub": "mailto:ops@example.com"});
        assert_eq!(token.claims, claims);
        assert_eq!(token.header, Header::new(Algorithm::ES256));
    }

    #[test]
    fn a_header_is_kept_for_a_while_and_for_its_service() {
        let vapid = Vapid::new(&web_push_app());
        let wall = Timestamp(1_700_000_000_000);
        let at = |now: i64| {
            vapid
                .header(ORIGIN, Timestamp(now), wall + Duration::from_secs(1))
                .unwrap()
        };
        let first = vapid.header(ORIGIN, Timestamp(0), wall).unwrap();
        assert_eq!(at(6 * 3_600_000 - 1), first);
        assert_ne!(at(6 * 3_600_000), first);
        let another = vapid.header("https://example.org", Timestamp(0), wall).unwrap();
        assert_ne!(another, first);
        for number in 0..2 * MAX_KEPT {
            vapid.signed.lock().unwrap().insert(
                number.to_string(),
                Signed {
                    header: "".into(),
                    until: Timestamp(0),
                },
            );
            if vapid.signed.lock().unwrap().len() >= MAX_KEPT {
                break;
            }
        }
        vapid.header("https://example.net", Timestamp(0), wall).unwrap();
        assert_eq!(vapid.signed.lock().unwrap().len(), 1, "they are bounded");
    }
}
