//! Tests of messages that disappear, of changes of the retention, and of the hints to the trimmer.

use tern_proto::raw;

use super::*;
use crate::change::Action;
use crate::retention::{Mode, Retention};
use crate::target::About;
use crate::{Change, ChangeRefusal, EntryKind};

const DELIVERED: Retention = Retention {
    mode: Mode::UntilDelivered,
    disappear_after_s: 0,
};
const MINUTE: Retention = Retention {
    mode: Mode::Default,
    disappear_after_s: 60,
};

/// Makes a shard, under this choice of the operator, that has loaded an empty chat with this retention. Also returns
/// the effects of the load.
fn keeping(default: Mode, retention: Retention, trims: bool) -> (Shard, Vec<Effect>) {
    let people = [UserId::random(), UserId::random()];
    let chat = ChatId::direct(people[0], people[1]);
    let mut shard = Shard {
        state: ShardState::default().keeping(default),
        chat,
        people,
        now: START,
    };
    let (low, high) = (Seq(1), Seq(1));
    let number = load_number(&shard.tell(Event::Recover { chat, low, high }));
    let snapshot = Snapshot {
        retention,
        trims,
        ..shard.snapshot()
    };
    let result = Ok(Some(snapshot));
    let effects = shard.tell(Event::Loaded { chat, number, result });
    (shard, effects)
}

fn trims(effects: &[Effect]) -> usize {
    let trims = effects
        .iter()
        .filter(|effect| matches!(effect, Effect::Trim { .. }));
    trims.count()
}

impl Shard {
    /// Sends an entry of the first person that asks to disappear after this time, and returns it as it is committed.
    fn commit_new(&mut self, kind: EntryKind, expires_after_s: u32) -> Arc<NewEntry> {
        let (sender, request) = (self.people[0], RequestId::random());
        let content = raw::message_content(&Bytes::new(), &Bytes::from_static(b"hello"));
        let about = About {
            target: Seq(1),
            take_back: false,
            reaction: Bytes::new(),
        };
        let entry = NewEntry {
            kind,
            expires_after_s,
            about: (kind != EntryKind::Message).then_some(about),
            ..NewEntry::message(sender, DeviceId(sender.0), request, [0; 16], content)
        };
        let (origin, chat) = (Origin::Call(1), self.chat);
        self.tell(Event::Send {
            origin,
            chat,
            peer: None,
            entry,
        });
        let Some(Job::Commit(batches)) = self.job() else {
            panic!("no commit")
        };
        let stored = vec![(chat, Committed::Stored)];
        self.tell(Event::JobDone(JobDone::Commit(stored)));
        batches[0].entries[0].new.clone()
    }
}

/// Returns the time after which the entry disappears, which its content says too.
fn expiry(entry: &NewEntry) -> u32 {
    let content = tern_proto::v1::Entry {
        content: entry.content.clone(),
        ..Default::default()
    };
    let content = content.decoded_content().unwrap();
    assert_eq!(content.expires_after_s, entry.expires_after_s);
    assert_eq!(raw::message_body(&entry.content).as_ref(), b"hello");
    entry.expires_after_s
}

#[test]
fn a_message_disappears_after_the_shorter_of_the_chats_time_and_its_own() {
    for (retention, asked, expected) in [
        (Retention::default(), 0, 0),
        (Retention::default(), 90, 90),
        (MINUTE, 0, 60),
        (MINUTE, 90, 60),
        (MINUTE, 5, 5),
    ] {
        let (mut shard, _) = keeping(Mode::Default, retention, false);
        let sent = shard.commit_new(EntryKind::Message, asked);
        assert_eq!(expiry(&sent), expected, "{retention:?} and {asked}");
    }
}

#[test]
fn an_edit_has_the_time_that_its_message_has_left() {
    let (mut shard, _) = keeping(Mode::Default, MINUTE, false);
    shard.commit_new(EntryKind::Message, 0);
    shard.now = shard.now + Duration::from_millis(20_500);
    assert_eq!(expiry(&shard.commit_new(EntryKind::Edit, 0)), 39);
    shard.now = shard.now + Duration::from_secs(38);
    assert_eq!(expiry(&shard.commit_new(EntryKind::Edit, 900)), 1);
    assert_eq!(expiry(&shard.commit_new(EntryKind::Reaction, 0)), 0);

    let (mut shard, _) = keeping(Mode::Default, Retention::default(), false);
    shard.commit_new(EntryKind::Message, 0);
    let edit = shard.commit_new(EntryKind::Edit, 0);
    assert_eq!(expiry(&edit), 0, "the message stays");
}

#[test]
fn the_trimmer_is_told_of_a_chat_that_it_does_not_know_and_has_to_trim() {
    let time = Mode::ForTime(3600);
    let kept = |mode| Retention {
        mode,
        disappear_after_s: 0,
    };
    for (default, mode, known, expected) in [
        (Mode::Default, Mode::Default, false, 0),
        (Mode::Forever, Mode::Default, false, 0),
        (time, Mode::Default, false, 1),
        (time, Mode::Default, true, 0),
        (time, Mode::Forever, false, 0),
        (Mode::Default, Mode::UntilDelivered, false, 1),
    ] {
        let (_, effects) = keeping(default, kept(mode), known);
        assert_eq!(trims(&effects), expected, "{default:?}, {mode:?}, {known}");
    }
}

#[test]
fn a_settle_that_finds_nobody_missing_has_what_was_delivered_trimmed() {
    for (default, retention, expected) in [
        (Mode::Default, DELIVERED, 1),
        (Mode::UntilDelivered, Retention::default(), 1),
        (Mode::ForTime(3600), Retention::default(), 0),
        (Mode::Default, Retention::default(), 0),
    ] {
        let (mut shard, _) = keeping(default, retention, true);
        shard.send();
        assert_eq!(trims(&shard.committed()), 0, "nobody has it yet");
        shard.now = shard.now + SETTLE_AFTER + Duration::from_secs(2);
        let Some(Job::Settle(settle)) = shard.job() else {
            panic!("no settle is due")
        };
        let chats = settle.iter().map(|settle| (settle.chat, settle.upto)).collect();
        let effects = shard.tell(settle_done(chats, HashMap::new()));
        assert_eq!(trims(&effects), expected, "{default:?}, {retention:?}");
    }
}

#[test]
fn a_device_that_is_missing_has_nothing_trimmed_until_its_row_moves() {
    let (mut shard, _) = keeping(Mode::Default, DELIVERED, true);
    shard.send();
    shard.committed();
    assert_eq!(trims(&shard.settled()), 0);
    let (chat, user) = (shard.chat, shard.people[1]);
    let ack = AckWrite {
        origin: Origin::Call(1),
        chat,
        user,
        device: DeviceId(user.0),
        seq: Seq(1),
    };
    let row = AckedRow {
        was: Seq(1),
        now: None,
    };
    let rows = [HashMap::new(), HashMap::from([((chat, ack.device), row)])];
    let effects = rows.map(|rows| {
        let (acks, unwritten) = (vec![ack.clone()], Vec::new());
        let done = JobDone::Acks {
            acks,
            rows,
            unwritten,
        };
        trims(&shard.tell(Event::JobDone(done)))
    });
    assert_eq!(effects, [0, 1]);
}

#[test]
fn what_a_device_acknowledged_before_the_chat_was_closed_is_trimmed() {
    let (mut shard, _) = keeping(Mode::Default, DELIVERED, true);
    shard.send();
    shard.committed();
    shard.settled();
    let effects = [false, true].map(|closed| {
        let chats = vec![(shard.chat, Seq(1))];
        trims(&shard.tell(Event::JobDone(JobDone::Close { chats, closed })))
    });
    assert_eq!(effects, [0, 1]);
}

#[test]
fn a_blocked_person_does_not_change_how_long_the_others_messages_are_kept() {
    let mut shard = Shard::new();
    let (chat, actor, request) = (shard.chat, shard.people[0], RequestId::random());
    let change = Change {
        actor,
        device: DeviceId::BACK_END,
        request,
        fingerprint: [0; 16],
        action: Action::SetRetention(DELIVERED),
        sending: Sending::default(),
    };
    let origin = Origin::Call(1);
    let blocks = shard.tell(Event::BlocksChanged { origin, chat });
    shard.tell(Event::Change {
        origin,
        chat,
        change: Box::new(change),
    });
    let snapshot = Snapshot {
        blocked: true,
        looked_up: vec![(actor, request)],
        ..shard.snapshot()
    };
    let (number, result) = (load_number(&blocks), Ok(Some(snapshot)));
    shard.tell(Event::Loaded { chat, number, result });
    let mut effects = Vec::new();
    let job = shard
        .state
        .next_job(Lane::Commit, shard.now, shard.now, &mut effects);
    assert!(job.is_none(), "{job:?}");
    let refused = ChangeRefusal::Common(Refusal::NotAccepted);
    assert!(
        matches!(&effects[..], [Effect::Answer { outcome: Outcome::Changed(Err(why)), .. }] if *why == refused),
        "{effects:?}"
    );
}
