//! Makes groups, and decides who may be added to one. The node that owns the chat writes a new group without its shard,
//! and pushes the first entry to the members. The shard then settles that entry like every other.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use tern_proto::ApiError;
use tern_proto::v1::ErrorReason;
use tern_store::{Pools, postgres};
use tern_types::limits::MAX_GROUP_MEMBERS;
use tern_types::{ChatId, Clock, RequestId, Seq, UserId};
use tokio::time::Instant;

use tern_chat_core::content::{self, fingerprint};
use tern_chat_core::shard::{ANSWER_WITHIN, Event};
use tern_chat_core::{Entry, EntryKind, NewEntry, Refusal};

use super::caller::Caller;
use super::parsed::group_full;
use super::store_failed;
use crate::answer;
use crate::fanout::{Outgoing, Pushes};
use crate::gateways::Kind;
use crate::shard_loop::Shards;
use crate::shard_loop::effects::entry_event;
use crate::store::group::{self, Created, NewGroup};
use crate::store::seal::MasterKey;
use crate::store::{joining, listing, strangers};

/// The time between two tries to make a group while another transaction has locked one of its people.
const LOCKED_RETRY: Duration = Duration::from_millis(100);

/// The maker of groups.
pub struct Groups {
    pub pools: Pools,
    pub master: MasterKey,
    pub shards: Shards,
    /// The fan-out task that pushes the first entries of groups.
    pub pushes: Pushes,
    /// The number of new strangers whom one user's devices may add to groups, or to whom they may write first, within a
    /// day.
    pub new_strangers: usize,
}

impl Groups {
    /// Returns the users among `asked` whom the caller may add to the group. It returns all of them if the caller acts
    /// for nobody, or if the request is in the log already, and nobody if the caller is no member. If a device calls,
    /// the new strangers among the users count from now on, even if the change fails later. The same request again
    /// counts none of them twice.
    ///
    /// # Errors
    ///
    /// The users are too many new strangers for today, or the store is away.
    pub async fn addable(
        &self,
        caller: Caller,
        chat: ChatId,
        request: RequestId,
        asked: &[UserId],
    ) -> Result<Vec<UserId>, ApiError> {
        if caller.is_nobody() {
            return Ok(asked.to_vec());
        }
        match self
            .may_add(caller, chat, request, asked)
            .await
            .map_err(store_failed)?
        {
            Ok(addable) => Ok(addable),
            Err(retry_after) => Err(answer::to_error(&Refusal::StrangersLimited { retry_after })),
        }
    }

    /// Decides whom the caller may add, and counts the new strangers. The inner `Err` says that they are too many, and
    /// after which time they fit.
    async fn may_add(
        &self,
        caller: Caller,
        chat: ChatId,
        request: RequestId,
        asked: &[UserId],
    ) -> sqlx::Result<Result<Vec<UserId>, Duration>> {
        if joining::is_placed(self.pools.of(chat), chat, caller.user, request).await? {
            return Ok(Ok(asked.to_vec()));
        }
        // The shard refuses this caller. Who of the people may be added says who is a member, who left and who has
        // blocked the caller, so it has no influence on what a caller outside the group is told.
        if !listing::is_member(&self.pools, chat, caller.user).await? {
            return Ok(Ok(Vec::new()));
        }
        let strangers = match caller.device {
            Some(_) => strangers::among(&self.pools, caller.user, asked).await?,
            None => Vec::new(),
        };
        let mut tx = postgres::begin(self.pools.of(chat)).await?;
        let addable = joining::addable(&mut tx, chat, caller.user, asked).await?;
        let added: HashSet<UserId> = addable
            .iter()
            .filter(|(_, is_member)| !is_member)
            .map(|(user, _)| *user)
            .collect();
        let mut new = strangers;
        new.retain(|user| added.contains(user));
        if !new.is_empty() {
            let (limit, now) = (self.new_strangers, Clock::wall());
            strangers::lock(&mut tx, &HashSet::from([caller.user])).await?;
            if let Err(after) = strangers::meet_all(&mut tx, caller.user, &new, limit, now).await? {
                return Ok(Err(after));
            }
        }
        tx.commit().await?;
        Ok(Ok(addable.into_iter().map(|(user, _)| user).collect()))
    }

    /// Makes the group, pushes its first entry to the members, and has its shard settle it. The same request may be
    /// repeated, and then does nothing.
    ///
    /// # Errors
    ///
    /// There are too many members or new strangers, one of the users does not exist, the request_id was used for
    /// another group, or the store is away.
    pub async fn create(
        &self,
        caller: Caller,
        chat: ChatId,
        request: RequestId,
        title: &str,
        members: Vec<UserId>,
    ) -> Result<(), ApiError> {
        let members = group::distinct(members, caller.user);
        if members.len() >= MAX_GROUP_MEMBERS {
            return Err(group_full());
        }
        let first = first_entry(caller, request, content::of_creation(title, &members));
        let group = NewGroup {
            chat,
            title,
            owner: caller.user,
            members: &members,
            entry: &first,
            strangers: caller.device.map(|_| self.new_strangers),
        };
        match self.patiently(&group).await? {
            Created::Before => Ok(()),
            Created::Locked => Err(answer::to_error(&Refusal::LOCKED)),
            Created::RequestIdReused => Err(ApiError::new(
                ErrorReason::RequestIdReused,
                "the request_id was used for another group",
            )),
            Created::UserNotFound(user) => Err(ApiError::new(
                ErrorReason::UserNotFound,
                format!("no user has the id {user}"),
            )),
            Created::Limited(retry_after) => {
                Err(answer::to_error(&Refusal::StrangersLimited { retry_after }))
            }
            Created::New {
                members,
                entry,
                sent_at,
            } => {
                let entry = Entry {
                    chat,
                    seq: Seq(1),
                    ordinal: 0,
                    sent_at,
                    new: entry,
                };
                self.announce(chat, entry_event(&entry), caller.user, members)
                    .await;
                Ok(())
            }
        }
    }

    /// Makes the group. While another transaction has locked one of its people, this tries again from here and does not
    /// wait for them in the store: a wait there would keep a connection from other chats.
    async fn patiently(&self, group: &NewGroup<'_>) -> Result<Created, ApiError> {
        let until = Instant::now() + ANSWER_WITHIN;
        loop {
            let created = group::create(&self.pools, &self.master, group).await;
            match created.map_err(store_failed)? {
                Created::Locked if Instant::now() + LOCKED_RETRY < until => {
                    tokio::time::sleep(LOCKED_RETRY).await
                }
                created => return Ok(created),
            }
        }
    }

    /// Pushes the first entry to the owner and the other members, and tells the shard of it.
    async fn announce(&self, chat: ChatId, event: Bytes, owner: UserId, mut users: Vec<UserId>) {
        users.push(owner);
        let outgoing = Outgoing {
            chat,
            kind: Kind::Entry(Seq(1)),
            users: users.into(),
            except: Vec::new(),
            event,
            span: None,
        };
        self.pushes.push(outgoing);
        // The shard loads the chat, and finds its first entry unsettled.
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

/// Returns the entry with which the caller makes a group. `content` names the group and its members.
fn first_entry(caller: Caller, request: RequestId, content: Bytes) -> NewEntry {
    NewEntry::change(
        EntryKind::ChatCreated,
        caller.user,
        caller.sender_device(),
        request,
        fingerprint([content.as_ref()]),
        content,
    )
}
