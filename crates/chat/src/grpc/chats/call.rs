//! Begins the calls of `tern.v1.Chats` and `tern.v1.Groups`, all in the same order: it reads who calls and which chat the
//! call is about, then checks whether this node owns the chat, and whether the caller may see it. A handler looks at the
//! other fields of its request afterwards.

use tern_identity::principal::Scope;
use tern_proto::{ApiError, parse, v1};
use tern_store::Pools;
use tern_types::{ChatId, RequestId};
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};

use tern_chat_core::change::Action;
use tern_chat_core::content::fingerprint;
use tern_chat_core::{Change, Sending};

use crate::grpc::caller::{Caller, Callers};
use crate::grpc::parsed::{chat_id, no_chat};
use crate::grpc::store_failed;
use crate::grpc::writes::Writes;
use crate::store::listing;

/// A request that a back end may make in a user's name.
pub trait Acting {
    /// Returns the id of the user in whose name the call is made; empty if it names none.
    fn acting_user_id(&self) -> &str;
}

/// A request about one chat.
pub trait OfChat {
    /// Returns the id of the chat, not parsed yet.
    fn chat_id(&self) -> &str;
}

/// A request for a change, which may be repeated.
pub trait Changing: OfChat {
    /// Returns the request_id, not parsed yet.
    fn request_id(&self) -> &str;
}

/// Implements a trait for requests by their field of the same name.
macro_rules! by_field {
    ($of:ident, $field:ident, $($request:ident),+ $(,)?) => {
        $(impl $of for v1::$request {
            fn $field(&self) -> &str {
                &self.$field
            }
        })+
    };
}

/// Implements [`Acting`] and [`OfChat`] for requests about one chat.
macro_rules! of_chat {
    ($($request:ident),+ $(,)?) => {
        by_field!(Acting, acting_user_id, $($request),+);
        by_field!(OfChat, chat_id, $($request),+);
    };
}

/// Implements [`Acting`], [`OfChat`] and [`Changing`] for requests that change one chat.
macro_rules! changing {
    ($($request:ident),+ $(,)?) => {
        of_chat!($($request),+);
        by_field!(Changing, request_id, $($request),+);
    };
}

/// Implements [`Acting`] for requests about a user's own log, which name the user in their field `user_id`.
macro_rules! of_own_log {
    ($($request:ident),+ $(,)?) => {
        $(impl Acting for v1::$request {
            fn acting_user_id(&self) -> &str {
                &self.user_id
            }
        })+
    };
}

of_own_log!(SetChatSettingsRequest, HideMessagesRequest);
by_field!(
    Acting,
    acting_user_id,
    CreateGroupRequest,
    ListChatsRequest,
    ListUndeliveredRequest,
    ListUserMessagesRequest,
);
of_chat!(
    GetChatRequest,
    ListMembersRequest,
    ListEntriesRequest,
    ListMessagesRequest,
    GetMessageRequest,
    ListEditsRequest,
    GetReceiptsRequest,
    GetMessageReceiptsRequest,
    MarkChatReadRequest,
    ListInvitesRequest,
    RevokeInviteRequest,
    LookUpInviteRequest,
    ListJoinRequestsRequest,
    WithdrawJoinRequestRequest,
);
changing!(
    UpdateChatRequest,
    SetChatPictureRequest,
    AddMembersRequest,
    RemoveMemberRequest,
    LeaveChatRequest,
    SetRoleRequest,
    CreateInviteRequest,
    JoinByInviteRequest,
    AnswerJoinRequestRequest,
    SetDescriptionRequest,
    SetPolicyRequest,
    SetRetentionRequest,
);
by_field!(OfChat, chat_id, FreezeRequest);
by_field!(Changing, request_id, FreezeRequest);

impl Acting for v1::FreezeRequest {
    /// Returns that no user is named, because only back ends in nobody's name freeze chats.
    fn acting_user_id(&self) -> &str {
        ""
    }
}

/// The callers that may make a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Devices, and back ends in a user's name.
    Person,
    /// Devices, and back ends in a user's name or in nobody's.
    Anybody,
    /// Back ends in a user's name.
    BackEnd,
    /// Back ends in nobody's name.
    Nobody,
}

/// The conditions of a call about a chat, besides its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// This node owns the chat.
    Owner,
    /// The caller may see the chat.
    Visible,
    /// This node owns the chat, and the caller may see it.
    OwnerAndVisible,
}

/// A call whose caller is known.
pub struct Call<R> {
    pub caller: Caller,
    pub request: R,
    metadata: MetadataMap,
}

impl<R: Changing> Call<R> {
    /// Makes the change that the call asks for. Its fingerprint is that of the whole `action`, even if a handler leaves
    /// out a part of it later, for example users who may not be added.
    pub fn change(&self, action: Action) -> Result<Change, ApiError> {
        let request: RequestId = parse::id("request_id", self.request.request_id())?;
        Ok(Change {
            actor: self.caller.user,
            device: self.caller.sender_device(),
            request,
            fingerprint: fingerprint([action.content(self.caller.user).as_ref()]),
            action,
            sending: Sending::default(),
        })
    }
}

/// The reader of calls, which also checks what their callers may do. It is cheap to clone.
#[derive(Clone)]
pub struct Calls {
    pub callers: Callers,
    pub writes: Writes,
    pub pools: Pools,
}

impl Calls {
    /// Reads who calls. A back end needs `scope`.
    ///
    /// # Errors
    ///
    /// The caller is not known, lacks the scope, is a device where a back end is needed or nobody where a person is, or
    /// the store is away.
    pub async fn open<R: Acting>(
        &self,
        request: Request<R>,
        who: Who,
        scope: Scope,
    ) -> Result<Call<R>, ApiError> {
        let (metadata, _, request) = request.into_parts();
        let acting = request.acting_user_id();
        let caller = match who {
            Who::Person => self.callers.person(&metadata, acting, scope).await?,
            Who::Anybody => self.callers.read(&metadata, acting, scope).await?,
            Who::BackEnd => self.callers.back_end(&metadata, acting, scope).await?,
            Who::Nobody => Caller::nobody(&metadata, scope)?,
        };
        Ok(Call {
            caller,
            request,
            metadata,
        })
    }

    /// Reads who calls, as [`Self::open`] does, and the chat that the call is about. Fails if the call does not have
    /// what it `needs`.
    pub async fn open_chat<R: Acting + OfChat>(
        &self,
        request: Request<R>,
        who: Who,
        scope: Scope,
        needs: Needs,
    ) -> Result<(Call<R>, ChatId), Status> {
        let call = self.open(request, who, scope).await?;
        let chat = chat_id(call.request.chat_id())?;
        if matches!(needs, Needs::Owner | Needs::OwnerAndVisible) {
            self.check_owner(&call, chat)?;
        }
        if matches!(needs, Needs::Visible | Needs::OwnerAndVisible) {
            self.check_visible(call.caller, chat).await?;
        }
        Ok((call, chat))
    }

    /// Begins a call that changes a chat, which only the chat's owner takes.
    pub async fn open_change<R: Acting + Changing>(
        &self,
        request: Request<R>,
        who: Who,
    ) -> Result<(Call<R>, ChatId), Status> {
        self.open_chat(request, who, Scope::ChatsWrite, Needs::Owner)
            .await
    }

    /// Makes the change that the call asks for. Returns the seq of its entry, or 0 if nothing was to be changed.
    pub async fn change<R: Changing>(
        &self,
        call: &Call<R>,
        chat: ChatId,
        action: Action,
    ) -> Result<u64, Status> {
        self.writes.change(chat, call.change(action)?).await
    }

    /// Checks that this node owns the chat. The error tells the gateway to route the call again.
    pub fn check_owner<R>(&self, call: &Call<R>, chat: ChatId) -> Result<(), Status> {
        self.writes.check_owner(chat, &call.metadata)
    }

    /// Checks that the caller may see the chat: a member may, and a back end in nobody's name. For all others it fails
    /// as if there were no such chat.
    pub async fn check_visible(&self, caller: Caller, chat: ChatId) -> Result<(), ApiError> {
        let may = caller.is_nobody()
            || listing::is_member(&self.pools, chat, caller.user)
                .await
                .map_err(store_failed)?;
        if may { Ok(()) } else { Err(no_chat()) }
    }
}
