//! Tests of the rules that the shard's state keeps by the order in which it does things.

mod blocks;
mod clocks;
mod marks;
mod members;
mod patience;
mod receipts;
mod typing;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tern_types::{DeviceId, MediaId, RequestId, SessionId};

use super::commands::{MAX_WAITING_ACKS, MAX_WAITING_BYTES, MAX_WAITING_BYTES_OF_CHAT, MAX_WAITING_OF_CHAT};
use super::jobs::MAX_COMMIT_BYTES;
use super::*;
use crate::chat::{ChatKey, ChatKind, Member, Role, Snapshot};
use crate::{EntryKind, MediaRef, Missing, NewEntry, Outcome, Refusal};

const START: Timestamp = Timestamp(1_000_000);

struct Shard {
    state: ShardState,
    chat: ChatId,
    people: [UserId; 2],
    now: Timestamp,
}

impl Shard {
    /// A shard with one chat of two people.
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

    /// The snapshot of an empty chat of the two people.
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
            trace: None,
            arrived: None,
            read_receipts_off: false,
            acked: Seq::ZERO,
            kind: EntryKind::Message,
            sender: self.people[0],
            device: DeviceId::BACK_END,
            request,
            fingerprint: [0; 16],
            counts: true,
            content: Bytes::from(vec![0; bytes]),
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
            Committed::Moved,
        )])))
    }

    /// The other person's device acknowledges up to `seq`.
    fn acknowledge(&mut self, seq: Seq) {
        self.tell(Event::Ack {
            origin: Origin::Call(1),
            chat: self.chat,
            user: self.people[1],
            device: DeviceId(self.people[1].0),
            seq,
            write: false,
        });
    }

    /// Waits for the settle, which finds the other person's device missing.
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

/// The next job of either writer; commits come first.
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

/// The number of the load that is the only effect.
fn load_number(effects: &[Effect]) -> u64 {
    match effects {
        [Effect::Load { number, .. }] => *number,
        _ => panic!("no load: {effects:?}"),
    }
}

/// The snapshot of an empty chat of these people.
fn snapshot(kind: ChatKind, people: &[UserId]) -> Snapshot {
    let member = |user: &UserId| {
        let member = Member {
            role: Role::Member,
            joined: Seq(1),
            last_sent: Seq::ZERO,
            own_unread: 0,
        };
        (*user, member, Watermark::default())
    };
    Snapshot {
        kind,
        title: String::new(),
        picture: None,
        key: ChatKey(Arc::new([0; 32])),
        head: Seq::ZERO,
        ordinal: 0,
        members: people.iter().map(member).collect(),
        unsettled: None,
        placed: Vec::new(),
        looked_up: Vec::new(),
        blocked: false,
        last_sent_at: START,
    }
}

/// The chat in memory was true of another log.
#[test]
fn after_a_restore_a_repeated_request_is_not_answered_from_memory() {
    let mut shard = Shard::new();
    shard.send();
    shard.committed();
    shard.send();
    assert!(matches!(shard.job(), Some(Job::Commit(_))));
    shard.send();
    let answers = shard.tell(Event::Restored);
    let again = |effect: &Effect| {
        matches!(
            effect,
            Effect::Answer {
                outcome: Outcome::NotOwner,
                ..
            }
        )
    };
    assert_eq!(
        answers.iter().filter(|effect| again(effect)).count(),
        2,
        "{answers:?}"
    );
    assert_eq!((shard.state.chats(), shard.state.waiting()), (0, 0));
    // The result of the commit that was at the writer concerns the forgotten chat, and not the one that is loaded
    // now.
    let effects = shard.tell(Event::JobDone(JobDone::Commit(vec![(
        shard.chat,
        Committed::Moved,
    )])));
    assert!(effects.is_empty(), "{effects:?}");
    let effects = shard.send();
    assert!(matches!(effects.as_slice(), [Effect::Load { .. }]), "{effects:?}");
}

#[test]
fn rule_1_nobody_is_told_anything_before_the_commit() {
    let mut shard = Shard::new();
    assert!(shard.send().is_empty(), "neither an answer nor a push");
    let effects = shard.committed();
    let answered = effects.iter().position(|effect| {
        matches!(
            effect,
            Effect::Answer {
                outcome: Outcome::Placed { .. },
                ..
            }
        )
    });
    let pushed = effects
        .iter()
        .position(|effect| matches!(effect, Effect::Push { .. }));
    assert_eq!((answered, pushed), (Some(0), Some(1)));
}

#[test]
fn rule_1_a_commit_of_unknown_outcome_is_not_acknowledged() {
    let mut shard = Shard::new();
    shard.send();
    assert!(matches!(shard.job(), Some(Job::Commit(_))));
    let effects = shard.tell(Event::JobDone(JobDone::Commit(vec![(
        shard.chat,
        Committed::Away,
    )])));
    let refused = matches!(
        effects.as_slice(),
        [Effect::Answer {
            outcome: Outcome::Refused(Refusal::Unavailable { .. }),
            ..
        }]
    );
    assert!(refused, "{effects:?}");
}

#[test]
fn rule_3_devices_are_looked_up_after_their_rows_are_written() {
    let mut shard = Shard::new();
    shard.send();
    let effects = shard.committed();
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Wake { .. })));
    let effects = shard.settled();
    assert!(matches!(effects.as_slice(), [Effect::Wake { .. }]), "{effects:?}");
}

#[test]
fn fine_print_5_what_was_not_confirmed_is_settled_again_and_not_closed() {
    let mut shard = Shard::new();
    shard.send();
    shard.committed();
    shard.settled();
    let (chat, upto) = (shard.chat, Seq(1));
    shard.tell(Event::WakesDone {
        chat,
        upto,
        woken: Woken::NotAll,
    });
    assert!(!matches!(shard.job(), Some(Job::Close(_))));
    // Read marks may come in between; then the settle comes again.
    shard.tell(reads_done());
    shard.settled();
    shard.tell(Event::WakesDone {
        chat,
        upto,
        woken: Woken::All,
    });
    let Some(Job::Close(closes)) = shard.job() else {
        panic!("nothing is closed")
    };
    assert_eq!(closes, [(chat, upto)]);
}

#[test]
fn what_was_just_committed_is_not_settled_with_what_is_due() {
    let mut shard = Shard::new();
    shard.send();
    shard.committed();
    shard.now = shard.now + SETTLE_AFTER - Duration::from_millis(1);
    // The devices have not yet had half a second to acknowledge this second entry.
    shard.send();
    shard.committed();
    shard.now = shard.now + Duration::from_millis(1);
    let chat = shard.chat;
    shard.acknowledge(Seq(1));
    for (upto, next) in [(Seq(1), SETTLE_AFTER), (Seq(2), Duration::ZERO)] {
        let Some(Job::Settle(settle)) = shard.job() else {
            panic!("no settle is due")
        };
        assert_eq!(settle[0].upto, upto);
        shard.tell(settle_done(vec![(chat, upto)], HashMap::new()));
        assert!(!matches!(shard.job(), Some(Job::Settle(_))));
        shard.now = shard.now + next;
    }
    assert_eq!(shard.state.unsettled(), 0);
}

#[test]
fn what_was_acknowledged_in_time_is_settled_all_at_once() {
    for acknowledged in [None, Some(Seq(2))] {
        let mut shard = Shard::new();
        for _ in 0..2 {
            shard.send();
            shard.committed();
            shard.now = shard.now + Duration::from_millis(100);
        }
        acknowledged.into_iter().for_each(|seq| shard.acknowledge(seq));
        shard.now = shard.now + SETTLE_AFTER;
        let Some(Job::Settle(settle)) = shard.job() else {
            panic!("no settle is due")
        };
        assert_eq!(settle[0].upto, Seq(2), "{acknowledged:?}");
    }
}

#[test]
fn chats_that_fall_silent_at_about_the_same_time_share_a_settle() {
    let mut shard = Shard::new();
    shard.now = START + Duration::from_millis(1);
    shard.send();
    shard.committed();
    shard.now = START + Duration::from_millis(100);
    shard.chat = ChatId::group(shard.people[0], RequestId::random());
    shard.open(shard.chat);
    shard.send();
    shard.committed();
    shard.now = START + SETTLE_AFTER + Duration::from_millis(99);
    assert!(
        !matches!(shard.job(), Some(Job::Settle(_))),
        "the second has its time"
    );
    shard.now = START + SETTLE_AFTER + Duration::from_millis(100);
    assert_eq!(shard.state.next_wake(), Some(shard.now));
    let Some(Job::Settle(settle)) = shard.job() else {
        panic!("no settle is due")
    };
    assert_eq!(settle.len(), 2);
}

#[test]
fn a_settle_that_fails_is_tried_again_soon_and_then_ever_later() {
    let mut shard = Shard::new();
    shard.send();
    shard.committed();
    shard.now = shard.now + SETTLE_AFTER;
    let mut waits = Vec::new();
    let mut since = shard.now;
    while waits.len() < 8 {
        match shard.job() {
            Some(Job::Settle(settle)) => {
                waits.push(shard.now.since(since).as_millis());
                since = shard.now;
                let failed = settle.iter().map(|settle| (settle.chat, settle.upto)).collect();
                shard.tell(Event::JobDone(JobDone::Settle {
                    chats: Vec::new(),
                    missing: HashMap::new(),
                    failed,
                }));
            }
            Some(Job::Reads(_)) => {
                shard.tell(reads_done());
            }
            Some(job) => panic!("{job:?}"),
            None => shard.now = shard.state.next_wake().expect("it is tried again"),
        }
    }
    assert_eq!(waits, [0, 300, 500, 1000, 2000, 4000, 4000, 4000]);
}

/// Rule 9: etcd is away for an hour, and so is a device. The device has its inbox row, and the entry is not closed
/// before a look-up can be sure that nobody is online.
#[test]
fn a_settle_that_nobody_can_be_sure_of_is_not_closed_and_comes_ever_more_seldom() {
    let mut shard = Shard::new();
    shard.send();
    shard.committed();
    let (chat, upto) = (shard.chat, Seq(1));
    let missing = vec![Missing {
        user: shard.people[1],
        device: DeviceId::random(),
        from: Seq(1),
    }];
    let mut waits = Vec::new();
    let mut since = shard.now;
    while waits.len() < 10 {
        match shard.job() {
            Some(Job::Settle(settle)) => {
                waits.push(shard.now.since(since).as_secs());
                since = shard.now;
                let chats = settle.iter().map(|settle| (settle.chat, settle.upto)).collect();
                let missing = HashMap::from([(chat, missing.clone())]);
                shard.tell(settle_done(chats, missing));
                shard.tell(Event::WakesDone {
                    chat,
                    upto,
                    woken: Woken::Unsure,
                });
            }
            Some(Job::Reads(_)) => {
                shard.tell(reads_done());
            }
            Some(job) => panic!("{job:?}"),
            None => shard.now = shard.state.next_wake().expect("it is tried again"),
        }
    }
    assert_eq!(waits[waits.len() - 2..], [30, 30], "{waits:?}");
    assert_eq!(shard.state.unsettled(), 1);
    shard.now = shard.now + Duration::from_secs(30);
    shard.settled();
    shard.tell(Event::WakesDone {
        chat,
        upto,
        woken: Woken::All,
    });
    assert!(matches!(shard.job(), Some(Job::Close(_))));
}

#[test]
fn rule_8_a_chat_refuses_what_it_cannot_hold() {
    let mut shard = Shard::new();
    for _ in 0..MAX_WAITING_OF_CHAT {
        assert!(shard.send().is_empty());
    }
    let effects = shard.send();
    let refused = matches!(
        effects.as_slice(),
        [Effect::Answer {
            outcome: Outcome::Refused(Refusal::Unavailable { .. }),
            ..
        }]
    );
    assert!(refused, "{effects:?}");
}

#[test]
fn rule_8_an_acknowledgement_that_finds_no_room_is_not_left_without_an_answer() {
    let mut shard = Shard::new();
    let (chat, user, device) = (shard.chat, shard.people[1], DeviceId::random());
    let ack = |origin| Event::Ack {
        origin,
        chat,
        user,
        device,
        seq: Seq(1),
        write: true,
    };
    for _ in 0..MAX_WAITING_ACKS {
        assert!(shard.tell(ack(Origin::Call(1))).is_empty());
    }
    let effects = shard.tell(ack(Origin::Call(2)));
    let refused = matches!(
        effects.as_slice(),
        [Effect::Answer {
            origin: Origin::Call(2),
            outcome: Outcome::Refused(Refusal::Unavailable { .. }),
        }]
    );
    assert!(refused, "{effects:?}");
    let link = Origin::Link {
        link: 1,
        reference: 0,
        session: SessionId(1),
        request: RequestId(uuid::Uuid::nil()),
    };
    assert!(shard.tell(ack(link)).is_empty(), "a gateway repeats it");
}

fn is_refused(effects: &[Effect]) -> bool {
    matches!(
        effects,
        [Effect::Answer {
            outcome: Outcome::Refused(Refusal::Unavailable { .. }),
            ..
        }]
    )
}

const LARGE: usize = 256 << 10;

#[test]
fn rule_8_a_chat_refuses_more_bytes_than_it_may_hold() {
    let mut shard = Shard::new();
    let fit = MAX_WAITING_BYTES_OF_CHAT / LARGE - 1;
    for _ in 0..fit {
        assert!(shard.send_to(shard.chat, LARGE).is_empty());
    }
    assert!(is_refused(&shard.send_to(shard.chat, LARGE)));
    assert!(shard.send().is_empty(), "a small one still fits");
    shard.committed();
    assert!(
        shard.send_to(shard.chat, LARGE).is_empty(),
        "what is committed makes room"
    );
}

#[test]
fn rule_8_a_shard_refuses_more_bytes_than_it_may_hold() {
    let mut shard = Shard::new();
    let fit = MAX_WAITING_BYTES / LARGE - 1;
    for n in 0..fit {
        let chat = ChatId(uuid::Uuid::from_u128(n as u128));
        shard.open(chat);
        assert!(shard.send_to(chat, LARGE).is_empty());
    }
    assert!(is_refused(&shard.send_to(shard.chat, LARGE)));
    assert!(shard.send().is_empty(), "a small one still fits");
}

#[test]
fn rule_8_a_commit_is_bounded_in_bytes_and_shared_by_chats() {
    let mut shard = Shard::new();
    let chats: Vec<ChatId> = (0..10).map(|n| ChatId(uuid::Uuid::from_u128(n))).collect();
    for chat in &chats {
        shard.open(*chat);
        for _ in 0..10 {
            assert!(shard.send_to(*chat, LARGE).is_empty());
        }
    }
    let Some(Job::Commit(batches)) = shard.job() else {
        panic!("nothing is committed")
    };
    let bytes: usize = batches.iter().map(Batch::bytes).sum();
    assert!(bytes > MAX_COMMIT_BYTES / 2 && bytes <= MAX_COMMIT_BYTES + LARGE);
    assert!(batches.len() > 2, "no chat takes it all");
}

#[test]
fn an_entry_larger_than_a_batch_may_be_is_committed_alone() {
    let mut shard = Shard::new();
    shard.send_to(shard.chat, MAX_COMMIT_BYTES + 1);
    shard.send();
    let Some(Job::Commit(batches)) = shard.job() else {
        panic!("nothing is committed")
    };
    assert_eq!(batches[0].entries.len(), 1);
}

/// The refusal comes only when it is certain that the log has no entry of the request yet.
#[test]
fn a_ticket_that_has_ended_is_refused_but_a_repetition_is_answered_whatever_its_ticket() {
    let mut shard = Shard::new();
    let media = vec![MediaRef {
        media: MediaId::random(),
        expires_at: START + Duration::from_secs(60),
    }];
    let (chat, sent) = (shard.chat, RequestId::random());
    shard.send_with(chat, 1, sent, media.clone());
    shard.committed();
    shard.now = START + Duration::from_secs(61);
    let again = shard.send_with(chat, 1, sent, media.clone());
    assert!(
        again.iter().any(|effect| matches!(
            effect,
            Effect::Answer {
                outcome: Outcome::Placed { seq: Seq(1), .. },
                ..
            }
        )),
        "{again:?}"
    );
    shard.settled();
    assert!(
        matches!(shard.job(), Some(Job::Reads(_))),
        "the sender's own mark is not written"
    );
    shard.tell(reads_done());
    let late = RequestId::random();
    shard.send_with(chat, 1, late, media);
    let mut effects = Vec::new();
    let job = any_job(&mut shard.state, shard.now, &mut effects);
    assert!(job.is_none(), "looked up first: {job:?}");
    let snapshot = Snapshot {
        head: Seq(1),
        looked_up: vec![(shard.people[0], late)],
        ..shard.snapshot()
    };
    let number = load_number(&effects);
    let result = Ok(Some(snapshot));
    shard.tell(Event::Loaded { chat, number, result });
    let mut effects = Vec::new();
    let job = any_job(&mut shard.state, shard.now, &mut effects);
    assert!(!matches!(job, Some(Job::Commit(_))), "{job:?}");
    assert!(
        effects.iter().any(|effect| matches!(
            effect,
            Effect::Answer {
                outcome: Outcome::Refused(Refusal::MediaTicket),
                ..
            }
        )),
        "{effects:?}"
    );
}
