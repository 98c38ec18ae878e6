//! Making a group: written at once by the chat's owner, then live to its members, then settled like every entry.

use std::sync::Arc;

use bytes::Bytes;
use sqlx::PgPool;
use tern_proto::ApiError;
use tern_proto::v1::ErrorReason;
use tern_types::limits::MAX_GROUP_MEMBERS;
use tern_types::{ChatId, RequestId, Seq, UserId};
use tokio::sync::mpsc;

use super::caller::Caller;
use super::store_away;
use crate::content::{self, fingerprint};
use crate::fanout::{Kind, Outgoing};
use crate::metrics;
use crate::shard::Shards;
use crate::shard::effects::entry_event;
use crate::state::shard::Event;
use crate::state::{Entry, EntryKind, NewEntry};
use crate::store::load::{self, Created, NewGroup};
use crate::store::seal::MasterKey;

pub struct Groups {
    pub pool: PgPool,
    pub master: MasterKey,
    pub shards: Shards,
    pub pushes: mpsc::Sender<Outgoing>,
}

impl Groups {
    /// Idempotent on the request.
    pub async fn create(
        &self,
        caller: Caller,
        chat: ChatId,
        request: RequestId,
        title: &str,
        members: Vec<UserId>,
    ) -> Result<(), ApiError> {
        let members = load::distinct(members, caller.user);
        if members.len() >= MAX_GROUP_MEMBERS {
            return Err(ApiError::new(
                ErrorReason::GroupFull,
                "a group has at most 1,024 members",
            ));
        }
        let content = content::of_creation(title, &members);
        let new = NewEntry {
            media: Vec::new(),
            trace: None,
            arrived: None,
            read_receipts_off: false,
            kind: EntryKind::ChatCreated,
            sender: caller.user,
            device: caller.sender_device(),
            request,
            fingerprint: fingerprint([content.as_ref()]),
            counts: false,
            content,
        };
        let group = NewGroup {
            chat,
            title,
            owner: caller.user,
            members: &members,
            entry: &new,
        };
        match load::create_group(&self.pool, &self.master, &group)
            .await
            .map_err(store_away)?
        {
            Created::Before => Ok(()),
            Created::RequestIdReused => Err(ApiError::new(
                ErrorReason::RequestIdReused,
                "the request_id was used for another group",
            )),
            Created::UserNotFound(user) => Err(ApiError::new(
                ErrorReason::UserNotFound,
                format!("no user has the id {user}"),
            )),
            Created::New { sent_at } => {
                let entry = Entry {
                    chat,
                    seq: Seq(1),
                    ordinal: 0,
                    sent_at,
                    new: Arc::new(new),
                };
                self.announce(chat, entry_event(&entry), caller.user, members)
                    .await;
                Ok(())
            }
        }
    }

    async fn announce(&self, chat: ChatId, event: Bytes, owner: UserId, mut users: Vec<UserId>) {
        users.push(owner);
        let outgoing = Outgoing {
            chat,
            kind: Kind::Entry(Seq(1)),
            users,
            except: Vec::new(),
            event,
            span: None,
        };
        if self.pushes.try_send(outgoing).is_err() {
            metrics::push_dropped("fanout");
        }
        // Loaded by its shard, which finds it unsettled.
        let _ended = self
            .shards
            .send(
                chat,
                Event::Recover {
                    chat,
                    low: Seq(1),
                    high: Seq(1),
                },
            )
            .await;
    }
}
