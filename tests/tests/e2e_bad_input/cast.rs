//! The users and chats that requests are about, and valid requests.

use bytes::Bytes;
use prost_reflect::{DynamicMessage, MessageDescriptor, MethodDescriptor, Value};
use sha2::{Digest, Sha256};
use tern_client::Tls;
use tern_client::media::Http;
use tern_proto::v1::{self, Role, create_upload_response};
use tern_tests::world::patiently;
use tern_tests::{Api, Device, User, World};
use tern_types::{ChatId, RequestId};

use crate::descriptors;

/// The caller of a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    BackEnd,
    Device,
}

/// An owner with two devices, a second owner, their group, and a message in it. Each field's test gets its own cast,
/// because what is done to it stays.
pub struct Cast {
    owner: User,
    member: User,
    pub device: Device,
    spare: Device,
    group: ChatId,
    /// The seq of a message of the owner.
    message: u64,
    media: Option<Media>,
    /// A link to the group by which those who come have to be approved.
    invite: Option<v1::Invite>,
    /// Somebody who came by the link, and waits.
    asker: Option<User>,
}

/// An upload of the owner that was finalized, and sent in a message of the group.
struct Media {
    upload_id: String,
    media_id: String,
}

impl Cast {
    pub async fn new(world: &World) -> Self {
        let [owner, member] = world.users(["owner", "member"]).await;
        let (device, spare) = (world.device(&owner).await, world.device(&owner).await);
        let group = world.group(&[&owner, &member]).await;
        let role = v1::SetRoleRequest {
            chat_id: group.to_string(),
            request_id: RequestId::random().to_string(),
            user_id: member.id.to_string(),
            role: Role::Owner.into(),
            acting_user_id: owner.id.to_string(),
            ..Default::default()
        };
        let api = world.back_end().await;
        patiently("a second owner", || {
            let (api, role) = (api.clone(), role.clone());
            async move { api.chats().set_role(role).await }
        })
        .await;
        let message = v1::SendMessageRequest {
            chat_id: group.to_string(),
            request_id: RequestId::random().to_string(),
            acting_user_id: owner.id.to_string(),
            body: "hello".into(),
            ..Default::default()
        };
        let sent = patiently("a message", || {
            let (api, message) = (api.clone(), message.clone());
            async move { api.chats().send_message(message).await }
        });
        let sent = sent.await.sent.expect("a place in the log");
        Self {
            owner,
            member,
            device,
            spare,
            group,
            message: sent.seq,
            media: None,
            invite: None,
            asker: None,
        }
    }

    /// Makes a cast, with an upload if the method is one of Media, and with an invite link if it is one of Groups. If the
    /// method answers somebody who asks to join, somebody does.
    pub async fn of(world: &World, method: &MethodDescriptor) -> Self {
        let mut cast = Self::new(world).await;
        match method.parent_service().name() {
            "Media" => cast.media = Some(cast.upload(world).await),
            "Groups" => cast.invite = Some(cast.link(world).await),
            _ => {}
        }
        if method.name() == "AnswerJoinRequest" {
            cast.asker = Some(cast.asks(world).await);
        }
        cast
    }

    async fn link(&self, world: &World) -> v1::Invite {
        let link = v1::CreateInviteRequest {
            chat_id: self.group.to_string(),
            request_id: RequestId::random().to_string(),
            needs_approval: true,
            acting_user_id: self.owner.id.to_string(),
            ..Default::default()
        };
        let made = world.back_end().await.groups().create_invite(link).await;
        made.expect("a link").into_inner().invite.expect("a link")
    }

    /// Makes a user who asks to join the group.
    async fn asks(&self, world: &World) -> User {
        let user = world.user("asker").await;
        let join = v1::JoinByInviteRequest {
            chat_id: self.group.to_string(),
            request_id: RequestId::random().to_string(),
            token: self.invite.as_ref().expect("a link").token.clone(),
            acting_user_id: user.id.to_string(),
        };
        let asked = world.back_end().await.groups().join_by_invite(join).await;
        assert!(asked.expect("a request").into_inner().requested);
        user
    }

    async fn upload(&self, world: &World) -> Media {
        let api = Api::new(world.channel(0), &self.device.access_token);
        let bytes = self.owner.id.to_string();
        let create = v1::CreateUploadRequest {
            request_id: RequestId::random().to_string(),
            length: bytes.len() as u64,
            content_type: "image/png".to_owned(),
            part_sha256s: vec![Sha256::digest(&bytes).to_vec().into()],
            ..Default::default()
        };
        let created = api
            .media()
            .create_upload(create)
            .await
            .expect("an upload")
            .into_inner();
        let Some(create_upload_response::Outcome::Upload(upload)) = created.outcome else {
            panic!("{created:?}")
        };
        let part = &upload.missing_parts[0];
        let http = Http::new(&Tls::System).expect("a client");
        let body = futures::stream::iter([Ok(Bytes::from(bytes))]);
        http.put(&part.url, &part.headers, body).await.expect("a PUT");
        let upload_id = upload.upload_id;
        let finalize = v1::FinalizeUploadRequest {
            upload_id: upload_id.clone(),
            ..Default::default()
        };
        let ticket = api
            .media()
            .finalize_upload(finalize)
            .await
            .expect("media")
            .into_inner();
        let ticket = ticket.ticket.expect("a ticket");
        let media_id = ticket.media_id;
        let send = v1::SendMessageRequest {
            chat_id: self.group.to_string(),
            request_id: RequestId::random().to_string(),
            envelope: v1::Envelope {
                attachments: vec![v1::Attachment {
                    media_id: media_id.clone(),
                    ticket: ticket.ticket,
                }],
                ..Default::default()
            }
            .encoded(),
            ..Default::default()
        };
        api.chats().send_message(send).await.expect("a message");
        Media { upload_id, media_id }
    }

    /// Returns the credential of the caller.
    pub fn bearer<'a>(&'a self, world: &'a World, caller: Caller) -> &'a str {
        match caller {
            Caller::BackEnd => world.platform.api_key(),
            Caller::Device => &self.device.access_token,
        }
    }

    /// Builds a request that succeeds if this caller may make it. The name of each field decides its value.
    pub fn request(&self, message: &MessageDescriptor, caller: Caller) -> DynamicMessage {
        let mut request = DynamicMessage::new(message.clone());
        for field in message.fields() {
            if let Some(value) = self.value(message.name(), field.name(), caller) {
                request.set_field(&field, value);
            }
        }
        request
    }

    fn value(&self, message: &str, field: &str, caller: Caller) -> Option<Value> {
        let text = |text: &dyn ToString| Some(Value::String(text.to_string()));
        fn inner(name: &str, message: &impl prost::Message) -> Option<Value> {
            Some(Value::Message(descriptors::dynamic(name, message)))
        }
        match (message, field) {
            (
                "ListDevicesRequest"
                | "BlockRequest"
                | "UnblockRequest"
                | "ListBlockedRequest"
                | "SetContactsRequest"
                | "ListContactsRequest"
                | "GetPrivacyRequest"
                | "SetPrivacyRequest"
                | "GetNotificationSettingsRequest"
                | "SetNotificationSettingsRequest",
                "user_id",
            ) => text(&self.owner.id),
            ("SetChatSettingsRequest" | "HideMessagesRequest", "user_id") => match caller {
                Caller::BackEnd => text(&self.owner.id),
                Caller::Device => None,
            },
            (_, "blocked_user_id") => text(&self.member.id),
            // A message is named by its seq, not by its sender's request; GetUser names the user by id.
            ("TraceMessageRequest" | "GetMessageRequest", "request_id")
            | ("GetUserRequest", "external_id") => None,
            // The request is about a file in a chat, not about a person's picture.
            ("GetDownloadRequest", "user_id") => None,
            (
                "GetMessageReceiptsRequest"
                | "TraceMessageRequest"
                | "GetMessageRequest"
                | "ListEditsRequest",
                "seq",
            ) => Some(Value::U64(self.message)),
            ("HideMessagesRequest", "seqs") => Some(Value::List(vec![Value::U64(self.message)])),
            // Without it most of the request's fields have no effect.
            ("ListMessagesRequest", "folded") => Some(Value::Bool(true)),
            // Devices leave it empty.
            ("AnswerJoinRequestRequest", "user_id") => text(&self.asker.as_ref()?.id),
            (_, "user_id") => text(&self.member.id),
            (_, "user_ids" | "member_user_ids" | "add_user_ids" | "remove_user_ids") => {
                text(&self.member.id).map(|member| Value::List(vec![member]))
            }
            (_, "acting_user_id") if caller == Caller::BackEnd => text(&self.owner.id),
            (_, "chat_id") => text(&self.group),
            (_, "media_id") => text(&self.media.as_ref()?.media_id),
            (_, "upload_id") => text(&self.media.as_ref()?.upload_id),
            (_, "seqs") => Some(Value::List(vec![Value::U64(self.message)])),
            (_, "invite_id") => text(&self.invite.as_ref()?.invite_id),
            ("SetPushTokenRequest", "token") => inner("PushToken", &push_token()),
            ("SetNotificationSettingsRequest", "settings") => {
                inner("NotificationSettings", &notification_settings())
            }
            (_, "token") => text(&self.invite.as_ref()?.token),
            (_, "policy") => inner("GroupPolicy", &v1::GroupPolicy::default()),
            (_, "retention") => inner("Retention", &v1::Retention::default()),
            ("CreateUploadRequest", "length") => Some(Value::U64(5)),
            (_, "part_sha256s") => Some(Value::List(vec![Value::Bytes(Bytes::from_static(&[7; 32]))])),
            (_, "device_id") => text(&self.spare.id),
            (_, "refresh_token") => text(&self.spare.refresh_token),
            (_, "access_token") => text(&self.device.access_token),
            (_, "request_id" | "external_id") => text(&RequestId::random()),
            (_, "role") => Some(Value::EnumNumber(Role::Admin.into())),
            (_, "body") => Some(Value::Bytes(Bytes::from_static(b"hello"))),
            _ => None,
        }
    }

    /// Reads the platform's data again, and returns whether a field of this name has `value`.
    pub async fn has_stored(
        &self,
        world: &World,
        answer: &DynamicMessage,
        name: &str,
        value: &Value,
    ) -> bool {
        let back_end = world.back_end().await;
        let or = |name: &str, id: String| descriptors::text(answer, name).unwrap_or(id);
        let (owner, chat) = (self.owner.id.to_string(), or("chat_id", self.group.to_string()));
        let users = v1::BatchGetUsersRequest {
            user_ids: vec![or("user_id", self.member.id.to_string())],
            ..Default::default()
        };
        let users = back_end.users().batch_get_users(users).await.expect("users");
        let devices = v1::ListDevicesRequest {
            user_id: self.member.id.to_string(),
        };
        let devices = back_end.devices().list_devices(devices).await.expect("devices");
        let view = v1::GetChatRequest {
            chat_id: chat.clone(),
            acting_user_id: owner.clone(),
        };
        let view = back_end.chats().get_chat(view).await.expect("the chat");
        let log = v1::ListEntriesRequest {
            chat_id: chat,
            acting_user_id: owner,
            ..Default::default()
        };
        let log = back_end.chats().list_entries(log).await.expect("the log");
        [
            descriptors::dynamic("BatchGetUsersResponse", users.get_ref()),
            descriptors::dynamic("ListDevicesResponse", devices.get_ref()),
            descriptors::dynamic("GetChatResponse", view.get_ref()),
            descriptors::dynamic("ListEntriesResponse", log.get_ref()),
        ]
        .iter()
        .any(|read| descriptors::holds(read, name, value))
    }
}

/// Returns a push token that no device has yet.
fn push_token() -> v1::PushToken {
    let fcm = v1::FcmToken {
        token: RequestId::random().to_string(),
        app: "com.example.chat".to_owned(),
    };
    v1::PushToken {
        provider: Some(v1::push_token::Provider::Fcm(fcm)),
        sealing_key: Bytes::from_static(&[7; 32]),
    }
}

fn notification_settings() -> v1::NotificationSettings {
    let quiet_hours = v1::QuietHours {
        from_minute: 1_320,
        to_minute: 420,
        time_zone: "Europe/Berlin".to_owned(),
    };
    v1::NotificationSettings {
        quiet_hours: Some(quiet_hours),
    }
}
