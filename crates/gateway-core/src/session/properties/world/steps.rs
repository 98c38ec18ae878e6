//! This module carries out the steps: a chat changes, or something that is under way arrives, fails or is lost.

use std::time::Duration;

use bytes::Bytes;
use tern_proto::raw;
use tern_proto::v1::{self, send_message, send_result, server_event::Event as Kind};
use tern_types::RequestId;

use super::{Live, World};
use crate::session::properties::Step;
use crate::session::properties::log::{Log, Place, chat_id};
use crate::session::*;

impl World {
    /// Carries out one step. A step that needs something which is not there does nothing.
    pub fn take(&mut self, step: Step) {
        match step {
            Step::Commit(n) => self.commit(n),
            Step::Remove(n) => {
                let seq = self.logs[n].remove();
                self.live.extend(seq.map(|seq| Live::Entry(n, seq)));
            }
            Step::Add(n) => {
                let seq = self.logs[n].add();
                self.live.extend(seq.map(|seq| Live::Added(n, seq)));
            }
            Step::Write(n) => self.write(n),
            Step::Serve => self.serve(),
            Step::Live(at) => self.live_arrives(at),
            Step::LoseLive(at) => {
                self.take_live(at);
            }
            Step::Settle(n) => self.settle(n),
            Step::Control(at) => {
                if let Some(mail) = self.control.remove(at.min(self.control.len().saturating_sub(1))) {
                    self.tell(Event::Mail(mail));
                }
            }
            Step::Window(at) => self.answer_window(at),
            Step::WindowFails(at) => self.fail_window(at),
            Step::Inbox => self.read_inbox(None),
            Step::InboxWithout(n) => self.read_inbox(Some(n)),
            Step::InboxFails => {
                if std::mem::take(&mut self.inbox_asked) {
                    self.tell(Event::Mail(Mail::InboxFailed));
                }
            }
            Step::Down(count) => self.events_arrive(count),
            Step::Ack(n) => self.device_acks(n),
            Step::Up => self.ack_goes_up(),
            Step::AckArrives => self.owner_gets_ack(),
            Step::NonsenseAck(n) if self.session.is_open() => {
                self.up.push_back((n, self.logs[n].head + 1000));
            }
            Step::NonsenseAck(_) => {}
            Step::Pass(ms) => {
                self.now.0 += ms as i64;
                self.tell(Event::Tick);
            }
            Step::Flush => self.tell(Event::Flushed),
            Step::Moved => self.tell(Event::Moved(&|_| true)),
            Step::AcksLost => self.lose_acks(),
            Step::Redrain => self.tell(Event::Redrain),
            Step::Announced => {
                self.greeting_owed |= self.greeted > 0;
                self.whole_inbox &= !std::mem::take(&mut self.caught_up);
                self.tell(Event::Announced);
            }
            Step::Sweep => {
                let inbox = self.inbox();
                self.tell(Event::Mail(Mail::Swept(inbox)));
            }
        }
    }

    fn commit(&mut self, n: usize) {
        let seq = self.logs[n].commit();
        if self.logs[n].is_member() {
            self.live.push(Live::Entry(n, seq));
        }
    }

    /// Has the device send a message to the chat.
    fn write(&mut self, n: usize) {
        if self.session.is_open() {
            self.tell(Event::Item(Item::Send(v1::SendMessage {
                request_id: RequestId::random().to_string(),
                to: Some(send_message::To::ChatId(chat_id(n).to_string())),
                ..Default::default()
            })));
        }
    }

    /// Takes a push from those on their way, if there is one.
    fn take_live(&mut self, at: usize) -> Option<Live> {
        (!self.live.is_empty()).then(|| self.live.remove(at % self.live.len()))
    }

    fn live_arrives(&mut self, at: usize) {
        match self.take_live(at) {
            Some(Live::Entry(n, seq)) => self.tell(Event::Mail(Mail::Live {
                chat: chat_id(n),
                seq,
                event: entry(n, seq),
            })),
            Some(Live::Added(n, seq)) => {
                let chat = chat_id(n);
                self.tell(Event::Mail(Mail::Added { chat, seq }));
            }
            None => {}
        }
    }

    fn events_arrive(&mut self, count: usize) {
        for _ in 0..count {
            let Some(event) = self.down.pop_front() else { break };
            self.device_gets(&event);
        }
    }

    fn ack_goes_up(&mut self) {
        if let Some((n, seq)) = self.up.pop_front() {
            let chat_id = chat_id(n).to_string();
            self.tell(Event::Item(Item::Ack(v1::Ack { chat_id, seq })));
        }
    }

    /// Loses the acknowledgements under way and those that owners remember, as if the owners had changed.
    fn lose_acks(&mut self) {
        self.acks.clear();
        for (n, log) in self.logs.iter_mut().enumerate() {
            log.remembered_ack = 0;
            self.control.push_back(Mail::AckLost { chat: chat_id(n) });
        }
    }

    pub(super) fn settle(&mut self, n: usize) {
        if let Some((from, to)) = self.logs[n].settle() {
            let chat = chat_id(n);
            self.control.push_back(Mail::Wake { chat, from, to });
        }
    }

    fn owner_gets_ack(&mut self) {
        let Some((n, seq, write)) = self.acks.pop_front() else {
            return;
        };
        let row_from = self.logs[n].acknowledge(seq, write);
        if write {
            let chat = chat_id(n);
            self.control.push_back(Mail::AckWritten { chat, seq, row_from });
        }
    }

    /// Has the owner take the oldest send and commit its message, or refuse it if the user is no member.
    fn serve(&mut self) {
        let Some((reference, n)) = self.sends.pop_front() else {
            return;
        };
        let placed = self.logs[n].is_member().then(|| self.logs[n].commit());
        let event = placed.map_or_else(
            || raw::event(Kind::SendResult(v1::SendResult::default())),
            |seq| sent(n, seq),
        );
        self.control.push_back(Mail::Result {
            reference,
            event,
            placed: placed.map(|seq| (chat_id(n), seq)),
        });
    }

    fn answer_window(&mut self, at: usize) {
        if self.windows.is_empty() {
            return;
        }
        let asked = self.windows.remove(at % self.windows.len());
        let log = &self.logs[asked.chat];
        let (places, next) = log.window(asked.from, asked.limit as usize);
        let events = places.iter().map(|place| match place {
            Place::Entry(seq) => entry(asked.chat, *seq),
            Place::Skipped(to) => skipped(asked.chat, *to),
        });
        let window = Window {
            reference: asked.reference,
            chat: chat_id(asked.chat),
            events: events.collect(),
            seqs: places.iter().map(|place| place.seq()).collect(),
            next,
            done: next > log.last(),
        };
        self.control.push_back(Mail::Window(window));
    }

    /// Tells the session that a window which it asked for cannot be read.
    fn fail_window(&mut self, at: usize) {
        if !self.windows.is_empty() {
            let asked = self.windows.remove(at % self.windows.len());
            self.tell(Event::Mail(Mail::WindowFailed {
                reference: asked.reference,
                chat: chat_id(asked.chat),
            }));
        }
    }

    /// Answers the session's question for its inbox, if there is one: with all rows, or without that of one chat.
    fn read_inbox(&mut self, without: Option<usize>) {
        if !std::mem::take(&mut self.inbox_asked) {
            return;
        }
        let mut inbox = self.inbox();
        inbox
            .rows
            .retain(|row| without.is_none_or(|n| row.chat != chat_id(n)));
        inbox.partial = without.is_some();
        self.whole_inbox |= without.is_none();
        self.tell(Event::Mail(Mail::Inbox(inbox)));
    }

    fn inbox(&self) -> Inbox {
        let row = |(n, log): (usize, &Log)| {
            log.row.map(|from| InboxRow {
                chat: chat_id(n),
                from,
                age: Duration::ZERO,
            })
        };
        Inbox {
            active: true,
            unknown: false,
            user: None,
            suspended: false,
            rows: self.logs.iter().enumerate().filter_map(row).collect(),
            partial: false,
            store_epoch: "e".into(),
            read_receipts_off: false,
            edit_window_s: 0,
            delete_window_s: 0,
        }
    }

    pub(super) fn device_acks(&mut self, n: usize) {
        let stored = &mut self.device[n];
        if stored.cursor > 0 && self.session.is_open() {
            stored.acked = stored.cursor;
            self.up.push_back((n, stored.cursor));
        }
    }
}

fn entry(chat: usize, seq: u64) -> Bytes {
    raw::event(Kind::Entry(v1::Entry {
        chat_id: chat_id(chat).to_string(),
        seq,
        ..Default::default()
    }))
}

fn skipped(chat: usize, to_seq: u64) -> Bytes {
    let reason = v1::SkipReason::NotAMember.into();
    raw::event(Kind::Skipped(v1::Skipped {
        chat_id: chat_id(chat).to_string(),
        to_seq,
        reason,
    }))
}

fn sent(chat: usize, seq: u64) -> Bytes {
    let sent = v1::Sent {
        chat_id: chat_id(chat).to_string(),
        seq,
        sent_at_ms: 0,
    };
    raw::event(Kind::SendResult(v1::SendResult {
        outcome: Some(send_result::Outcome::Sent(sent)),
        ..Default::default()
    }))
}
