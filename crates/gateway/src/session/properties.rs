//! One session between a device and a chat node that both misbehave in every allowed way: whatever happens, the device
//! ends up with everything, in order, and no inbox row is left.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use tern_proto::v1::{self, server_event::Event as Kind};
use tern_proto::{raw, v1::ServerEvent};
use tern_types::{ChatId, DeviceId, SessionId, Timestamp, UserId};
use uuid::Uuid;

use super::*;

const WINDOW: u32 = 8;
const START: Timestamp = Timestamp(1_700_000_000_000);

fn chat_id(n: usize) -> ChatId {
    ChatId(Uuid::from_u128(n as u128 + 1))
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

/// A chat as its node and the store have it.
#[derive(Default)]
struct Log {
    head: u64,
    /// Seqs up to here are not for this device.
    hidden_to: u64,
    unsettled: bool,
    remembered_ack: u64,
    row: Option<u64>,
}

/// A chat as the device has it.
#[derive(Default)]
struct Stored {
    cursor: u64,
    acked: u64,
    held: BTreeSet<u64>,
}

struct World {
    session: Session,
    now: Timestamp,
    logs: Vec<Log>,
    device: BTreeMap<usize, Stored>,
    holds: bool,
    live: Vec<(usize, u64)>,
    control: VecDeque<Mail>,
    windows: Vec<(u64, usize, u64, u32)>,
    inbox_asked: bool,
    greeted: usize,
    /// Announced after a greeting: one more is due.
    greeting_owed: bool,
    swept_found: usize,
}

#[derive(Debug, Clone)]
enum Step {
    Commit(usize),
    Live(usize),
    LoseLive(usize),
    Settle(usize),
    /// The next of the control stream, or one that overtook it: a chat has two owners while it moves.
    Control(usize),
    Window(usize),
    WindowFails(usize),
    Inbox,
    InboxFails,
    Ack(usize),
    NonsenseAck(usize),
    Pass(u64),
    Flush,
    Moved,
    AcksLost,
    Redrain,
    Announced,
    Sweep,
}

fn step(chats: usize) -> impl Strategy<Value = Step> {
    let chat = 0..chats;
    prop_oneof![
        8 => chat.clone().prop_map(Step::Commit),
        6 => (0usize..8).prop_map(Step::Live),
        2 => (0usize..8).prop_map(Step::LoseLive),
        3 => chat.clone().prop_map(Step::Settle),
        6 => Just(Step::Control(0)),
        1 => (0usize..4).prop_map(Step::Control),
        6 => (0usize..4).prop_map(Step::Window),
        1 => (0usize..4).prop_map(Step::WindowFails),
        2 => Just(Step::Inbox),
        1 => Just(Step::InboxFails),
        5 => chat.clone().prop_map(Step::Ack),
        1 => chat.prop_map(Step::NonsenseAck),
        2 => (1u64..8000).prop_map(Step::Pass),
        4 => Just(Step::Flush),
        1 => Just(Step::Moved),
        1 => Just(Step::AcksLost),
        1 => Just(Step::Redrain),
        1 => Just(Step::Announced),
        1 => Just(Step::Sweep),
    ]
}

impl World {
    fn new(chats: usize, waiting: &[(u64, u64)], holds: bool) -> Self {
        let mut logs: Vec<Log> = (0..chats).map(|_| Log::default()).collect();
        let mut device = BTreeMap::new();
        for (n, log) in logs.iter_mut().enumerate() {
            let (stored, missed) = waiting.get(n).copied().unwrap_or_default();
            log.head = stored + missed;
            log.remembered_ack = stored;
            log.row = (missed > 0).then_some(stored + 1);
            device.insert(
                n,
                Stored {
                    cursor: stored,
                    ..Stored::default()
                },
            );
        }
        if let Some(log) = logs.first_mut().filter(|log| log.row.is_some()) {
            log.hidden_to = log.head - 1;
        }
        let mut world = Self {
            session: Session::new(SessionId(7), settings(), START),
            now: START,
            logs,
            device,
            holds,
            live: Vec::new(),
            control: VecDeque::new(),
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
        let live = match &event {
            Event::Mail(Mail::Live { chat, .. }) => Some(
                self.session
                    .chat(*chat)
                    .is_some_and(|chat| chat.catch_up.is_some()),
            ),
            _ => None,
        };
        let effects = self.session.apply(event, self.now);
        if live == Some(true) {
            assert!(
                !effects.iter().any(|effect| matches!(effect, Effect::Put(_))),
                "a live entry overtook a catch-up"
            );
        }
        assert!(self.session.due() > self.now, "a timer stays due");
        assert!(
            self.session.reader.outstanding() <= WINDOW,
            "the window was exceeded"
        );
        for effect in effects {
            self.carry_out(effect);
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Put(event) => self.device_gets(&event),
            Effect::ReadInbox => {
                assert!(!self.inbox_asked, "two readings of the inbox at once");
                self.inbox_asked = true;
            }
            Effect::Ack { chat, seq, write } => self.node_gets_ack(index(chat), seq, write),
            Effect::Window {
                reference,
                chat,
                from,
                limit,
            } => self.windows.push((reference, index(chat), from, limit)),
            Effect::SweepFound { .. } => self.swept_found += 1,
            Effect::End(error) => panic!("ended: {error:?}"),
            Effect::Register { .. }
            | Effect::Sign { .. }
            | Effect::Watch(_)
            | Effect::Send { .. }
            | Effect::Read { .. }
            | Effect::Typing { .. }
            | Effect::TypingThrottled => {}
        }
    }

    fn device_gets(&mut self, event: &Bytes) {
        use prost::Message;
        match ServerEvent::decode(event.clone()).unwrap().event.unwrap() {
            Kind::Entry(entry) => {
                let stored = self
                    .device
                    .get_mut(&index(entry.chat_id.parse().unwrap()))
                    .unwrap();
                if entry.seq <= stored.cursor {
                    // A repetition is acknowledged again.
                    stored.acked = 0;
                } else if entry.seq == stored.cursor + 1 {
                    stored.cursor += 1;
                    while stored.held.remove(&(stored.cursor + 1)) {
                        stored.cursor += 1;
                    }
                } else if self.holds {
                    stored.held.insert(entry.seq);
                }
            }
            Kind::Skipped(skipped) => {
                let stored = self
                    .device
                    .get_mut(&index(skipped.chat_id.parse().unwrap()))
                    .unwrap();
                stored.cursor = stored.cursor.max(skipped.to_seq);
                while stored.held.remove(&(stored.cursor + 1)) {
                    stored.cursor += 1;
                }
            }
            Kind::CaughtUp(_) => {
                self.greeted += 1;
                self.greeting_owed = false;
            }
            _ => {}
        }
    }

    fn node_gets_ack(&mut self, n: usize, seq: u64, write: bool) {
        let log = &mut self.logs[n];
        let exists = seq <= log.head;
        if exists {
            log.remembered_ack = log.remembered_ack.max(seq);
        }
        if write {
            match log.row {
                Some(from) if exists && from <= seq => log.row = (seq < log.head).then_some(seq + 1),
                _ => {}
            }
            let row_from = log.row.unwrap_or(0);
            self.control.push_back(Mail::AckWritten {
                chat: chat_id(n),
                seq,
                row_from,
            });
        }
    }

    fn settle(&mut self, n: usize) {
        let log = &mut self.logs[n];
        if !std::mem::take(&mut log.unsettled) {
            return;
        }
        if log.remembered_ack < log.head || log.row.is_some() {
            let from = *log.row.get_or_insert(log.remembered_ack + 1);
            self.control.push_back(Mail::Wake {
                chat: chat_id(n),
                from,
                to: log.head,
            });
        }
    }

    fn answer_window(&mut self, at: usize) {
        if self.windows.is_empty() {
            return;
        }
        let (reference, n, from, limit) = self.windows.remove(at % self.windows.len());
        let log = &self.logs[n];
        let (mut events, mut seqs, mut next) = (Vec::new(), Vec::new(), from);
        if from <= log.hidden_to {
            events.push(skipped(n, log.hidden_to));
            seqs.push(log.hidden_to);
            next = log.hidden_to + 1;
        }
        while next <= log.head && seqs.len() < limit as usize {
            events.push(entry(n, next));
            seqs.push(next);
            next += 1;
        }
        let done = next > log.head;
        let window = Window {
            reference,
            chat: chat_id(n),
            events,
            seqs,
            next,
            done,
        };
        self.tell(Event::Mail(Mail::Window(window)));
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

    fn answer_inbox(&mut self) {
        if std::mem::take(&mut self.inbox_asked) {
            let inbox = self.inbox();
            self.tell(Event::Mail(Mail::Inbox(inbox)));
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Commit(n) => {
                let log = &mut self.logs[n];
                log.head += 1;
                log.unsettled = true;
                self.live.push((n, log.head));
            }
            Step::Live(at) if !self.live.is_empty() => {
                let (n, seq) = self.live.remove(at % self.live.len());
                self.tell(Event::Mail(Mail::Live {
                    chat: chat_id(n),
                    seq,
                    event: entry(n, seq),
                }));
            }
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
                    let (reference, n, ..) = self.windows.remove(at % self.windows.len());
                    self.tell(Event::Mail(Mail::WindowFailed {
                        reference,
                        chat: chat_id(n),
                    }));
                }
            }
            Step::Inbox => self.answer_inbox(),
            Step::InboxFails => {
                if std::mem::take(&mut self.inbox_asked) {
                    self.tell(Event::Mail(Mail::InboxFailed));
                }
            }
            Step::Ack(n) => self.device_acks(n),
            Step::NonsenseAck(n) if self.session.is_open() => {
                let seq = self.logs[n].head + 1000;
                self.tell(Event::Item(Item::Ack(v1::Ack {
                    chat_id: chat_id(n).to_string(),
                    seq,
                })));
            }
            Step::NonsenseAck(_) => {}
            Step::Pass(ms) => {
                self.now.0 += ms as i64;
                self.tell(Event::Tick);
            }
            Step::Flush => self.tell(Event::Flushed),
            Step::Moved => self.tell(Event::Moved(&|_| true)),
            Step::AcksLost => {
                // The owner changed before it used what it remembered.
                for (n, log) in self.logs.iter_mut().enumerate() {
                    if log.unsettled {
                        log.remembered_ack = log.remembered_ack.min(log.row.unwrap_or(1).saturating_sub(1));
                    }
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

    /// The device acknowledges what is new.
    fn device_acks_news(&mut self) {
        let news: Vec<usize> = self
            .device
            .iter()
            .filter(|(_, s)| s.cursor > s.acked)
            .map(|(n, _)| *n)
            .collect();
        for n in news {
            self.device_acks(n);
        }
    }

    fn device_acks(&mut self, n: usize) {
        let Some(stored) = self.device.get_mut(&n) else {
            return;
        };
        let seq = stored.cursor;
        if seq > 0 && self.session.is_open() {
            stored.acked = seq;
            self.tell(Event::Item(Item::Ack(v1::Ack {
                chat_id: chat_id(n).to_string(),
                seq,
            })));
        }
    }

    fn is_calm(&self) -> bool {
        self.live.is_empty()
            && self.control.is_empty()
            && !self.inbox_asked
            && self.windows.is_empty()
            && self.greeted > 0
            && !self.greeting_owed
            && self.logs.iter().enumerate().all(|(n, log)| {
                let known = self
                    .session
                    .chat(chat_id(n))
                    .is_some_and(|chat| chat.row.is_some() || chat.catch_up.is_some() || chat.due.is_some());
                !log.unsettled && log.row.is_none() && self.device[&n].cursor == log.head && !known
            })
    }

    /// Everything that is under way arrives, the device acknowledges, time passes.
    fn calm_down(&mut self) {
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
            while !self.control.is_empty() || !self.windows.is_empty() || self.inbox_asked {
                self.take(Step::Control(0));
                self.take(Step::Window(0));
                self.take(Step::Inbox);
                self.take(Step::Flush);
                self.device_acks_news();
            }
            self.take(Step::Pass(1000));
            self.take(Step::Flush);
        }
    }
}

fn index(chat: ChatId) -> usize {
    chat.0.as_u128() as usize - 1
}

proptest! {
    #[test]
    fn whatever_happens_the_device_ends_up_with_everything(
        waiting in proptest::collection::vec((0u64..5, 0u64..20), 3),
        holds in any::<bool>(),
        steps in proptest::collection::vec(step(3), 0..200),
    ) {
        let mut world = World::new(3, &waiting, holds);
        for step in steps {
            if world.session.is_opening_late(world.now) {
                world.take(Step::Inbox);
            }
            world.take(step);
        }
        world.calm_down();
        for (n, log) in world.logs.iter().enumerate() {
            prop_assert_eq!(world.device[&n].cursor, log.head, "chat {} is incomplete", n);
            prop_assert_eq!(log.row, None, "chat {} has a row left", n);
            let chat = world.session.chat(chat_id(n));
            prop_assert!(chat.is_none_or(|chat| chat.row.is_none() && chat.catch_up.is_none()), "{:?}", chat);
        }
        prop_assert!(world.greeted > 0 && !world.greeting_owed);
        prop_assert_eq!(world.session.reader.outstanding(), 0);
    }
}

impl Session {
    /// Opening for so long that another second of it may end it.
    fn is_opening_late(&self, now: Timestamp) -> bool {
        self.life.is_opening() && now >= START + Duration::from_secs(1)
    }
}

#[test]
fn memory_is_bounded_and_nothing_is_lost_by_it() {
    let chats = 1500;
    let waiting: Vec<_> = (0..chats).map(|_| (0, 2)).collect();
    let mut world = World::new(chats, &waiting, true);
    world.take(Step::Inbox);
    assert_eq!(world.session.chats.len(), settings::MAX_CHATS);
    for _ in 0..60 {
        world.calm_once();
        assert!(world.session.chats.len() <= settings::MAX_CHATS);
    }
    assert!(world.logs.iter().all(|log| log.row.is_none()), "rows are left");
    assert!(
        world.device.values().all(|stored| stored.cursor == 2),
        "entries are missing"
    );
    assert_eq!(world.greeted, 1);
    assert_eq!(world.swept_found, 0);
}

impl World {
    fn calm_once(&mut self) {
        while !self.control.is_empty() || !self.windows.is_empty() || self.inbox_asked {
            self.take(Step::Control(0));
            self.take(Step::Window(0));
            self.take(Step::Inbox);
            self.take(Step::Flush);
            self.device_acks_news();
        }
        self.take(Step::Pass(1000));
    }
}
