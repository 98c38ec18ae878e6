//! Measures the work of a shard's state for a message: the send, the pushes of its commit, and the acknowledgement of
//! the other person. It measures one message, and a commit of many.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tern_chat_core::chat::ChatKey;
use tern_chat_core::shard::{Committed, Effect, Lane};
use tern_chat_core::{ChatKind, Event, Job, JobDone, NewEntry, Origin, ShardState, Snapshot};
use tern_counts::Operation;
use tern_types::{ChatId, DeviceId, RequestId, Seq, SessionId, Timestamp, UserId};
use uuid::Uuid;

/// The number of messages of one commit under load, each in another chat.
const MANY: u64 = 256;

fn main() {
    tern_counts::run(vec![
        messages("shard_apply_1", 1),
        messages("shard_apply_256", MANY),
    ]);
}

/// Returns the operation that sends, commits and acknowledges a message in each of this many chats.
fn messages(name: &'static str, chats: u64) -> Operation {
    let mut shard = Shard::new(chats);
    Operation::new(name, chats, move || shard.round())
}

struct Shard {
    state: ShardState,
    chats: Vec<(ChatId, [UserId; 2])>,
    rounds: u64,
    effects: Vec<Effect>,
}

impl Shard {
    /// Makes a shard with this many chats of two people each, in memory.
    fn new(chats: u64) -> Self {
        let mut shard = Self {
            state: ShardState::default(),
            chats: (0..chats).map(chat).collect(),
            rounds: 0,
            effects: Vec::new(),
        };
        for (number, (chat, people)) in (1..).zip(shard.chats.clone()) {
            // The first event of a chat begins its load.
            shard.tell(Event::Recover {
                chat,
                low: Seq(1),
                high: Seq(1),
            });
            shard.tell(Event::Loaded {
                chat,
                number,
                result: Ok(Some(empty(people))),
            });
        }
        shard
    }

    /// Sends a message in each chat, commits all in one job, and acknowledges each.
    fn round(&mut self) {
        self.rounds += 1;
        for (number, (chat, people)) in self.chats.clone().into_iter().enumerate() {
            let request = RequestId(Uuid::from_u128((u128::from(self.rounds) << 32) | number as u128));
            self.tell(Event::Send {
                origin: Origin::Link {
                    link: 1,
                    reference: number as u64,
                    session: SessionId(number as u64),
                    request,
                },
                chat,
                peer: None,
                entry: entry(people[0], request),
            });
        }
        let job = self
            .state
            .next_job(Lane::Commit, self.now(), self.now(), &mut self.effects);
        let Some(Job::Commit(batches)) = job else {
            panic!("no commit: {job:?}")
        };
        let stored = batches
            .iter()
            .map(|batch| (batch.chat, Committed::Stored))
            .collect();
        self.tell(Event::JobDone(JobDone::Commit(stored)));
        for (chat, people) in self.chats.clone() {
            self.tell(Event::Ack {
                origin: Origin::Call(0),
                chat,
                user: people[1],
                device: DeviceId(people[1].0),
                seq: Seq(self.rounds),
                write: false,
            });
        }
        let now = self.now();
        self.state.flush_receipts(now, &mut self.effects);
        self.state.keep_patience(now, &mut self.effects);
        black_box(&self.effects);
        self.effects.clear();
    }

    fn tell(&mut self, event: Event) {
        let now = self.now();
        self.state.apply(event, now, &mut self.effects);
    }

    /// Returns the time. It passes so slowly that no settle is due, because settles are the store's work.
    fn now(&self) -> Timestamp {
        Timestamp(1_000_000) + Duration::from_micros(self.rounds)
    }
}

fn chat(number: u64) -> (ChatId, [UserId; 2]) {
    let user = |side: u128| UserId(Uuid::from_u128((u128::from(number) << 1) | side));
    (ChatId(Uuid::from_u128(number.into())), [user(0), user(1)])
}

fn empty(people: [UserId; 2]) -> Snapshot {
    Snapshot {
        last_sent_at: Timestamp(1_000_000),
        ..Snapshot::of_new_chat(ChatKind::Direct, people, ChatKey(Arc::new([0; 32])))
    }
}

fn entry(sender: UserId, request: RequestId) -> NewEntry {
    let content = Bytes::from_static(&[7; 200]);
    NewEntry::message(sender, DeviceId(sender.0), request, [0; 16], content)
}
