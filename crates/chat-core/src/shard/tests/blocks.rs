//! Tests of a direct chat of two people, one of whom has blocked the other.

use super::*;

const BLOCKER: Origin = Origin::Call(7);

impl Shard {
    fn blocks_changed(&mut self) -> Vec<Effect> {
        let chat = self.chat;
        self.tell(Event::BlocksChanged {
            origin: BLOCKER,
            chat,
        })
    }

    /// Ends the load with this number, which was asked to look up these requests.
    fn load(&mut self, number: u64, blocked: bool, requests: &[RequestId]) -> Vec<Effect> {
        let snapshot = Snapshot {
            blocked,
            looked_up: requests.iter().map(|id| (self.people[0], *id)).collect(),
            ..self.snapshot()
        };
        self.ended(number, Ok(Some(snapshot)))
    }

    fn ended(&mut self, number: u64, result: Result<Option<Snapshot>, LoadError>) -> Vec<Effect> {
        let chat = self.chat;
        self.tell(Event::Loaded { chat, number, result })
    }

    /// Sends a message from the first of the two people to the other. The chat is made if it does not exist.
    fn say(&mut self, request: RequestId) -> Vec<Effect> {
        let (chat, peer) = (self.chat, Some(self.people[1]));
        let entry = NewEntry::message(self.people[0], DeviceId::BACK_END, request, [0; 16], Bytes::new());
        let origin = Origin::Call(8);
        self.tell(Event::Send {
            origin,
            chat,
            peer,
            entry,
        })
    }

    /// Returns the next commit job, and the effects that come with it.
    fn next(&mut self) -> (Option<Job>, Vec<Effect>) {
        let mut effects = Vec::new();
        let job = self
            .state
            .next_job(Lane::Commit, self.now, self.now, &mut effects);
        (job, effects)
    }
}

fn answers(effects: &[Effect]) -> Vec<(Origin, &Outcome)> {
    let answers = effects.iter().filter_map(|effect| match effect {
        Effect::Answer { origin, outcome } => Some((*origin, outcome)),
        _ => None,
    });
    answers.collect()
}

const NOT_ACCEPTED: Outcome = Outcome::Sent(Err(Refusal::NotAccepted));
const HEARD: Outcome = Outcome::Noted(Ok(()));

#[test]
fn what_is_sent_after_a_block_is_decided_by_a_load_that_began_after_it() {
    let mut shard = Shard::new();
    let number = load_number(&shard.blocks_changed());
    let request = RequestId::random();
    shard.say(request);
    assert!(
        matches!(shard.next(), (None, effects) if effects.is_empty()),
        "it waits"
    );
    let effects = shard.load(number, true, &[request]);
    assert_eq!(answers(&effects), [(BLOCKER, &HEARD)]);
    let (job, effects) = shard.next();
    assert!(job.is_none());
    assert_eq!(answers(&effects), [(Origin::Call(8), &NOT_ACCEPTED)]);
    assert_eq!(shard.state.waiting(), 0);
    assert!(shard.state.is_quiet());
}

#[test]
fn a_load_that_began_before_the_block_does_not_count() {
    let mut shard = Shard::new();
    shard.state = ShardState::default();
    let request = RequestId::random();
    let before = load_number(&shard.say(request));
    let effects = shard.blocks_changed();
    let after = load_number(&effects);
    assert!(
        matches!(&effects[0], Effect::Load { create: Some(_), look_up, .. } if look_up.requests.len() == 1),
        "it makes the chat too where there is none: {effects:?}"
    );
    assert!(
        shard.load(before, false, &[request]).is_empty(),
        "nobody is told yet"
    );
    assert!(shard.next().0.is_none());
    shard.load(after, true, &[request]);
    assert_eq!(answers(&shard.next().1), [(Origin::Call(8), &NOT_ACCEPTED)]);
}

#[test]
fn what_is_being_committed_keeps_its_place_and_the_next_is_refused() {
    let mut shard = Shard::new();
    let (first, second) = (RequestId::random(), RequestId::random());
    shard.say(first);
    assert!(matches!(shard.next().0, Some(Job::Commit(_))));
    assert!(
        shard.blocks_changed().is_empty(),
        "a load now might miss what is being committed"
    );
    shard.say(second);
    let chat = shard.chat;
    let effects = shard.tell(Event::JobDone(JobDone::Commit(vec![(chat, Committed::Stored)])));
    let placed = answers(&effects);
    assert!(matches!(placed[..], [(_, Outcome::Sent(Ok(_)))]), "{placed:?}");
    let loads = effects.iter().filter_map(|effect| match effect {
        Effect::Load { number, .. } => Some(*number),
        _ => None,
    });
    let [number] = loads.collect::<Vec<_>>()[..] else {
        panic!("one load: {effects:?}")
    };
    assert!(!matches!(shard.next().0, Some(Job::Commit(_))));
    shard.load(number, true, &[second]);
    assert_eq!(answers(&shard.next().1), [(Origin::Call(8), &NOT_ACCEPTED)]);
    // Rule 5: the first request keeps its result.
    let effects = shard.say(first);
    assert!(
        matches!(answers(&effects)[..], [(_, Outcome::Sent(Ok(_)))]),
        "{effects:?}"
    );
}

#[test]
fn a_refusal_by_what_is_remembered_is_looked_up_first() {
    let mut shard = Shard::new();
    let number = load_number(&shard.blocks_changed());
    shard.load(number, true, &[]);
    let request = RequestId::random();
    shard.say(request);
    let (job, effects) = shard.next();
    assert!(job.is_none());
    let number = load_number(&effects);
    assert!(shard.load(number, false, &[request]).is_empty());
    assert!(
        matches!(shard.next().0, Some(Job::Commit(_))),
        "unblocked meanwhile"
    );
}

#[test]
fn who_has_nothing_to_wait_for_is_answered_at_once() {
    let mut shard = Shard::new();
    shard.state = ShardState::default();
    let effects = shard.blocks_changed();
    assert_eq!(answers(&effects), [(BLOCKER, &HEARD)], "not loaded");
    assert_eq!(effects.len(), 1);
}

#[test]
fn whoever_changed_a_block_is_told_when_it_could_not_be_read() {
    let mut shard = Shard::new();
    let number = load_number(&shard.blocks_changed());
    let effects = shard.ended(number, Err(LoadError::Away));
    assert_eq!(
        answers(&effects),
        [(BLOCKER, &Outcome::Noted(Err(Refusal::STORE_AWAY)))]
    );
    assert_eq!(
        (shard.state.chats(), shard.state.waiting()),
        (0, 0),
        "nothing is believed"
    );

    let mut shard = Shard::new();
    shard.blocks_changed();
    let effects = shard.tell(Event::Owned(Arc::default()));
    assert_eq!(answers(&effects), [(BLOCKER, &Outcome::NotOwner)]);
    assert_eq!(shard.state.waiting(), 0);
}

#[test]
fn a_block_that_refuses_the_first_message_is_not_refused_itself() {
    let mut shard = Shard::new();
    shard.state = ShardState::default();
    shard.say(RequestId::random());
    let number = load_number(&shard.blocks_changed());
    let effects = shard.ended(number, Err(LoadError::NotAccepted));
    assert_eq!(
        answers(&effects),
        [(BLOCKER, &HEARD), (Origin::Call(8), &NOT_ACCEPTED)]
    );
    assert_eq!((shard.state.chats(), shard.state.waiting()), (0, 0));
}

#[test]
fn the_first_message_to_somebody_who_does_not_want_it_makes_no_chat() {
    let mut shard = Shard::new();
    shard.state = ShardState::default();
    let number = load_number(&shard.say(RequestId::random()));
    let effects = shard.ended(number, Err(LoadError::NotAccepted));
    assert_eq!(answers(&effects), [(Origin::Call(8), &NOT_ACCEPTED)]);
}
