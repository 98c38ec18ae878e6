//! A message on its way in: its envelope understood, its body not.

use bytes::Bytes;
use prost::Message;
use tern_proto::{raw, v1};
use tern_types::limits::{MAX_BODY_BYTES, MAX_ENVELOPE_BYTES, MAX_MENTIONS};
use tern_types::{DeviceId, RequestId, Timestamp, TraceContext, UserId};

use crate::content::fingerprint;
use crate::state::{EntryKind, NewEntry, Refusal};

/// The entry that a message becomes; `trace`: of the span that it comes from, where it is traced.
pub fn entry(
    sender: UserId,
    device: DeviceId,
    request: RequestId,
    envelope: &Bytes,
    body: &Bytes,
    trace: Option<TraceContext>,
    arrived: Timestamp,
) -> Result<NewEntry, Refusal> {
    if body.len() > MAX_BODY_BYTES {
        return Err(Refusal::TooLarge("body: at most 262,144 bytes"));
    }
    if envelope.len() > MAX_ENVELOPE_BYTES {
        return Err(Refusal::TooLarge("envelope: at most 8,192 bytes"));
    }
    let read =
        v1::Envelope::decode(envelope.clone()).map_err(|_| Refusal::Invalid("envelope: does not decode"))?;
    let kind = kind(&read)?;
    Ok(NewEntry {
        kind,
        sender,
        device,
        request,
        fingerprint: fingerprint([envelope.as_ref(), body.as_ref()]),
        counts: kind == EntryKind::Message && read.counts_as_unread,
        content: raw::message_content(envelope, body),
        trace,
        arrived: Some(arrived),
        read_receipts_off: false,
    })
}

fn kind(envelope: &v1::Envelope) -> Result<EntryKind, Refusal> {
    if envelope.mentioned_user_ids.len() > MAX_MENTIONS {
        return Err(Refusal::Invalid("envelope.mentioned_user_ids: at most 64"));
    }
    if envelope
        .mentioned_user_ids
        .iter()
        .any(|id| id.parse::<UserId>().is_err())
    {
        return Err(Refusal::Invalid("envelope.mentioned_user_ids: must be UUIDs"));
    }
    let kind = match v1::MessageKind::try_from(envelope.kind) {
        Ok(v1::MessageKind::Unspecified | v1::MessageKind::Message) => EntryKind::Message,
        Ok(v1::MessageKind::Reaction) => EntryKind::Reaction,
        Err(_) => return Err(Refusal::Invalid("envelope.kind: not known to this server")),
    };
    if kind == EntryKind::Reaction && envelope.target_seq == 0 {
        return Err(Refusal::Invalid("envelope.target_seq: needed for this kind"));
    }
    Ok(kind)
}
