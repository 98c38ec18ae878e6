//! Makes a WebSocket of an HTTP request (RFC 6455, section 4.2), if the request may become one. The request carries no
//! credentials, since a browser could put them nowhere but into the URL. They are in the stream's Open.

use std::sync::Arc;

use http::header::{
    CONNECTION, CONTENT_TYPE, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tern_transport::connections::Connection;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tracing::Instrument;

use crate::gateway::Gateway;
use crate::metrics;
use crate::origins::{Origins, Refused};

/// The path at which WebSockets are opened.
pub const PATH: &str = "/v1/stream";
/// The version of the protocol that is served.
const VERSION: HeaderValue = HeaderValue::from_static("13");
/// The name of the protocol in the header field Upgrade.
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
/// The length of a key: 16 bytes in base64.
const KEY_BYTES: usize = 24;

/// The service that makes WebSockets of requests, and serves devices on them.
pub struct WebSockets {
    gateway: Arc<Gateway>,
    origins: Arc<Origins>,
    tasks: TaskTracker,
}

/// The reason why a request does not become a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum No {
    #[error("a WebSocket is opened by GET")]
    Method,
    #[error(
        "a WebSocket of version 13 has to be asked for: Connection: upgrade, Upgrade: websocket, by HTTP/1.1"
    )]
    Upgrade,
    #[error("Sec-WebSocket-Key must be 16 bytes in base64")]
    Key,
    #[error("{0}")]
    Origin(#[from] Refused),
}

impl WebSockets {
    /// Makes the service. It serves devices of this gateway. `tasks` are waited for when the gateway stops.
    pub fn new(gateway: Arc<Gateway>, origins: Arc<Origins>, tasks: TaskTracker) -> Self {
        Self {
            gateway,
            origins,
            tasks,
        }
    }

    /// Answers a request, and serves the device on the WebSocket that it becomes.
    pub fn answer<B>(&self, mut request: Request<B>) -> Response<Body> {
        let accept = match accept(&request, &self.origins) {
            Ok(accept) => accept,
            Err(no) => return refuse(no),
        };
        metrics::websocket("UPGRADED");
        let (gateway, connection) = (self.gateway.clone(), Connection::of(request.extensions()));
        let upgraded = hyper::upgrade::on(&mut request);
        let serving = async move {
            match upgraded.await {
                Ok(io) => super::serve(gateway, TokioIo::new(io), connection).await,
                Err(error) => tracing::debug!(%error, "gone before it was a WebSocket"),
            }
        };
        self.tasks.spawn(serving.in_current_span());
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, WEBSOCKET);
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        response
    }
}

/// Returns the value of `Sec-WebSocket-Accept`, which proves that the request was understood. `Err` says why the
/// request does not become a WebSocket.
fn accept<B>(request: &Request<B>, origins: &Origins) -> Result<HeaderValue, No> {
    let headers = request.headers();
    origins.check(headers)?;
    if request.method() != Method::GET {
        return Err(No::Method);
    }
    let asked = has_token(headers, &CONNECTION, "upgrade")
        && has_token(headers, &UPGRADE, "websocket")
        && headers.get(SEC_WEBSOCKET_VERSION) == Some(&VERSION)
        && request.extensions().get::<hyper::upgrade::OnUpgrade>().is_some();
    if !asked {
        return Err(No::Upgrade);
    }
    let key = headers
        .get(SEC_WEBSOCKET_KEY)
        .map(HeaderValue::as_bytes)
        .filter(|key| key.len() == KEY_BYTES && key.ends_with(b"=="))
        .ok_or(No::Key)?;
    HeaderValue::try_from(derive_accept_key(key)).map_err(|_| No::Key)
}

/// Returns whether a comma separated header names `token`, in any case.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(token))
}

fn refuse(no: No) -> Response<Body> {
    let (status, outcome) = match no {
        No::Method => (StatusCode::METHOD_NOT_ALLOWED, "NOT_ASKED_FOR"),
        No::Upgrade => (StatusCode::UPGRADE_REQUIRED, "NOT_ASKED_FOR"),
        No::Key => (StatusCode::BAD_REQUEST, "BAD_KEY"),
        No::Origin(_) => (StatusCode::FORBIDDEN, "ORIGIN_REFUSED"),
    };
    metrics::websocket(outcome);
    let mut response = Response::new(Body::new(http_body_util::Full::from(format!("{no}\n"))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    if matches!(no, No::Upgrade) {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, WEBSOCKET);
        headers.insert(SEC_WEBSOCKET_VERSION, VERSION);
    }
    if matches!(no, No::Method) {
        headers.insert(http::header::ALLOW, HeaderValue::from_static("GET"));
    }
    response
}
