//! Signs paths for a delivery network. A signed URL is `<base>/<key>?expires=<seconds>&signature=<hex>`, where
//! `<seconds>` is the end of its validity in seconds since the Unix epoch, and the signature is the HMAC-SHA-256 of
//! `/<key>\n<seconds>`. nginx, Varnish, CloudFront functions and Fastly's VCL can all check it.

use anyhow::Context;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tern_types::Timestamp;

/// A signer of URLs for a delivery network in front of the bucket.
#[derive(Clone)]
pub struct Cdn {
    base: String,
    key: Hmac<Sha256>,
}

impl Cdn {
    /// Makes a signer for URLs below `base`. Returns `Err` if `key` does not consist of 64 hexadecimal digits.
    pub fn new(base: &str, key: &str) -> anyhow::Result<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(key.trim(), &mut bytes).context("the key is 64 hexadecimal digits")?;
        Ok(Self {
            base: base.trim_end_matches('/').to_owned(),
            key: Hmac::new_from_slice(&bytes).context("an HMAC takes keys of any length")?,
        })
    }

    /// Returns a URL of the object that is valid until `until`, rounded down to a second.
    pub fn url(&self, object_key: &str, until: Timestamp) -> String {
        let seconds = until.0 / 1000;
        let mut mac = self.key.clone();
        mac.update(format!("/{object_key}\n{seconds}").as_bytes());
        let signature = hex::encode(mac.finalize().into_bytes());
        format!(
            "{}/{object_key}?expires={seconds}&signature={signature}",
            self.base
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_signed_with_its_end() {
        let key = "ab".repeat(32);
        let cdn = Cdn::new("https://cdn.example/m/", &key).unwrap();
        let url = cdn.url("k1", Timestamp(1_700_000_000_999));
        // The value was computed with openssl dgst -sha256 -mac HMAC -macopt hexkey:abab…
        let known = "14df03c066500346c0e672d4f47a3a043790d9ae088dfae450ff7f8bbed9aead";
        assert_eq!(
            url,
            format!("https://cdn.example/m/k1?expires=1700000000&signature={known}")
        );
        assert!(Cdn::new("https://cdn.example", "short").is_err());
    }
}
