//! TLS of the listener for clients: one certificate, HTTP/2 and HTTP/1.1 offered by ALPN.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::Config;

/// In the order of preference: browsers ask for HTTP/1.1 alone when they open a WebSocket.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// What ends TLS, where a certificate was given.
///
/// # Errors
///
/// When a file cannot be read or holds no certificate, or no key that belongs to it.
pub async fn acceptor(config: &Config) -> anyhow::Result<Option<TlsAcceptor>> {
    let (Some(cert), Some(key)) = (&config.gateway_tls_cert, &config.gateway_tls_key) else {
        return Ok(None);
    };
    let chain = read(cert, "--gateway-tls-cert").await?;
    let secret = read(key, "--gateway-tls-key").await?;
    let chain = CertificateDer::pem_slice_iter(&chain)
        .collect::<Result<Vec<_>, _>>()
        .with_context(|| format!("--gateway-tls-cert {}", cert.display()))?;
    let secret = PrivateKeyDer::from_pem_slice(&secret)
        .with_context(|| format!("--gateway-tls-key {}", key.display()))?;
    let mut tls = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .with_context(|| format!("--gateway-tls-cert {}", cert.display()))?;
    tls.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
    Ok(Some(TlsAcceptor::from(Arc::new(tls))))
}

async fn read(file: &Path, flag: &str) -> anyhow::Result<Vec<u8>> {
    tokio::fs::read(file)
        .await
        .with_context(|| format!("{flag} {}", file.display()))
}
