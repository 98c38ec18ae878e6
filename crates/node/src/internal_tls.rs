//! Mutual TLS between nodes: a node shows its certificate to whom it calls and to who calls it, and talks to nobody whose
//! certificate another authority has signed.
//!
//! The authority is this installation's alone: who has a certificate of it may be any node. Nodes reach each other by addresses
//! from the map, so a certificate names no host: every node's has the same DNS name, `--internal-tls-name`.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use hyper_util::rt::TokioIo;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client};

use crate::listener::Tls;
use crate::metrics;
use crate::tls::{self, File, Renewed};

const HTTP2: &[u8] = b"h2";

/// Flags of every node; all three files or none.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct InternalTlsArgs {
    /// Certificate that this node shows other nodes, with the chain to the authority, in PEM; left out: nodes talk in plain
    /// text. It is read again when it changes, and so are the other two files
    #[arg(long, env = "TERN_INTERNAL_TLS_CERT", requires_all = ["internal_tls_key", "internal_tls_ca"])]
    pub internal_tls_cert: Option<PathBuf>,
    /// Its private key, in PEM
    #[arg(long, env = "TERN_INTERNAL_TLS_KEY", requires = "internal_tls_cert")]
    pub internal_tls_key: Option<PathBuf>,
    /// Authorities that sign certificates of this installation's nodes, and of nothing else, in PEM
    #[arg(long, env = "TERN_INTERNAL_TLS_CA", requires = "internal_tls_cert")]
    pub internal_tls_ca: Option<PathBuf>,
    /// DNS name that every node's certificate has
    #[arg(long, env = "TERN_INTERNAL_TLS_NAME", default_value = "tern-internal")]
    pub internal_tls_name: String,
}

/// This node's side of it.
#[derive(Debug, Clone)]
pub struct InternalTls {
    configs: Renewed<Configs>,
    name: ServerName<'static>,
}

#[derive(Debug)]
struct Configs {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl InternalTls {
    /// `None`: no certificate was named.
    ///
    /// # Errors
    ///
    /// When a file cannot be read, or certificate and key do not belong together.
    pub async fn load(args: &InternalTlsArgs) -> anyhow::Result<Option<Self>> {
        let (Some(cert), Some(key), Some(ca)) = (
            &args.internal_tls_cert,
            &args.internal_tls_key,
            &args.internal_tls_ca,
        ) else {
            return Ok(None);
        };
        let name = ServerName::try_from(args.internal_tls_name.clone()).context("--internal-tls-name")?;
        let file = |flag, path: &PathBuf| File {
            flag,
            path: path.clone(),
        };
        let files = vec![
            file("--internal-tls-cert", cert),
            file("--internal-tls-key", key),
            file("--internal-tls-ca", ca),
        ];
        let configs = Renewed::follow("internal", files, configs).await?;
        Ok(Some(Self { configs, name }))
    }

    /// The side of who is called.
    pub fn server(self) -> Tls {
        Tls {
            acceptor: Box::new(move || TlsAcceptor::from(self.configs.current().server.clone())),
            refused: |peer, error| {
                metrics::internal_handshake_failed("in");
                tracing::warn!(%peer, %error, "refused a connection to the internal listener");
            },
        }
    }

    /// To another node, at host:port.
    pub async fn connect(self, address: String) -> io::Result<TokioIo<client::TlsStream<TcpStream>>> {
        let socket = TcpStream::connect(&address).await?;
        socket.set_nodelay(true)?;
        let connector = TlsConnector::from(self.configs.current().client.clone());
        match connector.connect(self.name.clone(), socket).await {
            Ok(connection) => Ok(TokioIo::new(connection)),
            Err(error) => {
                metrics::internal_handshake_failed("out");
                tracing::warn!(%address, %error, "no TLS with a node");
                Err(error)
            }
        }
    }
}

/// Of certificate, key and authorities.
fn configs(files: &[Vec<u8>]) -> anyhow::Result<Configs> {
    let [cert, key, ca] = files else {
        anyhow::bail!("a certificate, a key and an authority")
    };
    let chain = tls::certificates(cert).context("--internal-tls-cert")?;
    let key = tls::private_key(key).context("--internal-tls-key")?;
    let mut roots = RootCertStore::empty();
    for authority in tls::certificates(ca).context("--internal-tls-ca")? {
        roots.add(authority).context("--internal-tls-ca")?;
    }
    let (roots, provider) = (Arc::new(roots), Arc::new(ring::default_provider()));
    let nodes = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
        .build()
        .context("--internal-tls-ca")?;
    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(nodes)
        .with_single_cert(chain.clone(), key.clone_key())
        .context("--internal-tls-cert")?;
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .context("--internal-tls-cert")?;
    server.alpn_protocols = vec![HTTP2.to_vec()];
    client.alpn_protocols = vec![HTTP2.to_vec()];
    Ok(Configs {
        server: Arc::new(server),
        client: Arc::new(client),
    })
}
