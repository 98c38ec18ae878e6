//! How far a member's own send moves their read mark, and which of their own messages lie after it: those are unread to
//! others, never to who wrote them.

use tern_types::{Seq, UserId};

use super::Chat;
use crate::state::entry::NewEntry;

/// A read mark that a send moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadBySending {
    pub upto: Seq,
    /// It passes entries of others: the sender's devices cannot know that by the entry.
    pub passes_others: bool,
}

impl Chat {
    /// What the member is taken to have read who sent the entry at `seq`: what their devices had acknowledged, and what they
    /// sent themselves right behind it. `None`: a back end sent it, which reads nothing.
    pub fn read_by_sending(&self, entry: &NewEntry, seq: Seq) -> Option<ReadBySending> {
        if entry.is_of_back_end() {
            return None;
        }
        let mark = self.receipts.mark(entry.sender);
        let had = mark.delivered.max(entry.acked).max(mark.read).min(seq.previous());
        let own = self.authors.between(had, seq);
        let own = own.map_or(0, |senders| {
            senders.take_while(|sender| *sender == entry.sender).count()
        });
        let others = self.authors.between(mark.read, had);
        Some(ReadBySending {
            upto: Seq(had.0 + own as u64),
            passes_others: others.is_none_or(|mut senders| senders.any(|sender| sender != entry.sender)),
        })
    }

    /// Own messages of the member that count as unread and lie after their read mark.
    pub fn own_unread(&self, user: UserId) -> u32 {
        self.members.get(&user).map_or(0, |member| member.own_unread)
    }

    /// The member's read mark has moved. Where it lies further back than what is remembered, the number stays as it was until
    /// the mark comes nearer.
    pub fn recount_own_unread(&mut self, user: UserId) {
        if let Some(member) = self.members.get_mut(&user)
            && let Some(count) = self.authors.counted(user, self.receipts.mark(user).read)
        {
            member.own_unread = count;
        }
    }

    /// Counts for all members what was just loaded; for whom that does not reach back far enough, the store's number holds.
    pub(super) fn count_own_unread(&mut self) {
        for (user, member) in &mut self.members {
            if self.authors.reach(self.receipts.mark(*user).read) {
                member.own_unread = 0;
            }
        }
        for (seq, sender) in self.authors.all_counted() {
            let read = self.receipts.mark(sender).read;
            if let Some(member) = self.members.get_mut(&sender)
                && seq > read
                && self.authors.reach(read)
            {
                member.own_unread += 1;
            }
        }
    }
}
