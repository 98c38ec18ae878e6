//! Handles the calls that read chats, members and entries. Each method handles the call of its name.

use tern_identity::principal::Scope;
use tern_proto::{ApiError, parse, v1};
use tern_store::Pools;
use tern_types::limits::MAX_GROUP_MEMBERS;
use tern_types::{Seq, UserId};
use tonic::{Request, Status};

use super::call::{Calls, Needs, Who};
use super::heads::ChatHeads;
use super::lists;
use crate::grpc::store_failed;
use crate::grpc::views;
use crate::store::seal::MasterKey;
use crate::store::{entries, listing};

/// The most entries or messages of a page.
pub const MAX_ENTRIES: u32 = 256;
/// The bound of a page in bytes; the last entry may exceed it. Clients accept responses of 4 MiB by default.
pub const MAX_PAGE_BYTES: usize = 1 << 20;

/// The handlers of the calls that read chats, members and logs.
pub struct Reading {
    pub calls: Calls,
    pub heads: ChatHeads,
    pub pools: Pools,
    pub master: MasterKey,
}

impl Reading {
    /// Reads one chat of the caller.
    pub async fn get_chat(
        &self,
        request: Request<v1::GetChatRequest>,
    ) -> Result<v1::GetChatResponse, Status> {
        // The owner knows read marks before the store does.
        let (call, chat) = self
            .calls
            .open_chat(request, Who::Person, Scope::ChatsRead, Needs::Owner)
            .await?;
        let chat = self.heads.one(call.caller, chat).await?;
        Ok(v1::GetChatResponse { chat: Some(chat) })
    }

    /// Reads a page of the caller's chats.
    pub async fn list_chats(
        &self,
        request: Request<v1::ListChatsRequest>,
    ) -> Result<v1::ListChatsResponse, Status> {
        let call = self.calls.open(request, Who::Person, Scope::ChatsRead).await?;
        let page = self
            .heads
            .page(call.caller, &lists::asked(&call.request)?)
            .await?;
        if page.partial && !call.request.accept_partial {
            return Err(ApiError::unavailable("a part of the chats cannot be read now").into());
        }
        Ok(page)
    }

    /// Reads a page of a chat's present members, by id.
    pub async fn list_members(
        &self,
        request: Request<v1::ListMembersRequest>,
    ) -> Result<v1::ListMembersResponse, Status> {
        let (call, chat) = self
            .calls
            .open_chat(request, Who::Anybody, Scope::ChatsRead, Needs::Visible)
            .await?;
        let request = &call.request;
        let size = parse::page_size(request.page_size, 100, MAX_GROUP_MEMBERS as u32);
        let after = parse::optional_id("page_token", &request.page_token)?.unwrap_or(UserId::SYSTEM);
        let members = listing::members(&self.pools, chat, after, size)
            .await
            .map_err(store_failed)?;
        let full = members.len() == size as usize;
        let next = members.last().filter(|_| full).map(|(user, ..)| user.to_string());
        let members = members.into_iter().map(views::member).collect();
        Ok(v1::ListMembersResponse {
            members,
            next_page_token: next.unwrap_or_default(),
        })
    }

    /// Reads entries that the caller may have, from a seq upwards.
    pub async fn list_entries(
        &self,
        request: Request<v1::ListEntriesRequest>,
    ) -> Result<v1::ListEntriesResponse, Status> {
        let (call, chat) = self
            .calls
            .open_chat(request, Who::Person, Scope::ChatsRead, Needs::Visible)
            .await?;
        let size = parse::page_size(call.request.page_size, 100, MAX_ENTRIES);
        let (pools, master, user) = (&self.pools, &self.master, call.caller.user);
        let from = Seq(call.request.from_seq);
        let window = entries::window(pools, master, chat, user, from, size, MAX_PAGE_BYTES)
            .await
            .map_err(store_failed)?;
        let next_from_seq = if window.done { 0 } else { window.next.0 };
        let entries = window.items.into_iter().filter_map(|item| match item {
            entries::Item::Entry(entry) => Some(entry),
            entries::Item::Skipped { .. } => None,
        });
        Ok(v1::ListEntriesResponse {
            entries: entries.collect(),
            next_from_seq,
        })
    }
}
