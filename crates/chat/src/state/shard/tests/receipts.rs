//! Who is told of watermarks, and when.

use std::collections::HashSet;

use super::*;

/// A shard with one group in memory.
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

    /// This member's message is committed.
    fn say(&mut self, member: usize) -> Vec<Effect> {
        let request = RequestId::random();
        let entry = NewEntry {
            media: Vec::new(),
            trace: None,
            arrived: None,
            read_receipts_off: false,
            kind: EntryKind::Message,
            sender: self.people[member],
            device: DeviceId::BACK_END,
            request,
            fingerprint: [0; 16],
            counts: true,
            content: Bytes::new(),
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

    /// The writer commits; what else is due is done before.
    fn commit(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        loop {
            let done = match self.state.next_job(self.now, self.now, &mut Vec::new()) {
                Some(Job::Commit(_)) => {
                    let done = JobDone::Commit(vec![(self.chat, Committed::Moved)]);
                    effects.extend(self.tell(Event::JobDone(done)));
                    return effects;
                }
                Some(Job::Settle(settle)) => JobDone::Settle {
                    chats: settle.iter().map(|settle| (settle.chat, settle.upto)).collect(),
                    missing: Some(HashMap::new()),
                },
                Some(Job::Reads(reads)) => JobDone::Reads { reads, written: true },
                job => panic!("{job:?}"),
            };
            effects.extend(self.tell(Event::JobDone(done)));
        }
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
}

/// Of whom, to whom, and how far: of the receipts among effects.
fn receipts(effects: &[Effect]) -> Vec<(UserId, Vec<UserId>, Watermark)> {
    let receipt = |effect: &Effect| match effect {
        Effect::Push {
            users,
            what: Pushed::Receipt { user, mark },
            ..
        } => Some((*user, users.clone(), *mark)),
        _ => None,
    };
    effects.iter().filter_map(receipt).collect()
}

/// 200 members, two of whom write 100 messages within a second; everybody acknowledges each of them at once.
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
    // Each member to both senders, a sender to the other one.
    let pairs = 2 * 198 + 2;
    assert_eq!(last.len(), pairs);
    assert!(last.values().all(|(_, seq)| *seq == Seq(100)));
    // Told at once, each acknowledgement would be one receipt or two.
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

#[test]
fn what_was_gathered_is_told_in_time_also_while_the_writer_is_busy_and_when_the_chat_moves() {
    let mut group = Group::new(ChatKind::Group, 3);
    group.say(0);
    group.acknowledge(1, 1);
    let due = group.now + GATHER_RECEIPTS;
    group.now = group.now + SETTLE_AFTER;
    assert!(
        group
            .state
            .next_job(group.now, group.now, &mut Vec::new())
            .is_some(),
        "a settle"
    );
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
    group.now = group.now + Duration::from_secs(2);
    let reads = std::iter::from_fn(|| {
        let job = group.state.next_job(group.now, group.now, &mut Vec::new())?;
        let (chats, missing) = (Vec::new(), None);
        let event = Event::JobDone(JobDone::Settle { chats, missing });
        group.state.apply(event, group.now, &mut Vec::new());
        Some(job)
    });
    let reads = reads.filter_map(|job| match job {
        Job::Reads(reads) => Some(reads),
        _ => None,
    });
    let of_user: Vec<ReadMark> = reads.flatten().filter(|mark| mark.user == user).collect();
    let written = ReadMark {
        chat,
        user,
        seq: Seq(1),
        off: false,
    };
    assert_eq!(of_user, [written]);
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
