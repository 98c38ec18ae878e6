//! This module asks the server for what the device misses: all chats once, then each chat that turns up unknown or to
//! which the person is added again, and entries that do not come.

use std::time::Duration;

use tern_proto::v1::ErrorReason;
use tern_proto::v1::entry_content::Content;
use tern_types::{ChatId, Seq, Timestamp, UserId};

use super::chat_state::{ChatState, LookUp};
use super::{Call, Change, Engine};
use crate::error::CallError;
use crate::model::{ChatList, Entry, ListedChat};

/// The time for which entries are held before the missing ones below them are read by ListEntries. The server repeats
/// entries within some seconds, so after this time they will not come by themselves. Example: the device acknowledged
/// entries that its own store then lost, because a backup of it was restored.
const GAP_TIMEOUT: Duration = Duration::from_secs(15);
/// The number of refusals by ListEntries, [`GAP_TIMEOUT`] apart, after which entries are given up that are missing from a
/// chat that the person has left: two minutes. The gateway reads the inbox of each of its devices about once a minute, so
/// it has sent by then whatever waits for the device. Time alone would not do: a device that slept, or whose stream is
/// dead, has got nothing meanwhile.
const GIVE_UP: u32 = 8;
/// The same if the entry that removed the person has not come: an hour. Perhaps the server cannot read the log at
/// present. If it never comes, the device had acknowledged it, and its store was restored from a backup.
const GIVE_UP_BEFORE_REMOVAL: u32 = 240;
/// The shortest time before a call that failed is made again. The server may ask for more.
const CALL_RETRY: Duration = Duration::from_secs(2);

/// The shortest time after which chats are listed again if some were missing.
pub(super) const PARTIAL_RETRY: Duration = Duration::from_secs(5);

/// The listing of all chats, which is needed once.
#[derive(Debug)]
pub struct Listing {
    /// True if all chats have been listed once.
    pub(super) done: bool,
    /// The state of the call that lists them.
    state: LookUp,
}

impl Listing {
    /// Makes a listing without a call under way. `done` says that all chats have been listed already.
    pub fn new(done: bool) -> Self {
        Self {
            done,
            state: LookUp::Idle,
        }
    }
}

impl Engine {
    /// Makes the call that lists all chats, unless that was done, is under way, or pauses after a failure.
    pub(super) fn list_chats_if_needed(&mut self, now: Timestamp) {
        let may = match self.listing.state {
            LookUp::Idle => true,
            LookUp::Running | LookUp::Outdated => false,
            LookUp::Again(at) => at <= now,
        };
        if !self.listing.done && may {
            self.listing.state = LookUp::Running;
            self.effects.calls.push(Call::ListChats);
        }
    }

    /// Takes the answer to the listing of all chats. If chats are missing from it, all are listed again later.
    pub(super) fn listed(&mut self, result: Result<ChatList, CallError>, now: Timestamp) {
        match result {
            Ok(list) if list.partial && !self.listing.done => {
                self.listing.state = LookUp::Again(now + self.spread(PARTIAL_RETRY));
                for listed in list.chats {
                    self.learn(listed, now);
                }
            }
            Ok(list) => {
                self.listing = Listing::new(true);
                for listed in list.chats {
                    let (chat, overtaken) = (listed.chat.id, self.has_overtaken(&listed));
                    self.learn(listed, now);
                    if overtaken && let Some(state) = self.chats.get_mut(&chat) {
                        state.recount = true;
                        self.recount(chat);
                    }
                }
                for chat in self.waiting.clone() {
                    self.begin(chat, now);
                }
                self.effects.changes.push(Change::Listed);
            }
            // The chats are listed, so no further attempt is due.
            Err(_) if self.listing.done => {}
            Err(error) => self.listing.state = LookUp::Again(again(&error, now)),
        }
    }

    /// Returns a time that is longer than this one by up to a half, different for each device: those to whom the server
    /// said the same at the same time do not come back together.
    fn spread(&self, time: Duration) -> Duration {
        time + time / 512 * (self.me.device.0.as_u128() % 256) as u32
    }

    /// Returns whether entries have overtaken a list that says something of a known chat. The store of an earlier version
    /// may lack what the list says, and [`Self::learn`] does not take it, so the chat is asked for once more.
    fn has_overtaken(&self, listed: &ListedChat) -> bool {
        let state = self.chats.get(&listed.chat.id);
        state.is_some_and(|state| state.row.known && state.cursor.at() > Some(listed.chat.head))
    }

    /// Takes what the server says about a chat. An unknown cursor starts at the answer's `resume`.
    fn learn(&mut self, listed: ListedChat, now: Timestamp) {
        let (id, head, resume) = (listed.chat.id, listed.chat.head, listed.resume);
        let state = self.chats.entry(id).or_insert_with(|| ChatState::unknown(id));
        let at = state.cursor.at().unwrap_or(resume);
        // The answer may be older than entries that this device has applied already. Of a chat that is known it then
        // says nothing new.
        if head >= at || !state.row.known {
            state.learn(listed);
        }
        state.look_up = if state.row.known {
            LookUp::Idle
        } else {
            LookUp::Again(now + CALL_RETRY)
        };
        if state.cursor.at().is_none() {
            let entries = state.cursor.start(resume);
            self.applied(id, entries, now);
        }
        self.watch(id);
        self.dirty.insert(id);
    }

    /// Takes the answer to the look-up of one chat.
    pub(super) fn looked_up(&mut self, chat: ChatId, result: Result<ListedChat, CallError>, now: Timestamp) {
        match result {
            Ok(listed) => self.learn(listed, now),
            Err(error) if error.reason == ErrorReason::ChatNotFound => self.not_a_member(chat, now),
            Err(error) => {
                // A chat that is known waits for nothing: it is asked for again with its next entry.
                if let Some(state) = self.chats.get_mut(&chat) {
                    state.look_up = if state.row.known {
                        LookUp::Idle
                    } else {
                        LookUp::Again(again(&error, now))
                    };
                }
            }
        }
    }

    /// Notes that the person is not a member any more. Nothing more will come for the chat, so an unknown cursor begins
    /// just below the first held entry. At least the entry that removed the person is held. The chat stays as it is
    /// known until an entry adds the person again.
    fn not_a_member(&mut self, chat: ChatId, now: Timestamp) {
        let Some(state) = self.chats.get_mut(&chat) else {
            return;
        };
        // An answer that an entry or another answer has overtaken says nothing.
        if std::mem::replace(&mut state.look_up, LookUp::Idle) != LookUp::Running {
            return;
        }
        state.row.known = true;
        state.row.chat.left = true;
        let first = state.cursor.first_held().map_or(Seq::ZERO, Seq::previous);
        let entries = state.cursor.start(first);
        self.applied(chat, entries, now);
    }

    /// Starts the times of all gaps anew on a new stream, because the server first sends on it what waits.
    pub(super) fn restart_gaps(&mut self, now: Timestamp) {
        for chat in &self.waiting {
            if let Some(state) = self.chats.get_mut(chat) {
                state.gap_since = state.gap_since.map(|_| now);
                state.refusals = 0;
            }
        }
    }

    /// Asks for chats that turned up unknown, and for entries that are missing although there is a stream. It asks for
    /// nothing before all chats have been listed, since the listing may answer.
    pub(super) fn look_up_unknown(&mut self, now: Timestamp) {
        if !self.listing.done {
            return;
        }
        let open = self.session.open();
        for chat in &self.waiting {
            let Some(state) = self.chats.get_mut(chat) else {
                continue;
            };
            if !state.row.known && state.look_up == LookUp::Idle {
                state.look_up = LookUp::Running;
                self.effects.calls.push(Call::GetChat(*chat));
            }
            let due = open && state.gap_since.is_some_and(|since| since + GAP_TIMEOUT <= now);
            if due && state.fill == LookUp::Idle {
                state.fill = LookUp::Running;
                let from = state.cursor.at().unwrap_or_default().next();
                tracing::warn!(%chat, %from, "entries missing, reading them");
                self.effects.calls.push(Call::Fill { chat: *chat, from });
            }
        }
    }

    /// Takes the answer to the call that reads one page of missing entries.
    pub(super) fn filled(&mut self, chat: ChatId, result: Result<Vec<Entry>, CallError>, now: Timestamp) {
        let Some(state) = self.chats.get_mut(&chat) else {
            return;
        };
        match result {
            Ok(entries) => {
                let (since, before) = (state.gap_since, state.cursor.at());
                (state.fill, state.refusals) = (LookUp::Idle, 0);
                // ListEntries leaves out entries that this person may not see, so the cursor may rise to just below the
                // first entry of its answer.
                if let Some(first) = entries.first() {
                    let before = state.cursor.skip(first.seq.previous());
                    self.applied(chat, before, now);
                }
                for entry in entries {
                    self.offer(entry, now);
                }
                if let Some(state) = self.chats.get_mut(&chat) {
                    // A page that brings entries is followed by the next one at once. After one that brings none, the
                    // gap has to last as long as before the first one.
                    state.gap_since = since.filter(|_| state.cursor.at() > before);
                    state.watch_gap(false, now);
                }
                self.watch(chat);
            }
            Err(error) if error.reason == ErrorReason::ChatNotFound => self.not_to_be_read(chat, now),
            Err(error) => (state.fill, state.refusals) = (LookUp::Again(again(&error, now)), 0),
        }
    }

    /// Notes that missing entries cannot be read, because the person is not a member any more. They can only come by
    /// the stream. When that has had time enough to bring them, the cursor rises to just below the first held entry, so
    /// that the entry that removed the person is applied.
    fn not_to_be_read(&mut self, chat: ChatId, now: Timestamp) {
        let (waiting_sent, me) = (self.caught_up || self.caught_up_before, self.me.user);
        let Some(state) = self.chats.get_mut(&chat) else {
            return;
        };
        state.refusals += 1;
        let removed = state.cursor.holds(|entry| removes(entry, me));
        let refusals = if removed { GIVE_UP } else { GIVE_UP_BEFORE_REMOVAL };
        let over = waiting_sent && state.refusals >= refusals;
        state.fill = if over {
            LookUp::Idle
        } else {
            LookUp::Again(now + GAP_TIMEOUT)
        };
        if let Some(first) = state.cursor.first_held().filter(|_| over) {
            tracing::warn!(%chat, below = %first, "missing entries given up, the person has left");
            let entries = state.cursor.skip(first.previous());
            self.applied(chat, entries, now);
        }
    }

    /// Returns whether all chats have been listed, and each chat is known or has a cursor. Then CaughtUp may be told.
    pub(super) fn nothing_looked_up(&self) -> bool {
        let begun = |chat| {
            self.chats
                .get(chat)
                .is_none_or(|state| state.row.known || state.cursor.at().is_some())
        };
        self.listing.done && self.waiting.iter().all(begun)
    }

    /// Makes calls due again whose pause after a failure is over.
    pub(super) fn tick_chats(&mut self, now: Timestamp) {
        if matches!(self.listing.state, LookUp::Again(at) if at <= now) {
            self.list_chats_if_needed(now);
        }
        for chat in &self.waiting {
            let Some(state) = self.chats.get_mut(chat) else {
                continue;
            };
            for look_up in [&mut state.look_up, &mut state.fill] {
                if matches!(look_up, LookUp::Again(at) if *at <= now) {
                    *look_up = LookUp::Idle;
                }
            }
        }
    }

    /// Returns the time at which the next call about chats is due.
    pub(super) fn chats_wake(&self) -> Option<Timestamp> {
        let reads = self.listing.done && self.session.open();
        let again = |look_up: LookUp| {
            if let LookUp::Again(at) = look_up {
                Some(at)
            } else {
                None
            }
        };
        let chats = self
            .waiting
            .iter()
            .filter_map(|chat| self.chats.get(chat))
            .flat_map(|state| {
                let idle = reads && state.fill == LookUp::Idle;
                let gap = state.gap_since.filter(|_| idle).map(|since| since + GAP_TIMEOUT);
                [again(state.look_up), again(state.fill), gap]
            });
        chats.chain([again(self.listing.state)]).flatten().min()
    }
}

/// Returns the time at which a call that failed with `error` is made again.
pub(super) fn again(error: &CallError, now: Timestamp) -> Timestamp {
    let at = now + error.retry_after.unwrap_or_default().max(CALL_RETRY);
    debug_assert!(at > now, "a call that failed is not made again at once");
    at
}

/// Returns whether the entry removed this person from the chat.
fn removes(entry: &Entry, me: UserId) -> bool {
    match &entry.content.content {
        Some(Content::MemberRemoved(removed)) => removed.user_id == me.to_string(),
        _ => false,
    }
}
