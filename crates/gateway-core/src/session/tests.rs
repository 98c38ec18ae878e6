//! These tests hold the stream's protocol, one rule a test, with one file for each subject.

mod acknowledgements;
mod closing;
mod duties;
mod holes;
mod lifecycle;
mod opening;
mod presence;
mod read_receipts;
mod sends;
mod typing;

use std::time::Duration;

use prost::Message;
use tern_proto::v1::{
    self, CloseCode, ErrorReason, SendErrorCode, send_message, send_result, server_event::Event as Kind,
};
use tern_proto::{ApiError, raw};
use tern_types::{ChatId, DeviceId, RequestId, SessionId, Timestamp, UserId};

use super::*;

const START: Timestamp = Timestamp(1_700_000_000_000);
const HOUR: Duration = Duration::from_secs(3600);

/// A session under test: it has a clock of its own and keeps the events that it put (`said`) and its other effects
/// (`wants`).
struct Talk {
    session: Session,
    now: Timestamp,
    identity: Identity,
    said: Vec<Kind>,
    wants: Vec<Effect>,
    ended: Option<Option<ApiError>>,
}

fn talk() -> Talk {
    let identity = Identity {
        user: UserId::random(),
        device: DeviceId::random(),
        expires_at: START + HOUR,
    };
    let session = Session::new(SessionId(9), Settings::default(), START);
    Talk {
        session,
        now: START,
        identity,
        said: Vec::new(),
        wants: Vec::new(),
        ended: None,
    }
}

fn inbox() -> Inbox {
    Inbox {
        active: true,
        unknown: false,
        user: None,
        suspended: false,
        rows: Vec::new(),
        partial: false,
        store_epoch: "epoch".into(),
        read_receipts_off: false,
        edit_window_s: 900,
        delete_window_s: 172_800,
    }
}

/// Makes an inbox with one row, whose chat the device lacks from `from` on.
fn inbox_with_row(chat: ChatId, from: u64) -> Inbox {
    let row = InboxRow {
        chat,
        from,
        age: Duration::ZERO,
    };
    Inbox {
        rows: vec![row],
        ..inbox()
    }
}

/// Makes the live push of an entry that was just committed.
fn live(chat: ChatId, seq: u64) -> Event<'static> {
    Event::Mail(Mail::Live {
        chat,
        seq,
        event: raw::event(Kind::Entry(v1::Entry {
            chat_id: chat.to_string(),
            seq,
            ..Default::default()
        })),
    })
}

fn ack(chat: ChatId, seq: u64) -> Item {
    Item::Ack(v1::Ack {
        chat_id: chat.to_string(),
        seq,
    })
}

impl Talk {
    fn tell(mut self, event: Event<'_>) -> Self {
        for effect in self.session.apply(event, self.now) {
            assert!(self.ended.is_none(), "an effect after the end: {effect:?}");
            match effect {
                Effect::Put(event) => {
                    self.said.extend(v1::ServerEvent::decode(event).unwrap().event);
                }
                Effect::End(error) => self.ended = Some(error),
                other => self.wants.push(other),
            }
        }
        self
    }

    /// Answers the window that was asked for last with these seqs and events, which end below `next`.
    fn window(self, chat: ChatId, places: &[(u64, Bytes)], next: u64) -> Self {
        let reference = self.window_reference();
        self.tell(Event::Mail(Mail::Window(Window {
            reference,
            chat,
            events: places.iter().map(|(_, event)| event.clone()).collect(),
            seqs: places.iter().map(|(seq, _)| *seq).collect(),
            next,
            done: true,
        })))
    }

    fn item(self, item: Item) -> Self {
        self.tell(Event::Item(item))
    }

    /// Sends Open.
    fn open(self) -> Self {
        let token = Ok(self.identity);
        self.item(Item::Open {
            token,
            client_version: "test/1".into(),
            active: false,
        })
    }

    /// Sends Open and answers what the session then asks for, so that the stream is open and caught up.
    fn opened(self) -> Self {
        let mut talk = self
            .open()
            .tell(Event::Announced)
            .tell(Event::Mail(Mail::Inbox(inbox())));
        assert!(
            matches!(talk.said[..], [Kind::Opened(_), Kind::CaughtUp(_)]),
            "{:?}",
            talk.said
        );
        talk.said.clear();
        talk.wants.clear();
        talk
    }

    fn wait(mut self, time: Duration) -> Self {
        self.now = self.now + time;
        self.tell(Event::Tick)
    }

    fn send(self, change: impl FnOnce(&mut v1::SendMessage)) -> Self {
        let mut send = v1::SendMessage {
            request_id: RequestId::random().to_string(),
            to: Some(send_message::To::ChatId(
                ChatId::own(self.identity.user).to_string(),
            )),
            ..Default::default()
        };
        change(&mut send);
        self.item(Item::Send(send))
    }

    /// Returns the reference of the window that was asked for last.
    fn window_reference(&self) -> u64 {
        let reference = |effect: &Effect| match effect {
            Effect::Window { reference, .. } => Some(*reference),
            _ => None,
        };
        let asked = self.wants.iter().rev().find_map(reference);
        asked.unwrap_or_else(|| panic!("no window: {:?}", self.wants))
    }

    /// Returns the seqs that were put: "4" for an entry, "skip 4" for a Skipped, "sent 4" for the result of a send.
    fn places(&self) -> Vec<String> {
        let place = |event: &Kind| match event {
            Kind::Entry(entry) => Some(format!("{}", entry.seq)),
            Kind::Skipped(skipped) => Some(format!("skip {}", skipped.to_seq)),
            Kind::SendResult(v1::SendResult {
                outcome: Some(send_result::Outcome::Sent(sent)),
                ..
            }) => Some(format!("sent {}", sent.seq)),
            _ => None,
        };
        self.said.iter().filter_map(place).collect()
    }

    /// Returns the code of the last event, which must be Closing, the reason of the status, and whether the client may
    /// reconnect.
    fn end(&self) -> (CloseCode, Option<ErrorReason>, bool) {
        let Some(Kind::Closing(closing)) = self.said.last() else {
            panic!("not closed: {:?}", self.said)
        };
        let error = self.ended.clone().expect("ended");
        (
            closing.code(),
            error.map(|error| error.reason),
            closing.may_reconnect,
        )
    }

    fn refusal(&self) -> SendErrorCode {
        let Some(Kind::SendResult(result)) = self.said.last() else {
            panic!("no result: {:?}", self.said)
        };
        match &result.outcome {
            Some(send_result::Outcome::Error(error)) => error.code(),
            other => panic!("{other:?}"),
        }
    }
}
