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
