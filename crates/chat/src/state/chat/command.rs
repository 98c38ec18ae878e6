//! Commands that wait for their place in a chat's log, and the answers to those that need none or get none.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tern_types::{RequestId, Timestamp, UserId};

use super::Chat;
use crate::state::bytes::Share;
use crate::state::change::Change;
use crate::state::entry::{Fingerprint, NewEntry};
use crate::state::recent::{Known, Placed};
use crate::state::{Origin, Outcome, Refusal};

/// What a command weighs besides its content.
const COMMAND_BYTES: usize = 256;
/// A command that waits for its place in the log.
#[derive(Debug)]
pub struct Waiting {
    /// One, or more where the same request came again meanwhile.
    /// None where all were told to come again while it was under way.
    pub origins: Vec<Origin>,
    /// Since when the first of them waits.
    pub since: Timestamp,
    pub command: Command,
    /// The snapshot that the chat stands on was asked for this request: it is new. Otherwise it may be older than
    /// what is remembered, and only the store knows its answer (rule 5).
    pub looked_up: bool,
    /// Its part of what may wait: in the chat and in the shard.
    _room: [Share; 2],
}

#[derive(Debug, Clone)]
pub enum Command {
    Send(Arc<NewEntry>),
    Change(Change),
}

impl Command {
    /// About what it takes in memory.
    pub fn bytes(&self) -> usize {
        let content = match self {
            Self::Send(entry) => entry.content.len(),
            Self::Change(change) => change.action.bytes(),
        };
        COMMAND_BYTES + content
    }

    /// Since when its answer is waited for. A call may have been delayed before it came here.
    pub fn since(&self, now: Timestamp) -> Timestamp {
        match self {
            Self::Send(entry) => entry.arrived.map_or(now, |arrived| arrived.min(now)),
            Self::Change(_) => now,
        }
    }

    pub(super) fn request(&self) -> (UserId, RequestId) {
        match self {
            Self::Send(entry) => (entry.sender, entry.request),
            Self::Change(change) => (change.actor, change.request),
        }
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        match self {
            Self::Send(entry) => entry.fingerprint,
            Self::Change(change) => change.fingerprint,
        }
    }
}

impl Chat {
    /// Takes a command; `Some` is its answer where there is one at once. `room`: held while it waits.
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
            if same.command.fingerprint() != command.fingerprint() {
                return Some(Outcome::Refused(Refusal::RequestIdReused));
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

    /// Answers whoever waits for what has its place already. The old ones among `placed` do not stay among the recent, so
    /// it is these that are asked.
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
                    answers.extend(waiting.origins.iter().map(|origin| (*origin, outcome.clone())));
                }
                None => {
                    waiting.looked_up = looked_up.contains(&request);
                    self.queue.push_back(waiting);
                }
            }
        }
        answers
    }

    /// Since when somebody waits for the place of a command.
    pub fn waits_since(&self) -> Option<Timestamp> {
        let in_flight = self.in_flight.iter().flat_map(|(_, waiting)| waiting);
        let waited_for = in_flight
            .chain(&self.queue)
            .filter(|waiting| !waiting.origins.is_empty());
        waited_for.map(|waiting| waiting.since).min()
    }

    /// Everybody who waits for a place is told `refusal`. What is under way stays there, with nobody waiting for it: it
    /// cannot be taken back, and the same request finds it.
    pub fn give_up(&mut self, refusal: &Refusal) -> Vec<(Origin, Outcome)> {
        let under_way = self.in_flight.iter_mut().flat_map(|(_, waiting)| waiting);
        let mut origins: Vec<Origin> = under_way
            .flat_map(|waiting| std::mem::take(&mut waiting.origins))
            .collect();
        origins.extend(self.queue.drain(..).flat_map(|waiting| waiting.origins));
        let refused = Outcome::Refused(refusal.clone());
        origins
            .into_iter()
            .map(|origin| (origin, refused.clone()))
            .collect()
    }

    /// Everybody who waits is told `refusal`.
    pub fn refuse_all(&mut self, refusal: &Refusal) -> Vec<(Origin, Outcome)> {
        self.answer_all(&Outcome::Refused(refusal.clone()))
    }

    /// Everybody who waits is told `outcome`.
    pub fn answer_all(&mut self, outcome: &Outcome) -> Vec<(Origin, Outcome)> {
        let in_flight = self.in_flight.take().map(|(_, taken)| taken).unwrap_or_default();
        let waiting = in_flight.into_iter().chain(self.queue.drain(..));
        waiting
            .flat_map(|waiting| waiting.origins)
            .chain(self.reloads.drain(..))
            .map(|origin| (origin, outcome.clone()))
            .collect()
    }

    fn repetition(&self, command: &Command) -> Option<Outcome> {
        let (sender, request) = command.request();
        let known = self.recent.get(sender, request)?;
        Some(self.answer_of(*known, command))
    }

    fn answer_of(&self, known: Known, command: &Command) -> Outcome {
        match known {
            _ if known.fingerprint() != command.fingerprint() => Outcome::Refused(Refusal::RequestIdReused),
            Known::Placed(placed) => Outcome::Placed {
                chat: self.id,
                seq: placed.seq,
                sent_at: placed.sent_at,
            },
            Known::Unchanged(_) => Outcome::Unchanged,
        }
    }
}
