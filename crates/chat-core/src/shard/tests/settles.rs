//! Tests of settles: the time of one, the tries after it failed, and the closing of a chat.

use super::*;

impl Shard {
    /// Lets somebody who is no member send a message. Returns the number of the load that looks its request up before
    /// it is refused.
    fn say_as_a_stranger(&mut self) -> u64 {
        let member = std::mem::replace(&mut self.people[0], UserId::random());
        assert!(self.send().is_empty());
        self.people[0] = member;
        let mut effects = Vec::new();
        let job = self
            .state
            .next_job(Lane::Commit, self.now, self.now, &mut effects);
        assert!(job.is_none(), "{job:?}");
        load_number(&effects)
    }

    /// Ends a load of the chat, whose log has one entry that is not settled.
    fn load_with_one_unsettled(&mut self, number: u64) {
        let chat = self.chat;
        let snapshot = Snapshot {
            head: Seq(1),
            unsettled: Some(Seq(1)),
            ..self.snapshot()
        };
        let result = Ok(Some(snapshot));
        self.tell(Event::Loaded { chat, number, result });
    }
}

#[test]
fn commands_that_are_refused_put_no_settle_off() {
    let mut shard = Shard::new();
    shard.send();
    shard.committed();
    let due = shard.now + SETTLE_AFTER;
    shard.now = shard.now + Duration::from_millis(400);
    let number = shard.say_as_a_stranger();
    shard.load_with_one_unsettled(number);
    // The chat is ready, but for the next command it is loaded again when the settle is due.
    shard.say_as_a_stranger();
    shard.now = due;
    let job = shard.job();
    assert!(matches!(job, Some(Job::Settle(_))), "{job:?}");
}

#[test]
fn a_chat_that_was_forgotten_and_loaded_again_is_not_settled_at_its_former_time() {
    let mut shard = Shard::new();
    shard.send();
    shard.committed();
    let due = shard.now + SETTLE_AFTER;
    shard.now = shard.now + Duration::from_millis(400);
    shard.send();
    assert!(matches!(shard.job(), Some(Job::Commit(_))));
    let (chat, low, high) = (shard.chat, Seq(1), Seq(1));
    shard.tell(Event::JobDone(JobDone::Commit(vec![(chat, Committed::Away)])));
    assert_eq!(shard.state.chats(), 0);
    let number = load_number(&shard.tell(Event::Recover { chat, low, high }));
    shard.load_with_one_unsettled(number);
    for (at, settles) in [(due, false), (shard.now + SETTLE_AFTER, true)] {
        shard.now = at;
        let job = shard.job();
        assert_eq!(matches!(job, Some(Job::Settle(_))), settles, "{job:?}");
    }
}

#[test]
fn a_chat_with_unsettled_entries_that_its_owner_did_not_know_of_is_counted_once() {
    let mut shard = Shard::new();
    let (chat, low, high) = (shard.chat, Seq(1), Seq(1));
    shard.send();
    shard.committed();
    shard.tell(Event::Recover { chat, low, high });
    assert_eq!(shard.state.take_counts().recovered, 0, "these are its own");

    shard.state = ShardState::default();
    let number = load_number(&shard.tell(Event::Recover { chat, low, high }));
    shard.tell(Event::Recover { chat, low, high });
    shard.load_with_one_unsettled(number);
    shard.tell(Event::Recover { chat, low, high });
    assert_eq!(shard.state.take_counts().recovered, 1);
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
    shard.tell(Event::WakesDone(WakesDone {
        chat,
        log: 0,
        upto,
        woken: Woken::NotAll,
    }));
    assert!(!matches!(shard.job(), Some(Job::Close(_))));
    // The job above may have been that of the read marks. The settle comes again afterwards.
    shard.tell(reads_done());
    shard.settled();
    shard.tell(Event::WakesDone(WakesDone {
        chat,
        log: 0,
        upto,
        woken: Woken::All,
    }));
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

/// Nobody waits for such a settle. One that may have to write a row for somebody does not wait.
#[test]
fn the_settle_of_a_chat_that_everybody_has_waits_for_those_of_more_chats() {
    let half_a_second_later = START + SETTLE_AFTER;
    for (people, due) in [
        (vec![1], half_a_second_later),
        (vec![0, 1], half_a_second_later + SETTLE_AFTER),
    ] {
        let mut shard = Shard::new();
        shard.send();
        shard.committed();
        people
            .into_iter()
            .for_each(|person| shard.acknowledge_by(person, Seq(1)));
        shard.now = half_a_second_later;
        let at_once = matches!(shard.job(), Some(Job::Settle(_)));
        assert_eq!(at_once, due == half_a_second_later);
        if !at_once {
            assert_eq!(shard.state.next_wake(), Some(due));
            shard.now = due;
            assert!(matches!(shard.job(), Some(Job::Settle(_))), "it waits once");
        }
    }
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
                shard.tell(Event::WakesDone(WakesDone {
                    chat,
                    log: 0,
                    upto,
                    woken: Woken::Unsure,
                }));
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
    shard.tell(Event::WakesDone(WakesDone {
        chat,
        log: 0,
        upto,
        woken: Woken::All,
    }));
    assert!(matches!(shard.job(), Some(Job::Close(_))));
}
