//! This module takes the messages that a device sends to the chats' owners. It checks their form, size and rate; the
//! owner decides about everything else and answers.

use std::borrow::Cow;

use bytes::Bytes;
use tern_proto::v1::{self, ErrorReason, SendErrorCode, send_result, server_event};
use tern_proto::{ApiError, parse, raw};
use tern_types::limits::MAX_SENDS_IN_FLIGHT;
use tern_types::{ChatId, IdMap, RequestId, Timestamp, TraceContext, UserId};

use super::event::Send;
use super::settings::{MAX_ECHO, RETRY, Settings};
use super::{Effect, Op, Session};
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

impl From<ApiError> for Refused {
    /// The message does not parse, and would not if it were sent again.
    fn from(error: ApiError) -> Self {
        let code = match error.reason {
            ErrorReason::TooLarge => SendErrorCode::TooLarge,
            _ => SendErrorCode::Invalid,
        };
        Self {
            code,
            message: error.message.into(),
            retry_after_ms: 0,
        }
    }
}

impl Session {
    /// Passes a message on to its chat's owner, or puts its refusal.
    pub(super) fn send(&mut self, message: v1::SendMessage, now: Timestamp) {
        let Some(user) = self.life.user() else { return };
        self.sign(now);
        match self.checked(user, &message, now) {
            Ok(send) => {
                let reference = self.references.draw();
                self.typing.wrote(send.chat, now);
                self.sends
                    .in_flight
                    .insert(reference, (send.request_id, send.chat));
                debug_assert!(
                    self.sends.in_flight.len() <= MAX_SENDS_IN_FLIGHT,
                    "too many sends are in flight"
                );
                self.effects.push(Effect::Up(Op::Send { reference, send }));
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
    fn checked(&mut self, user: UserId, message: &v1::SendMessage, now: Timestamp) -> Result<Send, Refused> {
        let message = parse::send(user, message)?;
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
            chat: message.chat,
            peer: message.peer,
            request_id: message.request,
            read_receipts_off: self.life.read_receipts_off(),
            acked: self.chats.get(message.chat).map_or(0, |chat| chat.acked),
            trace: TraceContext::parse(&raw::traceparent(&message.envelope)),
            envelope: message.envelope,
            body: message.body,
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
