//! Tests of the pushes to members who are added and removed.

use tern_types::InviteId;

use super::*;
use crate::Change;
use crate::change::Action;

fn change(actor: UserId, action: Action) -> Change {
    Change {
        actor,
        device: DeviceId::BACK_END,
        request: RequestId::random(),
        fingerprint: [2; 16],
        action,
        sending: Sending::default(),
    }
}

/// Makes a change in nobody's name. Returns the users who are pushed its entry, and those who are only told to read the
/// log.
fn changed(shard: &mut Shard, chat: ChatId, action: Action) -> (Vec<UserId>, Vec<UserId>) {
    changed_by(shard, chat, UserId::SYSTEM, action)
}

/// Makes a change as [`changed`] does, by this actor.
fn changed_by(shard: &mut Shard, chat: ChatId, actor: UserId, action: Action) -> (Vec<UserId>, Vec<UserId>) {
    let change = change(actor, action);
    shard.tell(Event::Change {
        origin: Origin::Call(1),
        chat,
        change: Box::new(change),
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

/// Loads a group of these people, and returns its id.
fn open_group(shard: &mut Shard, people: &[UserId]) -> ChatId {
    let chat = ChatId(uuid::Uuid::from_u128(1 << 80));
    let effects = shard.tell(Event::Recover {
        chat,
        low: Seq(1),
        high: Seq(1),
    });
    let number = load_number(&effects);
    let result = Ok(Some(snapshot(ChatKind::Group, people)));
    shard.tell(Event::Loaded { chat, number, result });
    chat
}

#[test]
fn who_is_removed_gets_the_entry_and_who_is_added_reads_it() {
    let mut shard = Shard::new();
    let [alice, bob] = shard.people;
    let chat = open_group(&mut shard, &[alice, bob]);

    let mut both = vec![alice, bob];
    both.sort_unstable();
    assert_eq!(changed(&mut shard, chat, Action::Remove(bob)), (both, Vec::new()));
    assert_eq!(
        changed(&mut shard, chat, Action::Add(vec![bob, alice])),
        (vec![alice], vec![bob])
    );
}

#[test]
fn who_joins_by_a_link_reads_the_entry_and_the_others_get_it() {
    let mut shard = Shard::new();
    let [alice, bob] = shard.people;
    let chat = open_group(&mut shard, &[alice]);
    let (invite, user) = (InviteId(uuid::Uuid::nil()), bob);
    let join = Action::Join { invite, user };
    assert_eq!(changed_by(&mut shard, chat, bob, join), (vec![alice], vec![bob]));
}
