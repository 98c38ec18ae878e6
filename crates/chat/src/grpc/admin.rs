//! Serves the part of `tern.v1.Admin` that is about chats, queues and the cluster.

use tern_cluster::NodeContext;
use tern_identity::principal::{Principal, Scope};
use tern_proto::internal::chat_admin_server::ChatAdmin;
use tern_proto::internal::chat_shards_server::ChatShards;
use tern_proto::internal::{GetReadMarksRequest, GetReadMarksResponse, GetShardsRequest, GetShardsResponse};
use tern_proto::v1::{self, ErrorReason};
use tern_proto::{ApiError, parse};
use tern_store::Pools;
use tern_types::{ChatId, RequestId, Seq, UserId};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use tern_chat_core::content::role_to_wire;
use tern_chat_core::receipts::Watermark;

use super::cluster;
use super::message_trace;
use super::read_marks;
use super::store_failed;
use super::views::merged;
use super::writes::Writes;
use crate::lookup::Lookup;
use crate::store::inspect::{self, ChatFacts, SLOTS_A_RANGE};
use crate::store::listing;
use crate::store::seal::MasterKey;

/// The admin service of a chat node. It also answers what other nodes ask about the shards.
pub struct AdminService {
    pub ctx: NodeContext,
    pub writes: Writes,
    pub lookup: Lookup,
    pub pools: Pools,
    pub master: MasterKey,
}

impl AdminService {
    /// Finds the entry that the request names, by chat and seq or by sender and request_id.
    async fn named(&self, request: &v1::TraceMessageRequest) -> Result<(ChatId, Seq), ApiError> {
        let chat: Option<ChatId> = parse::optional_id("chat_id", &request.chat_id)?;
        let sender: Option<UserId> = parse::optional_id("sender_user_id", &request.sender_user_id)?;
        let sent: Option<RequestId> = parse::optional_id("request_id", &request.request_id)?;
        match (chat, request.seq, sender, sent) {
            (Some(chat), 1.., None, None) => Ok((chat, Seq(request.seq))),
            (None, 1.., ..) => Err(ApiError::invalid("chat_id", "is needed with seq")),
            (chat, 0, Some(sender), Some(sent)) => {
                let found = inspect::placed(&self.pools, chat, sender, sent).await;
                found.map_err(store_failed)?.ok_or_else(no_message)
            }
            _ => Err(ApiError::invalid(
                "seq",
                "is needed with chat_id, or sender_user_id and request_id, and not both",
            )),
        }
    }

    /// Reads the watermark of each present member from the store.
    async fn marks(&self, chat: ChatId) -> Result<Vec<(UserId, Watermark)>, ApiError> {
        let marks = listing::receipts(&self.pools, chat).await.map_err(store_failed)?;
        Ok(marks.into_iter().map(|(user, _, mark)| (user, mark)).collect())
    }
}

#[tonic::async_trait]
impl ChatAdmin for AdminService {
    async fn inspect_chat(
        &self,
        request: Request<v1::InspectChatRequest>,
    ) -> Result<Response<v1::InspectChatResponse>, Status> {
        administrate(request.metadata())?;
        let chat: ChatId = parse::id("chat_id", &request.get_ref().chat_id)?;
        self.writes.check_owner(chat, request.metadata())?;
        let live = self.writes.shards.inspect(chat).await.unwrap_or_default();
        let facts = inspect::chat(&self.pools, chat).await.map_err(store_failed)?;
        let facts = facts.ok_or_else(|| ApiError::new(ErrorReason::ChatNotFound, "there is no such chat"))?;
        let mut marks = self.marks(chat).await?;
        for (user, mark) in &mut marks {
            *mark = merged(*mark, live.marks.get(user));
        }
        Ok(Response::new(chat_message(chat, facts, &marks, &self.ctx.name)))
    }

    async fn trace_message(
        &self,
        request: Request<v1::TraceMessageRequest>,
    ) -> Result<Response<v1::TraceMessageResponse>, Status> {
        administrate(request.metadata())?;
        let (chat, seq) = self.named(request.get_ref()).await?;
        self.writes.check_owner(chat, request.metadata())?;
        // The shard's memory is asked before the store: an entry that it forgets in between is settled, and the store
        // says so.
        let live = self.writes.shards.inspect(chat).await.unwrap_or_default();
        let facts = inspect::message(&self.pools, &self.master, chat, seq).await;
        let facts = facts.map_err(store_failed)?.ok_or_else(no_message)?;
        let marks = self.marks(chat).await?;
        let mut users: Vec<UserId> = facts.recipients.iter().map(|recipient| recipient.user).collect();
        users.dedup();
        let sessions = self.lookup.sessions(users).await;
        let trace = message_trace::Trace {
            chat,
            seq,
            facts,
            live,
            marks,
            sessions,
        };
        Ok(Response::new(trace.into_message(&self.ctx.name)?))
    }

    async fn get_queues(
        &self,
        request: Request<v1::GetQueuesRequest>,
    ) -> Result<Response<v1::GetQueuesResponse>, Status> {
        administrate(request.metadata())?;
        // All are asked together, so that a cell that hangs is waited for once.
        let (unsettled, inbox, (shards, nodes_missed)) = tokio::join!(
            inspect::unsettled(&self.pools),
            inspect::inbox_size(&self.pools),
            cluster::shards(&self.ctx),
        );
        let (all, inbox) = (unsettled.map_err(store_failed)?, inbox.map_err(store_failed)?);
        let unsettled = all.ranges.into_iter().map(|range| {
            let first_slot = range.range * u32::from(SLOTS_A_RANGE);
            v1::UnsettledRange {
                first_slot,
                last_slot: first_slot + u32::from(SLOTS_A_RANGE) - 1,
                commits: range.commits,
                oldest_age_ms: range.oldest_age_ms,
            }
        });
        Ok(Response::new(v1::GetQueuesResponse {
            unsettled: unsettled.collect(),
            inbox: Some(v1::InboxQueue {
                rows: inbox.rows,
                oldest_age_ms: inbox.oldest_age_ms,
                estimated: inbox.estimated,
            }),
            shards,
            nodes_missed,
            partial: all.partial || inbox.partial,
        }))
    }

    async fn get_cluster_map(
        &self,
        request: Request<v1::GetClusterMapRequest>,
    ) -> Result<Response<v1::GetClusterMapResponse>, Status> {
        administrate(request.metadata())?;
        let epoch = listing::epoch(&self.pools).await.map_err(store_failed)?;
        let map = self.ctx.map.current();
        Ok(Response::new(v1::GetClusterMapResponse {
            map_version: map.version(),
            answered_by: self.ctx.name.to_string(),
            store_epoch: epoch.to_string(),
            nodes: cluster::nodes(&self.ctx, &map).await,
        }))
    }
}

#[tonic::async_trait]
impl ChatShards for AdminService {
    async fn get_read_marks(
        &self,
        request: Request<GetReadMarksRequest>,
    ) -> Result<Response<GetReadMarksResponse>, Status> {
        read_marks::answer(&self.writes.shards, request).await
    }

    async fn get_shards(
        &self,
        _request: Request<GetShardsRequest>,
    ) -> Result<Response<GetShardsResponse>, Status> {
        let of_shards = self.writes.shards.busyness().await;
        let shards = of_shards
            .into_iter()
            .enumerate()
            .map(|(number, busyness)| v1::ShardQueue {
                node: self.ctx.name.to_string(),
                shard: u32::try_from(number).unwrap_or(u32::MAX),
                busy: busyness.busy,
                waiting: busyness.waiting as u64,
                loaded_chats: busyness.chats as u64,
                unsettled_chats: busyness.unsettled as u64,
            });
        Ok(Response::new(GetShardsResponse {
            shards: shards.collect(),
        }))
    }
}

/// Checks that an API key with the scope for administration makes the call.
fn administrate(metadata: &MetadataMap) -> Result<(), ApiError> {
    Principal::read(metadata)?.key(Scope::Admin).map(drop)
}

fn no_message() -> ApiError {
    ApiError::new(ErrorReason::MessageNotFound, "there is no such message")
}

/// Makes the answer to an operator, who is shown no more of the marks than another member of the chat.
fn chat_message(
    chat: ChatId,
    facts: ChatFacts,
    marks: &[(UserId, Watermark)],
    owner: &str,
) -> v1::InspectChatResponse {
    let mark = |user| {
        let found = marks.iter().find(|(other, _)| *other == user);
        found.map(|(_, mark)| mark.told()).unwrap_or_default()
    };
    let members = facts.members.into_iter().map(|member| v1::AdminMember {
        user_id: member.user.to_string(),
        role: listing::role(member.role).map_or(0, |role| role_to_wire(role).into()),
        joined_seq: member.joined.0,
        devices: member.devices,
        delivered_seq: mark(member.user).delivered.0,
        read_seq: mark(member.user).read.0,
    });
    v1::InspectChatResponse {
        chat_id: chat.to_string(),
        kind: listing::kind(facts.kind).map_or(0, |kind| super::views::kind(kind).into()),
        title: facts.title,
        created_by_user_id: if facts.created_by == UserId::SYSTEM {
            String::new()
        } else {
            facts.created_by.to_string()
        },
        created_at_ms: facts.created_at.0,
        head_seq: facts.head.0,
        last_entry_at_ms: facts.last_at.unwrap_or_default().0,
        slot: u32::from(tern_types::Slot::of_chat(chat).number()),
        owner_node: owner.to_owned(),
        unsettled: facts.unsettled,
        inbox_rows: facts.inbox_rows,
        members: members.collect(),
    }
}

#[cfg(test)]
mod tests {
    use tern_types::Timestamp;

    use super::*;
    use crate::store::inspect::MemberFacts;

    #[test]
    fn an_operator_does_not_see_what_a_member_read_with_read_receipts_off() {
        let (open, silent) = (UserId::random(), UserId::random());
        let member = |user| MemberFacts {
            user,
            role: 1,
            joined: Seq(1),
            devices: 1,
        };
        let facts = ChatFacts {
            kind: 2,
            title: String::new(),
            created_by: UserId::SYSTEM,
            created_at: Timestamp(0),
            head: Seq(7),
            last_at: None,
            unsettled: 0,
            inbox_rows: 0,
            members: vec![member(open), member(silent)],
        };
        let mark = |read_receipts_off| Watermark {
            delivered: Seq(7),
            read: Seq(5),
            read_receipts_off,
        };
        let marks = [(open, mark(false)), (silent, mark(true))];
        let shown = chat_message(ChatId(uuid::Uuid::nil()), facts, &marks, "chat-0").members;
        let shown = shown.iter().map(|member| (member.delivered_seq, member.read_seq));
        assert_eq!(shown.collect::<Vec<_>>(), [(7, 5), (7, 0)]);
    }
}
