//! Tests of read marks that come by unary calls: a later look-up gets the new mark, and no call is left without an
//! answer.

use super::*;

const CALL: Origin = Origin::Call(7);

impl Shard {
    fn mark_read(&mut self, chat: ChatId, user: UserId, seq: u64) -> Vec<Effect> {
        self.tell(Event::MarkRead {
            origin: CALL,
            chat,
            user,
            seq: Seq(seq),
            off: false,
        })
    }
}

/// Returns the answer to the call among the effects.
fn answer(effects: &[Effect]) -> Option<&Outcome> {
    effects.iter().find_map(|effect| match effect {
        Effect::Answer {
            origin: CALL,
            outcome,
        } => Some(outcome),
        _ => None,
    })
}

#[test]
fn a_mark_is_known_when_its_call_is_answered_although_it_is_written_later() {
    let mut shard = Shard::new();
    shard.send();
    shard.committed();
    let (chat, user) = (shard.chat, shard.people[1]);
    assert_eq!(
        answer(&shard.mark_read(chat, user, 1)),
        Some(&Outcome::Noted(Ok(())))
    );
    assert_eq!(shard.state.read_mark(chat, user), Some((Seq(1), 0)));
    let sender = shard.people[0];
    assert!(shard.state.read_mark(chat, sender).is_some(), "a send is a mark");
    let stranger = UserId::random();
    let refused = Outcome::Noted(Err(Refusal::NotAMember));
    assert_eq!(answer(&shard.mark_read(chat, stranger, 1)), Some(&refused));
}

#[test]
fn a_mark_that_waits_for_its_chat_to_be_loaded_is_known_and_answered_with_it() {
    let mut shard = Shard::new();
    let (chat, user) = (ChatId(uuid::Uuid::from_u128(7)), shard.people[1]);
    let effects = shard.mark_read(chat, user, 1);
    assert_eq!(answer(&effects), None);
    assert_eq!(shard.state.read_mark(chat, user), Some((Seq(1), 0)));
    let number = load_number(&effects);
    let snapshot = Snapshot {
        head: Seq(2),
        ..shard.snapshot()
    };
    let result = Ok(Some(snapshot));
    let effects = shard.tell(Event::Loaded { chat, number, result });
    assert_eq!(answer(&effects), Some(&Outcome::Noted(Ok(()))));
    assert_eq!(shard.state.read_mark(chat, user), Some((Seq(1), 0)));
}

#[test]
fn a_mark_that_is_being_written_is_known_while_its_chat_is_loaded_anew() {
    let mut shard = Shard::new();
    shard.send();
    shard.committed();
    let (chat, user) = (shard.chat, shard.people[1]);
    shard.mark_read(chat, user, 1);
    shard.now = shard.now + Duration::from_secs(1);
    let Some(Job::Settle(settle)) = shard.job() else {
        panic!("no settle is due")
    };
    let chats = settle.iter().map(|settle| (settle.chat, settle.upto)).collect();
    shard.tell(settle_done(chats, HashMap::new()));
    assert!(matches!(shard.job(), Some(Job::Reads(_))));
    let origin = Origin::Call(8);
    load_number(&shard.tell(Event::BlocksChanged { origin, chat }));
    assert_eq!(shard.state.read_mark(chat, user), Some((Seq(1), 0)));
    let marks = shard.state.watermarks(chat).unwrap();
    assert!(
        marks.iter().any(|(of, mark)| (*of, mark.read) == (user, Seq(1))),
        "{marks:?}"
    );
}

#[test]
fn a_mark_that_is_lost_with_a_load_is_no_success() {
    let chat = ChatId(uuid::Uuid::from_u128(7));
    let mut shard = Shard::new();
    let user = shard.people[1];
    let number = load_number(&shard.mark_read(chat, user, 1));
    let result = Err(LoadError::Away);
    let effects = shard.tell(Event::Loaded { chat, number, result });
    let away = Outcome::Noted(Err(Refusal::STORE_AWAY));
    assert_eq!(answer(&effects), Some(&away));
    assert_eq!(shard.state.read_mark(chat, user), None);

    shard.mark_read(chat, user, 1);
    let effects = shard.tell(Event::Owned(Arc::default()));
    assert_eq!(answer(&effects), Some(&Outcome::NotOwner));
}

/// Runs the upkeep until it writes read marks, and returns those of the user.
fn written(shard: &mut Shard, user: UserId) -> Vec<ReadMark> {
    shard.now = shard.now + Duration::from_secs(2);
    loop {
        match shard.job() {
            Some(Job::Reads(marks)) => {
                shard.tell(reads_done());
                return marks.into_iter().filter(|mark| mark.user == user).collect();
            }
            Some(Job::Settle(settle)) => {
                let chats = settle.iter().map(|settle| (settle.chat, settle.upto)).collect();
                shard.tell(settle_done(chats, HashMap::new()));
            }
            job => panic!("{job:?}"),
        }
    }
}

/// Makes a shard whose chat has an entry. A settle has found these devices of the other person missing.
fn settled_without(devices: &[DeviceId]) -> Shard {
    let mut shard = Shard::new();
    shard.send();
    shard.committed();
    shard.now = shard.now + SETTLE_AFTER + Duration::from_secs(2);
    let Some(Job::Settle(settle)) = shard.job() else {
        panic!("no settle is due")
    };
    let missing = devices.iter().map(|device| Missing {
        user: shard.people[1],
        device: *device,
        from: Seq(1),
    });
    let missing = HashMap::from([(shard.chat, missing.collect())]);
    let chats = settle.iter().map(|settle| (settle.chat, settle.upto)).collect();
    shard.tell(settle_done(chats, missing));
    shard
}

/// Lets the writer say that the other person's device has no inbox row any more.
fn caught_up(shard: &mut Shard, device: DeviceId) {
    let (chat, user, seq) = (shard.chat, shard.people[1], Seq(1));
    shard.tell(Event::Ack {
        origin: Origin::Call(9),
        chat,
        user,
        device,
        seq,
        write: true,
    });
    let Some(Job::Acks(acks)) = shard.job() else {
        panic!("no acknowledgement is written")
    };
    let row = AckedRow { was: seq, now: None };
    shard.tell(Event::JobDone(JobDone::Acks {
        acks,
        rows: HashMap::from([((chat, device), row)]),
        unwritten: Vec::new(),
    }));
}

#[test]
fn a_mark_withdraws_what_other_devices_show_only_while_one_may_be_behind() {
    let [phone, tablet] = [DeviceId::random(), DeviceId::random()];
    /// The devices that a settle finds missing, and those that acknowledge everything afterwards.
    type Case<'a> = (&'a [DeviceId], &'a [DeviceId], bool);
    let cases: [Case<'_>; 4] = [
        (&[], &[], false),
        (&[phone], &[], true),
        (&[phone, tablet], &[phone], true),
        (&[phone, tablet], &[phone, tablet], false),
    ];
    for (missing, acknowledge, withdraws) in cases {
        let mut shard = settled_without(missing);
        for device in acknowledge {
            caught_up(&mut shard, *device);
        }
        let (chat, user) = (shard.chat, shard.people[1]);
        shard.mark_read(chat, user, 1);
        let marks = written(&mut shard, user);
        let found: Vec<bool> = marks.iter().map(|mark| mark.withdraws).collect();
        assert_eq!(found, [withdraws], "{missing:?} without {acknowledge:?}");
    }
}

#[test]
fn before_the_first_settle_nobody_knows_whether_a_device_is_behind() {
    let mut shard = Shard::new();
    let (chat, user) = (shard.chat, shard.people[1]);
    shard.send();
    shard.committed();
    shard.mark_read(chat, user, 1);
    shard.now = shard.now + Duration::from_secs(2);
    let marks = loop {
        match shard.job() {
            Some(Job::Settle(settle)) => {
                assert_eq!(settle[0].read, [user], "no push is due for what is read already");
                let failed = settle.iter().map(|settle| (settle.chat, settle.upto)).collect();
                shard.tell(Event::JobDone(JobDone::Settle {
                    chats: Vec::new(),
                    missing: HashMap::new(),
                    failed,
                }));
            }
            Some(Job::Reads(marks)) => break marks,
            job => panic!("{job:?}"),
        }
    };
    let its = marks.iter().find(|mark| mark.user == user);
    assert!(its.is_some_and(|mark| mark.withdraws), "{marks:?}");
}

#[test]
fn a_mark_that_passes_nothing_new_withdraws_nothing_and_one_that_failed_does_later() {
    let mut shard = settled_without(&[DeviceId::random()]);
    let (chat, user) = (shard.chat, shard.people[1]);
    shard.mark_read(chat, user, 1);
    shard.now = shard.now + Duration::from_secs(2);
    let unwritten = loop {
        match shard.job() {
            Some(Job::Reads(marks)) => break marks,
            job => assert!(job.is_some(), "no mark is written"),
        }
    };
    // Read receipts are turned off meanwhile, which changes the mark and passes nothing.
    let off = Event::Read {
        chat,
        user,
        seq: Seq(1),
        off: true,
    };
    shard.tell(off);
    shard.tell(Event::JobDone(JobDone::Reads { unwritten }));
    let marks = written(&mut shard, user);
    assert_eq!(marks.len(), 1);
    assert!(marks[0].off && marks[0].withdraws, "{marks:?}");

    let on = Event::Read {
        chat,
        user,
        seq: Seq(1),
        off: false,
    };
    shard.tell(on);
    let marks = written(&mut shard, user);
    assert!(!marks[0].off && !marks[0].withdraws, "{marks:?}");
}
