//! The people who are typing in a chat. Each person's typing is passed on once in 3 s, however many devices it comes
//! from.

use std::collections::HashMap;
use std::time::Duration;

use tern_types::typing::Typist;
use tern_types::{Timestamp, UserId};

/// The time by which the next sign of typing may come earlier than 3 s after the last. It is twice what a gateway
/// allows, because two signs may come through two gateways, whose links are not equally fast.
const LEEWAY: Duration = Duration::from_secs(1);

/// The people who have typed lately. There are at most as many as members in a chat that passes typing on.
#[derive(Debug, Default)]
pub struct Typists(HashMap<UserId, Typist>);

impl Typists {
    /// Decides whether others are told that the user is typing or, with `stopped`, that they stopped.
    pub fn take(&mut self, user: UserId, stopped: bool, now: Timestamp) -> bool {
        self.0.retain(|_, typist| !typist.is_over(now));
        let mut typist = self.0.get(&user).copied().unwrap_or_default();
        let passes = typist.take(stopped, LEEWAY, now);
        if passes {
            debug_assert!(
                !typist.is_over(now),
                "whose typing is passed on is remembered for a while"
            );
            self.0.insert(user, typist);
        }
        passes
    }

    /// Notes that the user sent a message, which ends their typing.
    pub fn wrote(&mut self, user: UserId, now: Timestamp) {
        if let Some(typist) = self.0.get_mut(&user) {
            typist.wrote(now);
        }
    }
}
