//! Tests of a store that becomes another one: what was under way before changes nothing afterwards.

use super::*;
use crate::Change;
use crate::change::Action;

const CALL: Origin = Origin::Call(7);

impl Shard {
    /// Makes the store another one, and loads the chat from it, with one entry that is not settled.
    fn restored(&mut self) {
        self.tell(Event::Restored);
        let chat = self.chat;
        let effects = self.tell(Event::Recover {
            chat,
            low: Seq(1),
            high: Seq(1),
        });
        let number = load_number(&effects);
        let snapshot = Snapshot {
            head: Seq(1),
            unsettled: Some(Seq(1)),
            ..self.snapshot()
        };
        let result = Ok(Some(snapshot));
        self.tell(Event::Loaded { chat, number, result });
    }

    /// Ends a wake of this log for the first entry, so that every device is accounted for.
    fn woken(&mut self, log: u64) {
        self.tell(Event::WakesDone(WakesDone {
            chat: self.chat,
            log,
            upto: Seq(1),
            woken: Woken::All,
        }));
    }
}

/// Returns the numbers of the logs of the wakes among the effects.
fn logs(effects: &[Effect]) -> Vec<u64> {
    let log = |effect: &Effect| match effect {
        Effect::Wake { log, .. } => Some(*log),
        _ => None,
    };
    effects.iter().filter_map(log).collect()
}

#[test]
fn rule_3_a_wake_that_was_under_way_before_a_restore_closes_nothing_of_the_new_log() {
    let mut shard = Shard::new();
    shard.send();
    shard.committed();
    assert_eq!(logs(&shard.settled()), [0]);
    shard.restored();
    shard.woken(0);
    let job = shard.job();
    assert!(job.is_none(), "{job:?}");
    // The settle of the new log has its own wake, and the entries are closed after it.
    assert_eq!(logs(&shard.settled()), [1]);
    shard.woken(0);
    let job = shard.job();
    assert!(!matches!(job, Some(Job::Close(_))), "{job:?}");
    shard.woken(1);
    let job = shard.job();
    assert!(matches!(job, Some(Job::Close(_))), "{job:?}");
}

#[test]
fn a_settle_that_was_at_the_writer_before_a_restore_settles_nothing_of_the_new_log() {
    let mut shard = Shard::new();
    shard.send();
    shard.committed();
    shard.now = shard.now + SETTLE_AFTER;
    assert!(matches!(shard.job(), Some(Job::Settle(_))));
    shard.restored();
    let effects = shard.tell(settle_done(vec![(shard.chat, Seq(1))], HashMap::new()));
    assert!(effects.is_empty(), "{effects:?}");
    assert_eq!(shard.state.unsettled(), 1);
    assert_eq!(logs(&shard.settled()), [1], "the writer is free");
}

#[test]
fn a_close_that_was_at_the_writer_before_a_restore_closes_nothing_of_the_new_log() {
    let mut shard = Shard::new();
    shard.send();
    shard.committed();
    shard.settled();
    shard.woken(0);
    assert!(matches!(shard.job(), Some(Job::Close(_))));
    shard.restored();
    let chats = vec![(shard.chat, Seq(1))];
    shard.tell(Event::JobDone(JobDone::Close { chats, closed: true }));
    assert_eq!(shard.state.unsettled(), 1);
}

#[test]
fn read_marks_of_before_a_restore_are_not_written_again() {
    let mut shard = Shard::new();
    shard.send();
    shard.committed();
    shard.settled();
    let Some(Job::Reads(unwritten)) = shard.job() else {
        panic!("the sender's mark is not written")
    };
    shard.restored();
    shard.tell(Event::JobDone(JobDone::Reads { unwritten }));
    assert!(shard.state.is_quiet());
}

#[test]
fn read_marks_that_waited_before_a_restore_leave_no_job_behind() {
    let mut shard = Shard::new();
    shard.send();
    shard.committed();
    shard.tell(Event::Restored);
    assert_eq!(shard.state.next_wake(), None);
    shard.now = shard.now + Duration::from_secs(2);
    let job = shard.job();
    assert!(job.is_none(), "{job:?}");
}

/// Nobody knows whether the new store has the acknowledgement, so its caller is told to send it again.
#[test]
fn an_acknowledgement_that_was_at_the_writer_before_a_restore_is_no_success() {
    let mut shard = Shard::new();
    let (chat, user) = (shard.chat, shard.people[1]);
    shard.tell(Event::Ack {
        origin: CALL,
        chat,
        user,
        device: DeviceId::random(),
        seq: Seq(1),
        write: true,
    });
    let Some(Job::Acks(acks)) = shard.job() else {
        panic!("nothing is written")
    };
    shard.restored();
    let effects = shard.tell(Event::JobDone(JobDone::Acks {
        acks,
        rows: HashMap::new(),
        unwritten: Vec::new(),
    }));
    let [
        Effect::Answer {
            origin: CALL,
            outcome,
        },
    ] = effects.as_slice()
    else {
        panic!("{effects:?}")
    };
    assert_eq!(*outcome, Outcome::Acked(Err(Refusal::STORE_AWAY)));
}

#[test]
fn a_change_that_was_decided_on_the_old_log_is_not_made_after_a_restore() {
    let mut shard = Shard::new();
    let group = ChatId(uuid::Uuid::from_u128(1 << 80));
    let effects = shard.tell(Event::Recover {
        chat: group,
        low: Seq(1),
        high: Seq(1),
    });
    let loaded = Event::Loaded {
        chat: group,
        number: load_number(&effects),
        result: Ok(Some(snapshot(ChatKind::Group, &shard.people))),
    };
    shard.tell(loaded);
    shard.send();
    let change = Change {
        actor: UserId::SYSTEM,
        device: DeviceId::BACK_END,
        request: RequestId::random(),
        fingerprint: [2; 16],
        action: Action::Remove(shard.people[1]),
        sending: Sending::default(),
    };
    shard.tell(Event::Change {
        origin: CALL,
        chat: group,
        change: Box::new(change),
    });
    // The commit takes the message, and the change waits for the writer.
    assert!(matches!(shard.job(), Some(Job::Commit(_))));
    shard.tell(Event::Restored);
    shard.tell(Event::JobDone(JobDone::Commit(vec![(
        shard.chat,
        Committed::Stored,
    )])));
    let job = shard.job();
    assert!(job.is_none(), "{job:?}");
}

/// The result of the old commit must not forget the chat that is loaded now, with the call that waits for it.
#[test]
fn a_read_mark_that_waits_for_the_first_load_after_a_restore_is_answered() {
    let mut shard = Shard::new();
    shard.send();
    assert!(matches!(shard.job(), Some(Job::Commit(_))));
    shard.tell(Event::Restored);
    let (chat, user) = (shard.chat, shard.people[1]);
    let effects = shard.tell(Event::MarkRead {
        origin: CALL,
        chat,
        user,
        seq: Seq(1),
        off: false,
    });
    let number = load_number(&effects);
    let away = JobDone::Commit(vec![(chat, Committed::Away)]);
    let effects = shard.tell(Event::JobDone(away));
    assert!(effects.is_empty(), "{effects:?}");
    let snapshot = Snapshot {
        head: Seq(1),
        ..shard.snapshot()
    };
    let result = Ok(Some(snapshot));
    let effects = shard.tell(Event::Loaded { chat, number, result });
    let answered = effects.iter().any(|effect| {
        matches!(
            effect,
            Effect::Answer {
                origin: CALL,
                outcome: Outcome::Noted(Ok(())),
            }
        )
    });
    assert!(answered, "{effects:?}");
}
