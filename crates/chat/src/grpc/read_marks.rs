//! Asks the chats' owners for the read marks in their memory. A read mark is in its owner's memory before anybody is
//! told of it, and in the store up to a second later; a send sets a read mark too. So a node that shows chats also asks
//! their owners, and callers see the marks that they have just set.

use std::collections::HashMap;
use std::time::Duration;

use futures::future::join_all;
use tern_cluster::{Node, NodeContext, Role};
use tern_proto::ApiError;
use tern_proto::internal::chat_shards_client::ChatShardsClient;
use tern_proto::internal::{GetReadMarksRequest, GetReadMarksResponse, ReadMark};
use tern_store::Pools;
use tern_types::{ChatId, Seq, Slot, UserId};
use tokio::time::timeout;
use tonic::{Request, Response, Status};

use super::store_failed;
use crate::shard_loop::Shards;
use crate::store::listing::{self, ChatView};

/// The longest wait for an owner's answer. Without an answer the store's marks are shown: the owner's newer marks reach
/// the store within a second, or are lost with the owner.
const PATIENCE: Duration = Duration::from_secs(1);
/// The most chats of one request: as many as a page of chats has.
pub const MAX_CHATS: usize = 200;

/// The reader of the owners' read marks. It is cheap to clone.
#[derive(Clone)]
pub struct ReadMarks {
    pub ctx: NodeContext,
    pub shards: Shards,
    pub pools: Pools,
}

impl ReadMarks {
    /// Returns the user's read marks in these chats, as far as they are in the owners' memory: the chat, the
    /// mark, and the number of the user's own messages after it, which count as unread for others only. It
    /// leaves out the chats of owners that do not answer in time.
    pub async fn of(&self, user: UserId, chats: impl Iterator<Item = ChatId>) -> Vec<(ChatId, Seq, u32)> {
        let map = self.ctx.map.current();
        let mut own = Vec::new();
        let mut others: HashMap<&str, (&Node, Vec<ChatId>)> = HashMap::new();
        for chat in chats {
            match map.owner(Role::Chat, Slot::of_chat(chat)) {
                Some(node) if *node.name != *self.ctx.name => {
                    let asked = others.entry(&node.name).or_insert((node, Vec::new()));
                    asked.1.push(chat);
                }
                _ => own.push(chat),
            }
        }
        let own = self.shards.read_marks(user, own);
        let others = others
            .into_values()
            .map(|(node, chats)| self.ask(node, user, chats));
        let (mut marks, others) = tokio::join!(own, join_all(others));
        marks.extend(others.into_iter().flatten());
        marks
    }

    /// Puts these marks into the views where they are at least as new as those that were read from the store.
    pub async fn show(&self, views: &mut [ChatView], marks: Vec<(ChatId, Seq, u32)>) -> Result<(), ApiError> {
        let shown = listing::show_marks(&self.pools, views, marks).await;
        shown.map_err(store_failed)
    }

    /// Asks another node for the user's read marks. Returns none if the node does not answer in time.
    async fn ask(&self, node: &Node, user: UserId, chats: Vec<ChatId>) -> Vec<(ChatId, Seq, u32)> {
        let request = GetReadMarksRequest {
            user_id: user.to_vec().into(),
            chat_ids: chats.iter().map(|chat| chat.to_vec().into()).collect(),
        };
        let call = async {
            let mut client = ChatShardsClient::new(self.ctx.channels.get(&node.address)?);
            client.get_read_marks(request).await
        };
        let answer = match timeout(PATIENCE, call).await {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) => {
                tracing::info!(node = node.name, %status, "no read marks from an owner");
                return Vec::new();
            }
            Err(_) => {
                tracing::info!(node = node.name, "no read marks from an owner in time");
                return Vec::new();
            }
        };
        let mark = |mark: ReadMark| {
            let chat = ChatId::from_slice(&mark.chat_id).ok()?;
            Some((chat, Seq(mark.seq), mark.own_unread))
        };
        answer.marks.into_iter().filter_map(mark).collect()
    }
}

/// Answers another node with the read marks in this node's memory. Fails with `INVALID_ARGUMENT` if an id is malformed
/// or the request has more than [`MAX_CHATS`] chats.
pub async fn answer(
    shards: &Shards,
    request: Request<GetReadMarksRequest>,
) -> Result<Response<GetReadMarksResponse>, Status> {
    let request = request.into_inner();
    if request.chat_ids.len() > MAX_CHATS {
        return Err(Status::invalid_argument(format!("at most {MAX_CHATS} chats")));
    }
    let malformed = |_| Status::invalid_argument("an id");
    let user = UserId::from_slice(&request.user_id).map_err(malformed)?;
    let chats = request.chat_ids.iter().map(|chat| ChatId::from_slice(chat));
    let chats = chats.collect::<Result<Vec<_>, _>>().map_err(malformed)?;
    let marks = shards.read_marks(user, chats).await;
    let mark = |(chat, seq, own_unread): (ChatId, Seq, u32)| ReadMark {
        chat_id: chat.to_vec().into(),
        seq: seq.0,
        own_unread,
    };
    let marks = marks.into_iter().map(mark).collect();
    Ok(Response::new(GetReadMarksResponse { marks }))
}
