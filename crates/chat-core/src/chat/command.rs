//! Commands that wait to be committed, and the answers to commands that become no entry or are committed already.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tern_types::{RequestId, Timestamp, UserId};

use super::Chat;
use super::acts::Acts;
use crate::bytes::Share;
use crate::change::Change;
use crate::content;
use crate::entry::{FORGOTTEN, Fingerprint, NewEntry};
use crate::recent::{Known, Placed};
use crate::target::About;
use crate::{Origin, Outcome, Place, Refusal};

/// The bytes that a command takes in memory besides its content.
const COMMAND_BYTES: usize = 256;
/// A command that waits to be committed.
#[derive(Debug)]
pub struct Waiting {
    /// The callers that wait. There are several if the same request came again, and none if they were all told to send
    /// it again while it was at the writer.
    pub origins: Vec<Origin>,
    /// The time at which the first of these callers began to wait, by the monotonic clock.
    pub since: Timestamp,
    /// The command.
    pub command: Command,
    /// True if the last load has looked this request up, and found that it is not in the log. If false, the request may
    /// be an older one than the chat remembers, and only the store knows its answer (rule 5).
    pub looked_up: bool,
    /// The command's bytes, which are counted in its shard and in its chat until this is dropped.
    _room: [Share; 2],
}

/// A request of a caller that the chat decides on.
#[derive(Debug, Clone)]
pub enum Command {
    /// The caller sends this entry.
    Send(Arc<NewEntry>),
    /// The caller changes the group.
    Change(Box<Change>),
}

impl Command {
    /// Returns roughly the bytes that the command takes in memory.
    pub fn bytes(&self) -> usize {
        let content = match self {
            Self::Send(entry) => entry.content.len(),
            Self::Change(change) => change.action.bytes(),
        };
        COMMAND_BYTES + content
    }

    /// Returns the time at which the caller began to wait, which is `now` or earlier: a message may have been delayed
    /// on its way from the link or service to the shard.
    pub fn since(&self, now: Timestamp) -> Timestamp {
        let sending = match self {
            Self::Send(entry) => &entry.sending,
            Self::Change(change) => &change.sending,
        };
        sending.arrived.map_or(now, |arrived| arrived.min(now))
    }

    /// Returns the key of the request: a sender has one result for each request_id (rule 5).
    pub(super) fn request(&self) -> (UserId, RequestId) {
        match self {
            Self::Send(entry) => (entry.sender, entry.request),
            Self::Change(change) => (change.actor, change.request),
        }
    }

    /// Returns the earlier message that the command is about; `None` if it stands alone.
    pub(super) fn about(&self) -> Option<&About> {
        match self {
            Self::Send(entry) => entry.about.as_ref(),
            Self::Change(_) => None,
        }
    }

    /// Returns the acts among which the command counts; `None` if it is not counted.
    pub(super) fn acts(&self) -> Option<Acts> {
        match self {
            Self::Send(entry) => Acts::of(entry),
            Self::Change(_) => None,
        }
    }

    /// Returns the fingerprint of the request.
    pub(super) fn fingerprint(&self) -> Fingerprint {
        match self {
            Self::Send(entry) => entry.fingerprint,
            Self::Change(change) => change.fingerprint,
        }
    }

    /// Returns whether a command with the same request_id as `other` is a repetition of it: of the same kind and with
    /// the same content.
    fn repeats(&self, other: &Self) -> bool {
        let same_kind = std::mem::discriminant(self) == std::mem::discriminant(other);
        same_kind && self.fingerprint() == other.fingerprint()
    }

    /// Returns the answer that the command's entry is committed at this place.
    pub(crate) fn placed(&self, place: Place) -> Outcome {
        match self {
            Self::Send(_) => Outcome::Sent(Ok(place)),
            Self::Change(_) => Outcome::Changed(Ok(Some(place))),
        }
    }

    /// Returns the answer that the command is refused.
    pub(crate) fn refused(&self, refusal: Refusal) -> Outcome {
        match self {
            Self::Send(_) => Outcome::Sent(Err(refusal)),
            Self::Change(_) => Outcome::Changed(Err(refusal.into())),
        }
    }
}

impl Waiting {
    /// Returns this answer for every caller that waits.
    pub(super) fn answers(&self, outcome: Outcome) -> impl Iterator<Item = (Origin, Outcome)> {
        let origins = self.origins.iter();
        origins.map(move |origin| (*origin, outcome.clone()))
    }

    /// Returns the refusal for every caller that waits.
    pub(super) fn refused(&self, refusal: &Refusal) -> impl Iterator<Item = (Origin, Outcome)> {
        self.answers(self.command.refused(refusal.clone()))
    }
}

impl Chat {
    /// Puts a command into the queue and returns `None`; the caller of a repetition waits with the first. Returns the
    /// answer if there is one at once: the request was answered before, or its request_id was used for something else.
    /// `room` is the command's bytes, and `since` the time at which its caller began to wait.
    pub fn enqueue(
        &mut self,
        origin: Origin,
        command: Command,
        room: [Share; 2],
        since: Timestamp,
    ) -> Option<Outcome> {
        if let Some(outcome) = self.repetition(&command) {
            return Some(outcome);
        }
        let request = command.request();
        let in_flight = self
            .in_flight
            .iter_mut()
            .flat_map(|(_, waiting)| waiting.iter_mut());
        if let Some(same) = in_flight
            .chain(self.queue.iter_mut())
            .find(|waiting| waiting.command.request() == request)
        {
            if !command.repeats(&same.command) {
                return Some(command.refused(Refusal::RequestIdReused));
            }
            if same.origins.is_empty() {
                same.since = since;
            }
            same.origins.push(origin);
            return None;
        }
        self.queue.push_back(Waiting {
            origins: vec![origin],
            since,
            command,
            looked_up: false,
            _room: room,
        });
        None
    }

    /// Answers the commands in the queue that are in the log already, and marks those of which the load found that they
    /// are not. It searches `placed` and not [`Recent`](crate::recent::Recent), which does not keep the older ones.
    pub(super) fn answer_placed(
        &mut self,
        placed: &[(UserId, RequestId, Placed)],
        looked_up: &[(UserId, RequestId)],
    ) -> Vec<(Origin, Outcome)> {
        let placed: HashMap<(UserId, RequestId), &Placed> = placed
            .iter()
            .map(|(user, request, placed)| ((*user, *request), placed))
            .collect();
        let looked_up: HashSet<&(UserId, RequestId)> = looked_up.iter().collect();
        let mut answers = Vec::new();
        for mut waiting in std::mem::take(&mut self.queue) {
            let request = waiting.command.request();
            match placed.get(&request) {
                Some(placed) => {
                    let outcome = self.answer_of(Known::Placed(**placed), &waiting.command);
                    answers.extend(waiting.answers(outcome));
                }
                None => {
                    waiting.looked_up = looked_up.contains(&request);
                    self.queue.push_back(waiting);
                }
            }
        }
        answers
    }

    /// Returns the time at which the caller who has waited longest began to wait; `None` if nobody waits.
    pub(crate) fn waits_since(&self) -> Option<Timestamp> {
        let in_flight = self.in_flight.iter().flat_map(|(_, waiting)| waiting);
        let waited_for = in_flight
            .chain(&self.queue)
            .filter(|waiting| !waiting.origins.is_empty());
        waited_for.map(|waiting| waiting.since).min()
    }

    /// Refuses every waiting command with `refusal`. A batch at the writer cannot be taken back. It stays, with nobody
    /// waiting for it, and the same request finds it when it is sent again. Callers of reloads wait on.
    pub fn give_up(&mut self, refusal: &Refusal) -> Vec<(Origin, Outcome)> {
        let mut answers = Vec::new();
        for waiting in self.in_flight.iter_mut().flat_map(|(_, waiting)| waiting) {
            answers.extend(waiting.refused(refusal));
            waiting.origins.clear();
        }
        for waiting in self.queue.drain(..) {
            answers.extend(waiting.refused(refusal));
        }
        debug_assert!(
            self.waits_since().is_none(),
            "every caller of a command is refused"
        );
        answers
    }

    /// Answers every waiting caller with `refusal`, and forgets the queue and the batch at the writer.
    pub(crate) fn refuse_all(&mut self, refusal: &Refusal) -> Vec<(Origin, Outcome)> {
        self.answer_all(
            |command| command.refused(refusal.clone()),
            &Outcome::Noted(Err(refusal.clone())),
        )
    }

    /// Tells every waiting caller that this node is not the chat's owner, and forgets the queue and the batch at the
    /// writer.
    pub(crate) fn turn_away(&mut self) -> Vec<(Origin, Outcome)> {
        self.answer_all(|_| Outcome::NotOwner, &Outcome::NotOwner)
    }

    /// Answers the callers of every command with what `of_command` returns for it, and the callers of reloads with
    /// `of_reload`. Forgets the queue and the batch at the writer.
    fn answer_all(
        &mut self,
        of_command: impl Fn(&Command) -> Outcome,
        of_reload: &Outcome,
    ) -> Vec<(Origin, Outcome)> {
        let in_flight = self.in_flight.take().map(|(_, taken)| taken).unwrap_or_default();
        let mut answers = Vec::new();
        for waiting in in_flight.into_iter().chain(self.queue.drain(..)) {
            answers.extend(waiting.answers(of_command(&waiting.command)));
        }
        let reloads = self.reloads.drain(..);
        answers.extend(reloads.map(|origin| (origin, of_reload.clone())));
        answers
    }

    /// Returns the answer to a command whose request has a result that is remembered.
    fn repetition(&self, command: &Command) -> Option<Outcome> {
        let (sender, request) = command.request();
        let known = self.recent.get(sender, request)?;
        Some(self.answer_of(*known, command))
    }

    /// Returns the answer to a command whose request has this result: the result again, or a refusal if the command has
    /// another content.
    fn answer_of(&self, known: Known, command: &Command) -> Outcome {
        let same = match known {
            // The content of an erased entry is not known any more, so the request_id alone tells a repetition. Its answer
            // is a seq and a time, which say nothing of the content.
            Known::Placed(placed) => {
                placed.erased || placed.fingerprint == FORGOTTEN || self.is_of(placed.fingerprint, command)
            }
            Known::Unchanged(fingerprint) => fingerprint == command.fingerprint(),
        };
        match (known, command) {
            (Known::Placed(placed), _) if same => command.placed(Place {
                chat: self.id,
                seq: placed.seq,
                sent_at: placed.sent_at,
            }),
            (Known::Unchanged(_), Command::Change(_)) if same => Outcome::Changed(Ok(None)),
            // The content is another one; or this is a message, and the request was a change that made no entry.
            _ => command.refused(Refusal::RequestIdReused),
        }
    }

    /// Returns whether `known` is the fingerprint of the command's request, as the request has it or as the store keeps
    /// it.
    fn is_of(&self, known: Fingerprint, command: &Command) -> bool {
        let own = command.fingerprint();
        let stored = || self.key.as_ref().map(|key| content::keyed(own, &key.0));
        known == own || stored() == Some(known)
    }
}
