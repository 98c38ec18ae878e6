//! Tests of commits: the answers and pushes that follow one, and those that must not.

use tern_types::MediaId;

use super::*;
use crate::Place;
use crate::shard::jobs::MAX_COMMIT_BYTES;

/// A restore replaces the log, so the chat in memory belongs to another one.
#[test]
fn after_a_restore_a_repeated_request_is_not_answered_from_memory() {
    let mut shard = Shard::new();
    shard.send();
    shard.committed();
    shard.send();
    assert!(matches!(shard.job(), Some(Job::Commit(_))));
    shard.send();
    let answers = shard.tell(Event::Restored);
    let again = |effect: &Effect| {
        matches!(
            effect,
            Effect::Answer {
                outcome: Outcome::NotOwner,
                ..
            }
        )
    };
    assert_eq!(
        answers.iter().filter(|effect| again(effect)).count(),
        2,
        "{answers:?}"
    );
    assert_eq!((shard.state.chats(), shard.state.waiting()), (0, 0));
    // The result of the commit that was at the writer concerns the forgotten chat, and not the one that is loaded
    // now.
    let effects = shard.tell(Event::JobDone(JobDone::Commit(vec![(
        shard.chat,
        Committed::Stored,
    )])));
    assert!(effects.is_empty(), "{effects:?}");
    let effects = shard.send();
    assert!(matches!(effects.as_slice(), [Effect::Load { .. }]), "{effects:?}");
}

#[test]
fn rule_1_nobody_is_told_anything_before_the_commit() {
    let mut shard = Shard::new();
    assert!(shard.send().is_empty(), "neither an answer nor a push");
    let effects = shard.committed();
    let answered = effects.iter().position(|effect| {
        matches!(
            effect,
            Effect::Answer {
                outcome: Outcome::Sent(Ok(_)),
                ..
            }
        )
    });
    let pushed = effects
        .iter()
        .position(|effect| matches!(effect, Effect::Push { .. }));
    assert_eq!((answered, pushed), (Some(0), Some(1)));
}

#[test]
fn rule_1_a_commit_of_unknown_outcome_is_not_acknowledged() {
    let mut shard = Shard::new();
    shard.send();
    assert!(matches!(shard.job(), Some(Job::Commit(_))));
    let effects = shard.tell(Event::JobDone(JobDone::Commit(vec![(
        shard.chat,
        Committed::Away,
    )])));
    let refused = matches!(
        effects.as_slice(),
        [Effect::Answer {
            outcome: Outcome::Sent(Err(Refusal::Unavailable { .. })),
            ..
        }]
    );
    assert!(refused, "{effects:?}");
}

#[test]
fn an_entry_larger_than_a_batch_may_be_is_committed_alone() {
    let mut shard = Shard::new();
    shard.send_to(shard.chat, MAX_COMMIT_BYTES + 1);
    shard.send();
    let Some(Job::Commit(batches)) = shard.job() else {
        panic!("nothing is committed")
    };
    assert_eq!(batches[0].entries.len(), 1);
}

/// The refusal comes only when it is certain that the log has no entry of the request yet.
#[test]
fn a_ticket_that_has_ended_is_refused_but_a_repetition_is_answered_whatever_its_ticket() {
    let mut shard = Shard::new();
    let media = vec![MediaRef {
        media: MediaId::random(),
        expires_at: START + Duration::from_secs(60),
    }];
    let (chat, sent) = (shard.chat, RequestId::random());
    shard.send_with(chat, 1, sent, media.clone());
    shard.committed();
    shard.now = START + Duration::from_secs(61);
    let again = shard.send_with(chat, 1, sent, media.clone());
    assert!(
        again.iter().any(|effect| matches!(
            effect,
            Effect::Answer {
                outcome: Outcome::Sent(Ok(Place { seq: Seq(1), .. })),
                ..
            }
        )),
        "{again:?}"
    );
    shard.settled();
    assert!(
        matches!(shard.job(), Some(Job::Reads(_))),
        "the sender's own mark is not written"
    );
    shard.tell(reads_done());
    let late = RequestId::random();
    shard.send_with(chat, 1, late, media);
    let mut effects = Vec::new();
    let job = any_job(&mut shard.state, shard.now, &mut effects);
    assert!(job.is_none(), "looked up first: {job:?}");
    let snapshot = Snapshot {
        head: Seq(1),
        looked_up: vec![(shard.people[0], late)],
        ..shard.snapshot()
    };
    let number = load_number(&effects);
    let result = Ok(Some(snapshot));
    shard.tell(Event::Loaded { chat, number, result });
    let mut effects = Vec::new();
    let job = any_job(&mut shard.state, shard.now, &mut effects);
    assert!(!matches!(job, Some(Job::Commit(_))), "{job:?}");
    assert!(
        effects.iter().any(|effect| matches!(
            effect,
            Effect::Answer {
                outcome: Outcome::Sent(Err(Refusal::MediaTicket)),
                ..
            }
        )),
        "{effects:?}"
    );
}
