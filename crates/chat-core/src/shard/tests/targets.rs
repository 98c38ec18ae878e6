//! Tests of what is done to messages that are in the log already.

use tern_types::limits::MAX_ACTS_PER_PERSON;

use super::*;
use crate::EntryKind;
use crate::chat::{Acts, LookUp};
use crate::target::{About, Target};

const CALL: Origin = Origin::Call(7);

impl Shard {
    /// Asks on behalf of a person for an entry of this kind about the message at `target`.
    fn act(&mut self, person: usize, kind: EntryKind, target: u64) -> (RequestId, Vec<Effect>) {
        let entry = about(self.people[person], kind, target, false);
        (entry.request, self.do_this(entry, None))
    }

    fn do_this(&mut self, entry: NewEntry, peer: Option<UserId>) -> Vec<Effect> {
        let (origin, chat) = (CALL, self.chat);
        self.tell(Event::Send {
            origin,
            chat,
            peer,
            entry,
        })
    }

    /// Returns the load that the state asks for in place of a commit.
    fn asks_for(&mut self) -> (u64, LookUp) {
        let mut effects = Vec::new();
        let job = self
            .state
            .next_job(Lane::Commit, self.now, self.now, &mut effects);
        assert!(job.is_none(), "{job:?}");
        match effects.pop() {
            Some(Effect::Load { number, look_up, .. }) => (number, look_up),
            other => panic!("{other:?}"),
        }
    }

    /// Ends the load with a log of `head` entries, of which only `targets` are found. Returns the outcomes.
    fn finds(
        &mut self,
        (number, look_up): (u64, LookUp),
        head: u64,
        targets: Vec<(Seq, Target)>,
    ) -> Vec<Outcome> {
        let snapshot = Snapshot {
            head: Seq(head),
            looked_up: look_up.requests,
            targets,
            ..self.snapshot()
        };
        let (chat, result) = (self.chat, Ok(Some(snapshot)));
        let effects = self.tell(Event::Loaded { chat, number, result });
        assert!(effects.is_empty(), "{effects:?}");
        let mut effects = Vec::new();
        let job = self
            .state
            .next_job(Lane::Commit, self.now, self.now, &mut effects);
        assert!(job.is_none() != effects.is_empty(), "{job:?}");
        effects.into_iter().filter_map(outcome).collect()
    }

    /// Returns the kinds of the entries of the next commit, which is carried out.
    fn commits(&mut self) -> Vec<EntryKind> {
        let Some(Job::Commit(batches)) = self.job() else {
            panic!("no commit")
        };
        let stored = vec![(self.chat, Committed::Stored)];
        self.tell(Event::JobDone(JobDone::Commit(stored)));
        let entries = batches.iter().flat_map(|batch| &batch.entries);
        entries.map(|entry| entry.new.kind).collect()
    }
}

/// Makes an entry of this kind about the message at `target`.
fn about(sender: UserId, kind: EntryKind, target: u64, take_back: bool) -> NewEntry {
    NewEntry {
        kind,
        counts: false,
        about: Some(About {
            target: Seq(target),
            take_back,
            reaction: Bytes::new(),
        }),
        ..NewEntry::message(
            sender,
            DeviceId(sender.0),
            RequestId::random(),
            [0; 16],
            Bytes::new(),
        )
    }
}

fn outcome(effect: Effect) -> Option<Outcome> {
    match effect {
        Effect::Answer { outcome, .. } => Some(outcome),
        _ => None,
    }
}

fn message(sender: UserId) -> Target {
    Target {
        sender,
        sent_at: START,
        is_message: true,
        erased: false,
        expires_after_s: 0,
    }
}

#[test]
fn of_what_this_owner_committed_everything_is_known() {
    let mut shard = Shard::new();
    shard.send();
    shard.committed();
    shard.act(0, EntryKind::Edit, 1);
    assert_eq!(shard.commits(), [EntryKind::Edit]);
}

#[test]
fn an_older_message_is_looked_up_with_the_request() {
    let mut shard = Shard::new();
    let sender = shard.people[0];
    let (request, _) = shard.act(0, EntryKind::Delete, 3);
    let asked = shard.asks_for();
    assert_eq!(asked.1.requests, [(sender, request)]);
    assert_eq!(asked.1.targets, [Seq(3)]);
    let outcomes = shard.finds(asked, 900, vec![(Seq(3), message(sender))]);
    assert_eq!(outcomes, []);
}

/// Each load replaces what is known. A message that no load was asked for would count as one that does not exist.
#[test]
fn a_message_that_is_known_is_looked_up_again_by_the_load_after_a_conflict() {
    let mut shard = Shard::new();
    let sender = shard.people[0];
    shard.act(0, EntryKind::Delete, 3);
    let asked = shard.asks_for();
    let outcomes = shard.finds(asked, 900, vec![(Seq(3), message(sender))]);
    assert_eq!(outcomes, []);

    let conflict = vec![(shard.chat, Committed::Conflict)];
    let effects = shard.tell(Event::JobDone(JobDone::Commit(conflict)));
    let Some(Effect::Load { number, look_up, .. }) = effects.into_iter().next() else {
        panic!("no load")
    };
    assert_eq!(look_up.targets, [Seq(3)]);
    let outcomes = shard.finds((number, look_up), 901, vec![(Seq(3), message(sender))]);
    assert_eq!(outcomes, [], "it is committed");
}

#[test]
fn what_is_not_there_or_of_somebody_else_is_refused_once_the_log_was_asked() {
    let mut shard = Shard::new();
    let other = shard.people[1];
    shard.act(0, EntryKind::Reaction, 3);
    let asked = shard.asks_for();
    let outcomes = shard.finds(asked, 900, Vec::new());
    assert_eq!(outcomes, [Outcome::Sent(Err(Refusal::TargetNotFound))]);

    shard.act(0, EntryKind::Edit, 4);
    let asked = shard.asks_for();
    let outcomes = shard.finds(asked, 900, vec![(Seq(4), message(other))]);
    assert_eq!(outcomes, [Outcome::Sent(Err(Refusal::NotAllowed))]);
}

/// A load for another command would otherwise take away what was known of the message, and the command would be told
/// that it is not there.
#[test]
fn what_is_known_of_a_message_is_read_again_with_the_chat() {
    let mut shard = Shard::new();
    let sender = shard.people[0];
    shard.act(0, EntryKind::Reaction, 3);
    let asked = shard.asks_for();
    assert_eq!(shard.finds(asked, 900, vec![(Seq(3), message(sender))]), []);
    let conflict = vec![(shard.chat, Committed::Conflict)];
    let effects = shard.tell(Event::JobDone(JobDone::Commit(conflict)));
    let [Effect::Load { number, look_up, .. }] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(look_up.targets, [Seq(3)]);
    let asked = (*number, look_up.clone());
    assert_eq!(shard.finds(asked, 901, vec![(Seq(3), message(sender))]), []);
}

/// Otherwise a retry whose first attempt succeeded would be told that the message is gone.
#[test]
fn a_deletion_that_comes_again_is_answered_before_its_target_is_looked_at() {
    let mut shard = Shard::new();
    shard.send();
    shard.committed();
    let (request, _) = shard.act(0, EntryKind::Delete, 1);
    assert_eq!(shard.commits(), [EntryKind::Delete]);
    let sender = shard.people[0];
    let entry = NewEntry {
        kind: EntryKind::Delete,
        ..NewEntry::message(sender, DeviceId(sender.0), request, [0; 16], Bytes::new())
    };
    let (origin, chat) = (CALL, shard.chat);
    let again = Event::Send {
        origin,
        chat,
        peer: None,
        entry,
    };
    let outcomes: Vec<_> = shard.tell(again).into_iter().filter_map(outcome).collect();
    assert!(
        matches!(outcomes[..], [Outcome::Sent(Ok(place))] if place.seq == Seq(2)),
        "{outcomes:?}"
    );
}

#[test]
fn an_edit_that_comes_with_a_deletion_is_decided_after_it() {
    let mut shard = Shard::new();
    shard.send();
    shard.committed();
    shard.act(0, EntryKind::Delete, 1);
    shard.act(0, EntryKind::Edit, 1);
    shard.act(1, EntryKind::Reaction, 1);
    assert_eq!(shard.commits(), [EntryKind::Delete]);
    let asked = shard.asks_for();
    let erased = Target {
        erased: true,
        ..message(shard.people[0])
    };
    let outcomes = shard.finds(asked, 2, vec![(Seq(1), erased)]);
    let gone = Outcome::Sent(Err(Refusal::TargetNotFound));
    assert_eq!(outcomes, [gone.clone(), gone]);
}

#[test]
fn reactions_of_several_people_share_a_commit_and_two_of_one_person_do_not() {
    let mut shard = Shard::new();
    shard.send();
    shard.committed();
    for person in [0, 1, 1] {
        shard.act(person, EntryKind::Reaction, 1);
    }
    assert_eq!(shard.commits(), [EntryKind::Reaction; 2]);
    assert_eq!(shard.commits(), [EntryKind::Reaction]);
}

/// The store refuses the commit by its own count, so nothing is looked up for acts that are within the bound.
#[test]
fn an_act_too_many_is_refused_once_the_store_has_counted() {
    let mut shard = Shard::new();
    shard.send();
    shard.committed();
    let (author, fan) = (shard.people[0], shard.people[1]);
    shard.act(1, EntryKind::Reaction, 1);
    assert!(matches!(shard.job(), Some(Job::Commit(_))), "it is not looked up");
    let conflict = vec![(shard.chat, Committed::Conflict)];
    let effects = shard.tell(Event::JobDone(JobDone::Commit(conflict)));
    let Some(Effect::Load { number, look_up, .. }) = effects.into_iter().next() else {
        panic!("no load")
    };
    let acts = Acts {
        target: Seq(1),
        user: fan,
        kind: EntryKind::Reaction,
    };
    assert_eq!(look_up.acts, [acts]);
    let snapshot = Snapshot {
        head: Seq(1),
        looked_up: look_up.requests,
        targets: vec![(Seq(1), message(author))],
        acts: vec![(acts, MAX_ACTS_PER_PERSON)],
        ..shard.snapshot()
    };
    let (chat, result) = (shard.chat, Ok(Some(snapshot)));
    shard.tell(Event::Loaded { chat, number, result });
    let mut effects = Vec::new();
    let job = any_job(&mut shard.state, shard.now, &mut effects);
    assert!(job.is_none(), "{job:?}");
    let outcomes: Vec<_> = effects.into_iter().filter_map(outcome).collect();
    assert_eq!(outcomes, [Outcome::Sent(Err(Refusal::TooManyActs))]);

    shard.act(0, EntryKind::Reaction, 1);
    shard.act(0, EntryKind::Edit, 1);
    assert_eq!(shard.commits(), [EntryKind::Reaction], "others are not concerned");
    assert_eq!(shard.commits(), [EntryKind::Edit]);
}

#[test]
fn what_is_done_to_a_message_makes_no_chat() {
    let mut shard = Shard::new();
    shard.state = ShardState::default();
    let [author, peer] = shard.people;
    for kind in [
        EntryKind::Edit,
        EntryKind::Delete,
        EntryKind::Reaction,
        EntryKind::Pin,
    ] {
        let effects = shard.do_this(about(author, kind, 1, false), Some(peer));
        let [Effect::Load { number, create, .. }] = &effects[..] else {
            panic!("{kind:?}: {effects:?}")
        };
        assert_eq!(*create, None, "{kind:?}");
        let (chat, number) = (shard.chat, *number);
        let result = Ok(None);
        let effects = shard.tell(Event::Loaded { chat, number, result });
        let outcomes: Vec<_> = effects.into_iter().filter_map(outcome).collect();
        assert_eq!(outcomes, [Outcome::Sent(Err(Refusal::NotAMember))], "{kind:?}");
    }
    let message = NewEntry {
        about: None,
        ..about(author, EntryKind::Message, 1, false)
    };
    let effects = shard.do_this(message, Some(peer));
    assert!(
        matches!(&effects[..], [Effect::Load { create: Some(_), .. }]),
        "{effects:?}"
    );
}

#[test]
fn after_a_block_people_take_back_what_they_said_and_do_nothing_else() {
    let cases = [
        (EntryKind::Delete, false, true),
        (EntryKind::Reaction, true, true),
        (EntryKind::Reaction, false, false),
        (EntryKind::Edit, false, false),
        (EntryKind::Pin, false, false),
        (EntryKind::Pin, true, false),
    ];
    for (kind, take_back, is_taken) in cases {
        let mut shard = Shard::new();
        let author = shard.people[0];
        shard.do_this(about(author, kind, 3, take_back), None);
        let (number, look_up) = shard.asks_for();
        let snapshot = Snapshot {
            head: Seq(900),
            blocked: true,
            looked_up: look_up.requests,
            targets: vec![(Seq(3), message(author))],
            ..shard.snapshot()
        };
        let (chat, result) = (shard.chat, Ok(Some(snapshot)));
        shard.tell(Event::Loaded { chat, number, result });
        let mut effects = Vec::new();
        let job = any_job(&mut shard.state, shard.now, &mut effects);
        let case = format!("{kind:?}, taken back: {take_back}");
        assert_eq!(matches!(job, Some(Job::Commit(_))), is_taken, "{case}: {job:?}");
        let outcomes: Vec<_> = effects.into_iter().filter_map(outcome).collect();
        let refused = Outcome::Sent(Err(Refusal::NotAccepted));
        let expected = if is_taken { Vec::new() } else { vec![refused] };
        assert_eq!(outcomes, expected, "{case}");
    }
}
