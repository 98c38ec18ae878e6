//! Makes keys and certificates, for development and tests only.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{EncodePrivateKey as _, KeypairBytes};

use crate::authority::{Authority, DAY};

/// The name in the nodes' certificates, which is the value of `--internal-tls-name`.
pub const INTERNAL_NAME: &str = "tern-internal";

/// The age of the gateways' certificate from which a platform that is started gets a new one. The old one
/// would be valid for much longer, so that it does not end while a platform runs.
const RENEW_AFTER: Duration = DAY.saturating_mul(400);

/// The files that the platform's processes read. They are made once and then used again; only the gateways' certificate
/// is made anew when it is old.
#[derive(Debug, Clone)]
pub struct Secrets {
    /// The Ed25519 key in PKCS#8 that signs access tokens.
    pub token_key: PathBuf,
    /// The key of 32 random bytes, in hex, that wraps the chats' data keys.
    pub master_key: PathBuf,
    /// The key of 32 random bytes, in hex, that signs media tickets.
    pub ticket_key: PathBuf,
    /// The certificate of the authority that clients trust, in PEM.
    pub ca: PathBuf,
    /// The gateways' certificate, for localhost.
    pub tls_cert: PathBuf,
    /// The key of that certificate.
    pub tls_key: PathBuf,
    /// The certificate that nodes trust when they talk to each other by TLS. [`Secrets::certify_nodes`] makes this
    /// and the next two files.
    pub internal_ca: PathBuf,
    /// The nodes' certificate for TLS between nodes.
    pub internal_cert: PathBuf,
    /// The key of that certificate.
    pub internal_key: PathBuf,
}

impl Secrets {
    /// Returns the files in `dir`, and makes those that are missing.
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
        if !secrets.tls_cert.exists() || made_before(&secrets.tls_cert, RENEW_AFTER)? {
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

    /// Writes a new certificate for nodes, which `authority` signs, with its key, and writes `trusted`, the PEM of the
    /// authorities that nodes trust. They replace the former ones.
    pub fn certify_nodes(&self, authority: &Authority, trusted: &str) -> anyhow::Result<()> {
        let node = authority.sign(&[INTERNAL_NAME])?;
        write(&self.internal_ca, trusted)?;
        write(&self.internal_cert, &node.cert)?;
        write(&self.internal_key, &node.key)
    }
}

/// Returns whether the file was written longer than `age` ago. False if its time lies in the future.
fn made_before(file: &Path, age: Duration) -> anyhow::Result<bool> {
    let written = fs::metadata(file)?.modified()?;
    Ok(written.elapsed().is_ok_and(|since| since > age))
}

/// Makes a directory and its missing parents for this user alone. An existing directory keeps its mode.
pub fn private_dir(dir: &Path) -> anyhow::Result<()> {
    let mut builder = fs::DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(dir);
    made.with_context(|| format!("create {}", dir.display()))
}

/// Writes a file that only this user may read.
pub fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    let mut file = fs::OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("write {}", path.display()))?;
    // An older file may have been readable for others.
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn nobody_else_may_read_them() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("made/when needed");
        let secrets = Secrets::in_dir(&dir).unwrap();
        let authority = Authority::new("nodes").unwrap();
        secrets.certify_nodes(&authority, authority.pem()).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        for directory in dir.ancestors().take(2) {
            assert_eq!(mode(directory), 0o700, "{}", directory.display());
        }
        for file in fs::read_dir(&dir).unwrap() {
            let file = file.unwrap().path();
            assert_eq!(mode(&file), 0o600, "{}", file.display());
        }
        fs::set_permissions(&secrets.master_key, fs::Permissions::from_mode(0o644)).unwrap();
        write(&secrets.master_key, "another").unwrap();
        assert_eq!(mode(&secrets.master_key), 0o600, "a file that was open is closed");
    }

    #[test]
    fn an_old_certificate_is_made_anew_and_the_keys_stay() {
        let dir = tempfile::tempdir().unwrap();
        let secrets = Secrets::in_dir(dir.path()).unwrap();
        let read = || {
            [
                &secrets.tls_cert,
                &secrets.ca,
                &secrets.token_key,
                &secrets.master_key,
            ]
            .map(|file| fs::read_to_string(file).unwrap())
        };
        let first = read();
        Secrets::in_dir(dir.path()).unwrap();
        assert_eq!(read(), first);

        let file = fs::File::options().write(true).open(&secrets.tls_cert).unwrap();
        let old = SystemTime::UNIX_EPOCH + DAY;
        file.set_modified(old).unwrap();
        Secrets::in_dir(dir.path()).unwrap();
        let [cert, ca, keys @ ..] = read();
        assert!(cert != first[0] && ca != first[1]);
        assert_eq!(keys, first[2..]);
    }
}
