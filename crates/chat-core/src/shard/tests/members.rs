//! Tests of the pushes to members who are added and removed.

use super::*;
use crate::Change;
use crate::change::Action;

fn change(action: Action) -> Change {
    Change {
        actor: UserId::SYSTEM,
        device: DeviceId::BACK_END,
        request: RequestId::random(),
        fingerprint: [2; 16],
        action,
        sending: Sending::default(),
    }
}

/// Makes a change. Returns the users who are pushed its entry, and those who are only told to read the log.
fn changed(shard: &mut Shard, chat: ChatId, action: Action) -> (Vec<UserId>, Vec<UserId>) {
    let change = change(action);
    shard.tell(Event::Change {
        origin: Origin::Call(1),
        chat,
        change,
    });
    assert!(matches!(shard.job(), Some(Job::Change(_))));
    let effects = shard.tell(Event::JobDone(JobDone::Commit(vec![(chat, Committed::Stored)])));
    let (mut get, mut read) = (Vec::new(), Vec::new());
    for effect in effects {
        match effect {
            Effect::Push {
                users,
                what: Pushed::Entry(_),
                ..
            } => get.extend(users.iter().copied()),
            Effect::Push {
                users,
                what: Pushed::Added(_),
                ..
            } => read.extend(users.iter().copied()),
            _ => {}
        }
    }
    (get, read)
}

#[test]
fn who_is_removed_gets_the_entry_and_who_is_added_reads_it() {
    let mut shard = Shard::new();
    let [alice, bob] = shard.people;
    let chat = ChatId(uuid::Uuid::from_u128(1 << 80));
    let effects = shard.tell(Event::Recover {
        chat,
        low: Seq(1),
        high: Seq(1),
    });
    let number = load_number(&effects);
    let result = Ok(Some(snapshot(ChatKind::Group, &[alice, bob])));
    shard.tell(Event::Loaded { chat, number, result });

    let mut both = vec![alice, bob];
    both.sort_unstable();
    assert_eq!(changed(&mut shard, chat, Action::Remove(bob)), (both, Vec::new()));
    assert_eq!(
        changed(&mut shard, chat, Action::Add(vec![bob, alice])),
        (vec![alice], vec![bob])
    );
}
