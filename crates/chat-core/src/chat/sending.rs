//! The rules for who may send by the group's policy, and how soon after their last message (slow mode). Back ends do not
//! wait, and the policy does not hold for the system. A message of any origin begins the wait of its sender.

use std::time::Duration;

use tern_types::Timestamp;

use super::batch::Batch;
use super::command::Command;
use super::{Chat, Role};
use crate::entry::NewEntry;
use crate::{EntryKind, Refusal};

impl Chat {
    /// Refuses a message or an edit that the group's policy does not allow its sender now. `wall` is the wall clock's
    /// time. Everybody may react and delete.
    pub(super) fn policy_allows(&self, entry: &NewEntry, wall: Timestamp) -> Result<(), Refusal> {
        let policy = &self.group.policy;
        if policy.send_role == Role::Member && policy.slow_mode == 0 {
            return Ok(());
        }
        let Some(member) = self.member(entry.sender) else {
            return Ok(());
        };
        let is_said = matches!(entry.kind, EntryKind::Message | EntryKind::Edit);
        if is_said && member.role < policy.send_role {
            return Err(Refusal::RoleTooLow);
        }
        // The entry would get this time, which is no earlier than that of the member's last message, also if a clock was
        // set back.
        let at = wall.max(self.last_sent_at);
        match self.wait_of(entry).zip(member.last_message) {
            Some((wait, last)) if at.since(last) < wait => Err(Refusal::SlowMode {
                retry_after: wait.saturating_sub(at.since(last)),
            }),
            _ => Ok(()),
        }
    }

    /// Returns whether slow mode concerns the command, and the batch has a message of its sender already. Whether the
    /// second one may follow is decided when the first is committed.
    pub(super) fn follows_too_soon(&self, batch: &Batch, command: &Command) -> bool {
        let Command::Send(new) = command else {
            return false;
        };
        let is_message_of = |entry: &NewEntry| entry.kind == EntryKind::Message && entry.sender == new.sender;
        self.wait_of(new).is_some() && batch.entries.iter().any(|entry| is_message_of(&entry.new))
    }

    /// Returns the time that has to lie between the sender's last message and this entry; `None` if slow mode does not
    /// concern it.
    fn wait_of(&self, entry: &NewEntry) -> Option<Duration> {
        let wait = self.group.policy.wait()?;
        let concerned = entry.kind == EntryKind::Message
            && !entry.is_of_back_end()
            && self.member(entry.sender)?.role == Role::Member;
        concerned.then_some(wait)
    }
}
