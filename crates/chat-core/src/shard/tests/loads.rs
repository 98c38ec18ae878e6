//! Tests of loads: which of them count, and how many begin.

use super::*;

impl Shard {
    /// Lets this device of one of the two people write to the other. The chat is made if it does not exist.
    fn write(&mut self, person: usize, device: DeviceId) -> Vec<Effect> {
        let chat = self.chat;
        let (sender, request) = (self.people[person], RequestId::random());
        let entry = NewEntry::message(sender, device, request, [0; 16], Bytes::new());
        self.tell(Event::Send {
            origin: Origin::Call(1),
            chat,
            peer: Some(self.people[1 - person]),
            entry,
        })
    }

    /// Ends a load of the chat, which finds its log empty.
    fn load_empty(&mut self, number: u64) -> Vec<Effect> {
        let (chat, result) = (self.chat, Ok(Some(self.snapshot())));
        self.tell(Event::Loaded { chat, number, result })
    }

    /// Returns the state of the chat in memory, and its head.
    fn memory(&self) -> Option<(Stage, Seq)> {
        let chat = self.state.chats.get(&self.chat)?;
        Some((chat.stage, chat.head()))
    }
}

/// Rule 2: what is committed meanwhile is not in the snapshot of the older load.
#[test]
fn a_load_that_began_before_another_was_taken_over_does_not_count() {
    let mut shard = Shard::new();
    shard.state = ShardState::default();
    let first = load_number(&shard.write(0, DeviceId::random()));
    let second = load_number(&shard.write(1, DeviceId::random()));
    shard.load_empty(first);
    shard.committed();
    assert_eq!(shard.memory(), Some((Stage::Ready, Seq(2))));
    // Another owner has committed meanwhile, so the chat is loaded anew.
    shard.send();
    assert!(matches!(shard.job(), Some(Job::Commit(_))));
    let conflict = JobDone::Commit(vec![(shard.chat, Committed::Conflict)]);
    load_number(&shard.tell(Event::JobDone(conflict)));
    assert!(shard.load_empty(second).is_empty());
    assert_eq!(shard.memory(), Some((Stage::Loading, Seq(2))));
}

#[test]
fn of_all_messages_that_would_make_a_chat_in_the_same_way_one_begins_a_load() {
    let mut shard = Shard::new();
    shard.state = ShardState::default();
    let ways = [
        (0, DeviceId::random()),
        (0, DeviceId::BACK_END),
        (1, DeviceId::random()),
    ];
    for (person, device) in ways {
        load_number(&shard.write(person, device));
    }
    for _ in 0..100 {
        for (person, device) in ways {
            assert!(shard.write(person, device).is_empty());
        }
    }
    // A command that makes no chat waits for any of the loads.
    assert!(shard.send().is_empty());
}

#[test]
fn a_message_that_would_make_a_chat_begins_a_load_of_its_own_while_another_makes_none() {
    let mut shard = Shard::new();
    shard.state = ShardState::default();
    load_number(&shard.send());
    let effects = shard.write(0, DeviceId::random());
    let makes = matches!(effects.as_slice(), [Effect::Load { create: Some(_), .. }]);
    assert!(makes, "{effects:?}");
}

/// Whoever changed a block meanwhile has nothing to wait for: the chat is not in memory, and its next use reads the
/// store.
#[test]
fn a_chat_that_cannot_be_read_is_not_unavailable() {
    let mut shard = Shard::new();
    let (chat, blocker) = (shard.chat, Origin::Call(2));
    let number = load_number(&shard.tell(Event::BlocksChanged {
        origin: blocker,
        chat,
    }));
    shard.write(0, DeviceId::random());
    let result = Err(LoadError::Unreadable);
    let effects = shard.tell(Event::Loaded { chat, number, result });
    let answers = effects.into_iter().map(|effect| match effect {
        Effect::Answer { origin, outcome } => (origin, outcome),
        other => panic!("{other:?}"),
    });
    let unreadable = Outcome::Sent(Err(Refusal::Unreadable));
    assert_eq!(
        answers.collect::<Vec<_>>(),
        [(blocker, Outcome::Noted(Ok(()))), (Origin::Call(1), unreadable)]
    );
    assert_eq!((shard.state.chats(), shard.state.waiting()), (0, 0));
}
