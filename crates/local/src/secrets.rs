//! Keys and a certificate, for development and tests only.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{EncodePrivateKey as _, KeypairBytes};

use crate::authority::Authority;

/// As `--internal-tls-name`.
pub const INTERNAL_NAME: &str = "tern-internal";

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
    /// What nodes trust among themselves, where they talk by TLS: made by [`Secrets::certify_nodes`].
    pub internal_ca: PathBuf,
    pub internal_cert: PathBuf,
    pub internal_key: PathBuf,
}

impl Secrets {
    /// Those in `dir`, made where they are missing.
    pub fn in_dir(dir: &Path) -> anyhow::Result<Self> {
        private_dir(dir)?;
        let secrets = Self {
            token_key: dir.join("token-key.pem"),
            master_key: dir.join("master-key.hex"),
            ticket_key: dir.join("ticket-key.hex"),
            ca: dir.join("ca.pem"),
            tls_cert: dir.join("tls-cert.pem"),
            tls_key: dir.join("tls-key.pem"),
            internal_ca: dir.join("internal-ca.pem"),
            internal_cert: dir.join("internal-cert.pem"),
            internal_key: dir.join("internal-key.pem"),
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
        let clients = Authority::new("Tern development CA")?;
        let gateway = clients.sign(&["localhost", "127.0.0.1", "::1"])?;
        write(&self.ca, clients.pem())?;
        write(&self.tls_cert, &gateway.cert)?;
        write(&self.tls_key, &gateway.key)
    }

    /// Another authority for the nodes among themselves, with a certificate of it; replaces those from before.
    pub fn certify_nodes(&self, authority: &Authority, trusted: &str) -> anyhow::Result<()> {
        let node = authority.sign(&[INTERNAL_NAME])?;
        write(&self.internal_ca, trusted)?;
        write(&self.internal_cert, &node.cert)?;
        write(&self.internal_key, &node.key)
    }
}

/// Makes a directory, and those above it, where they are missing: for us alone. One that is there stays as it is.
pub fn private_dir(dir: &Path) -> anyhow::Result<()> {
    let mut builder = fs::DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(dir);
    made.with_context(|| format!("create {}", dir.display()))
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
    // One that was there before may have been open to others.
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())?;
    Ok(())
}
