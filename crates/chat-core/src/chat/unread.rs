//! The read mark that a member's own send moves, and the number of their own messages after the mark. Those messages
//! are unread for others, never for the member who wrote them.

use tern_types::{Seq, UserId};

use super::Chat;
use crate::entry::NewEntry;

/// The read mark that a send sets for its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadBySending {
    /// The new read mark.
    pub upto: Seq,
    /// True if the mark passes entries of others. The sender's other devices cannot work that out from the entry, so
    /// they are told.
    pub passes_others: bool,
}

impl Chat {
    /// Works out how far the sender of the entry at `seq` has read: up to what their devices had acknowledged, and on
    /// over their own entries that follow directly. For example, a member who acknowledged up to 4 and then sends 5 has
    /// read up to 5; if 5 was sent by somebody else and the member's entry is 6, they have read up to 4. `None` if a
    /// back end sent the entry, because that reads nothing.
    pub(crate) fn read_by_sending(&self, entry: &NewEntry, seq: Seq) -> Option<ReadBySending> {
        if entry.is_of_back_end() {
            return None;
        }
        let mark = self.receipts.mark(entry.sender);
        let had = mark
            .delivered
            .max(entry.sending.acked)
            .max(mark.read)
            .min(seq.previous());
        let own = self.authors.between(had, seq);
        let own = own.map_or(0, |senders| {
            senders.take_while(|sender| *sender == entry.sender).count()
        });
        let others = self.authors.between(mark.read, had);
        debug_assert!(had.0 + own as u64 <= seq.0, "nobody reads past their own entry");
        Some(ReadBySending {
            upto: Seq(had.0 + own as u64),
            passes_others: others.is_none_or(|mut senders| senders.any(|sender| sender != entry.sender)),
        })
    }

    /// Returns the number of the member's own messages after their read mark that count as unread, and 0 for a user who
    /// is not a member.
    pub fn own_unread(&self, user: UserId) -> u32 {
        self.group.member(user).map_or(0, |member| member.own_unread)
    }

    /// Counts the member's own messages after their read mark anew, because the mark has moved. If the mark is
    /// further back than the entries that are remembered, the number stays as it was.
    pub(crate) fn recount_own_unread(&mut self, user: UserId) {
        if let Some(member) = self.group.members.get_mut(&user)
            && let Some(count) = self.authors.counted(user, self.receipts.mark(user).read)
        {
            member.own_unread = count;
        }
    }

    /// Counts every member's own messages after their read mark, from the entries that were just loaded. For a member
    /// whose mark is further back than those entries, the number from the store stays.
    pub(super) fn count_own_unread(&mut self) {
        for (user, member) in &mut self.group.members {
            if self.authors.reach(self.receipts.mark(*user).read) {
                member.own_unread = 0;
            }
        }
        for (seq, sender) in self.authors.all_counted() {
            let read = self.receipts.mark(sender).read;
            if let Some(member) = self.group.members.get_mut(&sender)
                && seq > read
                && self.authors.reach(read)
            {
                member.own_unread += 1;
            }
        }
    }
}
