//! The codec of the device stream: frames come in with their bodies uncopied and their items counted before any is
//! decoded; frames go out as events that were encoded elsewhere.

use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use tern_proto::raw::{event_len_in_frame, put_event};
use tern_proto::v1;
use tern_types::limits::MAX_FRAME_ITEMS;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// A stream's buffers begin this small (most streams are idle) and a write is handed on at this size. Measured: 23 KiB
/// a stream instead of 40.
const BUFFERS: (usize, usize) = (256, 32 << 10);
/// Tag of `ClientFrame.items`.
const ITEMS: u32 = 1;

/// A frame on its way out: encoded `ServerEvent`s.
#[derive(Debug, Default, Clone)]
pub struct Frame {
    pub events: Vec<Bytes>,
}

/// A frame that came in, or what is wrong with it. A frame that cannot be read is no error of the codec: the stream
/// still has to say so in its last event.
#[derive(Debug)]
pub enum Incoming {
    Frame(Vec<v1::ClientItem>),
    /// No `ClientFrame`.
    Garbage,
    TooManyItems,
}

/// See the module.
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
        dst.reserve(frame.events.iter().map(|event| event_len_in_frame(event)).sum());
        write_frame(&frame.events, dst);
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

/// Puts events together to one `ServerFrame`.
pub fn write_frame(events: &[Bytes], out: &mut impl BufMut) {
    for event in events {
        put_event(out, event);
    }
}

/// Decodes one `ClientFrame`, never more than [`MAX_FRAME_ITEMS`] items of it.
pub fn read_frame(frame: Bytes) -> Incoming {
    match count_items(frame.clone()) {
        Some(count) if count > MAX_FRAME_ITEMS => Incoming::TooManyItems,
        Some(_) => {
            v1::ClientFrame::decode(frame).map_or(Incoming::Garbage, |frame| Incoming::Frame(frame.items))
        }
        None => Incoming::Garbage,
    }
}

/// Items of an encoded frame, without looking into them. `None`: no frame.
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
            write_frame(&frame.events, &mut out);
            prop_assert_eq!(out.len(), frame.events.iter().map(|event| event_len_in_frame(event)).sum::<usize>());
            prop_assert_eq!(out.freeze(), Bytes::from(v1::ServerFrame { events }.encode_to_vec()));
        }

        #[test]
        fn any_bytes_are_read_as_prost_reads_them(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let expected = v1::ClientFrame::decode(bytes.as_slice()).ok().map(|frame| frame.items);
            match read_frame(bytes.into()) {
                Incoming::Frame(items) => prop_assert_eq!(Some(items), expected),
                Incoming::Garbage => prop_assert_eq!(expected, None),
                Incoming::TooManyItems => prop_assert!(expected.is_some_and(|items| items.len() > MAX_FRAME_ITEMS)),
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
            Incoming::TooManyItems
        ));
    }
}
