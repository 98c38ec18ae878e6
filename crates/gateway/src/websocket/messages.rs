//! Converts WebSocket messages into frames of the device stream, and its frames and its end into messages.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{Stream, StreamExt};
use tern_proto::ApiError;
use tern_proto::error::reason_name;
use tern_types::limits::MAX_FRAME_BYTES;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::Frame as Fragment;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::codec::{self, Frame, Incoming};

/// The bytes that are read at once. Every socket keeps a buffer of this size. It is small, since most sockets are idle,
/// and send little when they do.
const READ_BUFFER: usize = 4 << 10;
/// The most bytes of a fragment. A larger frame is written in several, since a socket keeps room for the largest one
/// for good.
const FRAGMENT: usize = 16 << 10;
/// The most bytes that were written and not taken yet: one fragment, and the answer to a ping.
const WRITE_BUFFER: usize = FRAGMENT + (1 << 10);
/// The most messages without a frame, such as pings, that one poll passes over before other tasks get their turn.
const PASSED_OVER: usize = 64;
/// A client that sends no byte for this long after the stream's end counts as having sent everything.
const SILENCE: Duration = Duration::from_secs(1);
/// The first of the close codes that are the application's. A close code is this plus the gRPC status code.
const CLOSE_CODES: u16 = 4000;

/// Returns the limits of a socket, which follow from those of the stream.
pub fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(WRITE_BUFFER)
        .max_message_size(Some(MAX_FRAME_BYTES))
        .max_frame_size(Some(MAX_FRAME_BYTES))
}

/// Encodes a frame as one binary message, in fragments if it is large.
pub fn of_frame(frame: &Frame) -> impl Iterator<Item = Message> {
    let mut bytes = BytesMut::with_capacity(frame.encoded_len());
    frame.encode(&mut bytes);
    fragments(bytes.freeze())
}

fn fragments(bytes: Bytes) -> impl Iterator<Item = Message> {
    let mut left = Some(bytes);
    let mut kind = Data::Binary;
    std::iter::from_fn(move || {
        let mut part = left.take()?;
        if part.len() > FRAGMENT {
            left = Some(part.split_off(FRAGMENT));
        }
        let kind = std::mem::replace(&mut kind, Data::Continue);
        Some(Message::Frame(Fragment::message(
            part,
            OpCode::Data(kind),
            left.is_none(),
        )))
    })
}

/// Makes the close frame: gRPC's status code and the reason's name, or 1000 if the stream ended with OK.
pub fn close(outcome: Option<&ApiError>) -> Message {
    let (code, reason) = match outcome {
        None => (CloseCode::Normal, ""),
        Some(error) => (
            CloseCode::Library(CLOSE_CODES + error.code() as u16),
            reason_name(error.reason),
        ),
    };
    Message::Close(Some(CloseFrame {
        code,
        reason: reason.into(),
    }))
}

/// The client's frames on a socket. A socket has no half-closed state: a client that closes it hears nothing more,
/// and counts as gone.
pub struct Messages<T> {
    inbound: SplitStream<WebSocketStream<T>>,
    /// True once a message was refused before it was read to its end, so that what follows cannot be read as messages.
    unread: bool,
}

impl<T> Messages<T> {
    /// Makes the frames that come in on this half of a socket.
    pub fn new(inbound: SplitStream<WebSocketStream<T>>) -> Self {
        Self {
            inbound,
            unread: false,
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Messages<T> {
    /// Reads and drops what the client still sends, until it closes.
    pub async fn discard(mut self, out: SplitSink<WebSocketStream<T>, Message>) {
        if !self.unread {
            while let Some(Ok(_)) = self.inbound.next().await {}
            return;
        }
        let Ok(mut socket) = out.reunite(self.inbound) else {
            return;
        };
        let mut bytes = vec![0; READ_BUFFER];
        // The client's close frame cannot be told from the rest, so silence ends the reading.
        while let Ok(Ok(1..)) = timeout(SILENCE, socket.get_mut().read(&mut bytes)).await {}
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream for Messages<T> {
    type Item = Incoming;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Incoming>> {
        for _ in 0..PASSED_OVER {
            let message = std::task::ready!(self.inbound.poll_next_unpin(cx));
            self.unread |= matches!(message, Some(Err(_)));
            if let Some(incoming) = incoming(message) {
                return Poll::Ready(Some(incoming));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Converts a message for the stream. `None` if it is nothing to the stream, such as a ping.
fn incoming(message: Option<Result<Message, Error>>) -> Option<Incoming> {
    Some(match message {
        Some(Ok(Message::Binary(frame))) => codec::read_frame(frame),
        Some(Ok(Message::Text(_)) | Err(Error::Utf8(_))) => {
            Incoming::Malformed("a frame must be a binary message, not a text")
        }
        // A ping has been answered already; raw frames are never read.
        Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => return None,
        Some(Err(Error::Capacity(_))) => codec::TOO_MANY_BYTES,
        Some(Err(Error::Protocol(error))) if error != ProtocolError::ResetWithoutClosingHandshake => {
            Incoming::Malformed("the connection is not framed as a WebSocket")
        }
        Some(Ok(Message::Close(_)) | Err(_)) | None => Incoming::Gone,
    })
}

#[cfg(test)]
mod tests {
    use tern_proto::v1::ErrorReason;

    use super::*;

    #[test]
    fn the_close_code_is_the_grpc_status_and_the_reason_its_name() {
        let said = |outcome: Option<ErrorReason>| {
            let error = outcome.map(|reason| ApiError::new(reason, "because"));
            match close(error.as_ref()) {
                Message::Close(Some(frame)) => (u16::from(frame.code), frame.reason.to_string()),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(said(None), (1000, String::new()));
        for (reason, code) in [
            (ErrorReason::ProtocolError, 4003),
            (ErrorReason::TimedOut, 4004),
            (ErrorReason::TooLarge, 4008),
            (ErrorReason::SessionReplaced, 4010),
            (ErrorReason::Draining, 4014),
            (ErrorReason::TokenExpired, 4016),
        ] {
            assert_eq!(said(Some(reason)), (code, reason_name(reason).to_owned()));
        }
    }

    #[test]
    fn a_large_frame_is_one_message_in_small_fragments() {
        for (bytes, count) in [(0, 1), (1, 1), (FRAGMENT, 1), (FRAGMENT + 1, 2), (512 << 10, 32)] {
            let fragments: Vec<Message> = fragments(vec![7; bytes].into()).collect();
            assert_eq!(fragments.len(), count, "{bytes} bytes");
            let mut total = 0;
            for (number, fragment) in fragments.iter().enumerate() {
                let Message::Frame(fragment) = fragment else {
                    panic!("{fragment:?}")
                };
                let kind = if number == 0 { Data::Binary } else { Data::Continue };
                assert_eq!(fragment.header().opcode, OpCode::Data(kind));
                assert_eq!(fragment.header().is_final, number + 1 == count);
                total += fragment.payload().len();
            }
            assert_eq!(total, bytes);
        }
    }
}
