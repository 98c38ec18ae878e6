//! Reads windows of logs for devices that catch up.

use bytes::Bytes;
use tern_proto::internal::{WindowReplies, WindowReply, WindowRequest};
use tern_proto::{raw, v1};
use tern_store::Pools;
use tern_types::limits::CATCH_UP_WINDOW;
use tern_types::{ChatId, DeviceId, Seq, UserId};
use tokio::sync::Semaphore;

use crate::metrics;
use crate::ownership::Ownership;
use crate::store::ReadError;
use crate::store::entries::{self, Item};
use crate::store::seal::MasterKey;

/// The bound of one window in bytes: a few of the largest bodies.
const WINDOW_BYTES: usize = 2 << 20;

/// The reader of windows from the store.
pub struct Windows {
    ownership: Ownership,
    pools: Pools,
    master: MasterKey,
    /// The turns at each cell, in the order of the cells. They are half as many as this node's connections to
    /// the cell, so that loads of chats get some too. All gateways share them.
    reads: Vec<Semaphore>,
}

impl Windows {
    /// Creates a reader that uses these pools.
    pub fn new(ownership: Ownership, pools: Pools, master: MasterKey) -> Self {
        let turns = pools.cell_connections() as usize / 2;
        Self {
            reads: pools
                .count()
                .all()
                .map(|_| Semaphore::new(turns.max(1)))
                .collect(),
            ownership,
            pools,
            master,
        }
    }

    /// Answers a request. The answer has `failed` set if an id is malformed, this node does not own the chat, or it
    /// cannot read the chat.
    pub async fn reply(&self, request: WindowRequest, map_version: i64) -> WindowReplies {
        let mut reply = WindowReply {
            r#ref: request.r#ref,
            session: request.session,
            chat_id: request.chat_id.clone(),
            next_seq: request.from_seq,
            ..WindowReply::default()
        };
        match self.read(&request, map_version).await {
            Some((chat, window)) => {
                metrics::window(window.items.len());
                reply.seqs = window.items.iter().map(|item| item.seq().0).collect();
                reply.events = window.items.into_iter().map(|item| event(chat, item)).collect();
                reply.next_seq = window.next.0;
                reply.done = window.done;
            }
            None => reply.failed = true,
        }
        WindowReplies {
            map_version: self.ownership.map_version(),
            replies: vec![reply],
        }
    }

    async fn read(&self, request: &WindowRequest, map_version: i64) -> Option<(ChatId, entries::Window)> {
        let chat = ChatId::from_slice(&request.chat_id).ok()?;
        let user = UserId::from_slice(&request.user_id).ok()?;
        let device = DeviceId::from_slice(&request.device_id).ok()?;
        self.ownership.check(chat, map_version).ok()?;
        let _permit = self.reads[self.pools.number(chat)].acquire().await.ok()?;
        match self.window(request, chat, user, device).await {
            Ok(window) => Some((chat, window)),
            Err(error) => {
                tracing::warn!(%chat, %error, "cannot read a window");
                None
            }
        }
    }

    /// Reads the window from `from_seq` or, if that is 0, from the device's place in the chat.
    async fn window(
        &self,
        request: &WindowRequest,
        chat: ChatId,
        user: UserId,
        device: DeviceId,
    ) -> Result<entries::Window, ReadError> {
        let from = match Seq(request.from_seq) {
            Seq::ZERO => entries::place(&self.pools, chat, user, device).await?,
            from => Some(from),
        };
        let (from, limit) = (from.unwrap_or(Seq(1)), request.limit.clamp(1, CATCH_UP_WINDOW));
        entries::window(&self.pools, &self.master, chat, user, from, limit, WINDOW_BYTES).await
    }
}

/// Encodes the server event of an item of a log.
pub fn event(chat: ChatId, item: Item) -> Bytes {
    match item {
        Item::Entry(entry) => raw::entry_event(&entry),
        Item::Skipped { to } => raw::event(v1::server_event::Event::Skipped(v1::Skipped {
            chat_id: chat.to_string(),
            to_seq: to.0,
            reason: v1::SkipReason::NotAMember.into(),
        })),
    }
}
