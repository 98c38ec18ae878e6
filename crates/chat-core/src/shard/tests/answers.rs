//! Tests that every caller gets an answer of the kind of its command.

use super::*;
use crate::change::Action;
use crate::content::keyed;
use crate::recent::Placed;
use crate::{Change, ChangeRefusal};

const CALL: Origin = Origin::Call(7);

/// Makes a shard with a group of two people in memory, and returns the group.
fn group() -> (Shard, ChatId) {
    let mut shard = Shard::new();
    let chat = ChatId(uuid::Uuid::from_u128(1 << 80));
    let effects = shard.tell(Event::Recover {
        chat,
        low: Seq(1),
        high: Seq(1),
    });
    let number = load_number(&effects);
    let result = Ok(Some(snapshot(ChatKind::Group, &shard.people)));
    shard.tell(Event::Loaded { chat, number, result });
    (shard, chat)
}

impl Shard {
    /// Asks for a change on behalf of the system.
    fn ask(&mut self, chat: ChatId, request: RequestId, action: Action) -> Vec<Effect> {
        let change = Change {
            actor: UserId::SYSTEM,
            device: DeviceId::BACK_END,
            request,
            fingerprint: [0; 16],
            action,
            sending: Sending::default(),
        };
        let origin = CALL;
        self.tell(Event::Change {
            origin,
            chat,
            change: Box::new(change),
        })
    }

    /// Returns the effects of asking for the next commit, which there must not be.
    fn no_commit(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        let job = self
            .state
            .next_job(Lane::Commit, self.now, self.now, &mut effects);
        assert!(job.is_none(), "{job:?}");
        effects
    }
}

fn outcomes(effects: Vec<Effect>) -> Vec<Outcome> {
    let outcome = |effect: Effect| match effect {
        Effect::Answer { outcome, .. } => outcome,
        other => panic!("{other:?}"),
    };
    effects.into_iter().map(outcome).collect()
}

#[test]
fn callers_who_wait_for_the_same_load_are_refused_each_in_their_own_kind() {
    let mut shard = Shard::new();
    shard.state = ShardState::default();
    let (chat, user) = (shard.chat, shard.people[0]);
    let number = load_number(&shard.send());
    let title = Action::SetTitle("new".into());
    assert!(shard.ask(chat, RequestId::random(), title).is_empty());
    let mark = shard.tell(Event::MarkRead {
        origin: CALL,
        chat,
        user,
        seq: Seq(1),
        off: false,
    });
    assert!(mark.is_empty());
    let result = Err(LoadError::Away);
    let effects = shard.tell(Event::Loaded { chat, number, result });
    let away = Refusal::STORE_AWAY;
    assert_eq!(
        outcomes(effects),
        [
            Outcome::Sent(Err(away.clone())),
            Outcome::Changed(Err(away.clone().into())),
            Outcome::Noted(Err(away)),
        ]
    );
}

#[test]
fn a_change_that_the_stores_facts_do_not_allow_is_refused_for_a_reason_of_groups() {
    let (mut shard, chat) = group();
    let nobody = UserId::random();
    let action = Action::Add(vec![nobody]);
    assert!(shard.ask(chat, RequestId::random(), action).is_empty());
    assert!(matches!(shard.job(), Some(Job::Change(_))));
    let refusal = ChangeRefusal::UserNotFound(nobody);
    let refused = Committed::NotPermitted(refusal.clone());
    let effects = shard.tell(Event::JobDone(JobDone::Commit(vec![(chat, refused)])));
    assert_eq!(outcomes(effects), [Outcome::Changed(Err(refusal))]);
    assert_eq!(shard.state.waiting(), 0);
}

/// The chat is a direct one, which no action of groups may change.
#[test]
fn a_change_of_every_kind_of_chat_is_committed_alone_in_a_direct_chat() {
    let mut shard = Shard::new();
    let chat = shard.chat;
    assert!(shard.send().is_empty());
    let change = shard.ask(chat, RequestId::random(), Action::OfEveryKind);
    assert!(change.is_empty());
    shard.committed();
    let Some(Job::Change(batch)) = shard.job() else {
        panic!("no change")
    };
    assert_eq!(
        (batch.change, batch.entries.len()),
        (Some(Action::OfEveryKind), 1)
    );
    let stored = JobDone::Commit(vec![(chat, Committed::Stored)]);
    let effects = shard.tell(Event::JobDone(stored));
    let answer = effects.into_iter().find_map(|effect| match effect {
        Effect::Answer { outcome, .. } => outcome.changed(),
        _ => None,
    });
    let place = answer.expect("no answer").expect("refused");
    assert_eq!(place.map(|place| place.seq), Some(Seq(2)));
}

/// A message always becomes an entry, so it cannot be answered as such a change is.
#[test]
fn a_message_with_the_request_of_a_change_that_changed_nothing_is_refused() {
    let (mut shard, chat) = group();
    let request = RequestId::random();
    let same_title = Action::SetTitle(String::new());
    assert!(shard.ask(chat, request, same_title).is_empty());
    let number = load_number(&shard.no_commit());
    let snapshot = Snapshot {
        looked_up: vec![(UserId::SYSTEM, request)],
        ..snapshot(ChatKind::Group, &shard.people)
    };
    let result = Ok(Some(snapshot));
    assert!(shard.tell(Event::Loaded { chat, number, result }).is_empty());
    assert_eq!(outcomes(shard.no_commit()), [Outcome::Changed(Ok(None))]);
    shard.people[0] = UserId::SYSTEM;
    let effects = shard.send_with(chat, 0, request, Vec::new());
    assert_eq!(outcomes(effects), [Outcome::Sent(Err(Refusal::RequestIdReused))]);
}

/// A node of the next version stores the fingerprint of every request under the chat's key, one of the version before
/// that of none.
#[test]
fn a_repetition_is_known_by_either_form_of_its_fingerprint_and_after_its_erasure_by_its_request_id() {
    const KEY: [u8; 32] = [0; 32];
    let cases = [
        ([0; 16], false, true),
        (keyed([0; 16], &KEY), false, true),
        (keyed([0; 16], &[1; 32]), false, false),
        (keyed([1; 16], &KEY), false, false),
        ([1; 16], false, false),
        ([1; 16], true, true),
    ];
    for (fingerprint, erased, is_known) in cases {
        let mut shard = Shard::new();
        shard.state = ShardState::default();
        let (chat, request) = (shard.chat, RequestId::random());
        let number = load_number(&shard.send_with(chat, 0, request, Vec::new()));
        let placed = Placed {
            seq: Seq(1),
            ordinal: 1,
            sent_at: START,
            fingerprint,
            is_message: true,
            erased,
            expires_after_s: 0,
        };
        let snapshot = Snapshot {
            head: Seq(1),
            ordinal: 1,
            placed: vec![(shard.people[0], request, placed)],
            looked_up: vec![(shard.people[0], request)],
            ..shard.snapshot()
        };
        let result = Ok(Some(snapshot));
        let effects = shard.tell(Event::Loaded { chat, number, result });
        let answers = outcomes(effects);
        let [outcome] = &answers[..] else {
            panic!("one answer: {answers:?}")
        };
        let case = format!("{fingerprint:?}, erased: {erased}");
        match outcome {
            Outcome::Sent(Ok(place)) => assert!(is_known && place.seq == Seq(1), "{case}"),
            other => {
                assert!(!is_known, "{case}");
                assert_eq!(*other, Outcome::Sent(Err(Refusal::RequestIdReused)), "{case}");
            }
        }
    }
}
