//! The session under test, and everything that is under way between it, the device and the chat nodes.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tern_proto::v1::{self, send_message, send_result, server_event::Event as Kind};
use tern_proto::{raw, v1::ServerEvent};
use tern_types::{DeviceId, RequestId, SessionId, Timestamp, UserId};

use super::device::{Manner, Stored};
use super::log::{History, Log, Place, chat_id, index};
use super::{START, Step, WINDOW};
use crate::session::*;

/// A push that is on its way to the session.
#[derive(Debug, Clone, Copy)]
enum Live {
    Entry(usize, u64),
    Added(usize, u64),
}

/// A window that the session asked for.
struct Asked {
    reference: u64,
    chat: usize,
    from: u64,
    limit: u32,
}

pub struct World {
    pub session: Session,
    pub now: Timestamp,
    pub logs: Vec<Log>,
    pub device: Vec<Stored>,
    manner: Manner,
    /// Events on their way to the device; then acknowledgements on their way to the session.
    down: VecDeque<Bytes>,
    up: VecDeque<(usize, u64)>,
    live: Vec<Live>,
    control: VecDeque<Mail>,
    /// Acknowledgements on their way to the owners.
    acks: VecDeque<(usize, u64, bool)>,
    sends: VecDeque<(u64, usize)>,
    windows: Vec<Asked>,
    inbox_asked: bool,
    pub greeted: usize,
    /// The session was announced after a CaughtUp: another one is due.
    pub greeting_owed: bool,
    pub swept_found: usize,
}

fn settings() -> Settings {
    let day = Duration::from_secs(86_400);
    Settings {
        window: WINDOW,
        heartbeat_background: day,
        heartbeat_active: day,
        ..Settings::default()
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

impl World {
    pub fn new(histories: &[History], manner: Manner) -> Self {
        let mut world = Self {
            session: Session::new(SessionId(7), settings(), START),
            now: START,
            logs: histories.iter().map(|history| Log::new(*history)).collect(),
            device: histories
                .iter()
                .map(|history| Stored::new(history.stored))
                .collect(),
            manner,
            down: VecDeque::new(),
            up: VecDeque::new(),
            live: Vec::new(),
            control: VecDeque::new(),
            acks: VecDeque::new(),
            sends: VecDeque::new(),
            windows: Vec::new(),
            inbox_asked: false,
            greeted: 0,
            greeting_owed: false,
            swept_found: 0,
        };
        let identity = Identity {
            user: UserId::random(),
            device: DeviceId::random(),
            expires_at: START + Duration::from_secs(1 << 30),
        };
        world.tell(Event::Item(Item::Open {
            token: Ok(identity),
            client_version: String::new(),
            active: true,
        }));
        world.tell(Event::Announced);
        world
    }

    fn tell(&mut self, event: Event<'_>) {
        let catches_up = match &event {
            Event::Mail(Mail::Live { chat, .. }) => {
                let chat = self.session.chat(*chat);
                chat.is_some_and(|chat| chat.catch_up.is_some())
            }
            _ => false,
        };
        let effects = self.session.apply(event, self.now);
        let puts = effects.iter().any(|effect| matches!(effect, Effect::Put(_)));
        assert!(!(catches_up && puts), "a live entry overtook a catch-up");
        assert!(self.session.due() > self.now, "a timer stays due");
        let outstanding = self.session.reader.outstanding();
        assert!(outstanding <= WINDOW, "the window was exceeded");
        for effect in effects {
            self.carry_out(effect);
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Put(event) => self.down.push_back(event),
            Effect::ReadInbox => {
                assert!(!self.inbox_asked, "two readings of the inbox at once");
                self.inbox_asked = true;
            }
            Effect::Ack { chat, seq, write } => self.acks.push_back((index(chat), seq, write)),
            Effect::Send { reference, send } => self.sends.push_back((reference, index(send.chat))),
            Effect::Window {
                reference,
                chat,
                from,
                limit,
            } => self.windows.push(Asked {
                reference,
                chat: index(chat),
                from,
                limit,
            }),
            Effect::SweepFound { .. } => self.swept_found += 1,
            Effect::End(error) => panic!("ended: {error:?}"),
            Effect::Register { .. }
            | Effect::Sign { .. }
            | Effect::Watch(_)
            | Effect::Read { .. }
            | Effect::Typing { .. }
            | Effect::TypingThrottled => {}
        }
    }

    fn device_gets(&mut self, event: &Bytes) {
        match ServerEvent::decode(event.clone()).unwrap().event.unwrap() {
            Kind::Entry(entry) => self.entry_comes(&entry.chat_id, entry.seq),
            Kind::SendResult(result) => {
                if let Some(send_result::Outcome::Sent(sent)) = result.outcome {
                    self.entry_comes(&sent.chat_id, sent.seq);
                }
            }
            Kind::Skipped(skipped) => {
                let n = index(skipped.chat_id.parse().unwrap());
                self.device[n].skipped(skipped.to_seq, &self.logs[n]);
            }
            Kind::CaughtUp(_) => {
                self.greeted += 1;
                self.greeting_owed = false;
            }
            _ => {}
        }
    }

    fn entry_comes(&mut self, chat: &str, seq: u64) {
        let n = index(chat.parse().unwrap());
        assert!(self.logs[n].is_theirs(seq), "rule 7: {seq} is not the device's");
        self.device[n].entry(seq, self.manner);
    }

    fn settle(&mut self, n: usize) {
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

    /// The owner takes the oldest send: it commits the message, or refuses it.
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
            user: None,
            suspended: false,
            rows: self.logs.iter().enumerate().filter_map(row).collect(),
            store_epoch: "e".into(),
            read_receipts_off: false,
        }
    }

    pub fn take(&mut self, step: Step) {
        match step {
            Step::Commit(n) => {
                let seq = self.logs[n].commit();
                if self.logs[n].is_member() {
                    self.live.push(Live::Entry(n, seq));
                }
            }
            Step::Remove(n) => {
                let seq = self.logs[n].remove();
                self.live.extend(seq.map(|seq| Live::Entry(n, seq)));
            }
            Step::Add(n) => {
                let seq = self.logs[n].add();
                self.live.extend(seq.map(|seq| Live::Added(n, seq)));
            }
            Step::Write(n) if self.session.is_open() => {
                self.tell(Event::Item(Item::Send(raw::SendMessage {
                    request_id: RequestId::random().to_string(),
                    to: Some(send_message::To::ChatId(chat_id(n).to_string())),
                    ..Default::default()
                })));
            }
            Step::Write(_) => {}
            Step::Serve => self.serve(),
            Step::Live(at) if !self.live.is_empty() => match self.live.remove(at % self.live.len()) {
                Live::Entry(n, seq) => self.tell(Event::Mail(Mail::Live {
                    chat: chat_id(n),
                    seq,
                    event: entry(n, seq),
                })),
                Live::Added(n, seq) => {
                    let chat = chat_id(n);
                    self.tell(Event::Mail(Mail::Added { chat, seq }));
                }
            },
            Step::LoseLive(at) if !self.live.is_empty() => {
                self.live.remove(at % self.live.len());
            }
            Step::Live(_) | Step::LoseLive(_) => {}
            Step::Settle(n) => self.settle(n),
            Step::Control(at) => {
                if let Some(mail) = self.control.remove(at.min(self.control.len().saturating_sub(1))) {
                    self.tell(Event::Mail(mail));
                }
            }
            Step::Window(at) => self.answer_window(at),
            Step::WindowFails(at) => {
                if !self.windows.is_empty() {
                    let asked = self.windows.remove(at % self.windows.len());
                    self.tell(Event::Mail(Mail::WindowFailed {
                        reference: asked.reference,
                        chat: chat_id(asked.chat),
                    }));
                }
            }
            Step::Inbox => {
                if std::mem::take(&mut self.inbox_asked) {
                    let inbox = self.inbox();
                    self.tell(Event::Mail(Mail::Inbox(inbox)));
                }
            }
            Step::InboxFails => {
                if std::mem::take(&mut self.inbox_asked) {
                    self.tell(Event::Mail(Mail::InboxFailed));
                }
            }
            Step::Down(count) => {
                for _ in 0..count {
                    let Some(event) = self.down.pop_front() else { break };
                    self.device_gets(&event);
                }
            }
            Step::Ack(n) => self.device_acks(n),
            Step::Up => {
                if let Some((n, seq)) = self.up.pop_front() {
                    let chat_id = chat_id(n).to_string();
                    self.tell(Event::Item(Item::Ack(v1::Ack { chat_id, seq })));
                }
            }
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
            Step::AcksLost => {
                // The owner changed before it used the acknowledgements that it remembered.
                self.acks.clear();
                for (n, log) in self.logs.iter_mut().enumerate() {
                    log.remembered_ack = 0;
                    self.control.push_back(Mail::AckLost { chat: chat_id(n) });
                }
            }
            Step::Redrain => self.tell(Event::Redrain),
            Step::Announced => {
                self.greeting_owed |= self.greeted > 0;
                self.tell(Event::Announced);
            }
            Step::Sweep => {
                let inbox = self.inbox();
                self.tell(Event::Mail(Mail::Swept(inbox)));
            }
        }
    }

    /// The device acknowledges every chat whose cursor has risen.
    fn device_acks_news(&mut self) {
        for n in 0..self.device.len() {
            if self.device[n].cursor > self.device[n].acked {
                self.device_acks(n);
            }
        }
    }

    fn device_acks(&mut self, n: usize) {
        let stored = &mut self.device[n];
        if stored.cursor > 0 && self.session.is_open() {
            stored.acked = stored.cursor;
            self.up.push_back((n, stored.cursor));
        }
    }

    fn is_calm(&self) -> bool {
        self.nothing_is_under_way()
            && self.live.is_empty()
            && self.greeted > 0
            && !self.greeting_owed
            && self.logs.iter().enumerate().all(|(n, log)| {
                let chat = self.session.chat(chat_id(n));
                let busy = chat
                    .is_some_and(|chat| chat.row.is_some() || chat.catch_up.is_some() || chat.due.is_some());
                log.unsettled.is_none() && log.row.is_none() && self.device[n].cursor == log.last() && !busy
            })
    }

    fn nothing_is_under_way(&self) -> bool {
        let queues =
            self.down.is_empty() && self.up.is_empty() && self.acks.is_empty() && self.sends.is_empty();
        queues && self.control.is_empty() && self.windows.is_empty() && !self.inbox_asked
    }

    /// Lets everything that is under way arrive, the device acknowledge, and time pass, until nothing is left to do.
    pub fn calm_down(&mut self) {
        for _ in 0..200 {
            if self.is_calm() {
                return;
            }
            while !self.live.is_empty() {
                self.take(Step::Live(0));
            }
            for n in 0..self.logs.len() {
                self.settle(n);
            }
            self.calm_once();
        }
    }

    pub fn calm_once(&mut self) {
        while !self.nothing_is_under_way() {
            for step in [
                Step::Serve,
                Step::Control(0),
                Step::Window(0),
                Step::Inbox,
                Step::Flush,
                Step::Down(64),
                Step::Up,
                Step::AckArrives,
            ] {
                self.take(step);
            }
            self.device_acks_news();
        }
        self.take(Step::Pass(1000));
        self.take(Step::Flush);
    }
}
