//! gRPC calls with arbitrary bytes as their body, which no generated client would send.

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tower::ServiceExt as _;

use crate::bounds::{BOUND, PAUSE};

/// The number of bytes before a message in its frame: a flag for compression, and the length.
const PREFIX: usize = 5;

/// Frames a message as gRPC does.
pub fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).expect("a small message"));
    frame.put_slice(message);
    frame.freeze()
}

/// Calls `/tern.v1.Service/Method` with `body` unchanged. Returns the status and its message.
pub async fn call(
    channel: Channel,
    method: &str,
    bearer: Option<&str>,
    body: impl Into<Bytes>,
) -> (Code, String) {
    let (status, _) = answer(channel, method, bearer, body.into()).await;
    (status.code(), status.message().to_owned())
}

/// Makes a call as [`call`] does. Returns the answer's bytes, or the status with its details.
pub async fn unary(
    channel: Channel,
    method: &str,
    bearer: Option<&str>,
    body: impl Into<Bytes>,
) -> Result<Bytes, Status> {
    match answer(channel, method, bearer, body.into()).await {
        (status, answer) if status.code() == Code::Ok => {
            assert!(answer.len() >= PREFIX, "{method}: success without an answer");
            Ok(answer.slice(PREFIX..))
        }
        (status, _) => Err(status),
    }
}

/// Makes the call again while the platform answers UNAVAILABLE, as a client does.
async fn answer(channel: Channel, method: &str, bearer: Option<&str>, body: Bytes) -> (Status, Bytes) {
    let end = Instant::now() + BOUND;
    loop {
        let answer = attempt(channel.clone(), method, bearer, body.clone()).await;
        if answer.0.code() != Code::Unavailable || Instant::now() >= end {
            return answer;
        }
        sleep(PAUSE).await;
    }
}

async fn attempt(channel: Channel, method: &str, bearer: Option<&str>, body: Bytes) -> (Status, Bytes) {
    let mut request = http::Request::post(format!("https://localhost/tern.v1.{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if let Some(bearer) = bearer {
        request = request.header("authorization", format!("Bearer {bearer}"));
    }
    let body = tonic::body::Body::new(Full::new(body));
    let answer = channel.oneshot(request.body(body).expect("a request"));
    tokio::time::timeout(BOUND, async {
        let answer = match answer.await {
            Ok(answer) => answer,
            Err(error) => return (failed(error), Bytes::new()),
        };
        let (head, body) = answer.into_parts();
        if let Some(status) = Status::from_header_map(&head.headers) {
            return (status, Bytes::new());
        }
        match body.collect().await {
            Ok(body) => {
                let status = body.trailers().and_then(Status::from_header_map);
                (
                    status.unwrap_or_else(|| Status::unknown("no status")),
                    body.to_bytes(),
                )
            }
            Err(status) => (status, Bytes::new()),
        }
    })
    .await
    .unwrap_or_else(|_| panic!("{method} has not ended within {BOUND:?}"))
}

fn failed(error: tonic::transport::Error) -> Status {
    Status::unknown(format!("the connection failed: {error}"))
}
