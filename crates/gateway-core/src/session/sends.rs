//! This module takes the messages that a device sends to the chats' owners. It checks their form, size and rate; the
//! owner decides about everything else and answers.

use std::borrow::Cow;

use bytes::Bytes;
use tern_proto::raw;
use tern_proto::v1::{self, SendErrorCode, send_message, send_result, server_event};
use tern_types::limits::{MAX_BODY_BYTES, MAX_ENVELOPE_BYTES, MAX_SENDS_IN_FLIGHT};
use tern_types::{ChatId, IdMap, RequestId, Timestamp, TraceContext, UserId};

use super::event::Send;
use super::settings::{MAX_ECHO, RETRY, Settings};
use super::{Effect, Session};
use crate::gcra::Gcra;

/// The sends of one stream.
#[derive(Debug)]
pub(super) struct Sends {
    rate: Gcra,
    /// The sends that have no result yet, by their reference. There are at most [`MAX_SENDS_IN_FLIGHT`].
    in_flight: IdMap<u64, (RequestId, ChatId)>,
}

impl Sends {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            rate: Gcra::new(settings.sends_per_second, settings.send_burst),
            in_flight: IdMap::default(),
        }
    }

    pub(super) fn none_in_flight(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Returns the number of sends to this chat that have no result yet.
    pub(super) fn in_flight_to(&self, chat: ChatId) -> u64 {
        self.in_flight.values().filter(|(_, to)| *to == chat).count() as u64
    }
}

/// The refusal of a send. `retry_after_ms` is the time after which the client may send again, in milliseconds; 0 says
/// that the same send would fail again.
struct Refused {
    code: SendErrorCode,
    message: Cow<'static, str>,
    retry_after_ms: u32,
}

impl Refused {
    fn for_good(code: SendErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            message: message.into(),
            retry_after_ms: 0,
        }
    }
}

impl Session {
    /// Passes a message on to its chat's owner, or puts its refusal.
    pub(super) fn send(&mut self, message: raw::SendMessage, now: Timestamp) {
        let Some(user) = self.life.user() else { return };
        self.sign(now);
        match self.checked(user, &message, now) {
            Ok(send) => {
                let reference = self.next_reference();
                self.typing.wrote(send.chat, now);
                self.sends
                    .in_flight
                    .insert(reference, (send.request_id, send.chat));
                debug_assert!(
                    self.sends.in_flight.len() <= MAX_SENDS_IN_FLIGHT,
                    "too many sends are in flight"
                );
                self.effects.push(Effect::Send { reference, send });
            }
            Err(refused) => {
                let echo = message.request_id.chars().take(MAX_ECHO).collect();
                self.put(refusal(echo, refused), now);
            }
        }
    }

    /// Puts the result of a send. A result is never dropped, however slow the device is, and may overtake entries of
    /// others that lie below it in the log.
    pub(super) fn send_result(
        &mut self,
        reference: u64,
        event: Bytes,
        placed: Option<(ChatId, u64)>,
        now: Timestamp,
    ) {
        self.sends.in_flight.remove(&reference);
        self.put_bytes(event, now);
        if let Some((chat, seq)) = placed
            && let Some(chat) = self.chats.remember(chat)
        {
            match chat.catch_up {
                Some(_) => chat.place.went_early(seq),
                None => chat.place.went(seq),
            }
        }
        self.leave_when_answered();
    }

    /// Puts the refusal of a send that did not reach its chat's owner, or whose answer was lost.
    pub(super) fn send_failed(&mut self, reference: u64) {
        let Some((request, _)) = self.sends.in_flight.remove(&reference) else {
            return;
        };
        let refused = Refused {
            code: SendErrorCode::Unavailable,
            message: "the chat's node is away".into(),
            retry_after_ms: Settings::millis(RETRY * 2),
        };
        let event = raw::event(refusal(request.to_string(), refused));
        self.unflushed += event.len();
        self.effects.push(Effect::Put(event));
        self.leave_when_answered();
    }

    /// Makes a [`Send`] of the message. Returns its refusal if its form or size is wrong, if too many sends are in
    /// flight, or if the rate is exceeded.
    fn checked(&mut self, user: UserId, message: &raw::SendMessage, now: Timestamp) -> Result<Send, Refused> {
        let invalid = |message: &'static str| Refused::for_good(SendErrorCode::Invalid, message);
        let request_id = message
            .request_id
            .parse()
            .map_err(|_| invalid("request_id must be a UUID in its hyphenated form"))?;
        let (chat, peer) = match &message.to {
            Some(send_message::To::ChatId(chat)) => (
                chat.parse()
                    .map_err(|_| invalid("chat_id must be a UUID in its hyphenated form"))?,
                None,
            ),
            Some(send_message::To::PeerUserId(peer)) => {
                let peer = peer
                    .parse()
                    .map_err(|_| invalid("peer_user_id must be a UUID in its hyphenated form"))?;
                (ChatId::direct(user, peer), Some(peer))
            }
            None => return Err(invalid("either chat_id or peer_user_id is needed")),
        };
        if message.body.len() > MAX_BODY_BYTES {
            return Err(Refused::for_good(
                SendErrorCode::TooLarge,
                "the body is larger than Opened.limits.max_body_bytes",
            ));
        }
        if message.envelope.len() > MAX_ENVELOPE_BYTES {
            return Err(Refused::for_good(
                SendErrorCode::TooLarge,
                format!("the envelope has more than {MAX_ENVELOPE_BYTES} bytes"),
            ));
        }
        let limited = |message: &'static str, retry_after_ms| Refused {
            code: SendErrorCode::RateLimited,
            message: message.into(),
            retry_after_ms,
        };
        if self.sends.in_flight.len() >= MAX_SENDS_IN_FLIGHT {
            return Err(limited(
                "too many sends without a result",
                Settings::millis(RETRY),
            ));
        }
        if let Err(wait) = self.sends.rate.take(now) {
            return Err(limited(
                "too many sends a second",
                Settings::millis(wait).saturating_add(1),
            ));
        }
        Ok(Send {
            chat,
            peer,
            request_id,
            envelope: message.envelope.clone(),
            body: message.body.clone(),
            read_receipts_off: self.life.read_receipts_off(),
            acked: self.chats.get(chat).map_or(0, |chat| chat.acked),
            trace: TraceContext::parse(&raw::traceparent(&message.envelope)),
        })
    }
}

fn refusal(request_id: String, refused: Refused) -> server_event::Event {
    server_event::Event::SendResult(v1::SendResult {
        request_id,
        outcome: Some(send_result::Outcome::Error(v1::SendError {
            code: refused.code.into(),
            message: refused.message.into_owned(),
            retry_after_ms: refused.retry_after_ms,
        })),
    })
}
