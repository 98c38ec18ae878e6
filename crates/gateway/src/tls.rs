//! TLS of the listener for clients: one certificate; HTTP/2 and HTTP/1.1 are offered by ALPN.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use tern_transport::tls::{self, File, Renewed};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;

use crate::Config;

/// The protocols that are offered, in the order of preference. A browser that opens a WebSocket asks for HTTP/1.1
/// alone.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The listener's end of TLS. It follows its files: a renewed certificate is used from the next connection on.
#[derive(Debug, Clone)]
pub struct Edge(Renewed<ServerConfig>);

impl Edge {
    /// Reads the certificate and the key that the flags name; `None` when they name none.
    ///
    /// # Errors
    ///
    /// If a file cannot be read or holds no certificate, or no key that belongs to it.
    pub async fn load(config: &Config) -> anyhow::Result<Option<Self>> {
        let (Some(cert), Some(key)) = (&config.gateway_tls_cert, &config.gateway_tls_key) else {
            return Ok(None);
        };
        let file = |flag, path: &PathBuf| File {
            flag,
            path: path.clone(),
        };
        let files = vec![file("--gateway-tls-cert", cert), file("--gateway-tls-key", key)];
        Ok(Some(Self(Renewed::follow("edge", files, server).await?)))
    }

    /// Returns an acceptor with the certificate as it is now.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.0.current())
    }
}

fn server(files: &[Vec<u8>]) -> anyhow::Result<ServerConfig> {
    let [cert, key] = files else {
        anyhow::bail!("a certificate and a key")
    };
    let chain = tls::certificates(cert).context("--gateway-tls-cert")?;
    let key = tls::private_key(key).context("--gateway-tls-key")?;
    let mut tls = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("--gateway-tls-cert")?;
    tls.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
    Ok(tls)
}
