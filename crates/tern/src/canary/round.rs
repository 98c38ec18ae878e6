//! Follows one message from its send to its receipt. A round is fed with the events of both clients; its code is pure.

use std::time::{Duration, Instant};

use tern_client::{Event, SendState};
use tern_types::{ChatId, RequestId, Seq, UserId};

/// A step that has to come for a message, or before the first message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// The two users have a device each.
    Linked,
    /// Both streams are open and have caught up.
    Connected,
    /// The sender has the result, so the message is durable.
    Accepted,
    /// The recipient has the message.
    Delivered,
    /// The sender has the delivered receipt.
    Receipt,
}

impl Step {
    /// All steps, in their order.
    pub const ALL: [Self; 5] = [
        Self::Linked,
        Self::Connected,
        Self::Accepted,
        Self::Delivered,
        Self::Receipt,
    ];
    /// The steps of a message, in their order.
    const OF_A_MESSAGE: [Self; 3] = [Self::Accepted, Self::Delivered, Self::Receipt];

    /// Returns the step's name in metrics and log messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Linked => "linked",
            Self::Connected => "connected",
            Self::Accepted => "accepted",
            Self::Delivered => "delivered",
            Self::Receipt => "receipt",
        }
    }
}

/// A message on its way, and the steps that have come.
#[derive(Debug)]
pub struct Round {
    request: RequestId,
    chat: ChatId,
    recipient: UserId,
    began: Instant,
    /// The message's seq; `None` until the sender has the result.
    seq: Option<Seq>,
    /// The recipient's delivered watermark. It is kept because a receipt may overtake the result.
    reached: Seq,
    /// The time since the send at which each step of a message came; `None` until it has come.
    times: [Option<Duration>; Step::OF_A_MESSAGE.len()],
    /// The reason why the server refused the message, if it did.
    refused: Option<String>,
}

impl Round {
    /// Begins a round for a message that is sent at `now`.
    pub fn new(request: RequestId, from: UserId, to: UserId, now: Instant) -> Self {
        Self {
            request,
            chat: ChatId::direct(from, to),
            recipient: to,
            began: now,
            seq: None,
            reached: Seq::default(),
            times: Default::default(),
            refused: None,
        }
    }

    /// Applies an event of the sender's client. Events of other messages change nothing.
    pub fn sender_hears(&mut self, event: &Event, now: Instant) {
        match event {
            Event::Send { request, state, .. } if *request == self.request => match state {
                SendState::Sent { seq, .. } => {
                    self.seq = Some(*seq);
                    self.came(Step::Accepted, now);
                }
                SendState::Failed { code, message, .. } => {
                    self.refused = Some(format!("{}: {message}", code.as_str_name()));
                }
                SendState::Queued => {}
            },
            Event::Receipt { chat, user, mark } if *chat == self.chat && *user == self.recipient => {
                self.reached = self.reached.max(mark.delivered);
            }
            _ => {}
        }
        if self.seq.is_some_and(|seq| self.reached >= seq) {
            self.came(Step::Receipt, now);
        }
    }

    /// Applies an event of the recipient's client. Entries of other messages change nothing.
    pub fn recipient_hears(&mut self, event: &Event, now: Instant) {
        if let Event::Entry(entry) = event
            && entry.request == Some(self.request)
        {
            self.came(Step::Delivered, now);
        }
    }

    /// Records that a step has come, unless it had come before.
    fn came(&mut self, step: Step, now: Instant) {
        if let Some(place) = Step::OF_A_MESSAGE.iter().position(|known| *known == step) {
            self.times[place].get_or_insert(now.duration_since(self.began));
        }
    }

    /// Returns the steps that have come, each with its time since the send.
    pub fn times(&self) -> impl Iterator<Item = (Step, Duration)> {
        let came = Step::OF_A_MESSAGE.into_iter().zip(self.times);
        came.filter_map(|(step, time)| time.map(|time| (step, time)))
    }

    /// Returns the first step that has not come, or `None` if the round is complete.
    pub fn missing(&self) -> Option<Step> {
        let mut steps = Step::OF_A_MESSAGE.into_iter().zip(self.times);
        steps.find(|(_, time)| time.is_none()).map(|(step, _)| step)
    }

    /// Returns why the server refused the message, if it did. Then no more steps come.
    pub fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use tern_client::{Entry, FailureCode, Mark};
    use tern_types::Timestamp;
    use uuid::Uuid;

    use super::*;

    const REQUEST: RequestId = RequestId(Uuid::from_u128(7));

    fn users() -> (UserId, UserId) {
        (UserId(Uuid::from_u128(1)), UserId(Uuid::from_u128(2)))
    }

    fn round(began: Instant) -> Round {
        let (from, to) = users();
        Round::new(REQUEST, from, to, began)
    }

    fn chat() -> ChatId {
        let (from, to) = users();
        ChatId::direct(from, to)
    }

    fn sent(seq: u64) -> Event {
        let state = SendState::Sent {
            seq: Seq(seq),
            sent_at: Timestamp(0),
        };
        Event::Send {
            request: REQUEST,
            chat: chat(),
            state,
        }
    }

    fn entry(request: RequestId) -> Event {
        Event::Entry(Entry {
            chat: chat(),
            seq: Seq(5),
            sent_at: Timestamp(0),
            sender: None,
            device: None,
            request: Some(request),
            ordinal: 0,
            content: Default::default(),
            unknown: Default::default(),
        })
    }

    fn receipt(user: UserId, delivered: u64) -> Event {
        let mark = Mark {
            delivered: Seq(delivered),
            read: Seq(0),
        };
        Event::Receipt {
            chat: chat(),
            user,
            mark,
        }
    }

    #[test]
    fn a_round_is_over_when_the_receipt_has_come_however_it_comes() {
        let (began, to) = (Instant::now(), users().1);
        let after = |millis| began + Duration::from_millis(millis);
        let mut round = round(began);
        assert_eq!(round.missing(), Some(Step::Accepted));
        round.recipient_hears(&entry(REQUEST), after(3));
        round.sender_hears(&receipt(to, 5), after(4));
        assert_eq!(
            round.missing(),
            Some(Step::Accepted),
            "a receipt of what is not known to be sent says nothing yet"
        );
        round.sender_hears(&sent(5), after(6));
        assert_eq!(round.missing(), None);
        round.sender_hears(&sent(5), after(60));
        let times: Vec<_> = round
            .times()
            .map(|(step, time)| (step, time.as_millis()))
            .collect();
        assert_eq!(
            times,
            [(Step::Accepted, 6), (Step::Delivered, 3), (Step::Receipt, 6)],
            "each time is that of the first"
        );
    }

    #[test]
    fn what_belongs_to_others_counts_for_nothing() {
        let (began, (from, to)) = (Instant::now(), users());
        let mut round = round(began);
        round.sender_hears(&sent(5), began);
        round.recipient_hears(&entry(RequestId(Uuid::from_u128(8))), began);
        assert_eq!(
            round.missing(),
            Some(Step::Delivered),
            "an older message came late"
        );
        round.recipient_hears(&entry(REQUEST), began);
        for other in [receipt(to, 4), receipt(from, 5)] {
            round.sender_hears(&other, began);
            assert_eq!(round.missing(), Some(Step::Receipt));
        }
    }

    #[test]
    fn a_refusal_is_told() {
        let mut round = round(Instant::now());
        let state = SendState::Failed {
            code: FailureCode::NotAMember,
            message: "no".into(),
            retry_at: None,
        };
        let refusal = Event::Send {
            request: REQUEST,
            chat: chat(),
            state,
        };
        round.sender_hears(&refusal, Instant::now());
        assert!(round.refused().is_some_and(|why| why.ends_with(": no")));
    }
}
