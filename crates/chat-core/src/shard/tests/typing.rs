//! Tests of typing: the users who are told that somebody is typing.

use tern_types::Notice;

use super::*;

/// A shard, and a chat that is in memory or not.
struct Chatting {
    state: ShardState,
    chat: ChatId,
    people: Vec<UserId>,
    now: Timestamp,
}

/// Makes a chat of this many members, which is not in memory yet.
fn chatting(members: u128) -> Chatting {
    Chatting {
        state: ShardState::default(),
        chat: ChatId(uuid::Uuid::from_u128(1 << 80)),
        people: (1..=members).map(|n| UserId(uuid::Uuid::from_u128(n))).collect(),
        now: START,
    }
}

impl Chatting {
    fn tell(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.state.apply(event, self.now, &mut effects);
        effects
    }

    fn typing(&mut self, user: UserId, stopped: bool) -> Vec<Effect> {
        let (chat, at) = (self.chat, self.now);
        self.tell(Event::Notice {
            chat,
            user,
            notice: Notice::Typing { stopped },
            at,
        })
    }

    /// Ends the first load of the chat.
    fn load(&mut self, kind: ChatKind) -> Vec<Effect> {
        let (chat, result) = (self.chat, Ok(Some(snapshot(kind, &self.people))));
        self.tell(Event::Loaded {
            chat,
            number: 1,
            result,
        })
    }

    /// Makes a chat of this many members, which is in memory.
    fn loaded(members: u128, kind: ChatKind) -> Self {
        let mut chat = chatting(members);
        let id = chat.chat;
        chat.tell(Event::Recover {
            chat: id,
            low: Seq(1),
            high: Seq(1),
        });
        chat.load(kind);
        chat
    }

    /// Takes the counts of the signs that were dropped.
    fn dropped(&mut self) -> Vec<(DropReason, u64)> {
        let [typing] = self.state.take_counts().notices;
        let all = DropReason::ALL.into_iter().zip(typing.dropped);
        all.filter(|(_, count)| *count > 0).collect()
    }
}

/// Returns the pushes of typing among the effects: the users who are told, and true if the person stopped.
fn told(effects: &[Effect]) -> Vec<(Vec<UserId>, bool)> {
    let typing = |effect: &Effect| match effect {
        Effect::Push {
            users,
            what:
                Pushed::Notice {
                    notice: Notice::Typing { stopped },
                    ..
                },
            ..
        } => {
            let mut users = users.to_vec();
            users.sort_unstable();
            Some((users, *stopped))
        }
        _ => None,
    };
    effects.iter().filter_map(typing).collect()
}

#[test]
fn the_other_members_are_told_once_in_three_seconds() {
    let mut chat = Chatting::loaded(3, ChatKind::Group);
    let (user, others) = (chat.people[0], chat.people[1..].to_vec());
    assert_eq!(told(&chat.typing(user, false)), [(others.clone(), false)]);
    assert!(chat.typing(user, false).is_empty(), "from another device");
    assert_eq!(told(&chat.typing(others[0], false)).len(), 1, "somebody else");
    chat.now = chat.now + Duration::from_secs(3);
    assert_eq!(told(&chat.typing(user, false)).len(), 1);
    assert_eq!(told(&chat.typing(user, true)), [(others, true)]);
    assert!(chat.typing(user, true).is_empty());
    let [typing] = chat.state.take_counts().notices;
    assert_eq!((typing.passed, typing.dropped), (4, [0, 0, 0, 2]));
    let job = any_job(&mut chat.state, chat.now + SETTLE_AFTER, &mut Vec::new());
    assert!(job.is_none(), "nothing is written: {job:?}");
}

#[test]
fn nobody_is_told_in_groups_above_64_members_nor_by_strangers() {
    for (members, expected) in [(64, 1), (65, 0)] {
        let mut chat = Chatting::loaded(members, ChatKind::Group);
        assert_eq!(
            told(&chat.typing(chat.people[0], false)).len(),
            expected,
            "{members}"
        );
        assert!(chat.typing(UserId::random(), false).is_empty());
    }
}

#[test]
fn a_chat_that_is_not_in_memory_is_loaded_when_nothing_else_is() {
    let mut chat = chatting(2);
    let user = chat.people[0];
    assert!(chat.typing(user, true).is_empty());
    assert_eq!(chat.dropped(), [(DropReason::NotLoaded, 1)]);
    let effects = chat.typing(user, false);
    assert!(matches!(effects.as_slice(), [Effect::Load { .. }]), "{effects:?}");
    assert!(chat.typing(chat.people[1], false).is_empty());
    assert_eq!(chat.dropped(), [(DropReason::NotLoaded, 1)]);
    assert_eq!(
        told(&chat.load(ChatKind::Direct)),
        [(vec![chat.people[1]], false)]
    );
    assert_eq!(told(&chat.typing(chat.people[1], false)).len(), 1);
}

#[test]
fn what_waited_long_for_its_chat_is_not_told() {
    let mut chat = chatting(2);
    chat.typing(chat.people[0], false);
    chat.now = chat.now + Duration::from_millis(1001);
    assert!(chat.load(ChatKind::Direct).is_empty());
    assert_eq!(chat.dropped(), [(DropReason::Stale, 1)]);
}

#[test]
fn a_load_that_finds_no_chat_makes_room_for_the_next() {
    let mut chat = chatting(2);
    let id = chat.chat;
    chat.typing(chat.people[0], false);
    chat.tell(Event::Loaded {
        chat: id,
        number: 1,
        result: Ok(None),
    });
    assert_eq!(chat.state.chats(), 0);
    assert_eq!(chat.typing(chat.people[0], false).len(), 1, "a load");
}
