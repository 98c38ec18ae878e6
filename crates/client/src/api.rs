//! Makes the unary calls: adds the credentials, repeats a call that failed for a passing reason, and types
//! the errors.
//!
//! Every call may be repeated: it only reads, or it is idempotent by its request_id or by its nature.

use std::time::Duration;

use tern_proto::v1::{self, ErrorReason};
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use tern_client_core::CallError;
use tern_client_core::backoff::Backoff;

use crate::access_token::AccessToken;
use crate::connection::Gateways;

/// The time limit of one attempt.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The largest number of attempts of one call. The delays between them add up to about 16 s on average, which
/// is longer than it takes to replace a node that failed.
const ATTEMPTS: u32 = 7;
/// The longest time that the server may ask to wait before the next attempt. If it asks for more, as for somebody who
/// has looked up too many invite links, the caller gets the error, which names the time.
const PATIENCE: Duration = Duration::from_secs(30);
/// The largest answer, which is a page of entries.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// The unary services, called as a device or as a back end. Each method makes the RPC of the same name; the files in
/// `proto/tern/v1` document the request, the response and the errors. A call that fails for a passing reason is tried
/// up to 7 times, and once more if its token had to be renewed.
#[derive(Debug, Clone)]
pub struct Api {
    gateways: Gateways,
    auth: Auth,
}

/// The credentials of the calls.
#[derive(Debug, Clone)]
pub(crate) enum Auth {
    /// The API key of a back end, as the value of the authorization header.
    Key(AsciiMetadataValue),
    /// The access token of a device, which the driver renews.
    Device(AccessToken),
    /// No credentials. Only RefreshToken is called so.
    None,
}

/// The attempts of one call that have failed.
#[derive(Debug, Default)]
struct Attempts {
    /// The number of attempts, without the one that showed that the token has expired.
    failed: u32,
    /// True if the token was renewed.
    renewed: bool,
}

/// The consequence of an attempt that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Renew the token, then make the call again at once.
    Renew,
    /// Make the call again after a pause.
    Again,
    GiveUp,
}

impl Attempts {
    /// Counts an attempt that failed with `error`, and returns what to do next.
    fn failed(&mut self, error: &CallError) -> Next {
        if error.reason == ErrorReason::TokenExpired && !std::mem::replace(&mut self.renewed, true) {
            return Next::Renew;
        }
        self.failed += 1;
        let soon = error.retry_after.is_none_or(|after| after <= PATIENCE);
        if error.is_transient() && soon && self.failed < ATTEMPTS {
            Next::Again
        } else {
            Next::GiveUp
        }
    }
}

macro_rules! calls {
    ($($(#[$doc:meta])* $service:ident :: $client:ident . $method:ident ($request:ident) -> $response:ident;)*) => {
        impl Api {
            $(
                /// Makes the RPC of the same name, which the proto file of its service describes.
                $(#[$doc])*
                pub async fn $method(&self, request: v1::$request) -> Result<v1::$response, CallError> {
                    self.run(request, |channel, request| async move {
                        let client = v1::$service::$client::new(channel);
                        client.max_decoding_message_size(MAX_ANSWER_BYTES).$method(request).await
                    })
                    .await
                }
            )*
        }
    };
}

calls! {
    chats_client::ChatsClient.send_message(SendMessageRequest) -> SendMessageResponse;
    chats_client::ChatsClient.create_group(CreateGroupRequest) -> CreateGroupResponse;
    chats_client::ChatsClient.get_chat(GetChatRequest) -> GetChatResponse;
    /// Returns one page of chats.
    chats_client::ChatsClient.list_chats(ListChatsRequest) -> ListChatsResponse;
    chats_client::ChatsClient.update_chat(UpdateChatRequest) -> UpdateChatResponse;
    chats_client::ChatsClient.set_chat_picture(SetChatPictureRequest) -> SetChatPictureResponse;
    chats_client::ChatsClient.add_members(AddMembersRequest) -> AddMembersResponse;
    chats_client::ChatsClient.remove_member(RemoveMemberRequest) -> RemoveMemberResponse;
    chats_client::ChatsClient.leave_chat(LeaveChatRequest) -> LeaveChatResponse;
    chats_client::ChatsClient.set_role(SetRoleRequest) -> SetRoleResponse;
    /// Returns one page of members.
    chats_client::ChatsClient.list_members(ListMembersRequest) -> ListMembersResponse;
    /// Returns one page of entries.
    chats_client::ChatsClient.list_entries(ListEntriesRequest) -> ListEntriesResponse;
    /// Returns one page of messages.
    chats_client::ChatsClient.list_messages(ListMessagesRequest) -> ListMessagesResponse;
    chats_client::ChatsClient.get_message(GetMessageRequest) -> GetMessageResponse;
    /// Returns one page of edits.
    chats_client::ChatsClient.list_edits(ListEditsRequest) -> ListEditsResponse;
    /// Returns one page of messages, for back ends.
    chats_client::ChatsClient.list_undelivered(ListUndeliveredRequest) -> ListUndeliveredResponse;
    /// Returns one page of messages, for back ends.
    chats_client::ChatsClient.list_user_messages(ListUserMessagesRequest) -> ListUserMessagesResponse;
    chats_client::ChatsClient.get_receipts(GetReceiptsRequest) -> GetReceiptsResponse;
    /// Returns one page of receipts.
    chats_client::ChatsClient.get_message_receipts(GetMessageReceiptsRequest) -> GetMessageReceiptsResponse;
    chats_client::ChatsClient.mark_chat_read(MarkChatReadRequest) -> MarkChatReadResponse;
    chats_client::ChatsClient.set_chat_settings(SetChatSettingsRequest) -> SetChatSettingsResponse;
    chats_client::ChatsClient.hide_messages(HideMessagesRequest) -> HideMessagesResponse;
    chats_client::ChatsClient.set_retention(SetRetentionRequest) -> SetRetentionResponse;
    groups_client::GroupsClient.set_description(SetDescriptionRequest) -> SetDescriptionResponse;
    groups_client::GroupsClient.set_policy(SetPolicyRequest) -> SetPolicyResponse;
    groups_client::GroupsClient.freeze(FreezeRequest) -> FreezeResponse;
    groups_client::GroupsClient.create_invite(CreateInviteRequest) -> CreateInviteResponse;
    groups_client::GroupsClient.list_invites(ListInvitesRequest) -> ListInvitesResponse;
    groups_client::GroupsClient.revoke_invite(RevokeInviteRequest) -> RevokeInviteResponse;
    groups_client::GroupsClient.look_up_invite(LookUpInviteRequest) -> LookUpInviteResponse;
    groups_client::GroupsClient.join_by_invite(JoinByInviteRequest) -> JoinByInviteResponse;
    groups_client::GroupsClient.list_join_requests(ListJoinRequestsRequest) -> ListJoinRequestsResponse;
    groups_client::GroupsClient.answer_join_request(AnswerJoinRequestRequest) -> AnswerJoinRequestResponse;
    groups_client::GroupsClient.withdraw_join_request(WithdrawJoinRequestRequest) -> WithdrawJoinRequestResponse;
    media_client::MediaClient.create_upload(CreateUploadRequest) -> CreateUploadResponse;
    media_client::MediaClient.finalize_upload(FinalizeUploadRequest) -> FinalizeUploadResponse;
    media_client::MediaClient.get_download(GetDownloadRequest) -> GetDownloadResponse;
    media_client::MediaClient.forward_media(ForwardMediaRequest) -> ForwardMediaResponse;
    media_client::MediaClient.set_user_picture(SetUserPictureRequest) -> SetUserPictureResponse;
    inbox_client::InboxClient.fetch(FetchRequest) -> FetchResponse;
    inbox_client::InboxClient.ack(AckRequest) -> AckResponse;
    users_client::UsersClient.create_user(CreateUserRequest) -> CreateUserResponse;
    users_client::UsersClient.update_user(UpdateUserRequest) -> UpdateUserResponse;
    users_client::UsersClient.batch_get_users(BatchGetUsersRequest) -> BatchGetUsersResponse;
    users_client::UsersClient.block(BlockRequest) -> BlockResponse;
    users_client::UsersClient.unblock(UnblockRequest) -> UnblockResponse;
    /// Returns one page of blocked users.
    users_client::UsersClient.list_blocked(ListBlockedRequest) -> ListBlockedResponse;
    users_client::UsersClient.set_contacts(SetContactsRequest) -> SetContactsResponse;
    /// Returns one page of contacts.
    users_client::UsersClient.list_contacts(ListContactsRequest) -> ListContactsResponse;
    users_client::UsersClient.get_privacy(GetPrivacyRequest) -> GetPrivacyResponse;
    users_client::UsersClient.set_privacy(SetPrivacyRequest) -> SetPrivacyResponse;
    users_client::UsersClient.get_notification_settings(GetNotificationSettingsRequest)
        -> GetNotificationSettingsResponse;
    users_client::UsersClient.set_notification_settings(SetNotificationSettingsRequest)
        -> SetNotificationSettingsResponse;
    devices_client::DevicesClient.link_device(LinkDeviceRequest) -> LinkDeviceResponse;
    devices_client::DevicesClient.list_devices(ListDevicesRequest) -> ListDevicesResponse;
    devices_client::DevicesClient.revoke_device(RevokeDeviceRequest) -> RevokeDeviceResponse;
    devices_client::DevicesClient.set_push_token(SetPushTokenRequest) -> SetPushTokenResponse;
    push_client::PushClient.get_web_push_key(GetWebPushKeyRequest) -> GetWebPushKeyResponse;
    /// Returns one page of users.
    admin_client::AdminClient.list_users(ListUsersRequest) -> ListUsersResponse;
    admin_client::AdminClient.get_user(GetUserRequest) -> GetUserResponse;
    admin_client::AdminClient.suspend_user(SuspendUserRequest) -> SuspendUserResponse;
    admin_client::AdminClient.resume_user(ResumeUserRequest) -> ResumeUserResponse;
    admin_client::AdminClient.list_sessions(ListSessionsRequest) -> ListSessionsResponse;
    /// Returns the chat as an operator sees it.
    admin_client::AdminClient.inspect_chat(InspectChatRequest) -> InspectChatResponse;
    admin_client::AdminClient.trace_message(TraceMessageRequest) -> TraceMessageResponse;
    admin_client::AdminClient.get_queues(GetQueuesRequest) -> GetQueuesResponse;
    admin_client::AdminClient.get_cluster_map(GetClusterMapRequest) -> GetClusterMapResponse;
    admin_client::AdminClient.test_push(TestPushRequest) -> TestPushResponse;
    auth_client::AuthClient.refresh_token(RefreshTokenRequest) -> RefreshTokenResponse;
}

impl Api {
    pub(crate) fn new(gateways: Gateways, auth: Auth) -> Self {
        Self { gateways, auth }
    }

    /// Returns the same gateways without credentials.
    pub(crate) fn anonymous(&self) -> Self {
        Self {
            gateways: self.gateways.clone(),
            auth: Auth::None,
        }
    }

    /// Makes a call until an attempt succeeds or fails for good. A token that has expired is renewed once.
    async fn run<T, R, F, Fut>(&self, message: T, call: F) -> Result<R, CallError>
    where
        T: Clone,
        F: Fn(Channel, Request<T>) -> Fut,
        Fut: Future<Output = Result<Response<R>, Status>>,
    {
        let mut backoff = Backoff::new(rand::random());
        let mut attempts = Attempts::default();
        loop {
            let (channel, turn) = self.gateways.channel();
            let token = self.auth.token();
            let error = match call(channel, self.request(message.clone(), &token)?).await {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) => CallError::from(status),
            };
            match attempts.failed(&error) {
                Next::GiveUp => return Err(error),
                Next::Renew => {
                    self.auth.renew(&token).await?;
                    continue;
                }
                Next::Again => {}
            }
            if error.reason == ErrorReason::Unspecified {
                self.gateways.advance(turn);
            }
            tokio::time::sleep(backoff.next(error.retry_after)).await;
        }
    }

    fn request<T>(&self, message: T, token: &str) -> Result<Request<T>, CallError> {
        let mut request = Request::new(message);
        request.set_timeout(TIMEOUT);
        let value = match &self.auth {
            Auth::None => return Ok(request),
            Auth::Key(value) => value.clone(),
            Auth::Device(_) => bearer(token)?,
        };
        request.metadata_mut().insert("authorization", value);
        Ok(request)
    }
}

impl Auth {
    /// Returns the credentials of a back end, or an error if no header can carry the key.
    pub(crate) fn key(key: &str) -> Result<Self, CallError> {
        bearer(key).map(Self::Key)
    }

    fn token(&self) -> String {
        match self {
            Self::Device(token) => token.get(),
            Self::Key(_) | Self::None => String::new(),
        }
    }

    /// Waits until there is a newer token than `stale`. Does nothing without a device.
    async fn renew(&self, stale: &str) -> Result<(), CallError> {
        match self {
            Self::Device(token) => token.renewed(stale).await,
            Self::Key(_) | Self::None => Ok(()),
        }
    }
}

fn bearer(token: &str) -> Result<AsciiMetadataValue, CallError> {
    let malformed = |_| CallError {
        code: tonic::Code::Unauthenticated,
        reason: ErrorReason::TokenInvalid,
        message: "the token has characters that no token has".into(),
        retry_after: None,
    };
    let mut value = AsciiMetadataValue::try_from(format!("Bearer {token}")).map_err(malformed)?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: tonic::Code, reason: ErrorReason) -> CallError {
        CallError {
            code,
            reason,
            message: String::new(),
            retry_after: None,
        }
    }

    #[test]
    fn whatever_a_call_meets_its_attempts_come_to_an_end() {
        let busy = error(tonic::Code::Unavailable, ErrorReason::Unavailable);
        let expired = error(tonic::Code::Unauthenticated, ErrorReason::TokenExpired);
        for expires_at in 0..=ATTEMPTS {
            let mut attempts = Attempts::default();
            let met = (0..).map(|attempt| if attempt == expires_at { &expired } else { &busy });
            let next: Vec<Next> = met
                .map(|error| attempts.failed(error))
                .take(20)
                .take_while(|next| *next != Next::GiveUp)
                .collect();
            let pauses = next.iter().filter(|next| **next == Next::Again).count();
            assert_eq!(pauses, 6, "expired at {expires_at}");
        }
        let mut attempts = Attempts::default();
        assert_eq!(attempts.failed(&expired), Next::Renew);
        assert_eq!(
            attempts.failed(&expired),
            Next::GiveUp,
            "a new token is no better"
        );
        let no = error(tonic::Code::PermissionDenied, ErrorReason::RoleTooLow);
        assert_eq!(Attempts::default().failed(&no), Next::GiveUp);
        for (after, expected) in [(1, Next::Again), (120, Next::GiveUp)] {
            let limited = CallError {
                retry_after: Some(Duration::from_secs(after)),
                ..error(tonic::Code::ResourceExhausted, ErrorReason::RateLimited)
            };
            assert_eq!(Attempts::default().failed(&limited), expected, "{after} s");
        }
    }
}
