//! Receipts and typing notices that wait for a session. They have room of their own, so that a thousand members of a
//! group who acknowledge a message push no entry out of the mailbox. For each user and chat only the newest waits. They
//! go out when the device has taken what was put before.
//!
//! A receipt that finds no room is dropped; the device is told CaughtUp, after which clients ask for receipts. A
//! typing notice that finds no room is dropped too: it comes again.

use std::collections::VecDeque;

use bytes::Bytes;
use prost::Message as _;
use tern_proto::v1::server_event::Event;
use tern_proto::{raw, v1};
use tern_types::limits::MAX_GROUP_MEMBERS;
use tern_types::{ChatId, IdMap, UserId};

/// The most pairs of a user and a chat whose receipts wait: one for each member of the largest group.
const RECEIPTS: usize = MAX_GROUP_MEMBERS;
/// The most pairs of a user and a chat whose typing notices wait: more than a screen shows.
const TYPING: usize = 16;
/// The most receipts and typing notices that are taken at once: half a frame, so that entries which come meanwhile wait
/// for no more than that.
const TAKEN: usize = 32;

/// The seqs up to which a user has got in a chat, as `tern.v1.Receipt` has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    /// The seq up to which the user has got the chat's entries.
    pub delivered: u64,
    /// The seq up to which the user has read the chat.
    pub read: u64,
}

/// The content of a push that has no entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    /// The user has got as far as `mark` in the chat.
    Receipt { user: UserId, mark: Mark },
    /// The user writes in the chat, or has stopped.
    Typing { user: UserId },
}

impl Hint {
    /// Decodes an encoded `tern.v1.ServerEvent`. `None` if it is neither a receipt nor a typing notice.
    pub fn of(event: &Bytes) -> Option<Self> {
        match v1::ServerEvent::decode(event.clone()).ok()?.event? {
            Event::Receipt(receipt) => Some(Self::Receipt {
                user: receipt.user_id.parse().ok()?,
                mark: Mark {
                    delivered: receipt.delivered_seq,
                    read: receipt.read_seq,
                },
            }),
            Event::UserTyping(typing) => Some(Self::Typing {
                user: typing.user_id.parse().ok()?,
            }),
            _ => None,
        }
    }
}

type Key = (ChatId, UserId);

/// The receipts and typing notices that wait for one session.
#[derive(Debug, Default)]
pub struct Hints {
    /// The keys of `receipts`, in the order in which they came.
    order: VecDeque<Key>,
    receipts: IdMap<Key, (Mark, Bytes)>,
    typing: Vec<(Key, Bytes)>,
}

impl Hints {
    /// Returns whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty() && self.typing.is_empty()
    }

    /// Keeps the receipt, or raises the one that waits. `event` is the encoded receipt. Returns false when there is
    /// no room.
    pub fn receipt(&mut self, chat: ChatId, user: UserId, mark: Mark, event: Bytes) -> bool {
        let key = (chat, user);
        if let Some((waiting, encoded)) = self.receipts.get_mut(&key) {
            // The later receipt may say less: it comes from another owner, or the user has turned read receipts off.
            let raised = Mark {
                delivered: waiting.delivered.max(mark.delivered),
                read: waiting.read.max(mark.read),
            };
            if raised == mark {
                *encoded = event;
            } else if raised != *waiting {
                *encoded = receipt_event(key, raised);
            }
            *waiting = raised;
            return true;
        }
        let room = self.order.len() < RECEIPTS;
        if room {
            self.order.push_back(key);
            self.receipts.insert(key, (mark, event));
        }
        room
    }

    /// Keeps a typing notice, in place of an older one. Returns false when there is no room.
    pub fn typing(&mut self, chat: ChatId, user: UserId, event: Bytes) -> bool {
        let key = (chat, user);
        if let Some((_, waiting)) = self.typing.iter_mut().find(|(of, _)| *of == key) {
            *waiting = event;
            return true;
        }
        let room = self.typing.len() < TYPING;
        if room {
            self.typing.push((key, event));
        }
        room
    }

    /// Drops the typing notices of a chat when an entry of it goes out, which may be the message that ends the typing.
    pub fn entry(&mut self, chat: ChatId) {
        if !self.typing.is_empty() {
            self.typing.retain(|((of, _), _)| *of != chat);
        }
    }

    /// Takes the typing notices and the oldest receipts, at most [`TAKEN`] in all.
    pub fn take(&mut self) -> Vec<Bytes> {
        let mut taken: Vec<Bytes> = self.typing.drain(..).map(|(_, event)| event).collect();
        while taken.len() < TAKEN
            && let Some(key) = self.order.pop_front()
        {
            taken.extend(self.receipts.remove(&key).map(|(_, event)| event));
        }
        if self.order.is_empty() {
            // An empty value keeps no memory: most sessions wait for nothing most of the time.
            *self = Self::default();
        }
        taken
    }
}

fn receipt_event((chat, user): Key, mark: Mark) -> Bytes {
    raw::event(Event::Receipt(v1::Receipt {
        chat_id: chat.to_string(),
        user_id: user.to_string(),
        delivered_seq: mark.delivered,
        read_seq: mark.read,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(delivered: u64, read: u64) -> Mark {
        Mark { delivered, read }
    }

    fn say(hints: &mut Hints, key: Key, mark: Mark) -> bool {
        hints.receipt(key.0, key.1, mark, receipt_event(key, mark))
    }

    fn taken(hints: &mut Hints) -> Vec<Option<Hint>> {
        hints.take().iter().map(Hint::of).collect()
    }

    #[test]
    fn rule_10_of_a_person_in_a_chat_one_receipt_waits_with_the_most_that_was_said() {
        let (mut hints, chat, user) = (Hints::default(), ChatId::own(UserId::random()), UserId::random());
        let cases = [
            (mark(1, 0), mark(3, 2), mark(3, 2)),
            (mark(3, 2), mark(1, 0), mark(3, 2)),
            // The user has turned read receipts off in between.
            (mark(3, 3), mark(5, 0), mark(5, 3)),
        ];
        for (first, second, expected) in cases {
            assert!(say(&mut hints, (chat, user), first) && say(&mut hints, (chat, user), second));
            assert_eq!(taken(&mut hints), [Some(Hint::Receipt { user, mark: expected })]);
            assert!(hints.is_empty());
        }
    }

    #[test]
    fn each_member_of_the_largest_group_finds_room_and_some_are_taken_at_a_time_the_oldest_first() {
        let (mut hints, chat) = (Hints::default(), ChatId::own(UserId::random()));
        let users: Vec<UserId> = (0..RECEIPTS).map(|_| UserId::random()).collect();
        assert!(
            users
                .iter()
                .all(|user| say(&mut hints, (chat, *user), mark(1, 0)))
        );
        assert!(!say(&mut hints, (chat, UserId::random()), mark(1, 0)));
        assert!(
            say(&mut hints, (chat, users[0]), mark(2, 0)),
            "its place is there"
        );
        let mut came = Vec::new();
        while !hints.is_empty() {
            let some = taken(&mut hints);
            assert!(some.len() <= TAKEN);
            came.extend(some.into_iter().filter_map(|hint| match hint? {
                Hint::Receipt { user, .. } => Some(user),
                Hint::Typing { .. } => None,
            }));
        }
        assert_eq!(came, users);
    }

    #[test]
    fn the_newest_typing_waits_until_an_entry_of_its_chat_comes() {
        let mut hints = Hints::default();
        let (chat, other, user) = (
            ChatId::own(UserId::random()),
            ChatId::own(UserId::random()),
            UserId::random(),
        );
        for event in [&b"writes"[..], b"stopped"] {
            assert!(hints.typing(chat, user, Bytes::from_static(event)));
        }
        assert!(hints.typing(other, user, Bytes::from_static(b"there too")));
        hints.entry(other);
        assert_eq!(hints.take(), [Bytes::from_static(b"stopped")]);
        let room = (0..100).filter(|_| hints.typing(chat, UserId::random(), Bytes::new()));
        assert_eq!(room.count(), TYPING);
    }
}
