//! Signs and verifies access tokens, which are short-lived JWTs (EdDSA) that a gateway verifies by itself. The header
//! names the key, so that keys can be changed while tokens of old keys are still valid: new tokens are signed with one
//! key, and all keys verify.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, KeypairBytes};
use ed25519_dalek::{SigningKey, VerifyingKey};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tern_proto::ApiError;
use tern_proto::v1::ErrorReason;
use tern_types::{DeviceId, Timestamp, UserId};

const ISSUER: &str = "tern";
const AUDIENCE: &str = "tern";
/// The longest lifetime of a token. Gateways verify tokens without asking anybody, so they have to remember for this
/// long which devices were revoked and which users were suspended.
pub const MAX_ACCESS_TOKEN_TTL: Duration = Duration::from_secs(3600);
/// The time by which the clock of the node that signs a token may be ahead of the clock of the node that verifies it.
const LEEWAY: Duration = Duration::from_secs(60);
/// The time from the signing of a token by an accounts node to the last moment at which any node accepts it.
pub const ACCEPTED_FOR: Duration = MAX_ACCESS_TOKEN_TTL.saturating_add(LEEWAY);
/// The longest token that is parsed, in bytes. Tokens of this server have about 400.
const MAX_TOKEN_BYTES: usize = 4096;
/// The number of bytes of a public key's hash that serve as the key's id.
const KEY_ID_BYTES: usize = 8;

#[derive(Serialize, Deserialize)]
struct Claims {
    sub: UserId,
    did: DeviceId,
    /// The time of signing, in seconds since the Unix epoch like all times of a JWT.
    iat: i64,
    exp: i64,
    /// The time before which the token is not valid. Tokens of this server do not set it, because they are valid from
    /// the beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nbf: Option<i64>,
    iss: String,
    aud: String,
}

impl Claims {
    /// Returns whether this server could have signed a token with these times: the token is valid no longer than
    /// allowed, and its validity has begun by `now`. The expiry is not compared with `now`.
    fn times_are_ours(&self, now: Timestamp) -> bool {
        let lives = self.exp.saturating_sub(self.iat);
        let longest = i64::try_from(MAX_ACCESS_TOKEN_TTL.as_secs()).unwrap_or(i64::MAX);
        let latest = seconds(now + LEEWAY);
        (1..=longest).contains(&lives) && self.iat <= latest && self.nbf.is_none_or(|nbf| nbf <= latest)
    }
}

/// A signer of tokens, which has one key.
pub struct Signer {
    header: Header,
    key: EncodingKey,
}

impl Signer {
    /// Makes a signer from an Ed25519 private key in PKCS#8 PEM. Returns `Err` if it is not one.
    pub fn from_pem(pem: &str) -> anyhow::Result<Self> {
        let key = private_key(pem)?;
        let der = key.to_pkcs8_der().context("the key cannot be encoded")?;
        let header = Header {
            kid: Some(key_id(&key.verifying_key())),
            ..Header::new(Algorithm::EdDSA)
        };
        Ok(Self {
            header,
            key: EncodingKey::from_ed_der(der.as_bytes()),
        })
    }

    /// Signs a token by which the device proves its identity from `now` until `now + ttl`, both rounded down
    /// to whole seconds. `ttl` must be from 1 s to [`MAX_ACCESS_TOKEN_TTL`], because a verifier rejects a
    /// token that is valid for less or more. Returns `Err` if the library cannot encode or sign it.
    pub fn sign(
        &self,
        user: UserId,
        device: DeviceId,
        now: Timestamp,
        ttl: Duration,
    ) -> anyhow::Result<String> {
        let claims = Claims {
            sub: user,
            did: device,
            iat: seconds(now),
            exp: seconds(now + ttl),
            nbf: None,
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
        };
        Ok(jsonwebtoken::encode(&self.header, &claims, &self.key)?)
    }
}

/// The contents of a valid token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccessToken {
    /// The user whose device it is.
    pub user: UserId,
    /// The device that the token identifies.
    pub device: DeviceId,
    /// The time from which on the token is no longer valid.
    pub expires_at: Timestamp,
}

/// A verifier of tokens, which has the keys of all signers.
pub struct Verifier {
    keys: HashMap<String, DecodingKey>,
    validation: Validation,
}

impl Verifier {
    /// Makes a verifier from Ed25519 keys in PEM, each private (PKCS#8) or public (SPKI). Returns `Err` if one is
    /// neither, or if there is none.
    pub fn from_pems(pems: impl IntoIterator<Item = impl AsRef<str>>) -> anyhow::Result<Self> {
        let mut keys = HashMap::new();
        for pem in pems {
            let key = public_key(pem.as_ref())?;
            keys.insert(key_id(&key), DecodingKey::from_ed_der(key.as_bytes()));
        }
        anyhow::ensure!(!keys.is_empty(), "at least one token key is needed");
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        // [`Self::verify`] checks the times itself, because it compares them with the `now` that its caller gives.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        Ok(Self { keys, validation })
    }

    /// Verifies a token. Returns `Err` with TOKEN_EXPIRED if the token was valid once, and with TOKEN_INVALID
    /// otherwise.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<AccessToken, ApiError> {
        let claims = self.claims(token).ok_or_else(invalid)?;
        if claims.sub == UserId::SYSTEM || !claims.times_are_ours(now) {
            return Err(invalid());
        }
        let expires_at = Timestamp(claims.exp.saturating_mul(1000));
        if now >= expires_at {
            return Err(ApiError::new(
                ErrorReason::TokenExpired,
                "the access token has expired",
            ));
        }
        Ok(AccessToken {
            user: claims.sub,
            device: claims.did,
            expires_at,
        })
    }

    fn claims(&self, token: &str) -> Option<Claims> {
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let header = jsonwebtoken::decode_header(token).ok()?;
        let key = self.keys.get(&header.kid?)?;
        jsonwebtoken::decode(token, key, &self.validation)
            .ok()
            .map(|token| token.claims)
    }
}

/// Generates a private Ed25519 key in PKCS#8 PEM. The PEM has version 1, without the public key, because OpenSSL 3.0
/// does not read the version that has it.
pub fn generate_pem() -> anyhow::Result<String> {
    let key = KeypairBytes {
        secret_key: rand::random(),
        public_key: None,
    };
    let pem = key
        .to_pkcs8_pem(LineEnding::LF)
        .context("the key cannot be encoded")?;
    Ok(pem.as_str().to_owned())
}

fn private_key(pem: &str) -> anyhow::Result<SigningKey> {
    SigningKey::from_pkcs8_pem(pem).context("not an Ed25519 private key in PKCS#8 PEM")
}

fn public_key(pem: &str) -> anyhow::Result<VerifyingKey> {
    if pem.contains("PRIVATE KEY") {
        return private_key(pem).map(|key| key.verifying_key());
    }
    VerifyingKey::from_public_key_pem(pem).context("not an Ed25519 public key in SPKI PEM")
}

fn key_id(key: &VerifyingKey) -> String {
    hex::encode(&Sha256::digest(key.as_bytes())[..KEY_ID_BYTES])
}

fn seconds(time: Timestamp) -> i64 {
    time.0.div_euclid(1000)
}

fn invalid() -> ApiError {
    ApiError::new(
        ErrorReason::TokenInvalid,
        "the access token is malformed or not signed by this server",
    )
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::pkcs8::EncodePublicKey;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const NOW: Timestamp = Timestamp(1_700_000_000_000);

    struct Issued {
        pem: String,
        user: UserId,
        device: DeviceId,
        token: String,
    }

    fn issue() -> Issued {
        let (pem, user, device) = (generate_pem().unwrap(), UserId::random(), DeviceId::random());
        let token = Signer::from_pem(&pem)
            .unwrap()
            .sign(user, device, NOW, HOUR)
            .unwrap();
        Issued {
            pem,
            user,
            device,
            token,
        }
    }

    impl Issued {
        /// Claims that are valid for an hour.
        fn claims(&self) -> Claims {
            Claims {
                sub: self.user,
                did: self.device,
                iat: seconds(NOW),
                exp: seconds(NOW + HOUR),
                nbf: None,
                iss: ISSUER.to_owned(),
                aud: AUDIENCE.to_owned(),
            }
        }
    }

    fn reason(verifier: &Verifier, token: &str, now: Timestamp) -> ErrorReason {
        verifier.verify(token, now).unwrap_err().reason
    }

    #[test]
    fn a_signed_token_proves_the_device_until_it_expires() {
        let Issued {
            pem,
            user,
            device,
            token,
        } = issue();
        let verifier = Verifier::from_pems([&pem]).unwrap();
        let expires_at = NOW + HOUR;
        assert_eq!(
            verifier.verify(&token, NOW).unwrap(),
            AccessToken {
                user,
                device,
                expires_at
            }
        );
        assert!(verifier.verify(&token, Timestamp(expires_at.0 - 1)).is_ok());
        assert_eq!(reason(&verifier, &token, expires_at), ErrorReason::TokenExpired);
    }

    #[test]
    fn a_new_key_is_in_the_form_that_other_programs_read() {
        let pem = generate_pem().unwrap();
        assert_eq!(
            pem.lines().count(),
            3,
            "48 bytes, no public key: {} lines",
            pem.lines().count()
        );
        assert!(Signer::from_pem(&pem).is_ok());
    }

    #[test]
    fn public_keys_and_several_keys_verify() {
        let (old, new) = (issue(), issue());
        let public = private_key(&old.pem)
            .unwrap()
            .verifying_key()
            .to_public_key_pem(LineEnding::LF)
            .unwrap();
        let verifier = Verifier::from_pems([&public, &new.pem]).unwrap();
        assert!(verifier.verify(&old.token, NOW).is_ok());
        assert!(verifier.verify(&new.token, NOW).is_ok());
    }

    #[test]
    fn a_token_of_another_key_is_invalid() {
        let (ours, theirs) = (issue(), issue());
        let verifier = Verifier::from_pems([&ours.pem]).unwrap();
        assert_eq!(reason(&verifier, &theirs.token, NOW), ErrorReason::TokenInvalid);
        // It is invalid even if it names our key: it is signed by their key under our key id.
        let mut signer = Signer::from_pem(&theirs.pem).unwrap();
        signer.header.kid = Signer::from_pem(&ours.pem).unwrap().header.kid;
        let forged = signer.sign(ours.user, ours.device, NOW, HOUR).unwrap();
        assert_eq!(reason(&verifier, &forged, NOW), ErrorReason::TokenInvalid);
        // A forged token that has expired is reported as invalid, not as expired.
        assert_eq!(
            reason(&verifier, &forged, NOW + 2 * HOUR),
            ErrorReason::TokenInvalid
        );
    }

    #[test]
    fn changed_claims_are_invalid() {
        let (one, other) = (issue(), issue());
        let verifier = Verifier::from_pems([&one.pem]).unwrap();
        let parts: Vec<_> = one.token.split('.').collect();
        let claims = other.token.split('.').nth(1).unwrap();
        let forged = [parts[0], claims, parts[2]].join(".");
        assert_eq!(reason(&verifier, &forged, NOW), ErrorReason::TokenInvalid);
    }

    #[test]
    fn other_algorithms_are_invalid() {
        let issued = issue();
        let verifier = Verifier::from_pems([&issued.pem]).unwrap();
        let kid = Signer::from_pem(&issued.pem).unwrap().header.kid;
        // This is the classic attack: the token is signed by an HMAC whose key is the public key.
        let public = private_key(&issued.pem).unwrap().verifying_key();
        let header = Header {
            kid,
            ..Header::new(Algorithm::HS256)
        };
        let key = EncodingKey::from_secret(public.as_bytes());
        let hmac = jsonwebtoken::encode(&header, &issued.claims(), &key).unwrap();
        assert_eq!(reason(&verifier, &hmac, NOW), ErrorReason::TokenInvalid);
        // This token has the header {"alg":"none"} and no signature.
        let none = format!("eyJhbGciOiJub25lIn0.{}.", hmac.split('.').nth(1).unwrap());
        assert_eq!(reason(&verifier, &none, NOW), ErrorReason::TokenInvalid);
    }

    #[test]
    fn tokens_for_somebody_else_are_invalid() {
        let issued = issue();
        let verifier = Verifier::from_pems([&issued.pem]).unwrap();
        let signer = Signer::from_pem(&issued.pem).unwrap();
        for (iss, aud) in [("tern", "other"), ("other", "tern")] {
            let (iss, aud) = (iss.to_owned(), aud.to_owned());
            let claims = Claims {
                iss,
                aud,
                ..issued.claims()
            };
            let token = jsonwebtoken::encode(&signer.header, &claims, &signer.key).unwrap();
            assert_eq!(reason(&verifier, &token, NOW), ErrorReason::TokenInvalid);
        }
    }

    #[test]
    fn a_token_with_times_that_ours_do_not_have_is_invalid() {
        let issued = issue();
        let verifier = Verifier::from_pems([&issued.pem]).unwrap();
        let signer = Signer::from_pem(&issued.pem).unwrap();
        let now = seconds(NOW);
        let token = |iat, exp, nbf| {
            let claims = Claims {
                iat,
                exp,
                nbf,
                ..issued.claims()
            };
            jsonwebtoken::encode(&signer.header, &claims, &signer.key).unwrap()
        };
        for (iat, exp, nbf) in [
            (now, now + 3600, None),
            (now + 60, now + 60 + 3600, None),
            (now, now + 1, Some(now + 60)),
            (now - 3599, now + 1, Some(0)),
        ] {
            let verified = verifier.verify(&token(iat, exp, nbf), NOW);
            assert!(verified.is_ok(), "{iat} {exp} {nbf:?}: {verified:?}");
        }
        for (what, iat, exp, nbf) in [
            ("lives longer than an hour", now, now + 3601, None),
            ("was signed long ago for long", 0, now + 60, None),
            ("lives for ever", now, i64::MAX, None),
            ("begins before there was time", i64::MIN, now + 60, None),
            ("was signed in the future", now + 61, now + 120, None),
            ("is not good yet", now, now + 60, Some(now + 61)),
            ("ended before it began", now, now - 1, None),
        ] {
            let reason = reason(&verifier, &token(iat, exp, nbf), NOW);
            assert_eq!(reason, ErrorReason::TokenInvalid, "{what}");
        }
        let nobodys = signer.sign(UserId::SYSTEM, issued.device, NOW, HOUR).unwrap();
        assert_eq!(reason(&verifier, &nobodys, NOW), ErrorReason::TokenInvalid);
    }

    #[test]
    fn garbage_is_invalid() {
        let Issued { pem, token, .. } = issue();
        let verifier = Verifier::from_pems([&pem]).unwrap();
        let (cut, long) = (
            &token[..token.len() - 4],
            format!("{token}{}", "A".repeat(MAX_TOKEN_BYTES)),
        );
        for bad in ["", ".", "..", "a.b.c", "ü.ü.ü", cut, &long, &token.to_uppercase()] {
            assert_eq!(reason(&verifier, bad, NOW), ErrorReason::TokenInvalid, "{bad}");
        }
        assert!(Verifier::from_pems(Vec::<String>::new()).is_err());
        assert!(Verifier::from_pems(["-----BEGIN PRIVATE KEY-----"]).is_err());
        assert!(Signer::from_pem("").is_err());
    }
}
