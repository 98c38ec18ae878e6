//! Tests of the rules that the shard's state keeps by the order in which it does things.

mod answers;
mod blocks;
mod bounds;
mod clocks;
mod commits;
mod loads;
mod marks;
mod members;
mod patience;
mod policy;
mod receipts;
mod restores;
mod retention;
mod settles;
mod targets;
mod typing;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tern_types::{DeviceId, RequestId, SessionId};

use super::*;
use crate::chat::{ChatKey, ChatKind, Snapshot};
use crate::{MediaRef, Missing, NewEntry, Outcome, Refusal, Sending};

const START: Timestamp = Timestamp(1_000_000);

struct Shard {
    state: ShardState,
    chat: ChatId,
    people: [UserId; 2],
    now: Timestamp,
}

impl Shard {
    /// Makes a shard with one empty chat of two people in memory.
    fn new() -> Self {
        let people = [UserId::random(), UserId::random()];
        let chat = ChatId::direct(people[0], people[1]);
        let mut shard = Self {
            state: ShardState::default(),
            chat,
            people,
            now: START,
        };
        shard.open(chat);
        shard
    }

    /// Loads an empty chat of the two people.
    fn open(&mut self, chat: ChatId) {
        let effects = self.tell(Event::Recover {
            chat,
            low: Seq(1),
            high: Seq(1),
        });
        let number = load_number(&effects);
        let result = Ok(Some(self.snapshot()));
        self.tell(Event::Loaded { chat, number, result });
    }

    /// Returns the snapshot of an empty chat of the two people.
    fn snapshot(&self) -> Snapshot {
        snapshot(ChatKind::Direct, &self.people)
    }

    fn tell(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.state.apply(event, self.now, &mut effects);
        self.state.flush_receipts(self.now, &mut effects);
        effects
    }

    fn send(&mut self) -> Vec<Effect> {
        self.send_to(self.chat, 0)
    }

    /// Sends a message with a body of `bytes` bytes.
    fn send_to(&mut self, chat: ChatId, bytes: usize) -> Vec<Effect> {
        self.send_with(chat, bytes, RequestId::random(), Vec::new())
    }

    fn send_with(
        &mut self,
        chat: ChatId,
        bytes: usize,
        request: RequestId,
        media: Vec<MediaRef>,
    ) -> Vec<Effect> {
        let entry = NewEntry {
            media,
            ..NewEntry::message(
                self.people[0],
                DeviceId::BACK_END,
                request,
                [0; 16],
                Bytes::from(vec![0; bytes]),
            )
        };
        let origin = Origin::Link {
            link: 1,
            reference: 1,
            session: SessionId(1),
            request,
        };
        self.tell(Event::Send {
            origin,
            chat,
            peer: None,
            entry,
        })
    }

    fn job(&mut self) -> Option<Job> {
        let mut effects = Vec::new();
        let job = any_job(&mut self.state, self.now, &mut effects);
        assert!(effects.is_empty(), "{effects:?}");
        job
    }

    fn committed(&mut self) -> Vec<Effect> {
        assert!(matches!(self.job(), Some(Job::Commit(_))));
        self.tell(Event::JobDone(JobDone::Commit(vec![(
            self.chat,
            Committed::Stored,
        )])))
    }

    /// Applies the acknowledgement by the other person's device of every entry up to `seq`.
    fn acknowledge(&mut self, seq: Seq) {
        self.acknowledge_by(1, seq);
    }

    /// Applies the acknowledgement by the device of the person with this number of every entry up to `seq`.
    fn acknowledge_by(&mut self, person: usize, seq: Seq) {
        self.tell(Event::Ack {
            origin: Origin::Call(1),
            chat: self.chat,
            user: self.people[person],
            device: DeviceId(self.people[person].0),
            seq,
            write: false,
        });
    }

    /// Waits for the settle, and lets it find the other person's device missing.
    fn settled(&mut self) -> Vec<Effect> {
        self.now = self.now + SETTLE_AFTER + Duration::from_secs(2);
        let Some(Job::Settle(settle)) = self.job() else {
            panic!("no settle is due")
        };
        let missing = Missing {
            user: self.people[1],
            device: DeviceId::random(),
            from: Seq(1),
        };
        let missing = HashMap::from([(self.chat, vec![missing])]);
        let chats = settle.iter().map(|settle| (settle.chat, settle.upto)).collect();
        self.tell(settle_done(chats, missing))
    }
}

/// Returns the next job of either writer; commits come first.
fn any_job(state: &mut ShardState, now: Timestamp, out: &mut Vec<Effect>) -> Option<Job> {
    let mut jobs = Lane::ALL.into_iter();
    jobs.find_map(|lane| state.next_job(lane, now, now, out))
}

fn settle_done(chats: Vec<(ChatId, Seq)>, missing: HashMap<ChatId, Vec<Missing>>) -> Event {
    Event::JobDone(JobDone::Settle {
        chats,
        missing,
        failed: Vec::new(),
    })
}

fn reads_done() -> Event {
    let unwritten = Vec::new();
    Event::JobDone(JobDone::Reads { unwritten })
}

/// Returns the number of the load that is the only effect.
fn load_number(effects: &[Effect]) -> u64 {
    match effects {
        [Effect::Load { number, .. }] => *number,
        _ => panic!("no load: {effects:?}"),
    }
}

/// Returns the snapshot of an empty chat of these people.
fn snapshot(kind: ChatKind, people: &[UserId]) -> Snapshot {
    Snapshot {
        last_sent_at: START,
        ..Snapshot::of_new_chat(kind, people.iter().copied(), ChatKey(Arc::new([0; 32])))
    }
}
