//! The steps that may happen in the world.

use proptest::sample::Index;
use tern_chat_core::shard::Lane;
use tern_chat_core::{Change, EntryKind, NewEntry};
use tern_types::RequestId;

/// The members who may come and go. Alice owns the group and stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Member {
    Bob,
    Carol,
}

/// A step. `node` is 0 or 1, and an `Index` selects one of the devices or requests that there are.
#[derive(Debug, Clone)]
pub enum Step {
    /// Sends a new message from a device.
    Send { node: usize, device: Index },
    /// Does something to an entry of the log on behalf of a device, or takes it back.
    Do {
        node: usize,
        device: Index,
        kind: EntryKind,
        target: Index,
        take_back: bool,
    },
    /// Sends any request once more, answered or not.
    AskAgain { node: usize, which: Index },
    /// Adds a member on behalf of the system.
    Add { node: usize, member: Member },
    /// Removes a member on behalf of the system.
    Remove { node: usize, member: Member },
    /// Lets a member leave.
    Leave { node: usize, member: Member },
    /// Links another device of a user.
    Link { member: Member },
    /// Gives a writer that is free its next job.
    TakeJob { node: usize, lane: Lane },
    /// Lets the store execute a writer's job.
    RunJob { node: usize, lane: Lane },
    /// Ends a writer's job without an answer of the store. If it `landed`, the statement is executed.
    JobAway { node: usize, lane: Lane, landed: bool },
    /// Ends a writer's job because another transaction has locked the chat.
    JobLocked { node: usize, lane: Lane },
    /// Gives the state the result of a job that was executed or failed.
    FinishJob { node: usize, lane: Lane },
    /// Lets the store read for all of a node's loads. What it read reaches the node when the load ends.
    ReadLoads { node: usize },
    /// Ends a node's oldest load with what the store read for it, or with what the store has now.
    FinishLoad { node: usize },
    /// Ends a node's oldest load without an answer of the store.
    LoadAway { node: usize },
    /// Delivers a node's oldest push, or loses it.
    Push { node: usize, lost: bool },
    /// Performs a node's oldest wake, or lets it fail.
    Wake { node: usize, fails: bool },
    /// Sends a device's acknowledgement to a node.
    Ack { node: usize, device: Index },
    /// Lets time pass, in milliseconds.
    Time { ms: u64 },
    /// Ends a node and begins it anew with an empty memory.
    Crash { node: usize },
    /// Lets the store execute a late statement of a crashed node, and a node look for unsettled entries.
    Recover { node: usize },
    /// Takes a device offline.
    Disconnect { device: Index },
    /// Brings a device online.
    Connect { device: Index },
}

/// A request, which keeps its request_id.
#[derive(Debug, Clone)]
pub enum Request {
    Send(NewEntry),
    Change(Change),
}

impl Request {
    /// Returns the request_id.
    pub fn id(&self) -> RequestId {
        match self {
            Self::Send(entry) => entry.request,
            Self::Change(change) => change.request,
        }
    }
}
