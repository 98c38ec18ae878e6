//! Parts of public messages that stay encoded: the envelope of a send and the content of an entry (`build.rs` says which
//! fields), and events, which are encoded once and copied for each receiver. So a stored body is never decoded.

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{self, WireType};
use prost::{DecodeError, Message};

use crate::v1;

/// A [`v1::Message`] whose envelope stays encoded as it came.
#[derive(Clone, PartialEq, Message)]
struct RawMessage {
    /// An encoded [`v1::Envelope`].
    #[prost(bytes = "bytes", tag = "1")]
    envelope: Bytes,
    /// The message itself, opaque to the server.
    #[prost(bytes = "bytes", tag = "2")]
    body: Bytes,
}

impl v1::Envelope {
    /// Returns the encoded envelope, as [`v1::SendMessage`] and [`v1::SendMessageRequest`] have it.
    pub fn encoded(&self) -> Bytes {
        self.encode_to_vec().into()
    }
}

impl v1::Entry {
    /// Decodes the content.
    ///
    /// # Errors
    ///
    /// The content is not an encoded [`v1::EntryContent`].
    pub fn decoded_content(&self) -> Result<v1::EntryContent, DecodeError> {
        v1::EntryContent::decode(self.content.clone())
    }
}

impl v1::EntryContent {
    /// Returns the encoded content, as [`v1::Entry`] has it.
    pub fn encoded(&self) -> Bytes {
        self.encode_to_vec().into()
    }
}

/// Returns the W3C trace context of an encoded [`v1::Envelope`], which is the only field of it that a gateway looks at.
/// Returns an empty string if there is none, and also if the envelope does not decode, because the chat node reports
/// that.
pub fn traceparent(envelope: &Bytes) -> String {
    Traced::decode(envelope.clone()).unwrap_or_default().traceparent
}

#[derive(Clone, PartialEq, Message)]
struct Traced {
    #[prost(string, tag = "9")]
    traceparent: String,
}

/// The field number of `EntryContent.message`.
const CONTENT_MESSAGE: u32 = 1;
/// The field number of `EntryContent.expires_after_s`.
const CONTENT_EXPIRES_AFTER: u32 = 40;
/// The field number of `ServerEvent.entry`.
const EVENT_ENTRY: u32 = 2;
/// The field number of `ServerFrame.events`.
const FRAME_EVENTS: u32 = 1;

/// Encodes `EntryContent{message: {envelope, body}}` from the bytes of the envelope and the body.
pub fn message_content(envelope: &Bytes, body: &Bytes) -> Bytes {
    let message = RawMessage {
        envelope: envelope.clone(),
        body: body.clone(),
    };
    nested(CONTENT_MESSAGE, &message)
}

/// Returns the body of a message from its encoded content. It is empty if the content is none of a message.
pub fn message_body(content: &Bytes) -> Bytes {
    match v1::EntryContent::decode(content.clone()).map(|content| content.content) {
        Ok(Some(v1::entry_content::Content::Message(message))) => message.body,
        _ => Bytes::new(),
    }
}

/// Returns the encoded content of a message with the time in seconds after which the message disappears. The content
/// must not have such a time yet. The fields of an encoded message may be in any order, so the body is only copied.
pub fn with_expiry(content: &Bytes, expires_after_s: u32) -> Bytes {
    let seconds = u64::from(expires_after_s);
    let field = encoding::key_len(CONTENT_EXPIRES_AFTER) + encoding::encoded_len_varint(seconds);
    let mut out = BytesMut::with_capacity(content.len() + field);
    out.put_slice(content);
    encoding::encode_key(CONTENT_EXPIRES_AFTER, WireType::Varint, &mut out);
    encoding::encode_varint(seconds, &mut out);
    out.freeze()
}

/// Encodes `ServerEvent{entry}`.
pub fn entry_event(entry: &v1::Entry) -> Bytes {
    nested(EVENT_ENTRY, entry)
}

/// Encodes a `ServerEvent` of any kind.
pub fn event(event: v1::server_event::Event) -> Bytes {
    v1::ServerEvent { event: Some(event) }.encode_to_vec().into()
}

/// Returns the number of bytes that an encoded event takes in a `ServerFrame`.
pub fn event_len_in_frame(event: &[u8]) -> usize {
    encoding::key_len(FRAME_EVENTS) + encoding::encoded_len_varint(event.len() as u64) + event.len()
}

/// Appends an encoded event to an encoded `ServerFrame`. Each item of a repeated field is encoded as tag, length and
/// bytes, so a frame grows by appending items.
pub fn put_event(frame: &mut impl BufMut, event: &[u8]) {
    encoding::encode_key(FRAME_EVENTS, WireType::LengthDelimited, frame);
    encoding::encode_varint(event.len() as u64, frame);
    frame.put_slice(event);
}

/// Encodes a message that has `message` as its field number `tag` and no other fields.
fn nested(tag: u32, message: &impl Message) -> Bytes {
    let len = message.encoded_len();
    let mut out = BytesMut::with_capacity(1 + encoding::encoded_len_varint(len as u64) + len);
    encoding::encode_key(tag, WireType::LengthDelimited, &mut out);
    encoding::encode_varint(len as u64, &mut out);
    message.encode_raw(&mut out);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_keeps_what_this_version_does_not_know() {
        let known = v1::Envelope {
            traceparent: "00-x".to_owned(),
            ..Default::default()
        };
        let mut envelope = known.encode_to_vec();
        encoding::encode_key(1000, WireType::LengthDelimited, &mut envelope);
        encoding::encode_varint(3, &mut envelope);
        envelope.extend(b"new");
        let envelope = Bytes::from(envelope);
        let send = v1::SendMessage {
            envelope: envelope.clone(),
            ..Default::default()
        };
        let send = v1::SendMessage::decode(send.encode_to_vec().as_slice()).unwrap();
        assert_eq!(send.envelope, envelope);
        assert_eq!(v1::Envelope::decode(envelope.clone()), Ok(known));
        assert_eq!(traceparent(&envelope), "00-x");
        assert_eq!(traceparent(&Bytes::from_static(b"\xff")), "");
        let request = v1::SendMessageRequest {
            envelope: envelope.clone(),
            ..Default::default()
        };
        let request = v1::SendMessageRequest::decode(request.encode_to_vec().as_slice()).unwrap();
        assert_eq!(request.envelope, envelope);
    }

    #[test]
    fn a_content_tells_when_its_message_disappears_and_what_it_says() {
        let content = message_content(&Bytes::new(), &Bytes::from_static(b"hello"));
        for seconds in [1, 127, 128, u32::MAX] {
            let expiring = with_expiry(&content, seconds);
            let read = v1::EntryContent::decode(expiring.clone()).unwrap();
            assert_eq!(read.expires_after_s, seconds);
            assert_eq!(message_body(&expiring).as_ref(), b"hello");
            assert_eq!(read.encode_to_vec(), expiring, "as a client would encode it");
        }
    }

    #[test]
    fn an_entry_keeps_its_content_as_it_is_stored() {
        let envelope = v1::Envelope {
            reply_to_seq: 7,
            ..Default::default()
        };
        let content = message_content(&envelope.encode_to_vec().into(), &Bytes::from_static(b"hello"));
        let stored = v1::Entry {
            chat_id: "c".into(),
            seq: 9,
            content: content.clone(),
            ..Default::default()
        };
        let mut frame = Vec::new();
        let event = entry_event(&stored);
        put_event(&mut frame, &event);
        put_event(&mut frame, &event);
        assert_eq!(frame.len(), 2 * event_len_in_frame(&event));

        let read = v1::ServerFrame::decode(frame.as_slice()).unwrap();
        assert_eq!(read.events.len(), 2);
        let Some(v1::server_event::Event::Entry(entry)) = &read.events[1].event else {
            panic!("{read:?}")
        };
        assert_eq!((entry.seq, &entry.content), (9, &content));
        let Some(v1::entry_content::Content::Message(message)) = entry.decoded_content().unwrap().content
        else {
            panic!("{entry:?}")
        };
        assert_eq!(message.envelope.as_ref().map(|e| e.reply_to_seq), Some(7));
        assert_eq!(message.body.as_ref(), b"hello");
    }
}
