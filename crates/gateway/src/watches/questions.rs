//! Keeps the questions to accounts that have no answer yet, and marks those whose answers may be out of date.
//! If settings change while a question is open, accounts may have read the old ones for the answer.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tern_types::UserId;

/// The questions of this gateway that accounts have not answered yet.
#[derive(Debug, Default)]
pub struct Questions(Mutex<Open>);

#[derive(Debug, Default)]
struct Open {
    /// The number of the last question.
    last: u64,
    questions: Vec<Asked>,
}

#[derive(Debug)]
struct Asked {
    number: u64,
    /// The watcher, and those who are to be watched.
    concerns: HashSet<UserId>,
    is_stale: bool,
}

/// An open question to accounts. Dropping it ends the question.
pub struct Question<'a> {
    all: &'a Questions,
    number: u64,
}

impl Questions {
    /// Begins a question about these users: the watcher, and those who are to be watched.
    pub fn begin(&self, concerns: HashSet<UserId>) -> Question<'_> {
        let mut open = self.lock();
        open.last += 1;
        let number = open.last;
        open.questions.push(Asked {
            number,
            concerns,
            is_stale: false,
        });
        Question { all: self, number }
    }

    /// Marks the questions about these users, whose settings have changed, since their answers may be out of date.
    pub fn settings_changed(&self, users: &HashSet<UserId>) {
        for asked in &mut self.lock().questions {
            asked.is_stale |= !asked.concerns.is_disjoint(users);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Question<'_> {
    /// Returns whether the question's answer may be out of date.
    pub fn is_stale(&self) -> bool {
        let open = self.all.lock();
        open.questions
            .iter()
            .any(|asked| asked.number == self.number && asked.is_stale)
    }
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        self.all
            .lock()
            .questions
            .retain(|asked| asked.number != self.number);
    }
}
