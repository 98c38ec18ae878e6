//! Tests the engine and the local store against a simulated server and network. These lose, repeat, delay and reorder
//! frames as far as the protocol allows.

mod acts;
mod answers;
mod gone;
mod properties;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use prost::Message as _;
use tern_proto::v1::client_item::Item;
use tern_proto::v1::entry_content::Content;
use tern_proto::v1::server_event::Event as Wire;
use tern_proto::v1::{self, SendErrorCode, send_message, send_result::Outcome};
use tern_types::{ChatId, RequestId, Seq, Timestamp};

use tern_client_core::CallError;
use tern_client_core::engine::{Call, Effects, Engine, Input, StreamOrder};
use tern_client_core::model::{ChatList, Entry, Event, ListedChat, Outgoing, SendState};
use tern_client_core::testing::{NOW, credentials, entry, frame, opened, settings, wire};

use answers::{listed, refused};

use crate::config::StoreLocation;
use crate::search_text::SearchText;
use crate::store::{Expired, Store};

/// One chat of the simulated server.
#[derive(Debug, Default)]
pub struct Log {
    /// The entries, of which the first has the seq 1.
    pub entries: Vec<Entry>,
    /// The number of entries from before the device was linked.
    pub base: u64,
    /// The highest seq that the device has acknowledged.
    pub acked: u64,
    /// The events on their way to the device, in their order.
    down: VecDeque<Wire>,
}

/// One device, its server and the network between them.
pub struct World {
    pub now: Timestamp,
    pub engine: Engine,
    pub store: Store,
    /// The logs of the chats, and the person's own log.
    pub logs: BTreeMap<ChatId, Log>,
    /// The number of chats.
    chats: usize,
    /// The items on their way to the server.
    up: VecDeque<Item>,
    /// The unary calls without an answer yet, each with the engine's generation in which it was made.
    calls: VecDeque<(u64, Call)>,
    /// The number of times that all chats were listed.
    lists: usize,
    connected: bool,
    epoch: u128,
    /// The entries that the app was told of, by chat and seq, in order.
    pub told: Vec<(ChatId, u64)>,
    /// The messages that the app wrote on this device, in order.
    pub written: Vec<(ChatId, RequestId)>,
    /// The messages of which the app was told that they are sent.
    pub sent_told: Vec<RequestId>,
    /// A page of history on its way to the device.
    page: Vec<Entry>,
}

impl World {
    /// Makes one chat for each of `bases`, which is the number of the chat's entries from before the device is linked.
    pub fn new(bases: &[u64]) -> Self {
        let mut logs = BTreeMap::new();
        for (number, base) in bases.iter().enumerate() {
            let chat = ChatId(uuid::Uuid::from_u128(number as u128 + 1));
            let entries = (1..=*base).map(|seq| entry(chat, seq)).collect();
            logs.insert(
                chat,
                Log {
                    entries,
                    base: *base,
                    acked: *base,
                    down: VecDeque::new(),
                },
            );
        }
        logs.insert(ChatId::own(credentials().user), Log::default());
        let mut store = Store::open(&StoreLocation::Memory, true).unwrap();
        store.put_credentials(&credentials()).unwrap();
        store.set_search(&SearchText::Plain).unwrap();
        let engine = Engine::new(credentials(), store.load().unwrap(), settings());
        let mut world = Self {
            now: NOW,
            engine,
            store,
            logs,
            chats: bases.len(),
            up: VecDeque::new(),
            calls: VecDeque::new(),
            lists: 0,
            connected: false,
            epoch: 1,
            told: Vec::new(),
            written: Vec::new(),
            sent_told: Vec::new(),
            page: Vec::new(),
        };
        world.apply(Input::Start);
        world
    }

    /// Returns the chat with this index, which is taken modulo the number of chats.
    pub fn chat(&self, index: usize) -> ChatId {
        let own = ChatId::own(credentials().user);
        let mut chats = self.logs.keys().filter(|chat| **chat != own);
        *chats.nth(index % self.chats).unwrap()
    }

    /// Gives the engine an input, and carries out its effects.
    pub fn apply(&mut self, input: Input) {
        let effects = self.engine.apply([input], self.now);
        self.perform(effects);
    }

    fn perform(&mut self, effects: Effects) {
        self.store.commit(&effects.changes).unwrap();
        let generation = self.engine.generation();
        match effects.stream {
            Some(StreamOrder::Open(_)) => self.connect(),
            Some(StreamOrder::Close) => self.cut(),
            None => {}
        }
        self.up.extend(effects.items);
        for event in effects.events {
            match event {
                Event::Entry(entry) => self.told.push((entry.chat, entry.seq.0)),
                Event::Send {
                    request,
                    state: SendState::Sent { .. },
                    ..
                } => self.sent_told.push(request),
                _ => {}
            }
        }
        for call in effects.calls {
            match call {
                Call::ReloadOutbox => {
                    let outbox = self.store.outbox().unwrap();
                    self.apply(Input::Outbox(outbox));
                }
                Call::Expire => {
                    let Expired { gone, next } = self.store.expire(self.now).unwrap();
                    self.apply(Input::Expired { gone, next });
                }
                call => self.calls.push_back((generation, call)),
            }
        }
    }

    fn cut(&mut self) {
        self.connected = false;
        self.up.clear();
        self.logs.values_mut().for_each(|log| log.down.clear());
    }

    /// Opens the stream, on which the server sends the entries that are not acknowledged.
    fn connect(&mut self) {
        self.cut();
        self.connected = true;
        self.apply(Input::Frame(frame(opened(self.epoch))));
        let chats: Vec<ChatId> = self.logs.keys().copied().collect();
        chats.into_iter().for_each(|chat| self.resend(chat));
    }

    /// Breaks the network for a moment. The device reconnects when its delay is over.
    pub fn lose_stream(&mut self) {
        if self.connected {
            self.cut();
            self.apply(Input::StreamLost(CallError::unavailable("broken")));
        }
        self.pass(Duration::from_secs(60));
    }

    /// Kills the device's process and starts it again from its store.
    pub fn crash(&mut self) {
        self.cut();
        self.calls.clear();
        self.engine = Engine::new(credentials(), self.store.load().unwrap(), settings());
        self.apply(Input::Start);
    }

    /// Restores an older store of the server: the epoch is another one, and each chat loses its newest `lost` entries.
    pub fn restore_backup(&mut self, lost: usize) {
        self.epoch += 1;
        for log in self.logs.values_mut() {
            let keep = log
                .entries
                .len()
                .saturating_sub(lost)
                .max(usize::try_from(log.base).unwrap());
            log.entries.truncate(keep);
            log.acked = log.acked.min(keep as u64);
        }
        self.told.clear();
        self.lose_stream();
    }

    /// Lets time pass, and ticks the engine whenever it asks for that. Some ticks may be due at the same time, as when
    /// a delay is 0 ms.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        let mut ticks = 0;
        while let Some(at) = self.engine.next_wake().filter(|at| *at <= end) {
            ticks = if at > self.now { 1 } else { ticks + 1 };
            assert!(ticks <= 8, "{at:?} is due again and again at {:?}", self.now);
            self.now = self.now.max(at);
            self.apply(Input::Tick);
        }
        self.now = end;
    }

    /// Adds an entry of another person. If `lost` is set, the live push of the entry does not reach the device.
    pub fn other_writes(&mut self, chat: ChatId, lost: bool) {
        let log = self.logs.get_mut(&chat).unwrap();
        let seq = log.entries.len() as u64 + 1;
        let entry = Entry {
            request: Some(RequestId::random()),
            ..entry(chat, seq)
        };
        log.entries.push(entry.clone());
        if self.connected && !lost {
            log.down.push_back(Wire::Entry(wire(&entry)));
        }
    }

    /// Sends a message from the device.
    pub fn device_writes(&mut self, chat: ChatId) {
        let message = Outgoing::new(chat, format!("mine {}", self.written.len()));
        self.written.push((chat, message.request));
        self.apply(Input::Send(message));
    }

    /// Delivers the next event of the chat to the device, twice if `repeat` is set.
    pub fn deliver(&mut self, chat: ChatId, repeat: bool) {
        let Some(event) = self.logs.get_mut(&chat).and_then(|log| log.down.pop_front()) else {
            return;
        };
        if repeat {
            self.apply(Input::Frame(frame(event.clone())));
        }
        if self.connected {
            self.apply(Input::Frame(frame(event)));
        }
    }

    /// Lets the server handle the device's next item. If the item is a message, the server may refuse it as
    /// unavailable, or its result may be lost.
    pub fn serve(&mut self, unavailable: bool, lose_result: bool) {
        match self.up.pop_front() {
            Some(Item::Ack(ack)) => {
                let log = self.logs.get_mut(&ack.chat_id.parse().unwrap()).unwrap();
                assert!(
                    ack.seq <= log.entries.len() as u64,
                    "acknowledged what is not there: {ack:?}"
                );
                log.acked = log.acked.max(ack.seq);
            }
            Some(Item::Send(send)) => {
                let result = if unavailable {
                    refused(&send, SendErrorCode::Unavailable)
                } else {
                    self.commit(&send)
                };
                let Some(send_message::To::ChatId(chat)) = &send.to else {
                    panic!("{send:?}")
                };
                // A result may overtake entries that are on their way.
                if !lose_result && let Some(log) = self.logs.get_mut(&chat.parse().unwrap()) {
                    log.down.push_front(Wire::SendResult(result));
                }
            }
            _ => {}
        }
    }

    fn commit(&mut self, send: &v1::SendMessage) -> v1::SendResult {
        let Some(send_message::To::ChatId(chat)) = &send.to else {
            panic!("{send:?}")
        };
        let (chat, request) = (chat.parse().unwrap(), send.request_id.parse().unwrap());
        let log = self.logs.get_mut(&chat).unwrap();
        let me = credentials();
        let known = log
            .entries
            .iter()
            .position(|entry| entry.request == Some(request));
        let content = v1::Message {
            envelope: Some(v1::Envelope::decode(send.envelope.clone()).unwrap()),
            body: send.body.clone(),
        };
        let entry = Entry {
            sender: Some(me.user),
            device: Some(me.device),
            request: Some(request),
            content: v1::EntryContent {
                content: Some(Content::Message(content)),
                ..Default::default()
            },
            ..entry(chat, log.entries.len() as u64 + 1)
        };
        if known.is_none() && !log.takes(entry.act(), me.user) {
            return refused(send, SendErrorCode::TargetNotFound);
        }
        let index = known.unwrap_or_else(|| {
            log.put(entry);
            log.entries.len() - 1
        });
        let entry = &log.entries[index];
        let sent = v1::Sent {
            chat_id: chat.to_string(),
            seq: entry.seq.0,
            sent_at_ms: entry.sent_at.0,
        };
        v1::SendResult {
            request_id: send.request_id.clone(),
            outcome: Some(Outcome::Sent(sent)),
        }
    }

    /// Lets the server send the entries again that the device has not acknowledged.
    pub fn resend(&mut self, chat: ChatId) {
        let connected = self.connected;
        let log = self.logs.get_mut(&chat).unwrap();
        if connected && log.acked < log.entries.len() as u64 {
            log.down.retain(|event| matches!(event, Wire::SendResult(_)));
            let from = usize::try_from(log.acked).unwrap();
            log.down
                .extend(log.entries[from..].iter().map(|entry| Wire::Entry(wire(entry))));
        }
    }

    /// Answers the device's oldest call, or lets it fail.
    pub fn answer(&mut self, fails: bool) {
        let Some((generation, call)) = self.calls.pop_front() else {
            return;
        };
        let error = CallError::unavailable("lost");
        let listed = |chat: &ChatId, log: &Log| ListedChat {
            chat: listed(*chat, log),
            has_settings: true,
            resume: Seq(log.acked),
        };
        let input = match call {
            Call::ListChats if fails => Input::Listed(Err(error)),
            Call::ListChats => {
                // Every second list lacks the chats of a part of the store.
                self.lists += 1;
                let partial = self.lists % 2 == 1;
                let own = ChatId::own(credentials().user);
                let logs = self.logs.iter().filter(|(chat, _)| **chat != own);
                let logs = logs.skip(usize::from(partial));
                Input::Listed(Ok(ChatList {
                    chats: logs.map(|(chat, log)| listed(chat, log)).collect(),
                    partial,
                }))
            }
            Call::GetChat(chat) if fails => Input::LookedUp {
                chat,
                result: Err(error),
            },
            Call::GetChat(chat) => Input::LookedUp {
                chat,
                result: Ok(listed(&chat, &self.logs[&chat])),
            },
            Call::Fill { chat, .. } if fails => Input::Filled {
                chat,
                result: Err(error),
            },
            Call::Fill { chat, from } => {
                let entries = self.logs[&chat]
                    .entries
                    .iter()
                    .filter(|entry| entry.seq >= from)
                    .cloned()
                    .collect();
                Input::Filled {
                    chat,
                    result: Ok(entries),
                }
            }
            Call::Receipts(chat) => Input::ReceiptsRead {
                chat,
                result: Err(error),
            },
            Call::Refresh { .. } | Call::ReloadOutbox | Call::Expire => return,
        };
        self.apply(Input::Answered {
            generation,
            answer: Box::new(input),
        });
    }

    /// Makes the network good until nothing is left to do.
    pub fn settle(&mut self) {
        self.lose_stream();
        for _ in 0..10_000 {
            while !self.calls.is_empty() {
                self.answer(false);
            }
            while !self.up.is_empty() {
                self.serve(false, false);
            }
            let Some(chat) = self
                .logs
                .iter()
                .find(|(_, log)| !log.down.is_empty())
                .map(|(chat, _)| *chat)
            else {
                let behind = self
                    .logs
                    .iter()
                    .find(|(_, log)| log.acked < log.entries.len() as u64);
                match behind.map(|(chat, _)| *chat) {
                    Some(chat) => {
                        // The server sends again what is not acknowledged after some seconds.
                        self.pass(Duration::from_secs(6));
                        self.resend(chat);
                    }
                    None if self.nothing_waits() => return self.pass(Duration::ZERO),
                    None => self.pass(Duration::from_secs(20)),
                }
                continue;
            };
            self.deliver(chat, false);
        }
        panic!("no end: {:?}", self.store.outbox());
    }

    /// Returns whether every message of the outbox was refused.
    fn nothing_waits(&self) -> bool {
        let outbox = self.store.outbox().unwrap();
        outbox
            .iter()
            .all(|queued| matches!(queued.state, SendState::Failed { .. }))
    }

    /// Checks what must hold at the end: entries were told in order, and the store has exactly the server's log.
    pub fn check(&self) {
        let mut last: HashMap<ChatId, u64> = HashMap::new();
        for (chat, seq) in &self.told {
            let before = last.insert(*chat, *seq);
            assert!(
                before.is_none_or(|before| before < *seq),
                "told {seq} after {before:?}"
            );
        }
        for (chat, log) in &self.logs {
            let stored = self.store.history(*chat, None, usize::MAX).unwrap();
            let stored: Vec<_> = stored.iter().map(|entry| (entry.seq, entry.request)).collect();
            let owed: Vec<_> = log
                .entries
                .iter()
                .map(|entry| (entry.seq, entry.request))
                .collect();
            let base = usize::try_from(log.base).unwrap();
            assert_eq!(stored, owed[base..], "the store has what the log has");
        }
    }

    /// Checks that own messages are in the log once each, in the order of writing.
    pub fn check_sends(&self) {
        for (chat, log) in &self.logs {
            let me = Some(credentials().device);
            let logged: Vec<_> = log
                .entries
                .iter()
                .filter(|e| e.device == me)
                .filter_map(|e| e.request)
                .collect();
            let written: Vec<_> = self
                .written
                .iter()
                .filter(|(to, _)| to == chat)
                .map(|(_, id)| *id)
                .collect();
            assert_eq!(logged, written);
        }
    }
}
