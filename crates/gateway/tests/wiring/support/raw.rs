//! gRPC calls with arbitrary bytes.

use bytes::Bytes;
use tern_gateway::proxy::BytesCodec;
use tonic::transport::Channel;
use tonic::{Request, Status};

/// Sends the bytes as a frame of the device stream, and returns the status that ends it.
pub async fn raw_stream(channel: Channel, frame: Bytes) -> Status {
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/tern.v1.Messaging/Stream");
    let frames = tokio_stream::once(frame);
    let answer = grpc.streaming(Request::new(frames), path, BytesCodec).await;
    let mut answers = answer.unwrap().into_inner();
    loop {
        match answers.message().await {
            Ok(Some(_)) => {}
            Ok(None) => return Status::ok("no status"),
            Err(status) => return status,
        }
    }
}

/// Makes a unary call of the method at `path` with an empty message, and returns the status with which it
/// fails.
pub async fn raw_unary(channel: Channel, path: &'static str) -> Status {
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static(path);
    grpc.unary(Request::new(Bytes::new()), path, BytesCodec)
        .await
        .unwrap_err()
}
