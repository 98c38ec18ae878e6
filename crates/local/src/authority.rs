//! Signs certificates, for development and tests only.

use std::time::{Duration, UNIX_EPOCH};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use tern_types::Clock;

/// One day.
pub const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// The time for which a certificate is valid. Apple's systems refuse one that is valid for more than 825 days
/// (<https://support.apple.com/en-us/103769>).
const VALID_FOR: Duration = DAY.saturating_mul(820);
/// The time before its making from which a certificate is valid. Clocks of other machines, and those of
/// tests, may be behind.
const VALID_BEFORE: Duration = DAY.saturating_mul(2);

/// A certificate authority, with its key in memory.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key, in PEM.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The certificate.
    pub cert: String,
    /// The certificate's private key.
    pub key: String,
}

impl Authority {
    /// Makes an authority with a new key. `name` is its common name.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        let issuer = Issuer::new(params, key);
        Ok(Self { issuer, pem })
    }

    /// Returns the authority's own certificate, in PEM. A client that trusts it trusts every certificate that the
    /// authority signs.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Signs a new certificate for these DNS names and IP addresses.
    pub fn sign(&self, names: &[&str]) -> anyhow::Result<Certificate> {
        self.signed(params(names)?)
    }

    /// Signs a certificate that expired at the beginning of 2021.
    pub fn sign_ended(&self, names: &[&str]) -> anyhow::Result<Certificate> {
        let mut params = params(names)?;
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        self.signed(params)
    }

    fn signed(&self, params: CertificateParams) -> anyhow::Result<Certificate> {
        let key = KeyPair::generate()?;
        let cert = params.signed_by(&key, &self.issuer)?.pem();
        let key = key.serialize_pem();
        Ok(Certificate { cert, key })
    }
}

fn params(names: &[&str]) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())?;
    if let Some(name) = names.first() {
        params.distinguished_name.push(DnType::CommonName, *name);
    }
    let now = UNIX_EPOCH + Duration::from_millis(u64::try_from(Clock::wall().0)?);
    params.not_before = (now - VALID_BEFORE).into();
    params.not_after = (now + VALID_FOR).into();
    Ok(params)
}
