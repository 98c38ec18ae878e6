//! Makes requests to the object store: it puts a stream of bytes, or gets one. The requests use HTTP/1.1, with TLS if
//! the URL says so.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{HeaderName, HeaderValue, RANGE};
use hyper::{Method, Request, Response, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tern_proto::v1;

use crate::config::Tls;
use crate::error::ClientError;

/// The time limit for a TCP connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The time limit for a whole PUT, which is enough for the largest part over a slow phone connection. It is shorter
/// than the time for which a URL is valid, unless the operator has shortened that (by default it is 900 s).
const PUT_TIMEOUT: Duration = Duration::from_secs(600);
/// The time limit for the beginning of the answer to a GET.
const GET_TIMEOUT: Duration = Duration::from_secs(30);
/// The time limit for the text of an error, and for the body of the answer to a PUT.
const TEXT_TIMEOUT: Duration = Duration::from_secs(10);
/// The number of bytes that are read of an error's text, and of the body of the answer to a PUT.
const TEXT_BYTES: usize = 2048;

type Body = BoxBody<Bytes, std::io::Error>;

/// A client for object stores. Clones share its connections.
#[derive(Debug, Clone)]
pub struct Http {
    client: Client<HttpsConnector<HttpConnector>, Body>,
}

/// The failure of a request.
#[derive(Debug)]
pub enum HttpError {
    /// There was no answer, or not in time.
    Broken(String),
    /// The store answered with this HTTP status and this text.
    Status(u16, String),
}

impl std::fmt::Display for HttpError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Broken(why) => f.write_str(why),
            Self::Status(status, text) => write!(f, "status {status}: {text}"),
        }
    }
}

impl Http {
    /// Makes a client that trusts the authorities of this machine, and those of `tls`.
    ///
    /// # Errors
    ///
    /// [`ClientError::Config`] if a certificate is invalid.
    pub fn new(tls: &Tls) -> Result<Self, ClientError> {
        let bad = |error: &dyn std::fmt::Display| ClientError::Config(format!("tls: {error}"));
        let mut roots = rustls::RootCertStore::empty();
        // If this machine trusts no authority at all, the first TLS connection fails and says so.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Tls::Roots(pem) = tls {
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                let certificate = certificate.map_err(|error| bad(&error))?;
                roots.add(certificate).map_err(|error| bad(&error))?;
            }
        }
        let provider = rustls::crypto::ring::default_provider();
        let config = rustls::ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .map_err(|error| bad(&error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        connector.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
        })
    }

    /// Puts one part. `headers` are those that were signed with the URL; the length is among them. Fails if the store
    /// does not answer in time or answers with an error.
    pub async fn put(
        &self,
        url: &str,
        headers: &[v1::HttpHeader],
        body: impl Stream<Item = Result<Bytes, std::io::Error>> + Send + Sync + 'static,
    ) -> Result<(), HttpError> {
        let body = StreamBody::new(body.map(|bytes| bytes.map(Frame::data)));
        let mut request = self.request(Method::PUT, url, BodyExt::boxed(body))?;
        for header in headers {
            let name = HeaderName::try_from(&header.name).map_err(broken)?;
            let value = HeaderValue::try_from(&header.value).map_err(broken)?;
            request.headers_mut().insert(name, value);
        }
        let answer = async { success(self.client.request(request).await.map_err(broken)?).await };
        let answer = tokio::time::timeout(PUT_TIMEOUT, answer).await;
        let answer = answer.map_err(|_| HttpError::Broken("no answer in time".into()))??;
        // The body is short. It is read to its end, so that the connection can be used again.
        beginning(answer.into_body(), TEXT_BYTES, TEXT_TIMEOUT).await;
        Ok(())
    }

    /// Gets an object's bytes from byte `from` on. Fails if the store does not answer in time, answers with an error,
    /// or ignores the range.
    pub async fn get(&self, url: &str, from: u64) -> Result<Response<Incoming>, HttpError> {
        let none = Empty::new().map_err(|never: Infallible| match never {});
        let mut request = self.request(Method::GET, url, BodyExt::boxed(none))?;
        if from > 0 {
            let range = HeaderValue::try_from(format!("bytes={from}-")).map_err(broken)?;
            request.headers_mut().insert(RANGE, range);
        }
        let answer = tokio::time::timeout(GET_TIMEOUT, self.client.request(request)).await;
        let answer = answer.map_err(|_| HttpError::Broken("no answer in time".into()))?;
        let answer = success(answer.map_err(broken)?).await?;
        if from > 0 && answer.status() != 206 {
            return Err(HttpError::Broken("the store gives no ranges".into()));
        }
        Ok(answer)
    }

    fn request(&self, method: Method, url: &str, body: Body) -> Result<Request<Body>, HttpError> {
        let uri: Uri = url.parse().map_err(broken)?;
        let request = Request::builder().method(method).uri(uri);
        request.body(body).map_err(broken)
    }
}

/// Returns the answer if its status is a success, otherwise an error with the status and the answer's text.
async fn success(answer: Response<Incoming>) -> Result<Response<Incoming>, HttpError> {
    if answer.status().is_success() {
        return Ok(answer);
    }
    let status = answer.status().as_u16();
    let text = beginning(answer.into_body(), TEXT_BYTES, TEXT_TIMEOUT).await;
    Err(HttpError::Status(
        status,
        String::from_utf8_lossy(&text).into_owned(),
    ))
}

/// Reads a body until it ends or breaks, has given `most` bytes, or the time `limit` is over. Returns what came, at
/// most `most` bytes.
async fn beginning(
    mut body: impl hyper::body::Body<Data = Bytes> + Unpin,
    most: usize,
    limit: Duration,
) -> Vec<u8> {
    let mut text: Vec<u8> = Vec::new();
    let read = async {
        while text.len() < most
            && let Some(Ok(frame)) = body.frame().await
        {
            if let Ok(bytes) = frame.into_data() {
                text.extend_from_slice(&bytes);
            }
        }
    };
    // If the time is over, what came until then is enough.
    let _ = tokio::time::timeout(limit, read).await;
    text.truncate(most);
    text
}

/// Makes an [`HttpError`] of an error and all its causes.
fn broken(error: impl std::error::Error) -> HttpError {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    HttpError::Broken(text)
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    fn chunk(bytes: &'static [u8]) -> Result<Frame<Bytes>, Infallible> {
        Ok(Frame::data(Bytes::from_static(bytes)))
    }

    #[tokio::test]
    async fn of_a_body_that_stalls_what_came_in_time_is_read() {
        let stalls = stream::iter([chunk(b"slow "), chunk(b"down")]).chain(stream::pending());
        let text = beginning(StreamBody::new(stalls), TEXT_BYTES, Duration::ZERO).await;
        assert_eq!(text, b"slow down");
    }

    #[tokio::test]
    async fn of_a_body_without_end_only_the_beginning_is_read() {
        let endless = stream::repeat_with(|| chunk(&[b'x'; 1000]));
        let text = beginning(StreamBody::new(endless), TEXT_BYTES, TEXT_TIMEOUT).await;
        assert_eq!(text, [b'x'; TEXT_BYTES]);
    }
}
