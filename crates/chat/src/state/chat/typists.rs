//! Who has just said that they write: each is passed on once in 3 s, from however many devices it comes.

use std::collections::HashMap;
use std::time::Duration;

use tern_types::typing::Typist;
use tern_types::{Timestamp, UserId};

/// Twice what a gateway allows: the ways to two of its own and from there to here are not equally long.
const LEEWAY: Duration = Duration::from_secs(1);

/// At most as many as there are members in a chat that takes typing.
#[derive(Debug, Default)]
pub struct Typists(HashMap<UserId, Typist>);

impl Typists {
    /// Whether others are told.
    pub fn take(&mut self, user: UserId, stopped: bool, now: Timestamp) -> bool {
        self.0.retain(|_, typist| !typist.is_over(now));
        let mut typist = self.0.get(&user).copied().unwrap_or_default();
        let passes = typist.take(stopped, LEEWAY, now);
        if passes {
            self.0.insert(user, typist);
        }
        passes
    }

    /// A message of theirs ends it.
    pub fn wrote(&mut self, user: UserId, now: Timestamp) {
        if let Some(typist) = self.0.get_mut(&user) {
            typist.wrote(now);
        }
    }
}
