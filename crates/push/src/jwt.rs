//! The keys that prove to a provider who sends, and the tokens (JWT, RFC 7519) that are signed with them.

use std::fmt;

use anyhow::Context;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use p256::elliptic_curve::sec1::ToEncodedPoint;
use p256::pkcs8::DecodePrivateKey;
use rustls::pki_types::PrivateKeyDer;
use serde::Serialize;
use tern_transport::tls;

/// A private key of P-256, with its public key. `Debug` shows neither.
#[derive(Clone)]
pub(crate) struct EcKey {
    signing: EncodingKey,
    public: Vec<u8>,
}

impl fmt::Debug for EcKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EcKey")
    }
}

impl EcKey {
    /// Reads a P-256 private key in PKCS#8 PEM. Returns `Err` if it is not one.
    pub(crate) fn from_pem(pem: &[u8]) -> anyhow::Result<Self> {
        const NOT_ONE: &str = "it must have a P-256 private key in PKCS#8 PEM";
        let PrivateKeyDer::Pkcs8(der) = tls::private_key(pem).context(NOT_ONE)? else {
            anyhow::bail!(NOT_ONE)
        };
        let der = der.secret_pkcs8_der();
        // The error of the library is left out, so that nothing of the key can be in it.
        let Ok(secret) = p256::SecretKey::from_pkcs8_der(der) else {
            anyhow::bail!(NOT_ONE)
        };
        Ok(Self {
            signing: EncodingKey::from_ec_der(der),
            public: secret.public_key().to_encoded_point(false).as_bytes().to_vec(),
        })
    }

    /// Returns the public key, 65 bytes, uncompressed.
    pub(crate) fn public(&self) -> &[u8] {
        &self.public
    }

    /// Signs claims by ES256. `key_id` goes into the header.
    pub(crate) fn sign(&self, key_id: Option<&str>, claims: &impl Serialize) -> anyhow::Result<String> {
        let header = Header {
            kid: key_id.map(str::to_owned),
            ..Header::new(Algorithm::ES256)
        };
        Ok(jsonwebtoken::encode(&header, claims, &self.signing)?)
    }
}

/// Reads an RSA private key in PEM. Returns `Err` if it is not one.
pub(crate) fn rsa_key(pem: &[u8]) -> anyhow::Result<EncodingKey> {
    const NOT_ONE: &str = "it must be an RSA private key in PEM";
    let Ok(key) = EncodingKey::from_rsa_pem(pem) else {
        anyhow::bail!(NOT_ONE)
    };
    // The library looks at the key only when it signs, so a signature is made here to find out whether it can.
    let Ok(_) = sign_rsa(&key, None, &serde_json::json!({})) else {
        anyhow::bail!(NOT_ONE)
    };
    Ok(key)
}

/// Signs claims by RS256. `key_id` goes into the header.
pub(crate) fn sign_rsa(
    key: &EncodingKey,
    key_id: Option<&str>,
    claims: &impl Serialize,
) -> anyhow::Result<String> {
    let header = Header {
        kid: key_id.map(str::to_owned),
        ..Header::new(Algorithm::RS256)
    };
    Ok(jsonwebtoken::encode(&header, claims, key)?)
}
