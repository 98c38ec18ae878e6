//! Listens for a push service, with HTTP/2 and with or without TLS, and makes connections fail as a test says.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, version};
use tokio_util::task::AbortOnDropHandle;

use super::Tls;
use super::record::{Answer, Received, Record};
use crate::authority::Certificate;

/// The largest body that is read, in bytes. It is far above what a service takes, so that the service itself says that
/// a push is too large.
const BODY_BYTES: usize = 64 * 1024;
/// The number of requests at a time on one connection, which is what Apple allows.
const STREAMS: u32 = 1000;

/// A running server, which ends with its connections when dropped.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) address: SocketAddr,
    _task: AbortOnDropHandle<()>,
}

/// A service answers the requests of a server.
pub(super) trait Service: Send + Sync + 'static {
    /// Handles a request with its whole body.
    fn handle(&self, request: &Parts, body: &Bytes) -> Reply;

    /// Returns the record that counts the connections.
    fn record(&self) -> &Record;
}

/// The answer to a request.
#[derive(Debug)]
pub(super) struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
    fault: Fault,
}

/// The fault of an answer.
#[derive(Debug, Clone, Copy)]
enum Fault {
    None,
    Late(Duration),
    Reset,
    Cut,
    GoAway,
}

/// The two ways in which a connection is told to end.
#[derive(Debug, Default)]
struct Ends {
    cut: Notify,
    go_away: Notify,
}

impl Reply {
    /// Makes an answer with this status and body.
    pub(super) fn new(status: u16, body: String) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body,
            fault: Fault::None,
        }
    }

    /// Adds a header.
    pub(super) fn header(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Adds the fault of an answer.
    fn with(self, fault: Fault) -> Self {
        Self { fault, ..self }
    }
}

/// Carries out what a test has set for a push that is in order: records it, and returns the answer. `took` makes the
/// answer to a push that the service takes, and `refuse` that with a status and a reason of the test. The last argument
/// of `refuse` is the time since which the token is not valid, in milliseconds since 1970.
pub(super) fn carry_out(
    record: &Record,
    mut push: Received,
    took: impl FnOnce() -> Reply,
    refuse: impl FnOnce(u16, &str, Option<i64>) -> Reply,
) -> Reply {
    let (reply, fault) = match record.answer_to(&push.token) {
        Answer::Ok => (took(), Fault::None),
        Answer::Slow(time) => (took(), Fault::Late(time)),
        Answer::GoAway => (took(), Fault::GoAway),
        Answer::Status {
            status,
            reason,
            since,
            retry_after,
        } => {
            let mut reply = refuse(status, &reason, since.map(|since| since.0));
            if let Some(after) = retry_after {
                reply = reply.header("retry-after", after.as_secs().to_string());
            }
            push.reason = match reason.is_empty() {
                true => format!("status {status}"),
                false => reason,
            };
            (reply, Fault::None)
        }
        Answer::Reset => {
            push.reason = "reset".to_owned();
            (Reply::new(0, String::new()), Fault::Reset)
        }
        Answer::Cut => {
            push.reason = "cut".to_owned();
            (Reply::new(0, String::new()), Fault::Cut)
        }
    };
    push.status = reply.status;
    record.add(push);
    reply.with(fault)
}

/// Returns a header's value. It is empty if there is none, or one that is no text.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

/// Makes the TLS settings of a server that speaks these protocols.
pub(super) fn tls(certificate: &Certificate, protocols: &[&str]) -> anyhow::Result<Tls> {
    let chain = CertificateDer::pem_slice_iter(certificate.cert.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes())?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = protocols
        .iter()
        .map(|protocol| protocol.as_bytes().to_vec())
        .collect();
    Ok(Some(Arc::new(config)))
}

impl Server {
    /// Starts a server on a free port of 127.0.0.1.
    pub(super) async fn start<S: Service>(service: Arc<S>, tls: Tls) -> anyhow::Result<Self> {
        Ok(Self::on(listener().await?, service, tls)?)
    }

    /// Starts a server on a listener.
    pub(super) fn on<S: Service>(listener: TcpListener, service: Arc<S>, tls: Tls) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let task = tokio::spawn(accept(listener, service, tls.map(TlsAcceptor::from)));
        Ok(Self {
            address,
            _task: AbortOnDropHandle::new(task),
        })
    }
}

/// Returns a listener on a free port of 127.0.0.1.
pub(super) async fn listener() -> io::Result<TcpListener> {
    TcpListener::bind("127.0.0.1:0").await
}

/// Accepts connections. They end with this future.
async fn accept<S: Service>(listener: TcpListener, service: Arc<S>, tls: Option<TlsAcceptor>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((socket, _)) = accepted else { continue };
                connections.spawn(connect(socket, service.clone(), tls.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connect<S: Service>(socket: TcpStream, service: Arc<S>, tls: Option<TlsAcceptor>) {
    // With Nagle's algorithm, answers would wait for the client's acknowledgements.
    let _ = socket.set_nodelay(true);
    let Some(tls) = tls else {
        return serve(socket, service).await;
    };
    // A client that does not trust the certificate, or goes away, is no fault of the server.
    if let Ok(socket) = tls.accept(socket).await {
        serve(socket, service).await;
    }
}

/// Serves one connection until it ends, or a fault ends it.
async fn serve<I, S>(socket: I, service: Arc<S>)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service,
{
    service.record().connected();
    let ends = Arc::new(Ends::default());
    let answers = {
        let ends = ends.clone();
        service_fn(move |request| answer(service.clone(), ends.clone(), request))
    };
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http2().max_concurrent_streams(STREAMS);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(socket), answers));
    tokio::select! {
        _ = connection.as_mut() => return,
        () = ends.cut.notified() => return,
        () = ends.go_away.notified() => connection.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        _ = connection.as_mut() => {}
        () = ends.cut.notified() => {}
    }
}

/// Reads a request and answers it. An error resets the stream; with HTTP/1.1 it cuts the connection.
async fn answer<S: Service>(
    service: Arc<S>,
    ends: Arc<Ends>,
    request: Request<Incoming>,
) -> io::Result<Response<Full<Bytes>>> {
    let (parts, body) = request.into_parts();
    let body = Limited::new(body, BODY_BYTES).collect().await;
    let body = body
        .map_err(|error| io::Error::other(error.to_string()))?
        .to_bytes();
    let reply = service.handle(&parts, &body);
    match reply.fault {
        Fault::None => {}
        Fault::Late(time) => tokio::time::sleep(time).await,
        Fault::Reset => return Err(io::Error::other("reset")),
        Fault::Cut => {
            ends.cut.notify_one();
            return Err(io::Error::other("cut"));
        }
        Fault::GoAway => ends.go_away.notify_one(),
    }
    let mut response =
        Response::builder().status(StatusCode::from_u16(reply.status).map_err(io::Error::other)?);
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    response
        .body(Full::new(Bytes::from(reply.body)))
        .map_err(io::Error::other)
}
