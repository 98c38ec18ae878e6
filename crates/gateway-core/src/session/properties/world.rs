//! A [`World`] is the session under test with everything that is under way between it, the device and the chat nodes.

mod steps;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tern_proto::v1::{ServerEvent, send_result, server_event::Event as Kind};
use tern_types::{DeviceId, SessionId, Timestamp, UserId};

use super::device::{Manner, Stored};
use super::log::{History, Log, chat_id, index};
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

/// The session under test and its surroundings.
pub struct World {
    pub session: Session,
    pub now: Timestamp,
    pub logs: Vec<Log>,
    pub device: Vec<Stored>,
    manner: Manner,
    /// The events on their way to the device.
    down: VecDeque<Bytes>,
    /// The acknowledgements on their way from the device to the session: chat and seq.
    up: VecDeque<(usize, u64)>,
    live: Vec<Live>,
    control: VecDeque<Mail>,
    /// The acknowledgements on their way to the owners: chat, seq, and whether it is to be written.
    acks: VecDeque<(usize, u64, bool)>,
    /// The sends on their way to the owners: reference and chat.
    sends: VecDeque<(u64, usize)>,
    windows: Vec<Asked>,
    inbox_asked: bool,
    pub greeted: usize,
    /// True if the whole inbox was read since CaughtUp became due.
    pub whole_inbox: bool,
    /// True if the session has said CaughtUp since the last announcement.
    pub caught_up: bool,
    /// True if the session was announced after a CaughtUp, so that another one is due.
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
            whole_inbox: false,
            caught_up: false,
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
            Effect::Put(event) => {
                let said = ServerEvent::decode(event.clone()).unwrap().event;
                if matches!(said, Some(Kind::CaughtUp(_))) {
                    assert!(self.whole_inbox, "caught up with a part of the inbox");
                    self.caught_up = true;
                }
                self.down.push_back(event);
            }
            Effect::ReadInbox => {
                assert!(!self.inbox_asked, "two readings of the inbox at once");
                self.inbox_asked = true;
            }
            Effect::Up(Op::Ack { chat, seq, write, .. }) => self.acks.push_back((index(chat), seq, write)),
            Effect::Up(Op::Send { reference, send }) => self.sends.push_back((reference, index(send.chat))),
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
            | Effect::Up(_)
            | Effect::Notice { .. }
            | Effect::NoticeThrottled(_) => {}
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

    /// Has the device acknowledge every chat whose cursor has risen.
    fn device_acks_news(&mut self) {
        for n in 0..self.device.len() {
            if self.device[n].cursor > self.device[n].acked {
                self.device_acks(n);
            }
        }
    }

    /// Returns whether nothing is left to do: nothing is under way, owed or unsettled.
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

    /// Lets everything arrive that is under way, but for live pushes, and then a second pass.
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
