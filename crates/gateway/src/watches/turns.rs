//! Decides about which session accounts are asked next. New sets of people go first, since screens wait for them. The
//! checks of all sessions wait as long as there is a new set.

use tern_types::SessionId;
use tokio::sync::mpsc;

/// The most sessions that wait until accounts are asked about them: by default, twice as many as a gateway holds.
const QUEUE: usize = 200_000;
/// The most sessions that wait to be checked, so that a round of checks takes no memory for all sessions at once.
pub const CHECKS: usize = 64;

/// One thing to ask accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The session wants to watch a new set, or settings of people in its set have changed.
    Wanted(SessionId),
    /// The set of the session is to be checked in the round of all sessions.
    Check(SessionId),
}

/// The ends of both queues into which sessions are put.
pub struct Queues {
    /// The sessions with a new set, or with people in it whose settings have changed.
    pub wanted: mpsc::Sender<SessionId>,
    /// The sessions that are to be checked in the round of all sessions.
    pub checks: mpsc::Sender<SessionId>,
}

/// The ends of both queues from which sessions are taken.
pub struct Turns {
    wanted: mpsc::Receiver<SessionId>,
    checks: mpsc::Receiver<SessionId>,
}

/// Makes both queues.
pub fn queues() -> (Queues, Turns) {
    let (wanted, wanted_out) = mpsc::channel(QUEUE);
    let (checks, checks_out) = mpsc::channel(CHECKS);
    let turns = Turns {
        wanted: wanted_out,
        checks: checks_out,
    };
    (Queues { wanted, checks }, turns)
}

impl Turns {
    /// Waits for the next session. `None` if there will be none any more.
    pub async fn next(&mut self) -> Option<Next> {
        tokio::select! {
            biased;
            session = self.wanted.recv() => session.map(Next::Wanted),
            session = self.checks.recv() => session.map(Next::Check),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_new_screen_waits_for_no_check_that_was_queued_before_it() {
        let (queues, mut turns) = queues();
        for check in 1..=3 {
            queues.checks.send(SessionId(check)).await.expect("room");
        }
        queues.wanted.send(SessionId(9)).await.expect("room");
        assert_eq!(turns.next().await, Some(Next::Wanted(SessionId(9))));
        assert_eq!(turns.next().await, Some(Next::Check(SessionId(1))));
        queues.wanted.send(SessionId(8)).await.expect("room");
        assert_eq!(turns.next().await, Some(Next::Wanted(SessionId(8))));
        assert_eq!(turns.next().await, Some(Next::Check(SessionId(2))));
    }
}
