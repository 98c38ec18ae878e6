//! Tests that no caller waits for long, and that a lock on one chat delays no other chat.

use super::*;

impl Shard {
    fn commit_job(&mut self) -> Option<Job> {
        self.state
            .next_job(Lane::Commit, self.now, self.now, &mut Vec::new())
    }

    fn commit_done(&mut self, chat: ChatId, committed: Committed) -> Vec<Effect> {
        self.tell(Event::JobDone(JobDone::Commit(vec![(chat, committed)])))
    }

    /// Lets time pass, and returns the effects of that.
    fn wait(&mut self, time: Duration) -> Vec<Effect> {
        self.now = self.now + time;
        let mut effects = Vec::new();
        self.state.keep_patience(self.now, &mut effects);
        effects
    }

    fn request(&mut self, request: RequestId) -> Vec<Effect> {
        self.send_with(self.chat, 0, request, Vec::new())
    }
}

fn refused(effects: &[Effect]) -> usize {
    let late = |effect: &&Effect| {
        let Effect::Answer { outcome, .. } = effect else {
            return false;
        };
        *outcome == Outcome::Sent(Err(Refusal::TOO_LATE))
    };
    effects.iter().filter(late).count()
}

fn placed(effects: &[Effect]) -> Vec<Seq> {
    let placed = |effect: &Effect| match effect {
        Effect::Answer {
            outcome: Outcome::Sent(Ok(place)),
            ..
        } => Some(place.seq),
        _ => None,
    };
    effects.iter().filter_map(placed).collect()
}

/// The time within which the shard answers. A device is answered within 5 s, and half a second of that is left for the
/// ways there and back.
const BOUND: Duration = Duration::from_millis(4_500);

#[test]
fn who_waits_for_a_load_is_answered_in_time() {
    let mut shard = Shard::new();
    let chat = ChatId(uuid::Uuid::from_u128(7));
    let effects = shard.send_to(chat, 0);
    assert!(matches!(effects[..], [Effect::Load { .. }]), "{effects:?}");
    assert!(shard.wait(Duration::from_secs(3)).is_empty());
    assert!(shard.state.next_wake().is_some_and(|at| at <= START + BOUND));
    assert_eq!(refused(&shard.wait(BOUND - Duration::from_secs(3))), 1);
    assert_eq!(shard.state.waiting(), 0);
    // The load ends after all, and the chat is ready for the next request.
    let number = load_number(&effects);
    let result = Ok(Some(shard.snapshot()));
    shard.tell(Event::Loaded { chat, number, result });
    assert!(shard.send_to(chat, 0).is_empty());
    assert!(matches!(shard.commit_job(), Some(Job::Commit(_))));
}

#[test]
fn who_waits_behind_a_statement_that_hangs_is_answered_in_time_and_told_the_place_when_it_asks_again() {
    let mut shard = Shard::new();
    let [under_way, behind] = [RequestId::random(), RequestId::random()];
    shard.request(under_way);
    assert!(matches!(shard.commit_job(), Some(Job::Commit(_))));
    shard.wait(Duration::from_secs(1));
    shard.request(behind);
    let answers = shard.wait(BOUND - Duration::from_secs(1));
    assert_eq!(refused(&answers), 2, "the later one too: it must not come first");
    // The first request comes again, and waits for the statement as before.
    assert!(shard.request(under_way).is_empty());
    assert!(
        shard.wait(Duration::from_secs(3)).is_empty(),
        "its time begins anew"
    );
    let effects = shard.commit_done(shard.chat, Committed::Stored);
    assert_eq!(placed(&effects), [Seq(1)], "it is in the log once");
    assert!(shard.commit_job().is_none());
    assert_eq!(placed(&shard.request(under_way)), [Seq(1)]);
    shard.request(behind);
    assert!(shard.commit_job().is_some());
    let effects = shard.commit_done(shard.chat, Committed::Stored);
    assert_eq!(placed(&effects), [Seq(2)]);
}

#[test]
fn a_commit_that_lands_after_everybody_was_told_to_come_again_is_pushed_to_all() {
    let mut shard = Shard::new();
    let request = RequestId::random();
    shard.request(request);
    assert!(shard.commit_job().is_some());
    assert_eq!(refused(&shard.wait(BOUND)), 1);
    let effects = shard.commit_done(shard.chat, Committed::Stored);
    let [Effect::Push { except, users, .. }] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(
        (except.len(), users.len()),
        (0, 2),
        "the sender's device has no answer of it"
    );
    assert_eq!(placed(&shard.request(request)), [Seq(1)]);
    assert!(shard.state.waiting() == 0 && shard.state.is_quiet() || shard.state.next_wake().is_some());
}

#[test]
fn a_chat_that_somebody_holds_waits_alone_and_is_tried_again_ever_later() {
    let mut shard = Shard::new();
    let other = ChatId(uuid::Uuid::from_u128(7));
    shard.open(other);
    shard.send();
    let (mut waits, mut since) = (Vec::new(), shard.now);
    assert!(shard.commit_job().is_some());
    shard.commit_done(shard.chat, Committed::Locked);
    while waits.len() < 5 {
        // The other chat goes on.
        shard.send_to(other, 0);
        let Some(Job::Commit(batches)) = shard.commit_job() else {
            panic!("nothing is committed")
        };
        assert_eq!(
            batches.iter().map(|batch| batch.chat).collect::<Vec<_>>(),
            [other]
        );
        shard.commit_done(other, Committed::Stored);
        let (parked, _) = *shard.state.parked.first().expect("it is tried again");
        assert!(shard.wait(parked.since(shard.now)).is_empty());
        assert!(shard.commit_job().is_some());
        waits.push(shard.now.since(since).as_millis());
        since = shard.now;
        shard.commit_done(shard.chat, Committed::Locked);
    }
    assert_eq!(waits, [50, 100, 200, 400, 500]);
    let (parked, _) = *shard.state.parked.first().unwrap();
    shard.wait(parked.since(shard.now));
    assert!(shard.commit_job().is_some());
    assert_eq!(
        placed(&shard.commit_done(shard.chat, Committed::Stored)),
        [Seq(1)]
    );
    shard.send();
    assert!(shard.commit_job().is_some(), "nothing of it stays");
}

#[test]
fn who_waits_in_a_chat_that_stays_locked_is_answered_in_time() {
    let mut shard = Shard::new();
    shard.send();
    let mut answered = 0;
    for _ in 0..BOUND.as_millis() / 50 {
        if shard.commit_job().is_some() {
            shard.commit_done(shard.chat, Committed::Locked);
        }
        answered += refused(&shard.wait(Duration::from_millis(50)));
    }
    assert_eq!(answered, 1);
}

#[test]
fn what_the_upkeep_waits_for_holds_no_commit_up() {
    let mut shard = Shard::new();
    shard.send();
    shard.committed();
    shard.now = shard.now + SETTLE_AFTER;
    let settle = shard
        .state
        .next_job(Lane::Upkeep, shard.now, shard.now, &mut Vec::new());
    assert!(matches!(settle, Some(Job::Settle(_))), "{settle:?}");
    shard.send();
    assert!(shard.commit_job().is_some());
    assert_eq!(
        placed(&shard.commit_done(shard.chat, Committed::Stored)),
        [Seq(2)]
    );
    // The entry that was committed meanwhile has a settle of its own.
    let chats = vec![(shard.chat, Seq(1))];
    shard.tell(settle_done(chats, HashMap::new()));
    assert_eq!(shard.state.unsettled(), 1);
}
