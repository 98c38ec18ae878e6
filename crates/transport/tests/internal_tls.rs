//! Tests of mutual TLS between nodes: who may connect, whom a node connects to, and what changes with the files.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use tern_local::authority::{Authority, Certificate};
use tern_local::secrets::INTERNAL_NAME;
use tern_local::until;
use tern_transport::admin::Readiness;
use tern_transport::channels::Channels;
use tern_transport::internal_tls::{InternalTls, InternalTlsArgs};
use tern_transport::serve::{Extras, internal};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;
use tonic::service::Routes;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

const PATIENCE: Duration = Duration::from_secs(60);

/// The three files of a node.
struct Files(TempDir);

impl Files {
    fn new(own: &Certificate, trusted: &str) -> Self {
        let files = Self(TempDir::new().unwrap());
        files.write(own, trusted);
        files
    }

    fn write(&self, own: &Certificate, trusted: &str) {
        for (name, text) in [("cert", own.cert.as_str()), ("key", &own.key), ("ca", trusted)] {
            std::fs::write(self.0.path().join(name), text).unwrap();
        }
    }

    fn args(&self) -> InternalTlsArgs {
        let file = |name: &str| Some(Path::join(self.0.path(), name));
        InternalTlsArgs {
            internal_tls_cert: file("cert"),
            internal_tls_key: file("key"),
            internal_tls_ca: file("ca"),
            internal_tls_name: INTERNAL_NAME.to_owned(),
        }
    }

    async fn tls(&self) -> Option<InternalTls> {
        InternalTls::load(&self.args()).await.unwrap()
    }
}

struct Node {
    address: SocketAddr,
    _server: AbortOnDropHandle<anyhow::Result<()>>,
}

impl Node {
    async fn start(tls: Option<InternalTls>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = internal(
            listener,
            tls,
            Routes::default(),
            Extras::default(),
            Readiness::default(),
            std::future::pending(),
        );
        Self {
            address,
            _server: AbortOnDropHandle::new(tokio::spawn(serving)),
        }
    }

    /// Calls the node on a connection of its own.
    async fn answers(&self, caller: Option<InternalTls>) -> Result<(), Status> {
        let channel = Channels::new(caller).get(&self.address.to_string()).unwrap();
        HealthClient::new(channel)
            .check(HealthCheckRequest::default())
            .await
            .map(drop)
    }
}

/// Makes a node's certificate, signed by this authority.
fn node_of(authority: &Authority) -> Certificate {
    authority.sign(&[INTERNAL_NAME]).unwrap()
}

#[tokio::test]
async fn nodes_of_one_authority_talk() {
    let ours = Authority::new("ours").unwrap();
    let (one, other) = (
        Files::new(&node_of(&ours), ours.pem()),
        Files::new(&node_of(&ours), ours.pem()),
    );
    let node = Node::start(one.tls().await).await;
    node.answers(other.tls().await).await.unwrap();
}

#[tokio::test]
async fn who_has_no_certificate_of_this_authority_is_refused_and_harms_nobody() {
    let (ours, theirs) = (Authority::new("ours").unwrap(), Authority::new("theirs").unwrap());
    let good = Files::new(&node_of(&ours), ours.pem());
    let node = Node::start(good.tls().await).await;
    node.answers(None).await.expect_err("plain text");
    // This caller trusts our authority, but its own certificate is not signed by it.
    let foreign = Files::new(&node_of(&theirs), ours.pem());
    node.answers(foreign.tls().await)
        .await
        .expect_err("a foreign authority");
    let ended = Files::new(&ours.sign_ended(&[INTERNAL_NAME]).unwrap(), ours.pem());
    node.answers(ended.tls().await)
        .await
        .expect_err("a certificate that has ended");
    // A client that connects and sends nothing holds nobody up.
    let _silent = tokio::net::TcpStream::connect(node.address).await.unwrap();
    node.answers(good.tls().await).await.unwrap();
}

#[tokio::test]
async fn a_node_calls_nobody_who_is_no_node() {
    let (ours, theirs) = (Authority::new("ours").unwrap(), Authority::new("theirs").unwrap());
    let caller = Files::new(&node_of(&ours), ours.pem());
    let plain = Node::start(None).await;
    plain.answers(caller.tls().await).await.expect_err("plain text");
    let impostor = Files::new(&node_of(&theirs), ours.pem());
    let impostor = Node::start(impostor.tls().await).await;
    impostor
        .answers(caller.tls().await)
        .await
        .expect_err("a foreign authority");
    let named = Files::new(&ours.sign(&["chat.example.com"]).unwrap(), ours.pem());
    let named = Node::start(named.tls().await).await;
    named.answers(caller.tls().await).await.expect_err("another name");
}

#[tokio::test]
async fn renewed_files_count_from_the_next_connection_on() {
    let (old, new) = (Authority::new("old").unwrap(), Authority::new("new").unwrap());
    let both = format!("{}{}", old.pem(), new.pem());
    let served = Files::new(&node_of(&old), old.pem());
    let node = Node::start(served.tls().await).await;
    let (before, after) = (
        Files::new(&node_of(&old), &both).tls().await,
        Files::new(&node_of(&new), &both).tls().await,
    );
    node.answers(before.clone()).await.unwrap();
    node.answers(after.clone()).await.expect_err("not trusted yet");

    served.write(&node_of(&new), &both);
    until::holds("the new authority is trusted", PATIENCE, || async {
        node.answers(after.clone()).await?;
        Ok(true)
    })
    .await
    .unwrap();
    node.answers(before).await.unwrap();
}

#[tokio::test]
async fn files_that_make_no_sense_are_named_at_the_start() {
    let ours = Authority::new("ours").unwrap();
    let good = node_of(&ours);
    let cases = [
        (
            "--internal-tls-cert",
            Files::new(
                &Certificate {
                    cert: String::new(),
                    ..good.clone()
                },
                ours.pem(),
            ),
        ),
        (
            "--internal-tls-key",
            Files::new(
                &Certificate {
                    key: "x".into(),
                    ..good.clone()
                },
                ours.pem(),
            ),
        ),
        ("--internal-tls-ca", Files::new(&good, "")),
        (
            "--internal-tls-cert",
            Files::new(
                &Certificate {
                    cert: node_of(&ours).cert,
                    ..good
                },
                ours.pem(),
            ),
        ),
    ];
    for (flag, files) in cases {
        let error = InternalTls::load(&files.args()).await.expect_err(flag);
        assert!(format!("{error:#}").contains(flag), "{flag}: {error:#}");
    }
}
