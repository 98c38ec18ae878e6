//! Serves `tern.v1.Inbox`: a device fetches and acknowledges the entries in its inbox without a stream.

use tern_identity::principal::Principal;
use tern_proto::v1::inbox_server::Inbox;
use tern_proto::{ApiError, parse, v1};
use tern_store::Pools;
use tern_types::{ChatId, DeviceId, Seq, UserId};
use tonic::{Request, Response, Status};

use tern_chat_core::Outcome;
use tern_chat_core::shard::Event;

use super::gateway_link::event;
use super::store_failed;
use super::writes::Writes;
use crate::answer;
use crate::store::seal::MasterKey;
use crate::store::{entries, inboxes, listing, people};

/// The number of events in a page if the caller names no size.
const PAGE: u32 = 100;
/// The most events in a page.
const MAX_PAGE: u32 = 256;
/// The bound of a page in bytes; the last entry may exceed it.
const MAX_BYTES: usize = 1 << 20;

/// The public service of devices' inboxes.
pub struct InboxService {
    writes: Writes,
    pools: Pools,
    master: MasterKey,
}

impl InboxService {
    /// Wires the service.
    pub fn new(writes: Writes, pools: Pools, master: MasterKey) -> Self {
        Self {
            writes,
            pools,
            master,
        }
    }

    /// Reads the device's inbox rows: each chat, and the first seq that the device lacks. With `chat` it returns only
    /// the row of that chat. Also returns whether rows are missing because a cell did not answer. Fails if the device
    /// was revoked, is unknown, or is another user's.
    async fn rows(
        &self,
        (user, device): (UserId, DeviceId),
        chat: Option<ChatId>,
    ) -> Result<(Vec<(ChatId, Seq)>, bool), ApiError> {
        let (inbox, partial) = match chat {
            Some(chat) => {
                let inbox = inboxes::inbox_in(&self.pools, device, chat).await;
                (inbox.map_err(store_failed)?, false)
            }
            None => {
                let read = inboxes::inboxes(&self.pools, &[device]).await;
                let read = read.map_err(store_failed)?;
                let inbox = read.devices.into_iter().next();
                (inbox.map(|(_, inbox)| inbox), read.partial)
            }
        };
        self.is_own(user, device, inbox.as_ref().map(|inbox| inbox.user))
            .await?;
        let rows = inbox.into_iter().flat_map(|inbox| inbox.rows);
        Ok((rows.map(|(chat, from, _)| (chat, from)).collect(), partial))
    }

    /// Checks that the device is active and this user's, as a token that accounts signed says it is.
    async fn check_device(&self, user: UserId, device: DeviceId) -> Result<(), ApiError> {
        let active = people::active(self.pools.people(), &[device]).await;
        let active = active.map_err(store_failed)?;
        self.is_own(user, device, active.first().map(|active| active.user))
            .await
    }

    /// Checks that the device is active and this user's. `active_of` is the user whose active device it is, as the
    /// store says. Fails if there is none, because the device was revoked or is unknown, and if it is another user.
    async fn is_own(
        &self,
        user: UserId,
        device: DeviceId,
        active_of: Option<UserId>,
    ) -> Result<(), ApiError> {
        let Some(active_of) = active_of else {
            let revoked = people::revoked(self.pools.people(), &[device]).await;
            return Err(match revoked.map_err(store_failed)?.is_empty() {
                false => ApiError::new(v1::ErrorReason::DeviceRevoked, "the device was revoked"),
                true => ApiError::new(v1::ErrorReason::TokenInvalid, "the device is not known"),
            });
        };
        if active_of != user {
            return Err(ApiError::new(
                v1::ErrorReason::TokenInvalid,
                "the device is another user's",
            ));
        }
        Ok(())
    }

    /// Reads at most `size` events of these inbox rows, chat by chat. Also returns whether there are more.
    async fn page(
        &self,
        user: UserId,
        rows: &[(ChatId, Seq)],
        size: u32,
    ) -> Result<(Vec<v1::ServerEvent>, bool), ApiError> {
        let (mut events, mut bytes, mut left) = (Vec::new(), 0, size);
        for (chat, from) in rows {
            if left == 0 || bytes >= MAX_BYTES {
                return Ok((events, true));
            }
            let room = MAX_BYTES - bytes;
            let window = entries::window(&self.pools, &self.master, *chat, user, *from, left, room)
                .await
                .map_err(store_failed)?;
            for item in window.items {
                let encoded = event(*chat, item);
                bytes += encoded.len();
                left = left.saturating_sub(1);
                let read = prost::Message::decode(encoded);
                events.push(
                    read.map_err(|_| ApiError::new(v1::ErrorReason::Internal, "an entry does not decode"))?,
                );
            }
            if !window.done {
                return Ok((events, true));
            }
        }
        Ok((events, false))
    }
}

#[tonic::async_trait]
impl Inbox for InboxService {
    async fn fetch(&self, request: Request<v1::FetchRequest>) -> Result<Response<v1::FetchResponse>, Status> {
        let (user, device) = Principal::read(request.metadata())?.device()?;
        let request = request.into_inner();
        let chat = parse::optional_id("chat_id", &request.chat_id)?;
        let size = parse::page_size(request.page_size, PAGE, MAX_PAGE);
        let epoch = listing::epoch(&self.pools).await.map_err(store_failed)?;
        let (rows, partial) = self.rows((user, device), chat).await?;
        let (events, more) = self.page(user, &rows, size).await?;
        if events.is_empty() && partial {
            return Err(ApiError::unavailable("a part of the inbox cannot be read now").into());
        }
        Ok(Response::new(v1::FetchResponse {
            events,
            // A later call brings the rows that could not be read.
            more: more || partial,
            store_epoch: epoch.to_string(),
        }))
    }

    async fn ack(&self, request: Request<v1::AckRequest>) -> Result<Response<v1::AckResponse>, Status> {
        let (user, device) = Principal::read(request.metadata())?.device()?;
        let chat: ChatId = parse::id("chat_id", &request.get_ref().chat_id)?;
        self.writes.check_owner(chat, request.metadata())?;
        // Rule 4: nobody but the device ends its inbox row.
        self.check_device(user, device).await?;
        let seq = Seq(request.get_ref().seq);
        let event = |origin| Event::Ack {
            origin,
            chat,
            user,
            device,
            seq,
            write: true,
        };
        let acked = self.writes.call(chat, event, Outcome::acked).await?;
        acked.map_err(|refusal| answer::to_error(&refusal))?;
        Ok(Response::new(v1::AckResponse {}))
    }
}
