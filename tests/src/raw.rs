//! gRPC calls with any bytes at all for a body: for what no generated client would send.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use tonic::Code;
use tonic::transport::Channel;
use tower::ServiceExt as _;

/// A call ends at once, with whatever status.
const BOUND: Duration = Duration::from_secs(15);

/// Frames a message as gRPC does.
pub fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).expect("a small message"));
    frame.put_slice(message);
    frame.freeze()
}

/// Calls `/tern.v1.Service/Method` with `body` as it is; returns the status and its message.
pub async fn call(
    channel: Channel,
    method: &str,
    bearer: Option<&str>,
    body: impl Into<Bytes>,
) -> (Code, String) {
    let mut request = http::Request::post(format!("https://localhost/tern.v1.{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if let Some(bearer) = bearer {
        request = request.header("authorization", format!("Bearer {bearer}"));
    }
    let body = tonic::body::Body::new(Full::new(body.into()));
    let answer = channel.oneshot(request.body(body).expect("a request"));
    tokio::time::timeout(BOUND, async {
        let answer = match answer.await {
            Ok(answer) => answer,
            Err(error) => return (Code::Unknown, format!("the connection failed: {error}")),
        };
        let (head, body) = answer.into_parts();
        if let Some(status) = status(&head.headers) {
            return status;
        }
        match body.collect().await {
            Ok(body) => body
                .trailers()
                .and_then(status)
                .unwrap_or((Code::Unknown, "no status".to_owned())),
            Err(status) => (status.code(), status.message().to_owned()),
        }
    })
    .await
    .unwrap_or_else(|_| panic!("{method} has not ended within {BOUND:?}"))
}

fn status(headers: &http::HeaderMap) -> Option<(Code, String)> {
    let code = headers.get("grpc-status")?.to_str().ok()?.parse::<i32>().ok()?;
    let message = headers
        .get("grpc-message")
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    Some((Code::from_i32(code), message.to_owned()))
}
