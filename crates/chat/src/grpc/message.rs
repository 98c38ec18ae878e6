//! Turns a message into an entry. It decodes and checks the envelope; the body is opaque to it.

use bytes::Bytes;
use prost::Message as _;
use tern_identity::ticket::Tickets;
use tern_proto::{ApiError, parse, raw, v1};
use tern_types::limits::{DISAPPEAR_S, MAX_ATTACHMENTS, MAX_MENTIONS, MAX_REACTION_BYTES};
use tern_types::{DeviceId, MediaId, RequestId, Seq, Timestamp, TraceContext, UserId};

use tern_chat_core::content::fingerprint;
use tern_chat_core::hint::PushHint;
use tern_chat_core::target::About;
use tern_chat_core::{EntryKind, MediaRef, NewEntry, Refusal, Sending};

use crate::answer;

/// A message as a device or a back end sent it. [`parse::send()`] has found that its parts are not too large, here or
/// at the gateway.
pub struct Message<'a> {
    /// The sender; [`UserId::SYSTEM`] if a back end sends in nobody's name.
    pub sender: UserId,
    /// The sending device; [`DeviceId::BACK_END`] if a back end sends.
    pub device: DeviceId,
    /// The request_id that the sender chose for this message.
    pub request: RequestId,
    /// The encoded `tern.v1.Envelope`.
    pub envelope: &'a Bytes,
    /// The body, which only the recipients understand.
    pub body: &'a Bytes,
    /// True if the sender has read receipts turned off.
    pub read_receipts_off: bool,
    /// The last seq of the chat that the sending device has acknowledged; 0 if it is not known.
    pub acked: Seq,
    /// The trace context of the span that the message comes from; `None` if it is not traced.
    pub trace: Option<TraceContext>,
    /// The time at which the message arrived at this node, by the monotonic clock.
    pub arrived: Timestamp,
}

/// Makes the entry that a message becomes. `tickets` is `None` if this server has no media.
///
/// # Errors
///
/// The envelope does not decode or has a bad field, a ticket is not valid for the sender and the media, or the kind of
/// message needs another body.
pub fn entry(message: &Message<'_>, tickets: Option<&Tickets>) -> Result<NewEntry, Refusal> {
    let (envelope, body) = (message.envelope, message.body);
    let read = v1::Envelope::decode(envelope.clone())
        .map_err(|_| Refusal::Invalid("envelope", "does not decode"))?;
    let kind = kind(&read)?;
    let mentions = mentions(&read, message.sender)?;
    let media = media(&read, message.sender, tickets)?;
    check_content(kind, body, !media.is_empty())?;
    let expires_after_s = time_to_live(&read, kind)?;
    let sending = Sending {
        trace: message.trace,
        arrived: Some(message.arrived),
        read_receipts_off: message.read_receipts_off,
        acked: message.acked,
    };
    Ok(NewEntry {
        kind,
        counts: kind == EntryKind::Message && !read.uncounted,
        media,
        about: about(&read, kind, body),
        thread_root: (kind == EntryKind::Message && read.thread_root_seq > 0)
            .then_some(Seq(read.thread_root_seq)),
        // Only messages are unread, so nothing else counts as a mention.
        mentions: if kind == EntryKind::Message {
            mentions
        } else {
            Vec::new()
        },
        sending,
        expires_after_s,
        hint: if kind == EntryKind::Message {
            PushHint::of_envelope(read.push_hint)
        } else {
            PushHint::Usual
        },
        ..NewEntry::message(
            message.sender,
            message.device,
            message.request,
            fingerprint([envelope.as_ref(), body.as_ref()]),
            raw::message_content(envelope, body),
        )
    })
}

/// Returns the media that the envelope's attachments refer to, each once. It verifies the tickets without asking
/// another node. Whether they have expired is decided later, when the entry gets its seq.
fn media(
    envelope: &v1::Envelope,
    sender: UserId,
    tickets: Option<&Tickets>,
) -> Result<Vec<MediaRef>, Refusal> {
    let attachments = &envelope.attachments;
    if attachments.is_empty() {
        return Ok(Vec::new());
    }
    if attachments.len() > MAX_ATTACHMENTS {
        return Err(Refusal::TooMany {
            field: "envelope.attachments",
            most: MAX_ATTACHMENTS,
        });
    }
    let mut media: Vec<MediaRef> = Vec::with_capacity(attachments.len());
    for attachment in attachments {
        let no_id = |_| Refusal::Invalid("envelope.attachments.media_id", "must be UUIDs");
        let media_id = attachment.media_id.parse().map_err(no_id)?;
        let found = reference(
            "envelope.attachments",
            media_id,
            &attachment.ticket,
            sender,
            tickets,
        )?;
        if media.iter().all(|known| known.media != found.media) {
            media.push(found);
        }
    }
    Ok(media)
}

/// Returns the media that a picture's ticket stands for. The ticket is verified as the ticket of an
/// attachment is. `Ok(None)` means that the picture is to be removed.
pub fn picture(
    picture: Option<&v1::Attachment>,
    sender: UserId,
    tickets: Option<&Tickets>,
) -> Result<Option<MediaRef>, ApiError> {
    let Some(picture) = picture else { return Ok(None) };
    let media = parse::id("picture.media_id", &picture.media_id)?;
    let reference = reference("picture", media, &picture.ticket, sender, tickets);
    reference.map(Some).map_err(|refusal| answer::to_error(&refusal))
}

/// Returns a reference to the media if the ticket is valid for it and for the sender.
fn reference(
    field: &'static str,
    media: MediaId,
    ticket: &[u8],
    sender: UserId,
    tickets: Option<&Tickets>,
) -> Result<MediaRef, Refusal> {
    let tickets = tickets.ok_or(Refusal::Invalid(field, "cannot be set: this server has no media"))?;
    let expires_at = tickets.verify(ticket, media, sender);
    let expires_at = expires_at.ok_or(Refusal::MediaTicket)?;
    Ok(MediaRef { media, expires_at })
}

/// Returns the users whom the envelope mentions, each once and without the sender.
fn mentions(envelope: &v1::Envelope, sender: UserId) -> Result<Vec<UserId>, Refusal> {
    const FIELD: &str = "envelope.mentioned_user_ids";
    let ids = &envelope.mentioned_user_ids;
    if ids.len() > MAX_MENTIONS {
        return Err(Refusal::TooMany {
            field: FIELD,
            most: MAX_MENTIONS,
        });
    }
    let mut mentions = Vec::with_capacity(ids.len());
    for id in ids {
        let user = id.parse().map_err(|_| Refusal::Invalid(FIELD, "must be UUIDs"))?;
        if user != sender && !mentions.contains(&user) {
            mentions.push(user);
        }
    }
    Ok(mentions)
}

/// Refuses a body or attachments that an entry of this kind does not have, or lacks.
fn check_content(kind: EntryKind, body: &Bytes, has_media: bool) -> Result<(), Refusal> {
    let problem = match kind {
        EntryKind::Delete | EntryKind::Pin if !body.is_empty() => "must be empty with this kind",
        EntryKind::Reaction if !(1..=MAX_REACTION_BYTES).contains(&body.len()) => {
            "must have 1 to 64 bytes with the kind REACTION"
        }
        EntryKind::Message | EntryKind::Edit if body.is_empty() && !has_media => {
            "is needed where there are no attachments"
        }
        EntryKind::Delete | EntryKind::Pin | EntryKind::Reaction if has_media => {
            return Err(Refusal::Invalid(
                "envelope.attachments",
                "must be empty with this kind",
            ));
        }
        _ => return Ok(()),
    };
    Err(Refusal::Invalid("body", problem))
}

/// Returns the seconds after which the message is to disappear, and 0 if its sender asks for no time. Only messages
/// disappear by themselves: what was done to one goes with it.
fn time_to_live(envelope: &v1::Envelope, kind: EntryKind) -> Result<u32, Refusal> {
    if envelope.time_to_live_s > *DISAPPEAR_S.end() {
        return Err(Refusal::Invalid(
            "envelope.time_to_live_s",
            "must be at most 31536000, which is a year",
        ));
    }
    Ok(if kind == EntryKind::Message {
        envelope.time_to_live_s
    } else {
        0
    })
}

/// Returns what the entry says about an earlier message.
fn about(envelope: &v1::Envelope, kind: EntryKind, body: &Bytes) -> Option<About> {
    let reaction = match kind {
        EntryKind::Message => return None,
        // A part of the body's buffer would keep the whole frame in memory for as long as the entry waits.
        EntryKind::Reaction => Bytes::copy_from_slice(body),
        _ => Bytes::new(),
    };
    Some(About {
        target: Seq(envelope.target_seq),
        take_back: envelope.take_back,
        reaction,
    })
}

/// Decides the kind of the entry, and checks that the envelope says what an entry of this kind is about.
fn kind(envelope: &v1::Envelope) -> Result<EntryKind, Refusal> {
    let kind = match v1::MessageKind::try_from(envelope.kind) {
        Ok(v1::MessageKind::Unspecified | v1::MessageKind::Message) => EntryKind::Message,
        Ok(v1::MessageKind::Edit) => EntryKind::Edit,
        Ok(v1::MessageKind::Delete) => EntryKind::Delete,
        Ok(v1::MessageKind::Reaction) => EntryKind::Reaction,
        Ok(v1::MessageKind::Pin) => EntryKind::Pin,
        Err(_) => return Err(Refusal::Invalid("envelope.kind", "is not known to this server")),
    };
    if kind != EntryKind::Message && envelope.target_seq == 0 {
        return Err(Refusal::Invalid("envelope.target_seq", "is needed for this kind"));
    }
    Ok(kind)
}

#[cfg(test)]
mod tests {
    use tern_types::limits::MAX_ENVELOPE_BYTES;
    use uuid::Uuid;

    use super::*;

    const SENDER: UserId = UserId(Uuid::from_u128(1));

    fn tickets() -> Tickets {
        Tickets::from_hex(&"ab".repeat(32)).unwrap()
    }

    fn attachment(media: MediaId, user: UserId) -> v1::Attachment {
        let (ticket, _) = tickets().sign(media, user, Timestamp(0));
        v1::Attachment {
            media_id: media.to_string(),
            ticket: ticket.into(),
        }
    }

    fn refer(attachments: Vec<v1::Attachment>, tickets: Option<&Tickets>) -> Result<Vec<MediaRef>, Refusal> {
        let envelope = v1::Envelope {
            attachments,
            ..Default::default()
        };
        let envelope = envelope.encode_to_vec().into();
        entry(&message(&envelope), tickets).map(|entry| entry.media)
    }

    fn message(envelope: &Bytes) -> Message<'_> {
        static BODY: Bytes = Bytes::from_static(b"hello");
        Message {
            sender: SENDER,
            device: DeviceId::BACK_END,
            request: RequestId::random(),
            envelope,
            body: &BODY,
            read_receipts_off: false,
            acked: Seq::ZERO,
            trace: None,
            arrived: Timestamp(0),
        }
    }

    #[test]
    fn a_message_has_a_body_or_attachments() {
        let (tickets, media) = (tickets(), MediaId::random());
        let of = |body: &'static [u8], attachments: Vec<v1::Attachment>| {
            let envelope = v1::Envelope {
                attachments,
                ..Default::default()
            };
            let (envelope, body) = (envelope.encode_to_vec().into(), Bytes::from_static(body));
            let message = Message {
                body: &body,
                ..message(&envelope)
            };
            entry(&message, Some(&tickets)).map(drop)
        };
        let file = attachment(media, SENDER);
        assert!(matches!(of(b"", vec![]), Err(Refusal::Invalid("body", _))));
        assert_eq!(of(b"", vec![file.clone()]), Ok(()));
        assert_eq!(of(b"hello", vec![]), Ok(()));
        assert_eq!(of(b"hello", vec![file]), Ok(()));
    }

    #[test]
    fn each_kind_has_the_body_and_the_target_that_it_needs() {
        use v1::MessageKind as K;
        let of = |kind: K, target_seq, body: &[u8]| {
            let envelope = v1::Envelope {
                kind: kind.into(),
                target_seq,
                take_back: true,
                ..Default::default()
            };
            let (envelope, body) = (envelope.encode_to_vec().into(), Bytes::copy_from_slice(body));
            let message = Message {
                body: &body,
                ..message(&envelope)
            };
            entry(&message, None)
        };
        for (kind, body) in [
            (K::Edit, &b"x"[..]),
            (K::Delete, b""),
            (K::Reaction, b"+"),
            (K::Pin, b""),
        ] {
            let made = of(kind, 7, body).unwrap();
            assert_eq!(i32::from(made.kind.number()), kind as i32, "one number for both");
            assert!(!made.counts);
            let about = made.about.unwrap();
            assert_eq!((about.target, about.take_back), (Seq(7), true));
            assert_eq!(about.reaction.is_empty(), kind != K::Reaction);
            assert!(matches!(
                of(kind, 0, body),
                Err(Refusal::Invalid("envelope.target_seq", _))
            ));
        }
        let wrong = [
            (K::Edit, vec![]),
            (K::Delete, vec![b'x']),
            (K::Pin, vec![b'x']),
            (K::Reaction, vec![]),
            (K::Reaction, vec![b'x'; MAX_REACTION_BYTES + 1]),
        ];
        for (kind, body) in wrong {
            assert!(
                matches!(of(kind, 7, &body), Err(Refusal::Invalid("body", _))),
                "{kind:?}"
            );
        }
        assert!(
            of(K::Message, 7, b"x").unwrap().about.is_none(),
            "a message stands alone"
        );
    }

    #[test]
    fn only_a_message_disappears_after_a_time_of_its_own_and_that_is_a_year_at_most() {
        let of = |kind: v1::MessageKind, time_to_live_s| {
            let envelope = v1::Envelope {
                kind: kind.into(),
                target_seq: 7,
                time_to_live_s,
                ..Default::default()
            };
            let envelope = envelope.encode_to_vec().into();
            entry(&message(&envelope), None).map(|entry| entry.expires_after_s)
        };
        let year = 31_536_000;
        for (kind, asked, expected) in [
            (v1::MessageKind::Message, 0, 0),
            (v1::MessageKind::Message, 1, 1),
            (v1::MessageKind::Message, year, year),
            (v1::MessageKind::Edit, 60, 0),
        ] {
            assert_eq!(of(kind, asked), Ok(expected), "{kind:?}, {asked}");
        }
        let too_long = of(v1::MessageKind::Message, year + 1);
        assert!(matches!(
            too_long,
            Err(Refusal::Invalid("envelope.time_to_live_s", _))
        ));
    }

    #[test]
    fn a_message_alone_has_a_choice_how_it_is_announced() {
        for (kind, hint) in [
            (v1::MessageKind::Message, PushHint::Nothing),
            (v1::MessageKind::Reaction, PushHint::Usual),
        ] {
            let envelope = v1::Envelope {
                kind: kind.into(),
                target_seq: 7,
                push_hint: v1::PushHint::None.into(),
                ..Default::default()
            };
            let envelope = envelope.encode_to_vec().into();
            assert_eq!(entry(&message(&envelope), None).unwrap().hint, hint, "{kind:?}");
        }
    }

    /// The bytes of what waits are counted by the contents alone, so an entry must not hold on to anything larger.
    #[test]
    fn a_reaction_does_not_keep_the_frame_that_it_came_in() {
        let envelope = v1::Envelope {
            kind: v1::MessageKind::Reaction.into(),
            target_seq: 7,
            ..Default::default()
        };
        let envelope = envelope.encode_to_vec().into();
        let frame = Bytes::from(vec![b'+'; 1 << 19]);
        let body = frame.slice(..1);
        let message = Message {
            body: &body,
            ..message(&envelope)
        };
        let made = entry(&message, None).unwrap();
        let reaction = made.about.unwrap().reaction;
        assert_eq!(reaction, body);
        assert!(!frame.as_ptr_range().contains(&reaction.as_ptr()));
    }

    #[test]
    fn attachments_are_taken_by_their_tickets() {
        let (tickets, media, other) = (tickets(), MediaId::random(), MediaId::random());
        let (own, twice) = (attachment(media, SENDER), attachment(other, SENDER));
        let found = refer(vec![own.clone(), twice.clone(), twice], Some(&tickets)).unwrap();
        assert_eq!(
            found.iter().map(|found| found.media).collect::<Vec<_>>(),
            [media, other]
        );
        assert_eq!(refer(vec![], None), Ok(vec![]));

        let stolen = attachment(media, UserId(Uuid::from_u128(2)));
        assert_eq!(refer(vec![stolen], Some(&tickets)), Err(Refusal::MediaTicket));
        let swapped = v1::Attachment {
            media_id: other.to_string(),
            ..own.clone()
        };
        assert_eq!(
            refer(vec![own.clone(), swapped], Some(&tickets)),
            Err(Refusal::MediaTicket)
        );
        let no_id = v1::Attachment {
            media_id: "x".to_owned(),
            ..own.clone()
        };
        assert!(matches!(
            refer(vec![no_id], Some(&tickets)),
            Err(Refusal::Invalid(..))
        ));
        let many = vec![own.clone(); MAX_ATTACHMENTS + 1];
        assert!(matches!(
            refer(many, Some(&tickets)),
            Err(Refusal::TooMany { .. })
        ));
        assert!(matches!(refer(vec![own], None), Err(Refusal::Invalid(..))));
    }

    #[test]
    fn as_many_attachments_as_may_be_fit_into_an_envelope() {
        let attachments = (0..MAX_ATTACHMENTS).map(|_| attachment(MediaId::random(), SENDER));
        let mentioned_user_ids = (0..MAX_MENTIONS).map(|_| UserId::random().to_string());
        let envelope = v1::Envelope {
            attachments: attachments.collect(),
            mentioned_user_ids: mentioned_user_ids.collect(),
            ..Default::default()
        };
        assert!(envelope.encoded_len() < MAX_ENVELOPE_BYTES - 1024);
    }
}
