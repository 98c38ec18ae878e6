//! Tests of receipts: the users who are told that a watermark rose, and the time at which they are told.

use std::collections::HashSet;

use tern_types::Notice;

use super::*;
use crate::recent::Placed;

/// A shard with one chat in memory.
struct Group {
    state: ShardState,
    chat: ChatId,
    people: Vec<UserId>,
    now: Timestamp,
}

impl Group {
    fn new(kind: ChatKind, members: u128) -> Self {
        let people: Vec<UserId> = (1..=members).map(|n| UserId(uuid::Uuid::from_u128(n))).collect();
        let chat = ChatId(uuid::Uuid::from_u128(1 << 80));
        let (state, now) = (ShardState::default(), START);
        let mut group = Self {
            state,
            chat,
            people,
            now,
        };
        group.tell(Event::Recover {
            chat,
            low: Seq(1),
            high: Seq(1),
        });
        let result = Ok(Some(snapshot(kind, &group.people)));
        group.tell(Event::Loaded {
            chat,
            number: 1,
            result,
        });
        group
    }

    fn tell(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.state.apply(event, self.now, &mut effects);
        self.flush(effects)
    }

    fn flush(&mut self, mut effects: Vec<Effect>) -> Vec<Effect> {
        self.state.flush_receipts(self.now, &mut effects);
        effects
    }

    /// Sends a message as this member, and commits it.
    fn say(&mut self, member: usize) -> Vec<Effect> {
        let device = DeviceId(self.people[member].0);
        self.say_from(member, device, 0)
    }

    /// Sends a message from this device, which has acknowledged up to `acked`, and commits it.
    fn say_from(&mut self, member: usize, device: DeviceId, acked: u64) -> Vec<Effect> {
        let (sender, request) = (self.people[member], RequestId::random());
        let sending = Sending {
            acked: Seq(acked),
            ..Sending::default()
        };
        let entry = NewEntry {
            sending,
            ..NewEntry::message(sender, device, request, [0; 16], Bytes::new())
        };
        let chat = self.chat;
        self.tell(Event::Send {
            origin: Origin::Call(0),
            chat,
            peer: None,
            entry,
        });
        self.commit()
    }

    /// Runs the upkeep jobs that are due, then the commit.
    fn commit(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        loop {
            let upkeep = self
                .state
                .next_job(Lane::Upkeep, self.now, self.now, &mut Vec::new());
            let done = match upkeep {
                Some(Job::Settle(settle)) => {
                    let chats = settle.iter().map(|settle| (settle.chat, settle.upto)).collect();
                    settle_done(chats, HashMap::new())
                }
                Some(Job::Reads(_)) => reads_done(),
                None => break,
                job => panic!("{job:?}"),
            };
            effects.extend(self.tell(done));
        }
        let commit = self
            .state
            .next_job(Lane::Commit, self.now, self.now, &mut Vec::new());
        assert!(matches!(commit, Some(Job::Commit(_))), "{commit:?}");
        let done = JobDone::Commit(vec![(self.chat, Committed::Stored)]);
        effects.extend(self.tell(Event::JobDone(done)));
        effects
    }

    fn acknowledge(&mut self, member: usize, seq: u64) -> Vec<Effect> {
        let (chat, user) = (self.chat, self.people[member]);
        self.tell(Event::Ack {
            origin: Origin::Call(1),
            chat,
            user,
            device: DeviceId(user.0),
            seq: Seq(seq),
            write: false,
        })
    }

    fn wait(&mut self, time: Duration) -> Vec<Effect> {
        self.now = self.now + time;
        self.flush(Vec::new())
    }

    /// Lets one person block the other, or end that. The chat is loaded anew, with the one message that it has.
    fn blocks(&mut self, blocked: bool) -> Vec<Effect> {
        let (chat, sender) = (self.chat, self.people[0]);
        let origin = Origin::Call(2);
        let number = load_number(&self.tell(Event::BlocksChanged { origin, chat }));
        let placed = Placed {
            seq: Seq(1),
            ordinal: 1,
            sent_at: START,
            fingerprint: [0; 16],
            is_message: true,
            erased: false,
            expires_after_s: 0,
        };
        let result = Ok(Some(Snapshot {
            head: Seq(1),
            ordinal: 1,
            placed: vec![(sender, RequestId::random(), placed)],
            blocked,
            ..snapshot(ChatKind::Direct, &self.people)
        }));
        self.tell(Event::Loaded { chat, number, result })
    }

    /// Runs the upkeep 2 s later, and returns the read marks of the member that it writes.
    fn written(&mut self, member: usize) -> Vec<ReadMark> {
        self.now = self.now + Duration::from_secs(2);
        let user = self.people[member];
        let mut written = Vec::new();
        while let Some(job) = self
            .state
            .next_job(Lane::Upkeep, self.now, self.now, &mut Vec::new())
        {
            if let Job::Reads(reads) = job {
                written.extend(reads.into_iter().filter(|mark| mark.user == user));
            }
            let event = settle_done(Vec::new(), HashMap::new());
            self.state.apply(event, self.now, &mut Vec::new());
        }
        written
    }
}

/// Returns the receipts among the effects, each with the user whose watermark it is, the users who are told, and the
/// watermark.
fn receipts(effects: &[Effect]) -> Vec<(UserId, Vec<UserId>, Watermark)> {
    let receipt = |effect: &Effect| match effect {
        Effect::Push {
            users,
            what: Pushed::Receipt { user, mark },
            ..
        } => Some((*user, users.to_vec(), *mark)),
        _ => None,
    };
    effects.iter().filter_map(receipt).collect()
}

/// Two members of a group of 200 send 100 messages within a second, and every member acknowledges each at once.
#[test]
fn rule_10_in_a_group_of_200_a_sender_is_told_of_a_member_once_in_250_ms() {
    let mut group = Group::new(ChatKind::Group, 200);
    let (mut acknowledged, mut told) = (0, 0);
    let mut last: HashMap<(UserId, UserId), (Timestamp, Seq)> = HashMap::new();
    for message in 0..100 {
        let mut effects = group.say(message % 2);
        for member in 0..200 {
            acknowledged += 1;
            effects.extend(group.acknowledge(member, message as u64 + 1));
        }
        effects.extend(group.wait(Duration::from_millis(10)));
        for (of, to, mark) in receipts(&effects) {
            for to in to {
                told += 1;
                let before = last.insert((of, to), (group.now, mark.delivered));
                let soon = before.is_some_and(|(at, _)| group.now.since(at) < GATHER_RECEIPTS);
                assert!(!soon, "{of} to {to} at {:?}", group.now);
            }
        }
    }
    assert!(receipts(&group.wait(GATHER_RECEIPTS)).is_empty(), "all is told");
    // These are the pairs of member and recipient: 198 members with both senders, each sender with the other, and
    // each sender with their own devices, because a send reads.
    let pairs = 2 * 198 + 2 + 2;
    assert_eq!(last.len(), pairs);
    assert!(last.values().all(|(_, seq)| *seq == Seq(100)));
    // If they were not gathered, each acknowledgement would cause one receipt or two.
    assert_eq!((acknowledged, told), (20_000, 4 * pairs));
    assert_eq!(group.state.take_counts().receipts, told as u64);
}

#[test]
fn rule_10_only_the_senders_of_what_was_got_are_told() {
    let mut group = Group::new(ChatKind::Group, 5);
    for sender in [0, 1, 2, 0] {
        group.say(sender);
    }
    group.wait(GATHER_RECEIPTS);
    let (people, of) = (group.people.clone(), group.people[4]);
    for (seq, to) in [
        (2, vec![people[0], people[1]]),
        (3, vec![people[2]]),
        (4, vec![people[0]]),
    ] {
        group.acknowledge(4, seq);
        let told = receipts(&group.wait(GATHER_RECEIPTS));
        let told: Vec<_> = told.into_iter().filter(|(user, ..)| *user == of).collect();
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!((&told[0].1, told[0].2.delivered), (&to, Seq(seq)));
    }
}

#[test]
fn in_a_direct_chat_receipts_do_not_wait() {
    let mut group = Group::new(ChatKind::Direct, 2);
    group.say(0);
    let told = receipts(&group.acknowledge(1, 1));
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].1, [group.people[0]]);
}

/// A device was away, and acknowledges long after anybody last used the chat, in the turn in which idle chats are
/// forgotten.
#[test]
fn in_a_direct_chat_no_receipt_is_forgotten_with_the_chat() {
    let mut group = Group::new(ChatKind::Direct, 2);
    group.say(0);
    group.now = group.now + SETTLE_AFTER;
    let (now, mut effects) = (group.now, Vec::new());
    let settle = group.state.next_job(Lane::Upkeep, now, now, &mut effects);
    assert!(matches!(settle, Some(Job::Settle(_))), "{settle:?}");
    group.tell(settle_done(vec![(group.chat, Seq(1))], HashMap::new()));
    group.now = group.now + Duration::from_secs(600);
    let acknowledged = Event::Ack {
        origin: Origin::Call(1),
        chat: group.chat,
        user: group.people[1],
        device: DeviceId(group.people[1].0),
        seq: Seq(1),
        write: false,
    };
    group.state.apply(acknowledged, group.now, &mut effects);
    group.state.apply(Event::Tick, group.now, &mut effects);
    assert_eq!(receipts(&group.flush(effects)).len(), 1);
    group.wait(Duration::from_secs(600));
    group.tell(Event::Tick);
    assert_eq!(group.state.chats(), 0, "nothing else keeps it");
}

#[test]
fn what_was_gathered_is_told_in_time_also_while_the_writer_is_busy_and_when_the_chat_moves() {
    let mut group = Group::new(ChatKind::Group, 3);
    group.say(0);
    group.acknowledge(1, 1);
    let due = group.now + GATHER_RECEIPTS;
    group.now = group.now + SETTLE_AFTER;
    let settle = group
        .state
        .next_job(Lane::Upkeep, group.now, group.now, &mut Vec::new());
    assert!(matches!(settle, Some(Job::Settle(_))), "{settle:?}");
    assert_eq!(group.state.next_wake(), Some(due));
    let told = group.tell(Event::Owned(Arc::new(HashSet::new())));
    assert_eq!(receipts(&told).len(), 1, "{told:?}");
    assert_eq!(group.state.chats(), 0);
}

#[test]
fn who_turned_read_receipts_off_is_told_to_their_own_devices_only() {
    let mut group = Group::new(ChatKind::Direct, 2);
    group.say(0);
    let (chat, user, sender) = (group.chat, group.people[1], group.people[0]);
    let read = |off| Event::Read {
        chat,
        user,
        seq: Seq(1),
        off,
    };
    let mark = |delivered, read| Watermark {
        delivered: Seq(delivered),
        read: Seq(read),
        read_receipts_off: false,
    };
    let told = receipts(&group.tell(read(true)));
    assert_eq!(
        told,
        [(user, vec![sender], mark(1, 0)), (user, vec![user], mark(1, 1))]
    );
    assert_eq!(receipts(&group.tell(read(true))), []);
    let told = receipts(&group.tell(read(false)));
    assert_eq!(told, [(user, vec![sender], mark(1, 1))]);
    let written = ReadMark {
        chat,
        user,
        seq: Seq(1),
        off: false,
        own_unread: 0,
        withdraws: true,
    };
    assert_eq!(group.written(1), [written]);
}

#[test]
fn under_load_what_was_delivered_is_told_late_and_with_what_was_read_at_once() {
    for kind in [ChatKind::Direct, ChatKind::Group] {
        let mut group = Group::new(kind, 2);
        group.say(0);
        group.wait(Duration::from_secs(1));
        group.state.defer_delivered(true);
        group.acknowledge(1, 1);
        assert!(
            receipts(&group.wait(Duration::from_secs(9))).is_empty(),
            "{kind:?}"
        );
        let told = receipts(&group.wait(Duration::from_secs(1)));
        assert_eq!(told.len(), 1, "{kind:?}: put off, not lost");
        assert_eq!(told[0].2.delivered, Seq(1));

        group.say(0);
        group.acknowledge(1, 2);
        let (chat, user) = (group.chat, group.people[1]);
        let mut effects = group.tell(Event::Read {
            chat,
            user,
            seq: Seq(2),
            off: false,
        });
        effects.extend(group.wait(Duration::from_millis(250)));
        let told = receipts(&effects);
        let newest = told.iter().map(|(_, _, mark)| (mark.delivered, mark.read)).max();
        assert_eq!(newest, Some((Seq(2), Seq(2))), "{kind:?}");
        assert!(
            receipts(&group.wait(Duration::from_secs(20))).is_empty(),
            "{kind:?}: once"
        );
    }
}

/// Returns the seq of the member's mark that is written, and the number of their own messages after it.
fn mark_written(group: &mut Group, member: usize) -> (u64, u32) {
    let written = group.written(member);
    let [mark] = written[..] else {
        panic!("{written:?}")
    };
    (mark.seq.0, mark.own_unread)
}

#[test]
fn a_send_reads_what_was_delivered_and_no_more() {
    let mut group = Group::new(ChatKind::Direct, 2);
    for _ in 0..10 {
        group.say(0);
    }
    let effects = group.say(1);
    assert_eq!(receipts(&effects), [], "nothing had come to them");
    assert_eq!(
        mark_written(&mut group, 1),
        (0, 1),
        "theirs is not unread to them"
    );
    group.acknowledge(1, 4);
    group.say(1);
    assert_eq!(mark_written(&mut group, 1), (4, 2));
    // Entries that are delivered later are not read by a send that was earlier.
    let told = receipts(&group.acknowledge(1, 12));
    assert_eq!((told[0].2.delivered, told[0].2.read), (Seq(12), Seq(4)));
    // A mark between their two own messages passes one of them.
    let (chat, user) = (group.chat, group.people[1]);
    group.tell(Event::Read {
        chat,
        user,
        seq: Seq(11),
        off: false,
    });
    assert_eq!(mark_written(&mut group, 1), (11, 1));
    group.say(1);
    assert_eq!(mark_written(&mut group, 1), (13, 0));
    // Own messages that directly follow one another are read to the last, although none is acknowledged.
    group.say(1);
    group.say(1);
    assert_eq!(mark_written(&mut group, 1), (15, 0));
}

#[test]
fn a_send_reads_what_its_device_says_to_have_acknowledged_and_its_other_devices_are_told() {
    let mut group = Group::new(ChatKind::Direct, 2);
    for _ in 0..3 {
        group.say(0);
    }
    let (sender, user) = (group.people[0], group.people[1]);
    let mark = |delivered, read| Watermark {
        delivered: Seq(delivered),
        read: Seq(read),
        read_receipts_off: false,
    };
    // The owner has not heard of the acknowledgement yet, which is still being written.
    let told = receipts(&group.say_from(1, DeviceId(user.0), 2));
    assert_eq!(told, [(user, vec![sender, user], mark(2, 2))]);
    let told = receipts(&group.say_from(1, DeviceId(user.0), 99));
    assert_eq!(told, [(user, vec![sender, user], mark(5, 5))]);
    let told = receipts(&group.say(1));
    assert_eq!(told, [], "nobody has anything to learn by it: {told:?}");
}

#[test]
fn what_a_back_end_sends_in_somebodys_name_reads_nothing() {
    let mut group = Group::new(ChatKind::Direct, 2);
    group.say(0);
    group.acknowledge(1, 1);
    let effects = group.say_from(1, DeviceId::BACK_END, 0);
    assert_eq!(receipts(&effects), []);
    assert_eq!(mark_written(&mut group, 1), (0, 1));
    group.say(1);
    assert_eq!(mark_written(&mut group, 1), (3, 0));
}

#[test]
fn in_a_direct_chat_nothing_crosses_a_block_and_afterwards_all_is_told() {
    let mut group = Group::new(ChatKind::Direct, 2);
    group.say(0);
    let (chat, sender, user) = (group.chat, group.people[0], group.people[1]);
    assert_eq!(receipts(&group.blocks(true)), []);
    assert_eq!(receipts(&group.acknowledge(1, 1)), []);
    let told = receipts(&group.tell(Event::Read {
        chat,
        user,
        seq: Seq(1),
        off: false,
    }));
    let mark = Watermark {
        delivered: Seq(1),
        read: Seq(1),
        read_receipts_off: false,
    };
    assert_eq!(told, [(user, vec![user], mark)], "their own devices");
    let typing = Event::Notice {
        chat,
        user,
        notice: Notice::Typing { stopped: false },
        at: group.now,
    };
    assert!(group.tell(typing).is_empty());
    assert_eq!(receipts(&group.blocks(false)), [(user, vec![sender], mark)]);
}

/// Nobody else knows that the delivery was news.
#[test]
fn what_was_delivered_and_cannot_be_told_is_counted() {
    let mut state = ShardState::default();
    let (chat, user) = (ChatId(uuid::Uuid::from_u128(1)), UserId(uuid::Uuid::from_u128(2)));
    let delivered = Event::Delivered {
        chat,
        user,
        from: Seq(1),
        seq: Seq(1),
    };
    let mut effects = Vec::new();
    state.apply(delivered, START, &mut effects);
    let failed = Event::Loaded {
        chat,
        number: load_number(&effects),
        result: Err(LoadError::Away),
    };
    state.apply(failed, START, &mut Vec::new());
    assert_eq!(state.take_counts().receipts_lost, 1);
}
