//! Keeps receipts and notices, such as typing, until their session takes them. They have room of their own,
//! so that a thousand members of a group who acknowledge a message push no entry out of the mailbox. For each
//! user and chat only the newest receipt waits, and the newest notice of each kind. They go out when the
//! device has taken everything that was put before.
//!
//! A receipt that finds no room is dropped; the device is told CaughtUp, after which clients ask for receipts. A notice
//! that finds no room is dropped too.

use std::collections::VecDeque;

use bytes::Bytes;
use prost::Message as _;
use tern_proto::v1::server_event::Event;
use tern_proto::{notice, raw, v1};
use tern_types::limits::MAX_GROUP_MEMBERS;
use tern_types::{ChatId, IdMap, NoticeKind, UserId};

/// The most pairs of a user and a chat whose receipts wait: one for each member of the largest group.
const RECEIPTS: usize = MAX_GROUP_MEMBERS;
/// The most notices of one kind that wait: more than a screen shows.
const NOTICES: usize = 16;
/// The most receipts and notices that are taken at once, unless there are more notices: those are all taken,
/// before the receipts. It is half a frame, so entries that come meanwhile wait for no more than that.
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
    /// The user gives a notice of this kind.
    Notice { user: UserId, kind: NoticeKind },
}

impl Hint {
    /// Decodes an encoded `tern.v1.ServerEvent`. `None` if it is neither a receipt nor a notice.
    pub fn of(event: &Bytes) -> Option<Self> {
        match v1::ServerEvent::decode(event.clone()).ok()?.event? {
            Event::Receipt(receipt) => Some(Self::Receipt {
                user: receipt.user_id.parse().ok()?,
                mark: Mark {
                    delivered: receipt.delivered_seq,
                    read: receipt.read_seq,
                },
            }),
            other => notice::of_event(&other).map(|(user, notice)| Self::Notice {
                user,
                kind: notice.kind(),
            }),
        }
    }
}

type Key = (ChatId, UserId);
type NoticeKey = (ChatId, UserId, NoticeKind);

/// The receipts and notices that wait for one session.
#[derive(Debug, Default)]
pub struct Hints {
    /// The keys of `receipts`, in the order in which they came.
    order: VecDeque<Key>,
    receipts: IdMap<Key, (Mark, Bytes)>,
    notices: Vec<(NoticeKey, Bytes)>,
}

impl Hints {
    /// Returns whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty() && self.notices.is_empty()
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

    /// Keeps a notice, in place of an older one of its kind. Returns false when there is no room.
    pub fn notice(&mut self, key: NoticeKey, event: Bytes) -> bool {
        if let Some((_, waiting)) = self.notices.iter_mut().find(|(of, _)| *of == key) {
            *waiting = event;
            return true;
        }
        let same_kind = self.notices.iter().filter(|((.., kind), _)| *kind == key.2);
        let room = same_kind.count() < NOTICES;
        if room {
            self.notices.push((key, event));
        }
        room
    }

    /// Drops the notices of a chat that end when an entry of it goes out. The entry may be the message that ends the
    /// typing.
    pub fn entry(&mut self, chat: ChatId) {
        if !self.notices.is_empty() {
            self.notices
                .retain(|((of, _, kind), _)| *of != chat || !kind.ends_with_an_entry());
        }
    }

    /// Takes the notices and the oldest receipts. With a receipt among them there are at most [`TAKEN`].
    pub fn take(&mut self) -> Vec<Bytes> {
        let mut taken: Vec<Bytes> = self.notices.drain(..).map(|(_, event)| event).collect();
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
                Hint::Notice { .. } => None,
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
            assert!(hints.notice((chat, user, NoticeKind::Typing), Bytes::from_static(event)));
        }
        let there = (other, user, NoticeKind::Typing);
        assert!(hints.notice(there, Bytes::from_static(b"there too")));
        hints.entry(other);
        assert_eq!(hints.take(), [Bytes::from_static(b"stopped")]);
        let room = (0..100).filter(|_| {
            let key = (chat, UserId::random(), NoticeKind::Typing);
            hints.notice(key, Bytes::new())
        });
        assert_eq!(room.count(), NOTICES);
    }
}
