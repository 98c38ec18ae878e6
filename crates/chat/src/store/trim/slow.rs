//! Trims a chat by smaller pages if a statement about a page of it takes the store too long: very much may have been
//! done to a few messages. The same page would take too long for ever.

use std::collections::BTreeMap;

use sqlx::PgPool;
use tern_chat_core::retention::Mode;
use tern_store::error::is_too_slow;
use tern_types::{ChatId, Timestamp};

use super::{PAGE, Trimmed, by_pages};

/// The number by which a page is divided when it took too long. A chat is given up after four attempts, of 512, 64, 8
/// and 1 entries, so it holds the others up for four times as long as a statement may take.
const DIVISOR: i64 = 8;
/// The most chats of which it is known that they are slow. If there are more, some are found out anew.
const CHATS: usize = 1_024;

/// The chats of a cell that are trimmed by smaller pages, each with the number of entries of a page.
#[derive(Debug, Default)]
pub struct Pages(BTreeMap<ChatId, i64>);

impl Pages {
    /// Returns how many entries of the chat are trimmed in a round.
    pub fn of(&self, chat: ChatId) -> i64 {
        self.0.get(&chat).copied().unwrap_or(PAGE)
    }

    /// Returns whether the chat is trimmed by smaller pages than others, so not together with them.
    pub fn is_slow(&self, chat: ChatId) -> bool {
        self.0.contains_key(&chat)
    }

    /// Returns whether a single entry of the chat took too long when it was last trimmed.
    pub fn is_given_up(&self, chat: ChatId) -> bool {
        self.of(chat) == 1
    }

    /// Makes the pages of the chat smaller. Returns false if they cannot be.
    fn shrink(&mut self, chat: ChatId) -> bool {
        if self.is_given_up(chat) {
            return false;
        }
        let page = (self.of(chat) / DIVISOR).max(1);
        if self.0.len() >= CHATS && !self.is_slow(chat) {
            self.0.pop_first();
        }
        self.0.insert(chat, page);
        true
    }

    /// Makes the pages of the chat larger, because the store has trimmed it in time.
    fn grow(&mut self, chat: ChatId) {
        let page = self.of(chat).saturating_mul(2);
        if page >= PAGE {
            self.0.remove(&chat);
        } else {
            self.0.insert(chat, page);
        }
    }
}

/// Trims one chat as [`super::chats`] does, with the pages that the store can do in time. Returns `None` if it cannot do
/// even one entry: the chat is given up until the claim ends.
pub async fn trim(
    pool: &PgPool,
    chat: ChatId,
    default: Mode,
    now: Timestamp,
    claim: Option<Timestamp>,
    pages: &mut Pages,
) -> sqlx::Result<Option<Trimmed>> {
    loop {
        match by_pages(pool, &[chat], default, now, claim, pages.of(chat)).await {
            Err(error) if is_too_slow(&error) => {
                if !pages.shrink(chat) {
                    return Ok(None);
                }
            }
            Err(error) => return Err(error),
            Ok(trimmed) => {
                pages.grow(chat);
                return Ok(Some(trimmed));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_page_shrinks_quickly_and_grows_slowly() {
        let (chat, other) = (ChatId(Uuid::from_u128(1)), ChatId(Uuid::from_u128(2)));
        let mut pages = Pages::default();
        for (shrinks, page) in [(true, 64), (true, 8), (true, 1), (false, 1)] {
            assert_eq!((pages.shrink(chat), pages.of(chat)), (shrinks, page));
            assert_eq!(pages.is_given_up(chat), page == 1);
        }
        for page in [2, 4, 8, 16, 32, 64, 128, 256] {
            pages.grow(chat);
            assert_eq!((pages.of(chat), pages.is_slow(chat)), (page, true));
        }
        pages.grow(chat);
        assert_eq!((pages.of(chat), pages.is_slow(chat)), (PAGE, false));
        assert_eq!((pages.of(other), pages.is_given_up(other)), (PAGE, false));
    }

    #[test]
    fn no_more_chats_are_known_to_be_slow_than_there_may_be() {
        let mut pages = Pages::default();
        for number in 0..=CHATS as u128 {
            assert!(pages.shrink(ChatId(Uuid::from_u128(number))));
        }
        assert_eq!(pages.0.len(), CHATS);
        let last = ChatId(Uuid::from_u128(CHATS as u128));
        assert!(pages.is_slow(last) && pages.shrink(last));
        assert_eq!((pages.0.len(), pages.of(last)), (CHATS, 8));
    }
}
