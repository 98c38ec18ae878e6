//! Shortcuts for a back end, which calls with an API key: users, devices, groups, messages in a user's name.

use bytes::Bytes;
use tern_proto::v1;
use tern_types::{ChatId, RequestId, Seq, Timestamp, UserId};

use tern_client_core::model::{Credentials, Outgoing, Retention, To};

use crate::api::{Api, Auth};
use crate::config::Tls;
use crate::connection::Gateways;
use crate::driver::malformed;
use crate::error::{CallError, ClientError};
use crate::groups::changed;

type Result<T, E = ClientError> = std::result::Result<T, E>;

/// A back end of the operator. Clones share its connections. Each method that is a call fails with
/// [`ClientError::Call`] if the server refuses it, or has not answered after the attempts that [`Api`] makes.
#[derive(Debug, Clone)]
pub struct BackEnd {
    api: Api,
}

impl BackEnd {
    /// Makes a back end that connects with its first call.
    ///
    /// # Errors
    ///
    /// [`ClientError::Config`] for bad addresses or certificates, [`ClientError::Call`] for a key that no header can
    /// carry.
    pub fn new(gateways: &[String], tls: &Tls, api_key: &str) -> Result<Self> {
        Ok(Self {
            api: Api::new(Gateways::new(gateways, tls)?, Auth::key(api_key)?),
        })
    }

    /// Returns every unary call of the public API, authorised by the API key.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// Returns the user with this external id, and creates the user with this display name if there is none. Fails with
    /// [`ClientError::Call`] if one of the two texts is not valid.
    pub async fn create_user(&self, external_id: &str, display_name: &str) -> Result<UserId> {
        let request = v1::CreateUserRequest {
            external_id: external_id.to_owned(),
            display_name: display_name.to_owned(),
        };
        user_id(self.api.create_user(request).await?.user)
    }

    /// Returns the user with this external id, or `None` if there is no such user. Fails with [`ClientError::Call`].
    pub async fn find_user(&self, external_id: &str) -> Result<Option<UserId>> {
        let request = v1::BatchGetUsersRequest {
            external_ids: vec![external_id.to_owned()],
            ..Default::default()
        };
        let user = self.api.batch_get_users(request).await?.users.into_iter().next();
        user.map(|user| user_id(Some(user))).transpose()
    }

    /// Links a new device to the user, and returns its credentials. `name` and `platform` are for lists of devices. A
    /// user has at most 10 devices. Fails with [`ClientError::Call`].
    pub async fn link_device(&self, user: UserId, name: &str, platform: &str) -> Result<Credentials> {
        let request = v1::LinkDeviceRequest {
            user_id: user.to_string(),
            request_id: RequestId::random().to_string(),
            display_name: name.to_owned(),
            platform: platform.to_owned(),
        };
        let response = self.api.link_device(request).await?;
        let device = response.device.ok_or_else(|| malformed("no device"))?;
        let tokens = response.tokens.ok_or_else(|| malformed("no tokens"))?;
        Ok(Credentials {
            user,
            device: device.device_id.parse().map_err(malformed)?,
            access_token: tokens.access_token,
            access_expires_at: Timestamp(tokens.access_expires_at_ms),
            refresh_token: tokens.refresh_token,
        })
    }

    /// Creates a group of `owner` and at most 1,023 others, and returns its id. The title has at most 256 bytes on one
    /// line. Each call makes a new group. Fails with [`ClientError::Call`], with USER_NOT_FOUND if one of the people is
    /// no user.
    pub async fn create_group(&self, owner: UserId, title: &str, others: &[UserId]) -> Result<ChatId> {
        let request = v1::CreateGroupRequest {
            request_id: RequestId::random().to_string(),
            title: title.to_owned(),
            member_user_ids: others.iter().map(ToString::to_string).collect(),
            acting_user_id: owner.to_string(),
        };
        let chat = self
            .api
            .create_group(request)
            .await?
            .chat
            .ok_or_else(|| malformed("no chat"))?;
        Ok(chat.chat_id.parse().map_err(malformed)?)
    }

    /// Freezes a chat, or ends that. While it is frozen, nobody but the system may send or change anything. Returns the
    /// seq of the entry that records the change, or `None` if nothing was to be changed. Fails with
    /// [`ClientError::Call`].
    pub async fn freeze(&self, chat: ChatId, frozen: bool) -> Result<Option<Seq>> {
        let request = v1::FreezeRequest {
            chat_id: chat.to_string(),
            request_id: RequestId::random().to_string(),
            frozen,
        };
        Ok(changed(self.api.freeze(request).await?.seq))
    }

    /// Sets how long the server keeps a chat's messages, and whether they disappear, in nobody's name. Returns as
    /// [`BackEnd::freeze`] does, and fails with [`ClientError::Call`].
    pub async fn set_retention(&self, chat: ChatId, retention: Retention) -> Result<Option<Seq>> {
        let request = v1::SetRetentionRequest {
            chat_id: chat.to_string(),
            request_id: RequestId::random().to_string(),
            retention: Some(retention),
            acting_user_id: String::new(),
        };
        Ok(changed(self.api.set_retention(request).await?.seq))
    }

    /// Sends a plain message of at most 262,144 bytes in the user's name. Returns its place in the log, where it is
    /// durable.
    ///
    /// # Errors
    ///
    /// [`ClientError::Call`], with the reasons that `Chats.SendMessage` names in chats.proto.
    pub async fn send_as(&self, user: UserId, to: impl Into<To>, body: impl Into<Bytes>) -> Result<v1::Sent> {
        self.send_message_as(user, Outgoing::new(to, body)).await
    }

    /// Sends a message of any kind in the user's name, as [`BackEnd::send_as`] does for plain ones. The same request_id
    /// again gives the same answer. Fails as that does.
    pub async fn send_message_as(&self, user: UserId, message: Outgoing) -> Result<v1::Sent> {
        let response = self.api.send_message(unary(message, user.to_string())).await?;
        Ok(sent(response)?)
    }

    /// Sends a message of the system: its entry has no sender. The API key needs the scope messages:system. Fails as
    /// [`BackEnd::send_as`] does.
    pub async fn send_as_system(&self, chat: ChatId, body: impl Into<Bytes>) -> Result<v1::Sent> {
        let message = unary(Outgoing::new(chat, body), String::new());
        Ok(sent(self.api.send_message(message).await?)?)
    }
}

/// Builds the request of the unary SendMessage. `acting_user_id` names the user for whom a back end sends; it is
/// empty in a device's own call and for a message of the system.
pub fn unary(message: Outgoing, acting_user_id: String) -> v1::SendMessageRequest {
    let (chat_id, peer_user_id) = match message.to {
        To::Chat(chat) => (chat.to_string(), String::new()),
        To::Peer(peer) => (String::new(), peer.to_string()),
    };
    v1::SendMessageRequest {
        chat_id,
        peer_user_id,
        request_id: message.request.to_string(),
        envelope: message.envelope.encoded(),
        body: message.body,
        acting_user_id,
    }
}

/// Returns the message's place in the log, or an error if the answer has none.
pub fn sent(response: v1::SendMessageResponse) -> Result<v1::Sent, CallError> {
    response.sent.ok_or_else(|| malformed("no place in the log"))
}

fn user_id(user: Option<v1::User>) -> Result<UserId> {
    let user = user.ok_or_else(|| malformed("no user"))?;
    Ok(user.user_id.parse().map_err(malformed)?)
}
