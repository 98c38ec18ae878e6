//! Runs an HTTP proxy that fails requests as a test says. It stands between the object store and the clients or media
//! nodes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use futures::future::pending;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// A request that came to the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The number of the request since the rule was set, counted from 0.
    pub number: usize,
    /// The HTTP method.
    pub method: Method,
    /// The path of the URL.
    pub path: String,
    /// The query of the URL; empty if it has none.
    pub query: String,
}

/// The way in which the proxy handles a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Passes the request on.
    Pass,
    /// Ends the connection; the store does not get the request.
    CutBefore,
    /// Passes the request on, and ends the connection in place of the answer.
    CutAfter,
    /// Passes the request on, and ends both connections after this time, whether or not the store has carried
    /// it out.
    CutWithin(Duration),
    /// Never answers; the store does not get the request.
    HangBefore,
    /// Passes the request on, and never answers.
    HangAfter,
    /// Passes the request on after this time.
    Slow(Duration),
    /// Answers with this status and body; the store does not get the request.
    Instead(u16, &'static str),
    /// Passes the request on, and answers with this status and body in place of the store's answer.
    Lie(u16, &'static str),
}

/// A function that says how each request is handled.
type Rule = Box<dyn Fn(&Seen) -> Fault + Send>;

/// A running proxy, which ends when dropped.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    _task: AbortOnDropHandle<()>,
}

struct Shared {
    upstream: SocketAddr,
    /// The rule, and the requests since it was set.
    rule: Mutex<(Rule, Vec<Seen>)>,
    /// The number of requests since the rule was set that were cut, hang, or were answered in the store's place.
    struck: watch::Sender<usize>,
}

type Answer = Response<BoxBody<Bytes, hyper::Error>>;

impl Proxy {
    /// Starts a proxy before the server at `upstream` (`http://host:port`). It passes everything on.
    pub async fn start(upstream: &str) -> anyhow::Result<Self> {
        let upstream = upstream.trim_start_matches("http://").trim_end_matches('/');
        let shared = Arc::new(Shared {
            upstream: upstream.parse().context("an address")?,
            rule: Mutex::new((Box::new(|_| Fault::Pass), Vec::new())),
            struck: watch::Sender::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(accept(listener, shared.clone()));
        Ok(Self {
            address,
            shared,
            _task: AbortOnDropHandle::new(task),
        })
    }

    /// Returns the proxy's URL, `http://127.0.0.1:…`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sets the rule for all requests from now on. They are numbered from 0 again.
    pub fn rule(&self, rule: impl Fn(&Seen) -> Fault + Send + 'static) {
        *self.shared.lock() = (Box::new(rule), Vec::new());
        self.shared.struck.send_replace(0);
    }

    /// Passes everything on from now on.
    pub fn heal(&self) {
        self.rule(|_| Fault::Pass);
    }

    /// Returns the requests since the rule was set.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.lock().1.clone()
    }

    /// Waits until, since the rule was set, a request was cut, hangs, or was answered in the store's place.
    pub async fn struck(&self) {
        let mut struck = self.shared.struck.subscribe();
        // The sender lives as long as this proxy.
        let _ = struck.wait_for(|count| *count > 0).await;
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, (Rule, Vec<Seen>)> {
        self.rule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a request, and asks the rule how it is handled.
    fn judge(&self, request: &Request<Incoming>) -> Fault {
        let (rule, seen) = &mut *self.lock();
        let new = Seen {
            number: seen.len(),
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            query: request.uri().query().unwrap_or_default().to_owned(),
        };
        let fault = rule(&new);
        seen.push(new);
        fault
    }

    fn strike(&self) {
        self.struck.send_modify(|count| *count += 1);
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            continue;
        };
        let _ = socket.set_nodelay(true);
        let shared = shared.clone();
        tokio::spawn(async move {
            let answer = service_fn(move |request| answer(shared.clone(), request));
            // An error of `answer` cuts the connection, and is of no interest here.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(socket), answer)
                .await;
        });
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> anyhow::Result<Answer> {
    let fault = shared.judge(&request);
    match fault {
        Fault::Pass => return pass(&shared, request).await,
        Fault::Slow(time) => {
            tokio::time::sleep(time).await;
            return pass(&shared, request).await;
        }
        Fault::CutAfter | Fault::HangAfter | Fault::Lie(..) => {
            let answer = pass(&shared, request).await?;
            answer.into_body().collect().await?;
        }
        Fault::CutWithin(time) => {
            let whole = pass(&shared, request);
            // The connection to the store ends with this future.
            let _ = tokio::time::timeout(time, whole).await;
        }
        Fault::CutBefore | Fault::HangBefore | Fault::Instead(..) => {}
    }
    shared.strike();
    match fault {
        Fault::HangBefore | Fault::HangAfter => pending().await,
        Fault::Instead(status, body) | Fault::Lie(status, body) => said(status, body),
        _ => anyhow::bail!("cut"),
    }
}

fn said(status: u16, body: &'static str) -> anyhow::Result<Answer> {
    let body = Full::new(Bytes::from_static(body.as_bytes())).map_err(|never| match never {});
    let mut answer = Response::new(body.boxed());
    *answer.status_mut() = StatusCode::from_u16(status)?;
    Ok(answer)
}

async fn pass(shared: &Shared, request: Request<Incoming>) -> anyhow::Result<Answer> {
    let socket = TcpStream::connect(shared.upstream).await?;
    socket.set_nodelay(true)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
    let connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let answer = sender.send_request(request).await?;
    // The body of the answer comes by the connection.
    drop(connection.detach());
    Ok(answer.map(|body| body.boxed()))
}
