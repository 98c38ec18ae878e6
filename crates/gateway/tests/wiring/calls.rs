//! Unary calls by gRPC: the caller that a node is told of, and the node that answers.

use tern_proto::error::reason_of;
use tern_proto::v1::chats_client::ChatsClient;
use tern_proto::v1::{self, ErrorReason};
use tern_types::{ChatId, UserId};
use tonic::transport::Channel;
use tonic::{Code, Request};

use crate::support::World;
use crate::support::items::people;
use crate::support::raw::raw_unary;

/// Asks for a chat with these credentials, and claims in the metadata to be somebody else.
pub async fn get_chat(channel: Channel, credentials: &str, chat: ChatId) -> Result<v1::Chat, tonic::Status> {
    let mut request = Request::new(v1::GetChatRequest {
        chat_id: chat.to_string(),
        ..Default::default()
    });
    if !credentials.is_empty() {
        request
            .metadata_mut()
            .insert("authorization", format!("Bearer {credentials}").parse().unwrap());
    }
    // The client lies about who calls.
    request
        .metadata_mut()
        .insert("tern-user", UserId::SYSTEM.to_string().parse().unwrap());
    request
        .metadata_mut()
        .insert("tern-scopes", "admin".parse().unwrap());
    let answer = ChatsClient::new(channel).get_chat(request).await?;
    Ok(answer.into_inner().chat.unwrap_or_default())
}

#[tokio::test]
async fn unary_calls_carry_who_calls_and_nothing_that_clients_claim() {
    let world = World::start(&[]).await;
    let (user, device) = people();
    let chat = ChatId::own(user);
    let got = get_chat(world.channel().await, &world.token(user, device), chat)
        .await
        .unwrap();
    assert_eq!(
        (got.title, got.chat_id),
        (format!("tern-user={user}"), chat.to_string())
    );
    let got = get_chat(world.channel().await, "tern_good", chat).await.unwrap();
    assert_eq!(got.title, "tern-key=k1 tern-scopes=chats:read");
    for (credentials, reason) in [
        ("", ErrorReason::CredentialsMissing),
        ("nonsense", ErrorReason::TokenInvalid),
        ("tern_bad", ErrorReason::ApiKeyInvalid),
    ] {
        let refused = get_chat(world.channel().await, credentials, chat)
            .await
            .unwrap_err();
        assert_eq!(
            (refused.code(), reason_of(&refused)),
            (Code::Unauthenticated, Some(reason)),
            "{credentials}"
        );
    }
}

#[tokio::test]
async fn a_call_to_a_node_that_is_not_the_owner_follows_the_map() {
    let mut world = World::start(&[]).await;
    let (user, device) = people();
    world.owner("chat-1", 2, false);
    let (channel, token) = (world.channel().await, world.token(user, device));
    let call = tokio::spawn(async move { get_chat(channel, &token, ChatId::own(user)).await });
    world.owner("chat-1", 2, true);
    assert_eq!(call.await.unwrap().unwrap().created_by_user_id, "chat-1");
}

/// The fake node answers every call as if it were GetChat.
#[tokio::test]
async fn a_call_about_an_own_log_follows_the_map_too() {
    let mut world = World::start(&[]).await;
    let (user, device) = people();
    world.owner("chat-1", 2, false);
    let mut request = Request::new(v1::SetChatSettingsRequest::default());
    let token = format!("Bearer {}", world.token(user, device));
    request
        .metadata_mut()
        .insert("authorization", token.parse().unwrap());
    let channel = world.channel().await;
    let call = tokio::spawn(async move {
        let mut grpc = tonic::client::Grpc::new(channel);
        grpc.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static("/tern.v1.Chats/SetChatSettings");
        let codec = tonic_prost::ProstCodec::<v1::SetChatSettingsRequest, v1::GetChatResponse>::default();
        grpc.unary(request, path, codec).await
    });
    world.owner("chat-1", 2, true);
    let answer = call.await.unwrap().unwrap().into_inner();
    assert_eq!(answer.chat.unwrap().created_by_user_id, "chat-1");
}

/// The node names an owner of which the gateway's map never hears. A call that follows the map again and again may take
/// longer than a send.
#[tokio::test]
async fn a_send_that_finds_no_owner_is_answered_as_soon_as_on_a_stream() {
    let mut world = World::start(&[]).await;
    let (user, device) = people();
    world.owner("chat-1", 2, false);
    let mut send = Request::new(v1::SendMessageRequest {
        chat_id: ChatId::own(user).to_string(),
        ..Default::default()
    });
    let token = format!("Bearer {}", world.token(user, device));
    send.metadata_mut()
        .insert("authorization", token.parse().unwrap());
    let refused = ChatsClient::new(world.channel().await)
        .send_message(send)
        .await
        .unwrap_err();
    assert_eq!(
        (refused.code(), reason_of(&refused), refused.message()),
        (
            Code::Unavailable,
            Some(ErrorReason::Unavailable),
            "the chat's node takes too long"
        )
    );
}

#[tokio::test]
async fn what_is_no_method_of_ours_is_unimplemented_with_a_reason() {
    let world = World::start(&[]).await;
    for path in [
        "/tern.v1.Chats/Nonsense",
        "/tern.internal.v1.ChatNode/ReadInbox",
        "/x.Y/Z",
        // The gateway knows this method, and the fake node does not, as if it were older.
        "/tern.v1.Auth/RefreshToken",
    ] {
        let status = raw_unary(world.channel().await, path).await;
        assert_eq!(
            (status.code(), reason_of(&status)),
            (Code::Unimplemented, Some(ErrorReason::MethodUnknown)),
            "{path}"
        );
    }
}
