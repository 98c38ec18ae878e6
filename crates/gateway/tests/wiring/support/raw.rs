//! gRPC calls with arbitrary bytes.

use std::collections::VecDeque;

use bytes::Bytes;
use prost::Message;
use tern_gateway::proxy::BytesCodec;
use tern_proto::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use super::items::open;
use super::soon;

/// A `ServerFrame` whose events stay encoded.
#[derive(Clone, PartialEq, Message)]
struct RawFrame {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    events: Vec<Bytes>,
}

/// A device's client by gRPC that decodes no events.
pub struct RawPhone {
    _out: mpsc::Sender<Bytes>,
    events: VecDeque<Bytes>,
    frames: Streaming<Bytes>,
}

impl RawPhone {
    /// Begins a stream, and sends `Open` on it.
    pub async fn open(channel: Channel, access_token: String) -> Self {
        let mut grpc = tonic::client::Grpc::new(channel);
        grpc.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static("/tern.v1.Messaging/Stream");
        let (out, frames_out) = mpsc::channel(1);
        let item = Some(open(access_token));
        let frame = v1::ClientFrame {
            items: vec![v1::ClientItem { item }],
        };
        out.send(Bytes::from(frame.encode_to_vec())).await.unwrap();
        let frames_out = Request::new(ReceiverStream::new(frames_out));
        let frames = grpc.streaming(frames_out, path, BytesCodec).await.unwrap();
        Self {
            _out: out,
            events: VecDeque::new(),
            frames: frames.into_inner(),
        }
    }

    /// Returns the next event as it came.
    pub async fn event(&mut self) -> Bytes {
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            let frame = soon(self.frames.message()).await.expect("no status");
            let frame = RawFrame::decode(frame.expect("the stream goes on")).unwrap();
            self.events.extend(frame.events);
        }
    }
}

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
