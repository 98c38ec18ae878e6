//! The steps: what may happen in the world.

use proptest::sample::Index;
use tern_chat_core::shard::Lane;
use tern_chat_core::{Change, NewEntry};
use tern_types::RequestId;

/// The members who may come and go. Alice owns the group and stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Member {
    Bob,
    Carol,
}

#[derive(Debug, Clone)]
pub enum Step {
    Send {
        node: usize,
        device: Index,
    },
    /// Sends any request once more, answered or not.
    AskAgain {
        node: usize,
        which: Index,
    },
    Add {
        node: usize,
        member: Member,
    },
    Remove {
        node: usize,
        member: Member,
    },
    Leave {
        node: usize,
        member: Member,
    },
    Link {
        member: Member,
    },
    TakeJob {
        node: usize,
        lane: Lane,
    },
    RunJob {
        node: usize,
        lane: Lane,
    },
    /// The store does not answer. The statement may have been executed.
    JobAway {
        node: usize,
        lane: Lane,
        landed: bool,
    },
    /// Another transaction has locked the chat.
    JobHeld {
        node: usize,
        lane: Lane,
    },
    FinishJob {
        node: usize,
        lane: Lane,
    },
    FinishLoad {
        node: usize,
    },
    LoadAway {
        node: usize,
    },
    Push {
        node: usize,
        lost: bool,
    },
    Wake {
        node: usize,
        fails: bool,
    },
    Ack {
        node: usize,
        device: Index,
    },
    Time {
        ms: u64,
    },
    Crash {
        node: usize,
    },
    Recover {
        node: usize,
    },
    Disconnect {
        device: Index,
    },
    Connect {
        device: Index,
    },
}

/// A request, which keeps its request_id.
#[derive(Debug, Clone)]
pub enum Request {
    Send(NewEntry),
    Change(Change),
}

impl Request {
    pub fn id(&self) -> RequestId {
        match self {
            Self::Send(entry) => entry.request,
            Self::Change(change) => change.request,
        }
    }
}
