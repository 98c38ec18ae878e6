//! Lists the chats of a user, page by page: first those that the user has pinned, the last pinned first, then all others,
//! the most recently active first. What a user keeps of chats is in the cell of their own log. If that cell does not
//! answer, a list has the chats in the order of their activity alone, and says that it is partial.

use std::collections::{HashMap, HashSet};

use tern_store::Pools;
use tern_types::{ChatId, DeviceId, Seq, Timestamp, UserId};

use super::ReadError;
use super::listing::ChatView;
use super::listing::page::{self, Among};
use super::own::settings::{self, Lists, Pin, Question};
use super::seal::MasterKey;

/// The choice among a user's chats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// All chats.
    All,
    /// The chats that are not in the archive.
    Active,
    /// The chats in the archive.
    Archived,
}

/// The place after which a page begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct After {
    /// True if the place is among the pinned chats.
    pub pinned: bool,
    /// The time of the last chat of the page before: when it was pinned, or that of its last entry.
    pub at: Timestamp,
    /// That chat.
    pub chat: ChatId,
    /// The seq of the own log up to which pins count: what was pinned by then is on the first pages. A chat that was
    /// pinned later is where it would be otherwise, so that no chat is left out.
    pub pinned_by: Seq,
}

/// A moment after which changes count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Since {
    /// The head of the own log at that moment.
    pub own: Seq,
    /// The time from which entries count, by the wall clock.
    pub at: Timestamp,
}

/// A page that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// The most chats, at least one.
    pub size: u32,
    /// About the most bytes of last entries; the first chat always fits.
    pub max_bytes: usize,
    /// The place after which the page begins; `None` for the first page.
    pub after: Option<After>,
    /// The choice of chats.
    pub filter: Filter,
    /// If set, only chats that have a newer entry or other settings since then are listed.
    pub since: Option<Since>,
}

/// A page of a list.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// The chats.
    pub chats: Vec<ChatView>,
    /// The place after which the next page begins; `None` if this is the last one.
    pub next: Option<After>,
    /// True if a part of the store did not answer.
    pub partial: bool,
    /// The head of the own log, which was read before everything else; 0 if there is none. `None` if its cell did not
    /// answer.
    pub head: Option<Seq>,
}

impl Asked {
    /// Returns what has to be known of all chats of the user.
    fn question(&self) -> Question {
        Question {
            pinned_by: self.after.map_or(Seq(u64::MAX), |after| after.pinned_by),
            archive: self.filter != Filter::All,
            changed_after: self.since.map(|since| since.own),
        }
    }

    /// Returns the pinned chats that the page may have, the last pinned first.
    fn pins(&self, lists: &Lists) -> Vec<Pin> {
        let begins = |pin: &&Pin| match self.after {
            None => true,
            Some(after) => after.pinned && (pin.at, pin.chat) < (after.at, after.chat),
        };
        let wanted = |pin: &&Pin| match self.filter {
            Filter::All => true,
            Filter::Active => !pin.archived,
            Filter::Archived => pin.archived,
        };
        lists.pins.iter().filter(begins).filter(wanted).copied().collect()
    }

    /// Returns which of the other chats the page may have.
    fn others(&self, lists: &Lists) -> Among {
        let mut without: Vec<ChatId> = lists.pins.iter().map(|pin| pin.chat).collect();
        let only = match self.filter {
            Filter::All => None,
            Filter::Active => {
                without.extend(&lists.archive);
                None
            }
            Filter::Archived => Some(lists.archive.clone()),
        };
        Among {
            without,
            only,
            changed: self.since.map(|since| (since.at, lists.changed.clone())),
        }
    }

    /// Returns whether a chat that is pinned counts as changed.
    fn has_changed(&self, view: &ChatView, changed: &HashSet<ChatId>) -> bool {
        self.since
            .is_none_or(|since| sent_at(view) >= since.at || changed.contains(&view.chat))
    }

    /// Returns whether so many chats with so many bytes fill the page.
    fn is_full(&self, chats: usize, bytes: usize) -> bool {
        chats >= self.size as usize || bytes >= self.max_bytes.max(1)
    }
}

/// Reads a page of the user's chats, as the device sees them if there is one.
pub async fn list(
    pools: &Pools,
    master: &MasterKey,
    user: UserId,
    device: Option<DeviceId>,
    asked: &Asked,
) -> Result<Found, ReadError> {
    let lists = settings::lists(pools, user, asked.question()).await.ok();
    let head = lists.as_ref().map(|lists| lists.head);
    let reader = Reader {
        pools,
        master,
        user,
        device,
        asked,
        lists: lists.unwrap_or_default(),
    };
    let mut found = Found {
        partial: head.is_none(),
        head,
        ..Found::default()
    };
    // Without the archive nobody knows what is in it.
    if head.is_none() && asked.filter == Filter::Archived {
        return Ok(found);
    }
    reader.add_pinned(&mut found).await?;
    if found.next.is_none() {
        reader.add_others(&mut found).await?;
    }
    Ok(found)
}

/// The reader of one page.
struct Reader<'a> {
    pools: &'a Pools,
    master: &'a MasterKey,
    user: UserId,
    device: Option<DeviceId>,
    asked: &'a Asked,
    lists: Lists,
}

impl Reader<'_> {
    /// Adds the pinned chats of the page. There is a next page if they fill this one.
    async fn add_pinned(&self, found: &mut Found) -> Result<(), ReadError> {
        let pins = self.asked.pins(&self.lists);
        if pins.is_empty() {
            return Ok(());
        }
        let ids: Vec<ChatId> = pins.iter().map(|pin| pin.chat).collect();
        let (views, partial) = page::some(self.pools, self.master, self.user, self.device, &ids).await?;
        let mut views: HashMap<ChatId, ChatView> = views.into_iter().map(|view| (view.chat, view)).collect();
        let changed: HashSet<ChatId> = self.lists.changed.iter().copied().collect();
        found.partial |= partial;
        let (mut bytes, mut last) = (0, None);
        for pin in pins {
            if self.asked.is_full(found.chats.len(), bytes) {
                break;
            }
            last = Some(After {
                pinned: true,
                at: pin.at,
                chat: pin.chat,
                pinned_by: self.pinned_by(),
            });
            // The user may have left a chat that they have pinned.
            let view = views.remove(&pin.chat);
            if let Some(view) = view.filter(|view| self.asked.has_changed(view, &changed)) {
                bytes += size_of_last_entry(&view);
                found.chats.push(view);
            }
        }
        found.next = last.filter(|_| self.asked.is_full(found.chats.len(), bytes));
        Ok(())
    }

    /// Adds other chats to the page, as many as there is room for.
    async fn add_others(&self, found: &mut Found) -> Result<(), ReadError> {
        let after = self.asked.after.filter(|after| !after.pinned);
        let bytes: usize = found.chats.iter().map(size_of_last_entry).sum();
        let pinned = u32::try_from(found.chats.len()).unwrap_or(u32::MAX);
        let among = self.asked.others(&self.lists);
        let asked = page::Asked {
            user: self.user,
            device: self.device,
            after: after.map(|after| (after.at, after.chat)),
            limit: self.asked.size.saturating_sub(pinned),
            max_bytes: self.asked.max_bytes.saturating_sub(bytes),
            among: &among,
        };
        let page = page::page(self.pools, self.master, asked).await?;
        found.next = page.chats.last().filter(|_| page.more).map(|last| After {
            pinned: false,
            at: sent_at(last),
            chat: last.chat,
            pinned_by: self.pinned_by(),
        });
        found.partial |= page.partial;
        found.chats.extend(page.chats);
        Ok(())
    }

    /// Returns the seq of the own log up to which pins count on the next pages. It is 0 where nothing is pinned.
    fn pinned_by(&self) -> Seq {
        match self.asked.after {
            Some(after) => after.pinned_by,
            None if self.lists.pins.is_empty() => Seq::ZERO,
            None => self.lists.head,
        }
    }
}

/// Returns the time of the chat's last entry; 0 if it was trimmed.
fn sent_at(view: &ChatView) -> Timestamp {
    Timestamp(view.last_entry.as_ref().map_or(0, |entry| entry.sent_at_ms))
}

fn size_of_last_entry(view: &ChatView) -> usize {
    view.last_entry.as_ref().map_or(0, |entry| entry.content.len())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn chat(n: u128) -> ChatId {
        ChatId(Uuid::from_u128(n))
    }

    /// Three chats are pinned, of which the second is in the archive, as is one that is not pinned.
    fn lists() -> Lists {
        let pin = |n: u128, archived| Pin {
            chat: chat(n),
            at: Timestamp(10 * n as i64),
            archived,
        };
        Lists {
            head: Seq(7),
            pins: vec![pin(3, false), pin(2, true), pin(1, false)],
            archive: vec![chat(2), chat(5)],
            changed: vec![chat(9)],
        }
    }

    fn asked(after: Option<After>, filter: Filter, since: Option<Since>) -> Asked {
        Asked {
            size: 10,
            max_bytes: 1000,
            after,
            filter,
            since,
        }
    }

    #[test]
    fn pinned_chats_are_on_the_first_pages_and_on_no_others() {
        let after = |pinned| {
            Some(After {
                pinned,
                at: Timestamp(30),
                chat: chat(3),
                pinned_by: Seq(7),
            })
        };
        let cases = [
            (None, Filter::All, vec![3, 2, 1]),
            (None, Filter::Active, vec![3, 1]),
            (None, Filter::Archived, vec![2]),
            (after(true), Filter::All, vec![2, 1]),
            (after(true), Filter::Active, vec![1]),
            (after(false), Filter::All, vec![]),
        ];
        for (after, filter, expected) in cases {
            let pins = asked(after, filter, None).pins(&lists()).into_iter();
            let pins: Vec<u128> = pins.map(|pin| pin.chat.0.as_u128()).collect();
            assert_eq!(pins, expected, "{after:?} {filter:?}");
        }
    }

    #[test]
    fn the_other_chats_are_those_that_are_wanted() {
        let others = |filter, since| asked(None, filter, since).others(&lists());
        let all = others(Filter::All, None);
        assert_eq!(all.without, [3, 2, 1].map(chat));
        assert_eq!((all.only, all.changed), (None, None));
        let active = others(Filter::Active, None);
        assert_eq!(active.without, [3, 2, 1, 2, 5].map(chat));
        let since = Since {
            own: Seq(1),
            at: Timestamp(4),
        };
        let archived = others(Filter::Archived, Some(since));
        assert_eq!(archived.only, Some([2, 5].map(chat).to_vec()));
        assert_eq!(archived.changed, Some((Timestamp(4), vec![chat(9)])));
    }
}
