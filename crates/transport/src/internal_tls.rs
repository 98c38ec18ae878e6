//! Mutual TLS between nodes: a node shows its certificate both to nodes that it calls and to nodes that call it, and
//! refuses a peer whose certificate another authority has signed.
//!
//! The authority serves this installation alone: anybody with a certificate of it may act as any node. Nodes reach
//! each other by addresses from the map, so certificates do not name hosts: every node's certificate has the same DNS
//! name, `--internal-tls-name`.

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

/// The flags of mutual TLS, which every node has. Either all three files are given, or none.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct InternalTlsArgs {
    /// Certificate that this node shows other nodes, with the chain to the authority, in PEM; left out: nodes talk in
    /// plain text. This file and the other two are read again when they change
    #[arg(long, env = "TERN_INTERNAL_TLS_CERT", requires_all = ["internal_tls_key", "internal_tls_ca"])]
    pub internal_tls_cert: Option<PathBuf>,
    /// Private key of that certificate, in PEM
    #[arg(long, env = "TERN_INTERNAL_TLS_KEY", requires = "internal_tls_cert")]
    pub internal_tls_key: Option<PathBuf>,
    /// Authorities that sign certificates of this installation's nodes, and of nothing else, in PEM
    #[arg(long, env = "TERN_INTERNAL_TLS_CA", requires = "internal_tls_cert")]
    pub internal_tls_ca: Option<PathBuf>,
    /// DNS name that every node's certificate has
    #[arg(long, env = "TERN_INTERNAL_TLS_NAME", default_value = "tern-internal")]
    pub internal_tls_name: String,
}

/// This node's certificate, key and authorities, for both directions. They are renewed when the files change.
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
    /// Reads the files that the flags name. Returns `Ok(None)` if no certificate is named.
    ///
    /// # Errors
    ///
    /// Fails if the name is not a DNS name, a file cannot be read or has no certificate or key, or the
    /// certificate and the key do not belong together.
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

    /// Returns the TLS settings of the listener that other nodes connect to.
    pub fn server(self) -> Tls {
        Tls {
            acceptor: Box::new(move || TlsAcceptor::from(self.configs.current().server.clone())),
            refused: |peer, error| {
                metrics::internal_handshake_failed("in");
                tracing::warn!(%peer, %error, "refused a connection to the internal listener");
            },
        }
    }

    /// Connects to another node at `address` (host:port). Returns `Err` if the connection or the TLS handshake fails.
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

/// Makes the configurations of both directions from a certificate, a key and authorities.
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
