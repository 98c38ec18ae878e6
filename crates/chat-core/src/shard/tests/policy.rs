//! Tests of what the policy of a group, and frost, do to sends.

use tern_types::Notice;

use super::*;
use crate::EntryKind;
use crate::chat::{Member, Role};
use crate::policy::{JoinerHistory, Policy};
use crate::receipts::Watermark;
use crate::recent::Placed;
use crate::target::{About, Target};

const SLOW: Policy = Policy {
    slow_mode: 30,
    ..DEFAULT
};
const DEFAULT: Policy = Policy {
    send_role: Role::Member,
    add_role: Role::Admin,
    edit_role: Role::Admin,
    slow_mode: 0,
    joiner_history: JoinerHistory::None,
};

fn chat() -> ChatId {
    ChatId(uuid::Uuid::from_u128(1 << 80))
}

/// Makes a shard with the group in memory.
fn with(snapshot: Snapshot) -> Shard {
    let mut shard = Shard::new();
    let (low, high) = (Seq(1), Seq(1));
    let chat = chat();
    let number = load_number(&shard.tell(Event::Recover { chat, low, high }));
    let result = Ok(Some(snapshot));
    shard.tell(Event::Loaded { chat, number, result });
    shard
}

impl Shard {
    fn ask_to_send(&mut self, entry: NewEntry) {
        let send = Event::Send {
            origin: Origin::Call(7),
            chat: chat(),
            peer: None,
            entry,
        };
        assert!(self.tell(send).is_empty());
    }

    fn next_commit(&mut self) -> (Option<Job>, Vec<Effect>) {
        let mut effects = Vec::new();
        let job = self
            .state
            .next_job(Lane::Commit, self.now, self.now, &mut effects);
        (job, effects)
    }

    /// Lets the load that was asked for find this, and the requests not. Returns why the first command is refused.
    fn refused_after(&mut self, effects: &[Effect], found: Snapshot) -> Refusal {
        let [Effect::Load { number, look_up, .. }] = effects else {
            panic!("no load: {effects:?}")
        };
        let found = Snapshot {
            looked_up: look_up.requests.clone(),
            ..found
        };
        let loaded = Event::Loaded {
            chat: chat(),
            number: *number,
            result: Ok(Some(found)),
        };
        assert!(self.tell(loaded).is_empty());
        match self.next_commit().1.into_iter().next() {
            Some(Effect::Answer {
                outcome: Outcome::Sent(Err(refusal)),
                ..
            }) => refusal,
            other => panic!("{other:?}"),
        }
    }
}

/// Sends an entry to the group, and returns whether it is committed.
fn sent(group: &Snapshot, entry: NewEntry) -> Result<(), Refusal> {
    let mut shard = with(group.clone());
    shard.ask_to_send(entry);
    let (job, effects) = shard.next_commit();
    match job {
        Some(_) => Ok(()),
        None => Err(shard.refused_after(&effects, group.clone())),
    }
}

/// Makes a group of one member, whose last message was sent so many seconds ago. Message 3 is theirs.
fn group(user: UserId, policy: Policy, role: Role, last_s: Option<u64>) -> Snapshot {
    let before = |seconds| START - Duration::from_secs(seconds);
    let member = Member {
        role,
        last_message: last_s.map(before),
        ..Member::joined_at(Seq(1))
    };
    let target = Target {
        sender: user,
        sent_at: START,
        is_message: true,
        erased: false,
        expires_after_s: 0,
    };
    Snapshot {
        head: Seq(900),
        members: vec![(user, member, Watermark::default())],
        targets: vec![(Seq(3), target)],
        policy,
        ..snapshot(ChatKind::Group, &[])
    }
}

fn entry(kind: EntryKind, sender: UserId, device: DeviceId) -> NewEntry {
    let about = About {
        target: Seq(3),
        take_back: false,
        reaction: Bytes::new(),
    };
    NewEntry {
        kind,
        counts: kind == EntryKind::Message,
        about: (kind != EntryKind::Message).then_some(about),
        ..NewEntry::message(sender, device, RequestId::random(), [0; 16], Bytes::new())
    }
}

#[test]
fn who_may_send_what_and_when() {
    use EntryKind::{Delete, Edit, Message, Pin, Reaction};
    let (user, phone) = (UserId::random(), DeviceId::random());
    let by_admins = Policy {
        send_role: Role::Admin,
        ..SLOW
    };
    let slow = |seconds| {
        let retry_after = Duration::from_secs(seconds);
        Err(Refusal::SlowMode { retry_after })
    };
    let bot = DeviceId::BACK_END;
    let low = Err(Refusal::RoleTooLow);
    let cases = [
        (DEFAULT, Role::Member, Message, phone, Some(0), Ok(())),
        (SLOW, Role::Member, Message, phone, None, Ok(())),
        (SLOW, Role::Member, Message, phone, Some(0), slow(30)),
        (SLOW, Role::Member, Message, phone, Some(10), slow(20)),
        (SLOW, Role::Member, Message, phone, Some(29), slow(1)),
        (SLOW, Role::Member, Message, phone, Some(30), Ok(())),
        (SLOW, Role::Member, Message, bot, Some(0), Ok(())),
        (SLOW, Role::Admin, Message, phone, Some(0), Ok(())),
        (SLOW, Role::Member, Edit, phone, Some(0), Ok(())),
        (SLOW, Role::Member, Reaction, phone, Some(0), Ok(())),
        (by_admins, Role::Member, Message, phone, None, low.clone()),
        (by_admins, Role::Member, Message, bot, None, low.clone()),
        (by_admins, Role::Member, Edit, phone, None, low),
        (by_admins, Role::Member, Reaction, phone, None, Ok(())),
        (by_admins, Role::Member, Delete, phone, None, Ok(())),
        (by_admins, Role::Admin, Message, phone, Some(0), Ok(())),
        (by_admins, Role::Admin, Pin, phone, Some(0), Ok(())),
    ];
    for (policy, role, kind, device, last, expected) in cases {
        let group = group(user, policy, role, last);
        let actual = sent(&group, entry(kind, user, device));
        let what = format!("{kind:?} by {role:?}, {last:?} s after the last, {policy:?}");
        assert_eq!(actual, expected, "{what}");
        let by_system = sent(&group, entry(Message, UserId::SYSTEM, bot));
        assert_eq!(by_system, Ok(()), "the system is free of it");
    }
}

#[test]
fn a_frozen_chat_takes_messages_of_the_system_only() {
    use EntryKind::{Delete, Edit, Message, Reaction};
    let (user, phone) = (UserId::random(), DeviceId::random());
    let frozen = Snapshot {
        frozen: true,
        ..group(user, DEFAULT, Role::Owner, None)
    };
    for kind in [Message, Edit, Delete, Reaction] {
        for device in [phone, DeviceId::BACK_END] {
            let actual = sent(&frozen, entry(kind, user, device));
            assert_eq!(actual, Err(Refusal::Frozen), "{kind:?}");
        }
    }
    let outsider = sent(&frozen, entry(Message, UserId::random(), phone));
    assert_eq!(outsider, Err(Refusal::NotAMember));
    assert_eq!(
        sent(&frozen, entry(Message, UserId::SYSTEM, DeviceId::BACK_END)),
        Ok(())
    );
}

#[test]
fn nobody_is_shown_typing_in_a_frozen_chat() {
    let people = [UserId::random(), UserId::random()];
    for frozen in [false, true] {
        let mut shard = with(Snapshot {
            frozen,
            ..snapshot(ChatKind::Group, &people)
        });
        let (chat, user, at) = (chat(), people[0], shard.now);
        let notice = Notice::Typing { stopped: false };
        let effects = shard.tell(Event::Notice {
            chat,
            user,
            notice,
            at,
        });
        assert_eq!(effects.is_empty(), frozen, "{effects:?}");
    }
}

/// The first message is not committed when the second one is looked at, and may never be.
#[test]
fn in_slow_mode_two_messages_of_a_person_do_not_share_a_commit() {
    let (user, phone) = (UserId::random(), DeviceId::random());
    let committed = |policy| {
        let mut shard = with(group(user, policy, Role::Member, None));
        for _ in 0..2 {
            shard.ask_to_send(entry(EntryKind::Message, user, phone));
        }
        match shard.next_commit().0 {
            Some(Job::Commit(batches)) => (batches[0].entries.len(), shard),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(committed(DEFAULT).0, 2);
    let (count, mut shard) = committed(SLOW);
    assert_eq!(count, 1);
    let stored = JobDone::Commit(vec![(chat(), Committed::Stored)]);
    shard.tell(Event::JobDone(stored));
    let (job, effects) = shard.next_commit();
    assert!(job.is_none(), "{job:?}");
    let found = group(user, SLOW, Role::Member, Some(0));
    let refusal = shard.refused_after(&effects, found);
    let retry_after = Duration::from_secs(30);
    assert_eq!(refusal, Refusal::SlowMode { retry_after });
}

#[test]
fn a_message_that_is_loaded_or_committed_begins_the_wait() {
    let (user, phone) = (UserId::random(), DeviceId::random());
    let placed = |is_message| {
        let placed = Placed {
            seq: Seq(900),
            ordinal: 1,
            sent_at: START - Duration::from_secs(10),
            fingerprint: [0; 16],
            is_message,
            erased: true,
            expires_after_s: 0,
        };
        Snapshot {
            placed: vec![(user, RequestId::random(), placed)],
            ..group(user, SLOW, Role::Member, Some(40))
        }
    };
    let message = || entry(EntryKind::Message, user, phone);
    let retry_after = Duration::from_secs(20);
    assert_eq!(
        sent(&placed(true), message()),
        Err(Refusal::SlowMode { retry_after })
    );
    assert_eq!(sent(&placed(false), message()), Ok(()), "a reaction does not");

    // An owner knows the times of the messages that it has committed itself, those of back ends too, and needs no load
    // for them.
    let mut shard = with(group(user, SLOW, Role::Member, None));
    shard.ask_to_send(entry(EntryKind::Message, user, DeviceId::BACK_END));
    assert!(shard.next_commit().0.is_some());
    let stored = JobDone::Commit(vec![(chat(), Committed::Stored)]);
    shard.tell(Event::JobDone(stored));
    shard.ask_to_send(message());
    let (job, effects) = shard.next_commit();
    assert!(job.is_none(), "{job:?}");
    assert!(matches!(effects[..], [Effect::Load { .. }]), "{effects:?}");
}
