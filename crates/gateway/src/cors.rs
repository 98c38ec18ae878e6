//! Cross-origin requests (CORS): what a browser has to be told before a page of another site may call the unary APIs
//! by gRPC-Web and read the answers. Only browsers send an `Origin`; nothing changes for other clients.

use std::convert::Infallible;

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, CONTENT_TYPE, VARY,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use tonic::body::Body;
use tower::{Service, ServiceExt};

use crate::metrics;
use crate::origins::{Origins, Refused};

/// The methods that pages may use. Calls are POST.
const METHODS: HeaderValue = HeaderValue::from_static("POST");
/// The header fields that clients of gRPC-Web send: credentials, the form of the message, a deadline, the trace.
const REQUEST_HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, content-type, grpc-timeout, traceparent, tracestate, x-grpc-web, x-request-id, x-user-agent",
);
/// The header fields that pages may read. The status of a failure without a message is in them.
const EXPOSED_HEADERS: HeaderValue =
    HeaderValue::from_static("grpc-status, grpc-message, grpc-status-details-bin, x-request-id");
/// The time for which a browser may remember the answer to a preflight, in seconds: two hours, the most that any
/// browser accepts.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");

/// Answers a preflight request itself, and lets `calls` answer every other request, if its page may use this gateway.
pub async fn answer<S, B>(origins: &Origins, calls: S, request: Request<B>) -> Response<Body>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
{
    let origin = match origins.check(request.headers()) {
        Ok(None) => return call(calls, request).await,
        Ok(Some(origin)) => origin.clone(),
        Err(refused) => return refuse(refused),
    };
    let asks =
        request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if asks {
        preflight()
    } else {
        let mut response = call(calls, request).await;
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS);
        response
    };
    allow(response.headers_mut(), origin);
    response
}

async fn call<S, B>(calls: S, request: Request<B>) -> Response<Body>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
{
    match calls.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// Makes the answer to a preflight request.
fn preflight() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS);
    headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    response
}

/// Allows the page to read the response. `Access-Control-Allow-Credentials` is not sent: a page puts its credentials
/// into `authorization` itself.
fn allow(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.append(VARY, HeaderValue::from_static("origin"));
}

fn refuse(refused: Refused) -> Response<Body> {
    metrics::origin_refused();
    let mut response = Response::new(Body::new(http_body_util::Full::from(format!("{refused}\n"))));
    *response.status_mut() = StatusCode::FORBIDDEN;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(VARY, HeaderValue::from_static("origin"));
    response
}
