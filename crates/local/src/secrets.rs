//! Keys and a certificate, for development and tests only.

use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{EncodePrivateKey as _, KeypairBytes};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// Files that the platform's processes read. Made once, then used again.
#[derive(Debug, Clone)]
pub struct Secrets {
    /// Ed25519, PKCS#8: signs access tokens.
    pub token_key: PathBuf,
    /// 32 random bytes in hex: wraps the chats' data keys.
    pub master_key: PathBuf,
    /// 32 random bytes in hex: signs the tickets of media.
    pub ticket_key: PathBuf,
    /// What clients trust.
    pub ca: PathBuf,
    /// The gateways' certificate, for localhost, and its key.
    pub tls_cert: PathBuf,
    pub tls_key: PathBuf,
}

impl Secrets {
    /// Those in `dir`, made where they are missing.
    pub fn in_dir(dir: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(dir)?;
        let secrets = Self {
            token_key: dir.join("token-key.pem"),
            master_key: dir.join("master-key.hex"),
            ticket_key: dir.join("ticket-key.hex"),
            ca: dir.join("ca.pem"),
            tls_cert: dir.join("tls-cert.pem"),
            tls_key: dir.join("tls-key.pem"),
        };
        if !secrets.token_key.exists() {
            let pair = KeypairBytes {
                secret_key: rand::random(),
                public_key: None,
            };
            write(&secrets.token_key, &pair.to_pkcs8_pem(LineEnding::LF)?)?;
        }
        for file in [&secrets.master_key, &secrets.ticket_key] {
            if !file.exists() {
                let key: [u8; 32] = rand::random();
                let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
                write(file, &hex)?;
            }
        }
        if !secrets.tls_key.exists() {
            secrets.certify().context("make a development certificate")?;
        }
        Ok(secrets)
    }

    fn certify(&self) -> anyhow::Result<()> {
        let mut ca = CertificateParams::new(Vec::new())?;
        ca.distinguished_name
            .push(DnType::CommonName, "Tern development CA");
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let ca_key = KeyPair::generate()?;
        let ca_cert = ca.self_signed(&ca_key)?;

        let mut leaf =
            CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()])?;
        leaf.distinguished_name.push(DnType::CommonName, "localhost");
        let leaf_key = KeyPair::generate()?;
        let leaf_cert = leaf.signed_by(&leaf_key, &Issuer::new(ca, ca_key))?;

        write(&self.ca, &ca_cert.pem())?;
        write(&self.tls_cert, &leaf_cert.pem())?;
        write(&self.tls_key, &leaf_key.serialize_pem())
    }
}

/// Writes a file that only we may read.
pub fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    let mut file = fs::OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("write {}", path.display()))?;
    file.write_all(text.as_bytes())?;
    Ok(())
}
