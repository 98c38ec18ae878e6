//! Verifies the tokens (JWT, RFC 7519) by which a push node says who it is.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::Value;
use tern_types::Clock;

/// The number of verified tokens that are remembered: a push node uses one for an hour. When there are more, all are
/// forgotten, and are verified again.
const REMEMBERED: usize = 64;
/// The number of seconds by which the clock of whoever signed a token may be ahead.
const AHEAD_S: i64 = 60;

/// Verifies the tokens that one key has signed.
#[derive(Debug)]
pub(super) struct Verifier {
    key: DecodingKey,
    algorithm: Algorithm,
    /// The verified tokens. A verification takes longer than everything else that a service does.
    verified: Mutex<HashMap<String, Claims>>,
}

/// The contents of a verified token.
#[derive(Debug, Clone)]
pub(super) struct Claims {
    /// The id of the key that signed it.
    pub key_id: Option<String>,
    /// All claims.
    pub all: Value,
}

impl Claims {
    /// Returns a claim that is a text.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.all.get(name)?.as_str()
    }

    /// Returns a claim that is a time, in seconds since 1970.
    pub(super) fn time(&self, name: &str) -> Option<i64> {
        self.all.get(name)?.as_i64()
    }

    /// Returns the seconds since the time at which the token says that it was issued; `None` if it says none, or one in
    /// the future.
    pub(super) fn age(&self) -> Option<i64> {
        let age = now_s() - self.time("iat")?;
        (age >= -AHEAD_S).then_some(age)
    }
}

impl Verifier {
    pub(super) fn new(key: DecodingKey, algorithm: Algorithm) -> Self {
        Self {
            key,
            algorithm,
            verified: Mutex::default(),
        }
    }

    /// Returns what a token says, or `None` if the key has not signed it.
    pub(super) fn claims(&self, token: &str) -> Option<Claims> {
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(claims) = verified.get(token) {
            return Some(claims.clone());
        }
        // Each service has rules of its own for the claims.
        let mut validation = Validation::new(self.algorithm);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        let read = jsonwebtoken::decode::<Value>(token, &self.key, &validation).ok()?;
        let claims = Claims {
            key_id: read.header.kid,
            all: read.claims,
        };
        if verified.len() == REMEMBERED {
            verified.clear();
        }
        verified.insert(token.to_owned(), claims.clone());
        Some(claims)
    }
}

/// Returns the seconds since 1970.
pub(super) fn now_s() -> i64 {
    Clock::wall().0 / 1000
}
