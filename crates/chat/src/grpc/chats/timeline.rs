//! Handles the calls by which back ends read the messages of all chats of a user. Each public method handles the call of
//! its name.

use tern_identity::principal::Scope;
use tern_proto::{ApiError, parse, v1};
use tern_store::Pools;
use tern_types::{Seq, Timestamp, UserId};
use tonic::{Request, Status};

use super::call::{Calls, Who};
use super::reading::MAX_PAGE_BYTES;
use crate::grpc::store_failed;
use crate::store::history::Bounds;
use crate::store::seal::MasterKey;
use crate::store::timeline::{Page, Place, Timeline, Which};

/// The most messages of a page. Of each chat a page may read as many entries.
const MAX_MESSAGES: u32 = 100;

/// The handlers of the calls about the messages of all chats of a user.
pub struct Timelines {
    pub calls: Calls,
    pub pools: Pools,
    pub master: MasterKey,
}

impl Timelines {
    /// Reads a page of the messages that none of the user's devices has acknowledged.
    pub async fn list_undelivered(
        &self,
        request: Request<v1::ListUndeliveredRequest>,
    ) -> Result<v1::ListUndeliveredResponse, Status> {
        let call = self.calls.open(request, Who::BackEnd, Scope::ChatsRead).await?;
        let (request, user) = (&call.request, call.caller.user);
        let which = match parse::optional_id("chat_id", &request.chat_id)? {
            None => Which::Undelivered,
            Some(chat) => {
                self.calls.check_visible(call.caller, chat).await?;
                Which::UndeliveredIn(chat)
            }
        };
        let after = token::read(&request.page_token)?;
        let after = after.unwrap_or(Place::before(Timestamp(i64::MIN)));
        let page = self.page(user, which, after, request.page_size).await?;
        check_partial(&page, request.accept_partial)?;
        Ok(v1::ListUndeliveredResponse {
            messages: page.messages,
            next_page_token: token::of(page.next),
            partial: page.partial,
        })
    }

    /// Reads a page of the messages in all chats of the user.
    pub async fn list_user_messages(
        &self,
        request: Request<v1::ListUserMessagesRequest>,
    ) -> Result<v1::ListUserMessagesResponse, Status> {
        let call = self.calls.open(request, Who::BackEnd, Scope::ChatsRead).await?;
        let (request, user) = (&call.request, call.caller.user);
        let before = match request.before_ms {
            0 => Timestamp(i64::MAX),
            before => Timestamp(before),
        };
        let since = Place::before(Timestamp(request.since_ms));
        // A token of another list leads no further back than the time that is asked for.
        let after = token::read(&request.page_token)?.map_or(since, |after| after.max(since));
        let page = self
            .page(user, Which::SentBefore(before), after, request.page_size)
            .await?;
        check_partial(&page, request.accept_partial)?;
        Ok(v1::ListUserMessagesResponse {
            messages: page.messages,
            next_page_token: token::of(page.next),
            partial: page.partial,
        })
    }

    async fn page(&self, user: UserId, which: Which, after: Place, size: u32) -> Result<Page, ApiError> {
        let timeline = Timeline {
            pools: &self.pools,
            master: &self.master,
            user,
        };
        let bounds = Bounds {
            limit: parse::page_size(size, 50, MAX_MESSAGES),
            bytes: MAX_PAGE_BYTES,
        };
        timeline.page(which, after, bounds).await.map_err(store_failed)
    }
}

/// Fails if messages are missing and the caller does not accept that.
fn check_partial(page: &Page, accepted: bool) -> Result<(), ApiError> {
    if page.partial && !accepted {
        return Err(ApiError::unavailable("a part of the messages cannot be read now"));
    }
    Ok(())
}

/// The token of a page: the place of the last entry before it, as its time in milliseconds, its chat and its seq.
mod token {
    use super::{ApiError, Place, Seq, Timestamp, parse};

    /// Makes the token of the page after this place. It is empty if there is no further page.
    pub fn of(next: Option<Place>) -> String {
        next.map_or_else(String::new, |next| {
            format!("{}.{}.{}", next.at.0, next.chat, next.seq.0)
        })
    }

    /// Reads a token. An empty one gives `None`, for the first page. `Err` if this server never gave such a token.
    pub fn read(token: &str) -> Result<Option<Place>, ApiError> {
        if token.is_empty() {
            return Ok(None);
        }
        let bad = || ApiError::invalid("page_token", "is none that this server gave");
        let mut parts = token.splitn(3, '.');
        let mut part = || parts.next().ok_or_else(bad);
        let (at, chat, seq) = (part()?, part()?, part()?);
        Ok(Some(Place {
            at: Timestamp(at.parse().map_err(|_| bad())?),
            chat: parse::id("page_token", chat)?,
            seq: Seq(seq.parse().map_err(|_| bad())?),
        }))
    }
}

#[cfg(test)]
mod tests {
    use tern_types::ChatId;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_made_and_others_are_refused() {
        let place = Place {
            at: Timestamp(-7),
            chat: ChatId(Uuid::from_u128(1)),
            seq: Seq(12),
        };
        assert_eq!(token::read(&token::of(Some(place))).unwrap(), Some(place));
        assert_eq!(token::read(&token::of(None)).unwrap(), None);
        let id = place.chat;
        for bad in [
            "nonsense",
            &format!("1.{id}"),
            "1.x.2",
            &format!("1.{id}.-1"),
            &format!(".{id}.1"),
        ] {
            assert!(token::read(bad).is_err(), "{bad}");
        }
    }
}
