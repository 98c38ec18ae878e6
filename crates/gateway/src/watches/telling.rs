//! Puts the states of users into the mailboxes of the sessions that watch them.
//!
//! A change of a user with several watchers waits in a queue, so that the table is not locked until all of them are told.
//! When its turn comes the table is asked again what each of them is to be told, and what a session alone is told goes
//! into its mailbox at once, both under the table's lock. So a session is told the states of a user in their order.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tern_proto::raw;
use tern_proto::v1::{self, PresenceState, server_event};
use tern_types::{Clock, SessionId, UserId};
use tokio::sync::mpsc;

use tern_gateway_core::watches::{State, Table};

use super::Watches;
use crate::metrics;

/// The most changes that wait to be told, each of a user with several watchers. A change that finds no room is told
/// [`TELL_AGAIN`] later.
pub(super) const TELLINGS: usize = 4096;
/// The pause before watchers are told of a change that found no room.
const TELL_AGAIN: Duration = Duration::from_secs(1);
/// The most sessions that are told of a change before the task that tells them lets others have the table.
const TOLD_AT_ONCE: usize = 128;

/// A user's state on its way into several mailboxes.
pub(super) struct Told {
    user: UserId,
    state: State,
    sessions: Vec<SessionId>,
}

impl Watches {
    /// Puts the user's state into the sessions' mailboxes: into one at once, into several by a task, so that the caller
    /// does not wait. If that task's queue is full they are told later.
    pub(super) fn tell(&self, table: &mut Table, user: UserId, state: State, sessions: Vec<SessionId>) {
        if let [session] = sessions[..] {
            metrics::presence_told(1);
            return self.put(table, session, user, event(user, state));
        }
        let told = Told {
            user,
            state,
            sessions,
        };
        if self.told.try_send(told).is_err() {
            table.again(user, Clock::monotonic() + TELL_AGAIN);
        }
    }

    /// Puts the queued states into their sessions' mailboxes.
    pub(super) async fn tell_all(self: Arc<Self>, mut telling: mpsc::Receiver<Told>) {
        while let Some(told) = telling.recv().await {
            for sessions in told.sessions.chunks(TOLD_AT_ONCE) {
                self.tell_some(told.user, told.state, sessions);
                tokio::task::yield_now().await;
            }
        }
    }

    /// Puts a state that was queued into the mailboxes of those sessions that are still to be told it. The table is asked
    /// and stays locked meanwhile, so that no session is told a newer state first, or that it may not see the user.
    fn tell_some(&self, user: UserId, state: State, sessions: &[SessionId]) {
        let mut table = self.table();
        let mut encoded = (state, event(user, state));
        let mut told = 0;
        for session in sessions {
            let Some(state) = table.to_tell(*session, user, state) else {
                continue;
            };
            if encoded.0 != state {
                encoded = (state, event(user, state));
            }
            self.put(&mut table, *session, user, encoded.1.clone());
            told += 1;
        }
        metrics::presence_told(told);
    }

    /// Puts the user's state into the session's mailbox, and the answer to a WatchPresence behind it if that has waited
    /// for this state last. The caller holds the table's lock.
    fn put(&self, table: &mut Table, session: SessionId, user: UserId, event: Bytes) {
        if let Some(session) = self.registry.get(session) {
            session.mailbox.push_seen(user, event);
        }
        let answer = table.came(session, user);
        if !answer.is_empty() {
            self.perform(table, answer);
        }
    }
}

fn event(user: UserId, state: State) -> Bytes {
    let (state, last_seen_ms) = match state {
        State::Hidden => (PresenceState::Hidden, 0),
        State::Online => (PresenceState::Online, 0),
        State::Offline(at) => (PresenceState::Offline, at.0),
    };
    raw::event(server_event::Event::Presence(v1::Presence {
        user_id: user.to_string(),
        state: state.into(),
        last_seen_ms,
    }))
}
