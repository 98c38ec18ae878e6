//! Lists the chats of a caller, page by page, with the caller's settings of each.

use std::time::Duration;

use tern_proto::{ApiError, parse, v1};
use tern_types::{Clock, Seq, Timestamp};

use super::heads::{ChatHeads, MAX_LIST_BYTES};
use crate::grpc::caller::Caller;
use crate::grpc::store_failed;
use crate::store::lists::{self, After, Asked, Filter, Since};

/// The time by which a changes token is older than its answer. An entry that was given its time before the answer may be
/// committed after it, and the clocks of nodes differ.
const CHANGES_MARGIN: Duration = Duration::from_secs(60);

/// Reads what the request asks for. `Err` if a token is none that this server gave, or the filter is unknown.
pub fn asked(request: &v1::ListChatsRequest) -> Result<Asked, ApiError> {
    let filter = match v1::ChatFilter::try_from(request.filter) {
        Ok(v1::ChatFilter::Unspecified) => Filter::All,
        Ok(v1::ChatFilter::Active) => Filter::Active,
        Ok(v1::ChatFilter::Archived) => Filter::Archived,
        Err(_) => return Err(ApiError::invalid("filter", "is none that this server knows")),
    };
    Ok(Asked {
        size: parse::page_size(request.page_size, 50, 200),
        max_bytes: MAX_LIST_BYTES,
        after: token::read_after(&request.page_token)?,
        filter,
        since: token::read_since(&request.changed_since)?,
    })
}

impl ChatHeads {
    /// Reads a page of the caller's chats. It is partial if a part of the store did not answer.
    pub async fn page(&self, caller: Caller, asked: &Asked) -> Result<v1::ListChatsResponse, ApiError> {
        let at = Clock::wall() - CHANGES_MARGIN;
        let found = lists::list(&self.pools, &self.master, caller.user, caller.device, asked)
            .await
            .map_err(store_failed)?;
        let marks = self
            .read_marks
            .of(caller.user, found.chats.iter().map(|view| view.chat))
            .await;
        let mut chats = self.show(caller, found.chats, marks).await?;
        let has_own = self.add_own(caller, &mut chats).await;
        let since = found.head.filter(|_| asked.after.is_none());
        Ok(v1::ListChatsResponse {
            chats,
            next_page_token: found.next.map_or_else(String::new, token::of_after),
            partial: found.partial || !has_own,
            changes_token: since.map_or_else(String::new, |own| token::of_since(Since { own, at })),
        })
    }
}

/// The tokens of pages and of changes. Clients pass them on and do not look into them.
///
/// The token of a page is `time.chat`, as the version before made it, then `.seq` of the own log if something is pinned. It
/// begins with `p` if the page ended among the pinned chats. That of changes is `1.seq.time`.
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
        format!("1.{}.{}", since.own, since.at.0)
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
    use tern_types::ChatId;
    use uuid::Uuid;

    use super::*;

    const CHAT: ChatId = ChatId(Uuid::from_u128(1));

    fn after(pinned: bool, at: i64, pinned_by: u64) -> After {
        After {
            pinned,
            at: Timestamp(at),
            chat: CHAT,
            pinned_by: Seq(pinned_by),
        }
    }

    #[test]
    fn a_token_is_read_as_it_was_made_and_others_are_refused() {
        for place in [after(false, 12, 0), after(false, -12, 9), after(true, 12, 9)] {
            let token = token::of_after(place);
            assert_eq!(token::read_after(&token).unwrap(), Some(place), "{token}");
        }
        // The version before makes such a token, and can read it.
        assert_eq!(token::of_after(after(false, 12, 0)), format!("12.{CHAT}"));
        assert_eq!(token::read_after("").unwrap(), None);
        for bad in [
            "nonsense",
            "12",
            "p12",
            &format!("p.{CHAT}"),
            &format!("1.{CHAT}.x"),
            "1.x.2",
        ] {
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

    #[test]
    fn an_unknown_filter_is_named() {
        let request = v1::ListChatsRequest {
            filter: 9,
            ..v1::ListChatsRequest::default()
        };
        assert_eq!(asked(&request).unwrap_err().field, Some("filter"));
        assert_eq!(
            asked(&v1::ListChatsRequest::default()).unwrap().filter,
            Filter::All
        );
    }
}
