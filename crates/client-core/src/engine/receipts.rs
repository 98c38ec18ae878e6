//! [`Receipts`] holds how far other people have received and read each chat, as watermarks that only rise.

use std::collections::{BTreeMap, HashMap};

use tern_proto::v1::{self, entry_content::Content};
use tern_types::{ChatId, Seq, Timestamp, UserId};

use super::look_up::again;
use super::{Call, Change, Engine};
use crate::error::CallError;
use crate::model::{Entry, Event, Mark};

/// The most chats whose receipts are read after an absence. For other chats they are read when the app asks.
const MAX_READ_AGAIN: usize = 32;
/// The most chats whose receipts are read if the device was online all the time. The limit is lower because
/// only the receipts of some seconds can be missing, and because many devices ask at once: all those whose
/// receipts were lost when a node failed.
const MAX_READ_AGAIN_ONLINE: usize = 8;

/// The known watermarks of other people.
#[derive(Debug, Default)]
pub struct Receipts {
    marks: HashMap<ChatId, BTreeMap<UserId, Mark>>,
    /// The chats whose receipts could not be read, each with the time of the next attempt.
    again: BTreeMap<ChatId, Timestamp>,
}

impl Receipts {
    /// Makes the watermarks that the store holds.
    pub fn new(stored: Vec<(ChatId, UserId, Mark)>) -> Self {
        let mut receipts = Self::default();
        for (chat, user, mark) in stored {
            receipts.raise(chat, user, mark);
        }
        receipts
    }

    /// Raises a watermark. Returns the new one, or `None` if it did not rise.
    pub fn raise(&mut self, chat: ChatId, user: UserId, mark: Mark) -> Option<Mark> {
        let known = self.marks.entry(chat).or_default().entry(user).or_default();
        let raised = known.raise(mark);
        debug_assert!(
            raised.delivered >= known.delivered && raised.read >= known.read,
            "a watermark has fallen"
        );
        let rose = raised != *known;
        *known = raised;
        rose.then_some(raised)
    }

    /// Returns the number of other people who are known to have read the chat up to `seq`.
    pub fn readers(&self, chat: ChatId, seq: Seq) -> usize {
        self.marks
            .get(&chat)
            .map_or(0, |marks| marks.values().filter(|mark| mark.read >= seq).count())
    }

    /// Forgets a person's watermark. Returns whether there was one.
    pub fn forget(&mut self, chat: ChatId, user: UserId) -> bool {
        let marks = self.marks.get_mut(&chat);
        marks.is_some_and(|marks| marks.remove(&user).is_some())
    }

    /// Forgets everything, because the server's store is another one.
    pub fn clear(&mut self) {
        self.marks.clear();
        self.again.clear();
    }
}

impl Engine {
    /// Takes a receipt from the server. A receipt of this person says how far the person has read the chat,
    /// here or on another device.
    pub(super) fn receipt_came(&mut self, receipt: v1::Receipt) {
        let (Ok(chat), Ok(user)) = (
            receipt.chat_id.parse::<ChatId>(),
            receipt.user_id.parse::<UserId>(),
        ) else {
            return;
        };
        let mark = Mark {
            delivered: Seq(receipt.delivered_seq),
            read: Seq(receipt.read_seq),
        };
        if user == self.me.user {
            self.own_read(chat, mark.read);
        } else if let Some(mark) = self.receipts.raise(chat, user, mark) {
            self.effects.changes.push(Change::Receipt { chat, user, mark });
            self.effects.events.push(Event::Receipt { chat, user, mark });
        }
    }

    /// Forgets how far a person has got in a chat if this entry removes them from it. Otherwise they would count among
    /// those who have read it: "read by 1 of 0".
    pub(super) fn removal_applied(&mut self, entry: &Entry) {
        if let Some(Content::MemberRemoved(removed)) = &entry.content.content
            && let Ok(user) = removed.user_id.parse::<UserId>()
            && self.receipts.forget(entry.chat, user)
        {
            let chat = entry.chat;
            self.effects.changes.push(Change::NoReceipt { chat, user });
        }
    }

    /// Asks how far others have received and read in the meantime. The device was either absent, or `online` while the
    /// server may have lost receipts for it.
    pub(super) fn ask_for_receipts(&mut self, online: bool) {
        let most = if online {
            MAX_READ_AGAIN_ONLINE
        } else {
            MAX_READ_AGAIN
        };
        let chats = self.awaiting_receipts();
        self.effects
            .calls
            .extend(chats.into_iter().take(most).map(Call::Receipts));
    }

    /// Takes the answer to a call for receipts. A call that failed for a time is made again later.
    pub(super) fn receipts_read(
        &mut self,
        chat: ChatId,
        result: Result<Vec<v1::Receipt>, CallError>,
        now: Timestamp,
    ) {
        match result {
            Ok(receipts) => receipts
                .into_iter()
                .for_each(|receipt| self.receipt_came(receipt)),
            // Receipts that were lost do not come by themselves, so the call is made again.
            Err(error) => {
                tracing::debug!(%chat, %error, "receipts not read");
                if error.is_transient() {
                    self.receipts.again.insert(chat, again(&error, now));
                }
            }
        }
    }

    pub(super) fn tick_receipts(&mut self, now: Timestamp) {
        let due = self.receipts.again.extract_if(.., |_, at| *at <= now);
        self.effects
            .calls
            .extend(due.map(|(chat, _)| Call::Receipts(chat)));
    }

    pub(super) fn receipts_wake(&self) -> Option<Timestamp> {
        self.receipts.again.values().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watermarks_only_rise_and_what_was_read_was_delivered() {
        let (chat, user) = (ChatId(uuid::Uuid::from_u128(1)), UserId::random());
        let mark = |delivered, read| Mark {
            delivered: Seq(delivered),
            read: Seq(read),
        };
        let mut receipts = Receipts::default();
        assert_eq!(receipts.raise(chat, user, mark(5, 0)), Some(mark(5, 0)));
        assert_eq!(receipts.raise(chat, user, mark(4, 0)), None);
        assert_eq!(receipts.raise(chat, user, mark(0, 7)), Some(mark(7, 7)));
        assert_eq!(receipts.raise(chat, user, mark(0, 0)), None);
        assert_eq!(
            (receipts.readers(chat, Seq(7)), receipts.readers(chat, Seq(8))),
            (1, 0)
        );
    }
}
