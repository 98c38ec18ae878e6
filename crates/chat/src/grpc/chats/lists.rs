//! Lists the chats of a caller, page by page: first those that the caller has pinned, then all others, the most recently
//! active first. What the caller keeps of chats is in the cell of the caller's own log. If that cell does not answer,
//! the page has the chats without their settings, and says that it is partial.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tern_proto::{ApiError, parse, v1};
use tern_types::{ChatId, Clock, Seq, Timestamp};

use super::heads::{ChatHeads, MAX_LIST_BYTES};
use crate::grpc::caller::Caller;
use crate::grpc::store_failed;
use crate::store::listing::ChatView;
use crate::store::listing::page::{self, Among};
use crate::store::own::settings::{self, Lists, Pin, Question};

/// The time by which a changes token is older than its answer. An entry that was given its time before the answer may be
/// committed after it, and the clocks of nodes differ.
const CHANGES_MARGIN: Duration = Duration::from_secs(300);

/// A page that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    size: u32,
    after: Option<After>,
    filter: v1::ChatFilter,
    since: Option<Since>,
}

/// The place after which a page begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct After {
    /// True if the place is among the pinned chats.
    pinned: bool,
    /// The time of the last chat of the page before: when it was pinned, or that of its last entry.
    at: Timestamp,
    /// That chat.
    chat: ChatId,
    /// The head of the own log when the first page was read, as far as it matters: what was pinned by then was listed as
    /// pinned.
    pinned_by: Seq,
}

/// The moment after which changes count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Since {
    /// The head of the own log at that moment.
    own: Seq,
    /// The time from which entries count, by the wall clock.
    at: Timestamp,
}

impl Asked {
    /// Reads what the request asks for. `Err` if a token is none that this server gave, or the filter is unknown.
    pub fn read(request: &v1::ListChatsRequest) -> Result<Self, ApiError> {
        let filter = v1::ChatFilter::try_from(request.filter)
            .map_err(|_| ApiError::invalid("filter", "is none that this server knows"))?;
        Ok(Self {
            size: parse::page_size(request.page_size, 50, 200),
            after: token::read_after(&request.page_token)?,
            filter,
            since: token::read_since(&request.changed_since)?,
        })
    }

    /// Returns what has to be known of all chats of the user.
    fn question(&self) -> Question {
        Question {
            pinned_by: self.after.map_or(Seq(u64::MAX), |after| after.pinned_by),
            archive: self.filter != v1::ChatFilter::Unspecified,
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
            v1::ChatFilter::Unspecified => true,
            v1::ChatFilter::Active => !pin.archived,
            v1::ChatFilter::Archived => pin.archived,
        };
        lists.pins.iter().filter(begins).filter(wanted).copied().collect()
    }

    /// Returns which of the other chats the page may have.
    fn others(&self, lists: &Lists) -> Among {
        let mut without: Vec<ChatId> = lists.pins.iter().map(|pin| pin.chat).collect();
        let only = match self.filter {
            v1::ChatFilter::Unspecified => None,
            v1::ChatFilter::Active => {
                without.extend(&lists.archive);
                None
            }
            v1::ChatFilter::Archived => Some(lists.archive.clone()),
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
}

/// The chats of a page.
#[derive(Default)]
struct Found {
    views: Vec<ChatView>,
    /// The place after which the next page begins, if there is one.
    next: Option<After>,
    /// True if a part of the store did not answer.
    partial: bool,
}

impl ChatHeads {
    /// Reads a page of the caller's chats.
    pub async fn page(&self, caller: Caller, asked: &Asked) -> Result<v1::ListChatsResponse, ApiError> {
        let read_at = Clock::wall() - CHANGES_MARGIN;
        let lists = settings::lists(&self.pools, caller.user, asked.question()).await;
        let own_away = lists.is_err();
        let lists = lists.unwrap_or_default();
        if own_away && asked.filter == v1::ChatFilter::Archived {
            let partial = true;
            return Ok(v1::ListChatsResponse {
                partial,
                ..v1::ListChatsResponse::default()
            });
        }
        let mut found = self.pinned(caller, asked, &lists).await?;
        let left = asked.size.saturating_sub(found.views.len() as u32);
        if found.next.is_none() && left > 0 {
            self.add_others(caller, asked, &lists, left, &mut found).await?;
        }
        let chats = found.views.iter().map(|view| view.chat);
        let marks = self.read_marks.of(caller.user, chats).await;
        let mut chats = self.show(caller, found.views, marks).await?;
        let kept = self.add_settings(caller, &mut chats).await;
        let since = Since {
            own: lists.head,
            at: read_at,
        };
        let gives_token = asked.after.is_none() && !own_away;
        Ok(v1::ListChatsResponse {
            chats,
            next_page_token: found.next.map_or_else(String::new, token::of_after),
            partial: found.partial || own_away || !kept,
            changes_token: if gives_token {
                token::of_since(since)
            } else {
                String::new()
            },
        })
    }

    /// Reads the pinned chats of the page. There is a next page if not all fit, or if they fill the page.
    async fn pinned(&self, caller: Caller, asked: &Asked, lists: &Lists) -> Result<Found, ApiError> {
        let pins = asked.pins(lists);
        if pins.is_empty() {
            return Ok(Found::default());
        }
        let ids: Vec<ChatId> = pins.iter().map(|pin| pin.chat).collect();
        let (views, partial) = page::some(&self.pools, &self.master, caller.user, caller.device, &ids)
            .await
            .map_err(store_failed)?;
        let mut views: HashMap<ChatId, ChatView> = views.into_iter().map(|view| (view.chat, view)).collect();
        let changed: HashSet<ChatId> = lists.changed.iter().copied().collect();
        let mut found = Found {
            partial,
            ..Found::default()
        };
        let (mut bytes, mut last) = (0, None);
        for pin in pins {
            if found.views.len() >= asked.size as usize || bytes >= MAX_LIST_BYTES {
                break;
            }
            last = Some(After {
                pinned: true,
                at: pin.at,
                chat: pin.chat,
                pinned_by: asked.after.map_or(lists.head, |after| after.pinned_by),
            });
            let view = views.remove(&pin.chat);
            if let Some(view) = view.filter(|view| asked.has_changed(view, &changed)) {
                bytes += size_of_last_entry(&view);
                found.views.push(view);
            }
        }
        let full = found.views.len() >= asked.size as usize || bytes >= MAX_LIST_BYTES;
        found.next = last.filter(|_| full);
        Ok(found)
    }

    /// Adds other chats to the page, at most `left`.
    async fn add_others(
        &self,
        caller: Caller,
        asked: &Asked,
        lists: &Lists,
        left: u32,
        found: &mut Found,
    ) -> Result<(), ApiError> {
        let after = asked.after.filter(|after| !after.pinned);
        let bytes: usize = found.views.iter().map(size_of_last_entry).sum();
        let others = page::Asked {
            user: caller.user,
            device: caller.device,
            after: after.map(|after| (after.at, after.chat)),
            limit: left,
            max_bytes: MAX_LIST_BYTES.saturating_sub(bytes),
            among: &asked.others(lists),
        };
        let page = page::page(&self.pools, &self.master, others)
            .await
            .map_err(store_failed)?;
        // Without pins nothing depends on when the first page was read.
        let pinned_by = match asked.after {
            Some(after) => after.pinned_by,
            None if lists.pins.is_empty() => Seq::ZERO,
            None => lists.head,
        };
        found.next = page.chats.last().filter(|_| page.more).map(|last| After {
            pinned: false,
            at: sent_at(last),
            chat: last.chat,
            pinned_by,
        });
        found.partial |= page.partial;
        found.views.extend(page.chats);
        Ok(())
    }
}

/// Returns the time of the chat's last entry; 0 if it was trimmed.
fn sent_at(view: &ChatView) -> Timestamp {
    Timestamp(view.last_entry.as_ref().map_or(0, |entry| entry.sent_at_ms))
}

fn size_of_last_entry(view: &ChatView) -> usize {
    view.last_entry.as_ref().map_or(0, |entry| entry.content.len())
}

/// The tokens of pages and of changes. Clients pass them on and do not look into them.
///
/// The token of a page is `time.chat`, as versions before own logs have it, then `.seq` of the own log if something is
/// pinned. It begins with `p` if the page ended among the pinned chats. That of changes is `1.seq.time`.
mod token {
    use super::{After, ApiError, Seq, Since, Timestamp, parse};

    /// Makes the token of the page after this place.
    pub fn of_after(after: After) -> String {
        let pinned = if after.pinned { "p" } else { "" };
        let place = format!("{pinned}{}.{}", after.at.0, after.chat);
        match after.pinned_by {
            Seq::ZERO => place,
            seq => format!("{place}.{seq}"),
        }
    }

    /// Reads the token of a page. An empty one gives `None`, for the first page. `Err` if this server never gave such a
    /// token.
    pub fn read_after(token: &str) -> Result<Option<After>, ApiError> {
        if token.is_empty() {
            return Ok(None);
        }
        let bad = || ApiError::invalid("page_token", "is none that this server gave");
        let (pinned, place) = match token.strip_prefix('p') {
            Some(place) => (true, place),
            None => (false, token),
        };
        let mut parts = place.splitn(3, '.');
        let (at, chat) = (parts.next().ok_or_else(bad)?, parts.next().ok_or_else(bad)?);
        let pinned_by = parts.next().map_or(Ok(0), str::parse::<u64>);
        Ok(Some(After {
            pinned,
            at: Timestamp(at.parse().map_err(|_| bad())?),
            chat: parse::id("page_token", chat)?,
            pinned_by: Seq(pinned_by.map_err(|_| bad())?),
        }))
    }

    /// Makes the token of the changes after this moment.
    pub fn of_since(since: Since) -> String {
        format!("1.{}.{}", since.own.0, since.at.0)
    }

    /// Reads the token of changes. An empty one gives `None`, for all chats. `Err` if this server never gave such a token.
    pub fn read_since(token: &str) -> Result<Option<Since>, ApiError> {
        if token.is_empty() {
            return Ok(None);
        }
        let bad = || ApiError::invalid("changed_since", "is none that this server gave");
        let place = token.strip_prefix("1.").ok_or_else(bad)?;
        let (own, at) = place.split_once('.').ok_or_else(bad)?;
        Ok(Some(Since {
            own: Seq(own.parse().map_err(|_| bad())?),
            at: Timestamp(at.parse().map_err(|_| bad())?),
        }))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn chat(n: u128) -> ChatId {
        ChatId(Uuid::from_u128(n))
    }

    fn after(pinned: bool, at: i64, n: u128, pinned_by: u64) -> After {
        After {
            pinned,
            at: Timestamp(at),
            chat: chat(n),
            pinned_by: Seq(pinned_by),
        }
    }

    #[test]
    fn a_token_is_read_as_it_was_made_and_others_are_refused() {
        for place in [
            after(false, 12, 1, 0),
            after(false, -12, 1, 9),
            after(true, 12, 1, 9),
        ] {
            let token = token::of_after(place);
            assert_eq!(token::read_after(&token).unwrap(), Some(place), "{token}");
        }
        let id = chat(1);
        // The version before makes such a token, and can read it.
        assert_eq!(token::of_after(after(false, 12, 1, 0)), format!("12.{id}"));
        assert_eq!(token::read_after("").unwrap(), None);
        for bad in ["nonsense", "12", "p12", &format!("p.{id}"), &format!("1.{id}.x"), "1.x.2"] {
            assert!(token::read_after(bad).is_err(), "{bad}");
        }
        let since = Since {
            own: Seq(3),
            at: Timestamp(-70),
        };
        assert_eq!(token::read_since(&token::of_since(since)).unwrap(), Some(since));
        assert_eq!(token::read_since("").unwrap(), None);
        for bad in ["nonsense", "1.2", "2.3.4", "1.-2.3", "1.2.x"] {
            assert!(token::read_since(bad).is_err(), "{bad}");
        }
    }

    /// Three chats are pinned, of which the second is in the archive, as is one that is not pinned.
    fn lists() -> Lists {
        let pin = |n, archived| Pin {
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

    #[test]
    fn pinned_chats_are_on_the_first_pages_and_on_no_others() {
        let pins = |after, filter| {
            let asked = Asked {
                size: 10,
                after,
                filter,
                since: None,
            };
            let pins = asked.pins(&lists()).into_iter();
            pins.map(|pin| pin.chat.0.as_u128()).collect::<Vec<_>>()
        };
        use v1::ChatFilter::{Active, Archived, Unspecified};
        let among_pins = Some(after(true, 30, 3, 7));
        let cases = [
            (None, Unspecified, vec![3, 2, 1]),
            (None, Active, vec![3, 1]),
            (None, Archived, vec![2]),
            (among_pins, Unspecified, vec![2, 1]),
            (among_pins, Active, vec![1]),
            (Some(after(false, 30, 3, 7)), Unspecified, vec![]),
        ];
        for (after, filter, expected) in cases {
            assert_eq!(pins(after, filter), expected, "{after:?} {filter:?}");
        }
    }

    #[test]
    fn the_other_chats_are_those_that_are_wanted() {
        let others = |filter, since| {
            let asked = Asked {
                size: 10,
                after: None,
                filter,
                since,
            };
            asked.others(&lists())
        };
        let pins = [3, 2, 1].map(chat).to_vec();
        let all = others(v1::ChatFilter::Unspecified, None);
        assert_eq!((&all.without, &all.only, &all.changed), (&pins, &None, &None));
        let active = others(v1::ChatFilter::Active, None);
        assert_eq!(active.without, [3, 2, 1, 2, 5].map(chat));
        let since = Since {
            own: Seq(1),
            at: Timestamp(4),
        };
        let archived = others(v1::ChatFilter::Archived, Some(since));
        assert_eq!(archived.only, Some([2, 5].map(chat).to_vec()));
        assert_eq!(archived.changed, Some((Timestamp(4), vec![chat(9)])));
    }
}
