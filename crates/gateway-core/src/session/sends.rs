//! This module takes the messages that a device sends to the chats' owners. It checks their form, size and rate; the
//! owner decides about everything else and answers. A message whose answer does not come in time is answered here.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use tern_proto::v1::{self, ErrorReason, SendErrorCode, send_result, server_event};
use tern_proto::{ApiError, parse, raw};
use tern_types::limits::MAX_SENDS_IN_FLIGHT;
use tern_types::{ChatId, IdMap, RequestId, Timestamp, TraceContext, UserId};

use super::event::Send;
use super::settings::{ANSWER_WITHIN, LATE_TOGETHER, MAX_ECHO, RETRY, Settings};
use super::{Effect, NEVER, Op, Session};
use crate::gcra::Gcra;

/// The sends of one stream.
#[derive(Debug)]
pub(super) struct Sends {
    rate: Gcra,
    /// The sends that have no result yet, by their reference. There are at most [`MAX_SENDS_IN_FLIGHT`].
    in_flight: IdMap<u64, InFlight>,
}

/// A send that has no result yet.
#[derive(Debug)]
struct InFlight {
    request: RequestId,
    chat: ChatId,
    /// The time at which the device is told to send again if no result has come.
    until: Timestamp,
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
        self.in_flight.values().filter(|send| send.chat == chat).count() as u64
    }

    /// Returns the time at which [`Session::tick_sends`] has something to do next.
    pub(super) fn due(&self) -> Timestamp {
        let next = self.in_flight.values().map(|send| send.until).min();
        next.unwrap_or(NEVER)
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
                let in_flight = InFlight {
                    request: send.request_id,
                    chat: send.chat,
                    until: (now + ANSWER_WITHIN).rounded_up(LATE_TOGETHER),
                };
                self.wake_at(in_flight.until);
                self.sends.in_flight.insert(reference, in_flight);
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
    /// others that lie below it in the log. It is put too if the device was told to send again meanwhile: it knows the
    /// message by its request_id.
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
        self.send_again(reference, "the chat's node is away", RETRY * 2);
    }

    /// Puts the refusals of the sends that have had no result for [`ANSWER_WITHIN`], in the order in which they were
    /// made. The messages themselves go on: they are not taken back, so none is overtaken by a later one.
    pub(super) fn tick_sends(&mut self, now: Timestamp) {
        let sends = self.sends.in_flight.iter();
        let late = sends.filter(|(_, send)| send.until <= now);
        let mut late: Vec<(Timestamp, u64)> =
            late.map(|(reference, send)| (send.until, *reference)).collect();
        late.sort_unstable();
        for (_, reference) in late {
            self.send_again(reference, "the chat's node takes too long", RETRY * 4);
        }
    }

    /// Tells the device to send a message again, if the message has no result yet.
    fn send_again(&mut self, reference: u64, why: &'static str, after: Duration) {
        let Some(send) = self.sends.in_flight.remove(&reference) else {
            return;
        };
        let refused = Refused {
            code: SendErrorCode::Unavailable,
            message: why.into(),
            retry_after_ms: Settings::millis(after),
        };
        let event = raw::event(refusal(send.request.to_string(), refused));
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
