//! The codec of the device stream. Frames come in with the bodies uncopied, and their items are counted before any is
//! decoded. Frames go out as events that were encoded elsewhere.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes};
use futures::Stream;
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use tern_proto::raw::{event_len_in_frame, put_event};
use tern_proto::v1;
use tern_types::limits::MAX_FRAME_ITEMS;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Status, Streaming};

/// The first size of a stream's buffers, and the size at which a write is handed on, in bytes. They are small, since
/// most streams are idle. Measured: 23 KiB a stream instead of 40.
const BUFFERS: (usize, usize) = (256, 32 << 10);
/// The tag of `ClientFrame.items`.
const ITEMS: u32 = 1;

/// A frame that goes out: encoded `ServerEvent`s.
#[derive(Debug, Default, Clone)]
pub struct Frame {
    /// The encoded events, in the order in which the device gets them.
    pub events: Vec<Bytes>,
}

impl Frame {
    /// Returns the length of the encoded `ServerFrame` in bytes.
    pub fn encoded_len(&self) -> usize {
        self.events.iter().map(|event| event_len_in_frame(event)).sum()
    }

    /// Writes the encoded `ServerFrame` to `dst`.
    pub fn encode(&self, dst: &mut impl BufMut) {
        for event in &self.events {
            put_event(dst, event);
        }
    }
}

/// A frame that came in, or what is wrong with it. A frame that cannot be read is not an error of the codec, since
/// the stream still has to send a last event.
#[derive(Debug)]
pub enum Incoming {
    /// The items of a frame, in their order.
    Frame(Vec<v1::ClientItem>),
    /// The frame breaks the protocol; the text says how.
    Malformed(&'static str),
    /// The frame is beyond a limit; the text says which.
    TooLarge(&'static str),
    /// The connection is gone, so a last event reaches nobody.
    Gone,
}

const NO_FRAME: Incoming = Incoming::Malformed("a frame is no ClientFrame");
const TOO_MANY_ITEMS: Incoming = Incoming::TooLarge("a frame has more items than Limits.max_frame_items");
/// The result of each transport for a frame that is too large to be read.
pub(crate) const TOO_MANY_BYTES: Incoming =
    Incoming::TooLarge("a frame has more bytes than Limits.max_frame_bytes");

/// The codec of the device stream for tonic.
#[derive(Debug, Clone, Copy, Default)]
pub struct FrameCodec;

impl Codec for FrameCodec {
    type Encode = Frame;
    type Decode = Incoming;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for FrameCodec {
    type Item = Frame;
    type Error = Status;

    fn encode(&mut self, frame: Frame, dst: &mut EncodeBuf<'_>) -> Result<(), Status> {
        dst.reserve(frame.encoded_len());
        frame.encode(dst);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFERS.0, BUFFERS.1)
    }
}

impl Decoder for FrameCodec {
    type Item = Incoming;
    type Error = Status;

    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<Incoming>, Status> {
        let bytes = src.copy_to_bytes(src.remaining());
        Ok(Some(read_frame(bytes)))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFERS.0, BUFFERS.1)
    }
}

/// The client's frames of a gRPC stream.
pub struct GrpcFrames(pub Streaming<Incoming>);

impl Stream for GrpcFrames {
    type Item = Incoming;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Incoming>> {
        Pin::new(&mut self.0)
            .poll_next(cx)
            .map(|frame| frame.map(|frame| frame.unwrap_or_else(|status| unreadable(&status))))
    }
}

/// Returns what is wrong with a frame, by the status with which reading it failed.
fn unreadable(status: &Status) -> Incoming {
    if status.code() == Code::OutOfRange {
        TOO_MANY_BYTES
    } else if status.source().is_some() || status.code() == Code::Cancelled {
        Incoming::Gone
    } else {
        Incoming::Malformed("the stream is not framed as gRPC")
    }
}

/// Decodes one `ClientFrame`. One with more than [`MAX_FRAME_ITEMS`] items is refused before any is decoded.
pub fn read_frame(frame: Bytes) -> Incoming {
    match count_items(frame.clone()) {
        Some(count) if count > MAX_FRAME_ITEMS => TOO_MANY_ITEMS,
        Some(_) => v1::ClientFrame::decode(frame).map_or(NO_FRAME, |frame| Incoming::Frame(frame.items)),
        None => NO_FRAME,
    }
}

/// Counts the items of an encoded frame without decoding them. `None` if it is no frame.
fn count_items(mut frame: Bytes) -> Option<usize> {
    let mut count = 0;
    while frame.has_remaining() {
        let (tag, wire_type) = decode_key(&mut frame).ok()?;
        if tag == ITEMS && wire_type == WireType::LengthDelimited {
            count += 1;
            let len = usize::try_from(decode_varint(&mut frame).ok()?).ok()?;
            if len > frame.remaining() {
                return None;
            }
            frame.advance(len);
        } else {
            skip_field(wire_type, tag, &mut frame, DecodeContext::default()).ok()?;
        }
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;

    use super::*;

    fn entry(seq: u64, text: String) -> v1::ServerEvent {
        let entry = v1::Entry {
            seq,
            chat_id: text,
            ..Default::default()
        };
        v1::ServerEvent {
            event: Some(v1::server_event::Event::Entry(entry)),
        }
    }

    proptest! {
        #[test]
        fn a_frame_of_copied_events_is_what_prost_would_have_encoded(
            parts in proptest::collection::vec((any::<u64>(), ".{0,300}"), 0..20),
        ) {
            let events: Vec<_> = parts.into_iter().map(|(seq, text)| entry(seq, text)).collect();
            let frame = Frame { events: events.iter().map(|event| event.encode_to_vec().into()).collect() };
            let mut out = BytesMut::new();
            frame.encode(&mut out);
            prop_assert_eq!(out.len(), frame.encoded_len());
            prop_assert_eq!(out.freeze(), Bytes::from(v1::ServerFrame { events }.encode_to_vec()));
        }

        #[test]
        fn any_bytes_are_read_as_prost_reads_them(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let expected = v1::ClientFrame::decode(bytes.as_slice()).ok().map(|frame| frame.items);
            match read_frame(bytes.into()) {
                Incoming::Frame(items) => prop_assert_eq!(Some(items), expected),
                Incoming::Malformed(_) => prop_assert_eq!(expected, None),
                Incoming::TooLarge(_) => prop_assert!(expected.is_some_and(|items| items.len() > MAX_FRAME_ITEMS)),
                Incoming::Gone => prop_assert!(false, "bytes say nothing of the connection"),
            }
        }
    }

    #[test]
    fn too_many_items_are_not_even_decoded() {
        let frame = |items| {
            v1::ClientFrame {
                items: vec![v1::ClientItem::default(); items],
            }
            .encode_to_vec()
            .into()
        };
        assert!(
            matches!(read_frame(frame(MAX_FRAME_ITEMS)), Incoming::Frame(items) if items.len() == MAX_FRAME_ITEMS)
        );
        assert!(matches!(
            read_frame(frame(MAX_FRAME_ITEMS + 1)),
            Incoming::TooLarge(_)
        ));
    }
}
