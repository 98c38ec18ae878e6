//! API keys and refresh tokens. This module defines how their text looks, and which part of them is stored: only
//! hashes, never the secrets themselves.
//!
//! - An API key is `tern_<key id>_<secret>`; the SHA-256 of the secret is stored.
//! - A refresh token is `ternr_<device id>_<rotation>_<secret>`; the SHA-256 of the secret is stored. The secret is
//!   an HMAC of device and rotation, so the same token can be made again without being stored.
//!
//! Secrets have 256 bits, so a plain hash of them cannot be reversed by search.

use std::fmt;

use anyhow::Context;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::DecodePrivateKey;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tern_types::DeviceId;
use uuid::Uuid;

use crate::domain::refresh::{Presented, TokenHash};

const API_KEY_PREFIX: &str = "tern_";
const REFRESH_PREFIX: &str = "ternr_";
/// The text that keeps the HMAC key of refresh tokens apart from the signing key from which it is derived. If this text
/// changes, tokens that were issued before can no longer be recomputed, so a device whose answer got lost gets a new
/// token instead of the same one.
const REFRESH_CONTEXT: &[u8] = b"tern refresh tokens v1";

/// A secret of 256 bits, either random or derived by an HMAC.
#[derive(Clone, Copy)]
struct Secret([u8; 32]);

impl Secret {
    fn parse(hex: &str) -> Option<Self> {
        let lower = hex
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        let mut secret = [0; 32];
        (lower && hex::decode_to_slice(hex, &mut secret).is_ok()).then_some(Self(secret))
    }

    fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.0).into()
    }
}

/// An API key with its secret.
#[derive(Clone, Copy)]
pub struct ApiKey {
    /// The id, which is not secret.
    pub key_id: Uuid,
    secret: Secret,
}

impl ApiKey {
    /// Makes a new key with a random id and secret.
    pub fn generate() -> Self {
        Self {
            key_id: Uuid::new_v4(),
            secret: Secret(rand::random()),
        }
    }

    /// Reads a key from its text. Returns `None` if the text does not have the form of a key.
    pub fn parse(text: &str) -> Option<Self> {
        let (key_id, secret) = text.strip_prefix(API_KEY_PREFIX)?.split_once('_')?;
        Some(Self {
            key_id: simple_id(key_id)?,
            secret: Secret::parse(secret)?,
        })
    }

    /// Returns the hash of the secret, which is stored.
    pub fn hash(&self) -> [u8; 32] {
        self.secret.hash()
    }

    /// Returns whether `stored` is the hash of this key's secret. It compares in constant time.
    pub fn matches(&self, stored: &[u8]) -> bool {
        self.hash().ct_eq(stored).into()
    }

    /// Returns the text of the key, which is shown once.
    pub fn reveal(&self) -> String {
        format!(
            "{API_KEY_PREFIX}{}_{}",
            self.key_id.simple(),
            hex::encode(self.secret.0)
        )
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{API_KEY_PREFIX}{}_…", self.key_id.simple())
    }
}

/// A refresh token with its secret.
#[derive(Clone, Copy)]
pub struct RefreshToken {
    /// The device whose token it is.
    pub device: DeviceId,
    /// The number of the token: 1 for the device's first token.
    pub rotation: u64,
    secret: Secret,
}

impl RefreshToken {
    /// Reads a token from its text. Returns `None` if the text does not have the form of a token.
    pub fn parse(text: &str) -> Option<Self> {
        let (device, rest) = text.strip_prefix(REFRESH_PREFIX)?.split_once('_')?;
        let (rotation, secret) = rest.split_once('_')?;
        let rotation: u64 = rotation.parse().ok()?;
        Some(Self {
            device: DeviceId(simple_id(device)?),
            rotation,
            secret: Secret::parse(secret)?,
        })
    }

    /// Returns the hash of the secret, which is stored.
    pub fn hash(&self) -> TokenHash {
        TokenHash(self.secret.hash())
    }

    /// Returns the text of the token, for its device.
    pub fn reveal(&self) -> String {
        let device = self.device.0.simple();
        format!(
            "{REFRESH_PREFIX}{device}_{}_{}",
            self.rotation,
            hex::encode(self.secret.0)
        )
    }
}

impl fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{REFRESH_PREFIX}{}_{}_…",
            self.device.0.simple(),
            self.rotation
        )
    }
}

/// A maker of refresh tokens, with a key that is derived from the signing key of access tokens.
#[derive(Clone)]
pub struct RefreshMint(Hmac<Sha256>);

impl RefreshMint {
    /// Makes a mint whose key is derived from an Ed25519 private key in PKCS#8 PEM. Returns `Err` if `pem` is not such
    /// a key.
    pub fn from_pem(pem: &str) -> anyhow::Result<Self> {
        let signing = SigningKey::from_pkcs8_pem(pem).context("not an Ed25519 private key in PKCS#8 PEM")?;
        let mut derive = Self::keyed(signing.as_bytes())?;
        derive.update(REFRESH_CONTEXT);
        Ok(Self(Self::keyed(&derive.finalize().into_bytes())?))
    }

    fn keyed(key: &[u8]) -> anyhow::Result<Hmac<Sha256>> {
        Hmac::new_from_slice(key).context("an HMAC takes keys of any length")
    }

    /// Returns the device's token with the number `rotation`. The same device and number always give the same token.
    pub fn token(&self, device: DeviceId, rotation: u64) -> RefreshToken {
        let mut mac = self.0.clone();
        mac.update(device.as_bytes());
        mac.update(&rotation.to_be_bytes());
        RefreshToken {
            device,
            rotation,
            secret: Secret(mac.finalize().into_bytes().into()),
        }
    }

    /// Returns the token in the form that [`crate::domain::refresh::judge`] takes.
    pub fn inspect(&self, token: &RefreshToken) -> Presented {
        let own = self.token(token.device, token.rotation);
        let genuine = own.secret.0.ct_eq(&token.secret.0).into();
        Presented {
            rotation: token.rotation,
            hash: token.hash(),
            genuine,
        }
    }
}

/// Reads an id of 32 hex digits in lower case; other forms of a UUID are refused, so that each id has one form.
fn simple_id(text: &str) -> Option<Uuid> {
    let id = Uuid::try_parse(text).ok()?;
    (id.simple().to_string() == text).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mint() -> RefreshMint {
        RefreshMint::from_pem(&tern_identity::token::generate_pem().unwrap()).unwrap()
    }

    #[test]
    fn an_api_key_is_known_by_its_hash() {
        let key = ApiKey::generate();
        let read = ApiKey::parse(&key.reveal()).unwrap();
        assert_eq!(read.key_id, key.key_id);
        assert!(read.matches(&key.hash()));
        let other = ApiKey {
            key_id: key.key_id,
            ..ApiKey::generate()
        };
        assert!(!other.matches(&key.hash()));
        assert!(!other.matches(&[]));
    }

    #[test]
    fn a_refresh_token_is_the_same_for_the_same_device_and_number() {
        let (mint, device) = (mint(), DeviceId::random());
        let token = mint.token(device, 7);
        assert_eq!(token.reveal(), mint.token(device, 7).reveal());
        assert_ne!(token.reveal(), mint.token(device, 8).reveal());
        assert_ne!(token.hash(), mint.token(DeviceId::random(), 7).hash());
        let read = RefreshToken::parse(&token.reveal()).unwrap();
        assert_eq!(
            (read.device, read.rotation, read.hash()),
            (device, 7, token.hash())
        );
        assert!(mint.inspect(&read).genuine);
    }

    #[test]
    fn a_token_with_any_part_changed_is_not_genuine() {
        let (mint, device) = (mint(), DeviceId::random());
        let token = mint.token(device, 7);
        assert!(!mint.inspect(&RefreshToken { rotation: 6, ..token }).genuine);
        assert!(
            !mint
                .inspect(&RefreshToken {
                    device: DeviceId::random(),
                    ..token
                })
                .genuine
        );
        assert!(
            !mint
                .inspect(&RefreshToken {
                    secret: Secret([0; 32]),
                    ..token
                })
                .genuine
        );
        assert!(!self::mint().inspect(&token).genuine, "another signing key");
    }

    #[test]
    fn what_is_no_key_or_token_is_refused() {
        let key = ApiKey::generate().reveal();
        let token = mint().token(DeviceId::random(), 1).reveal();
        let cut = |text: &str| text[..text.len() - 1].to_owned();
        for bad in [
            "",
            "tern_",
            "tern__",
            "ternr_",
            "ternr___",
            "Bearer x",
            &cut(&key),
            &key.to_uppercase(),
            &token,
        ] {
            assert!(ApiKey::parse(bad).is_none(), "{bad}");
        }
        for bad in [
            "",
            "ternr_",
            "ternr___",
            "ternr_é_1_é",
            &cut(&token),
            &token.replace("_1_", "_-1_"),
            &key,
        ] {
            assert!(RefreshToken::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn secrets_do_not_show_in_debug() {
        let key = ApiKey::generate();
        assert!(!format!("{key:?}").contains(&hex::encode(key.secret.0)));
        let token = mint().token(DeviceId::random(), 1);
        assert!(!format!("{token:?}").contains(&hex::encode(token.secret.0)));
    }
}
