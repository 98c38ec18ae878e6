//! Fake answers to unary calls.

use std::sync::atomic::Ordering;

use tern_proto::internal::accounts_node_server::AccountsNode;
use tern_proto::internal::{
    AuthenticateKeyRequest, AuthenticateKeyResponse, ListBarredRequest, ListBarredResponse, MaySeeRequest,
    MaySeeResponse, MayWatchRequest, MayWatchResponse,
};
use tern_proto::v1;
use tonic::{Request, Response, Status};

use super::nodes::FakeChat;

/// An accounts node that knows the API key "tern_good", with the scope chats:read, and counts the look-ups.
pub struct FakeAccounts(pub FakeChat);

#[tonic::async_trait]
impl AccountsNode for FakeAccounts {
    async fn authenticate_key(
        &self,
        request: Request<AuthenticateKeyRequest>,
    ) -> Result<Response<AuthenticateKeyResponse>, Status> {
        self.0.key_lookups.fetch_add(1, Ordering::Relaxed);
        match request.into_inner().api_key.as_str() {
            "tern_good" => Ok(Response::new(AuthenticateKeyResponse {
                key_id: "k1".into(),
                scopes: vec!["chats:read".into()],
            })),
            _ => Err(tern_proto::ApiError::new(v1::ErrorReason::ApiKeyInvalid, "no such key").into()),
        }
    }

    async fn list_barred(
        &self,
        _: Request<ListBarredRequest>,
    ) -> Result<Response<ListBarredResponse>, Status> {
        let barred = self.0.barred.lock().unwrap().clone();
        let barred = barred.ok_or_else(|| Status::unavailable("the store is away"))?;
        Ok(Response::new(barred))
    }

    async fn may_see(&self, request: Request<MaySeeRequest>) -> Result<Response<MaySeeResponse>, Status> {
        let visible = self.0.visible.lock().unwrap().clone();
        let request = request.into_inner();
        let shows = visible
            .iter()
            .any(|user| user.as_bytes()[..] == request.user_id[..]);
        Ok(Response::new(MaySeeResponse {
            watcher_ids: if shows { request.watcher_ids } else { Vec::new() },
        }))
    }

    async fn may_watch(
        &self,
        request: Request<MayWatchRequest>,
    ) -> Result<Response<MayWatchResponse>, Status> {
        let visible = self.0.visible.lock().unwrap().clone();
        self.0.asks_who_may_watch.send_modify(|asked| *asked += 1);
        let mut answers = self.0.answers_who_may_watch.subscribe();
        answers
            .wait_for(|answers| *answers)
            .await
            .expect("the test goes on");
        let mut asked = request.into_inner().user_ids;
        asked.retain(|id| visible.iter().any(|user| user.as_bytes()[..] == id[..]));
        Ok(Response::new(MayWatchResponse {
            visible: asked,
            ..Default::default()
        }))
    }
}

/// A chat node whose Chats/GetChat answers with the caller as title and the answering node as creator. Only this
/// method is of interest, so it is implemented by hand.
#[derive(Clone)]
pub struct FakeChats(pub FakeChat);

impl tonic::server::NamedService for FakeChats {
    const NAME: &'static str = "tern.v1.Chats";
}

impl tower::Service<http::Request<tonic::body::Body>> for FakeChats {
    type Response = http::Response<tonic::body::Body>;
    type Error = std::convert::Infallible;
    type Future = futures::future::BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let chats = self.clone();
        Box::pin(async move {
            let codec = tonic_prost::ProstCodec::<v1::GetChatResponse, v1::GetChatRequest>::default();
            Ok(tonic::server::Grpc::new(codec).unary(chats, request).await)
        })
    }
}

impl tonic::server::UnaryService<v1::GetChatRequest> for FakeChats {
    type Response = v1::GetChatResponse;
    type Future = std::future::Ready<Result<Response<v1::GetChatResponse>, Status>>;

    fn call(&mut self, request: Request<v1::GetChatRequest>) -> Self::Future {
        std::future::ready(self.get_chat(&request))
    }
}

impl FakeChats {
    fn get_chat(
        &self,
        request: &Request<v1::GetChatRequest>,
    ) -> Result<Response<v1::GetChatResponse>, Status> {
        let metadata = request.metadata();
        let owner = self.0.owner.lock().unwrap().clone();
        if owner != self.0.name {
            let mut status = Status::from(tern_proto::ApiError::unavailable("not the owner"));
            status
                .metadata_mut()
                .insert("tern-not-owner", "2".parse().unwrap());
            return Err(status);
        }
        let said: Vec<String> = ["tern-user", "tern-key", "tern-scopes", "authorization"]
            .iter()
            .filter_map(|key| {
                metadata
                    .get(*key)
                    .map(|value| format!("{key}={}", value.to_str().unwrap()))
            })
            .collect();
        let chat = v1::Chat {
            chat_id: request.get_ref().chat_id.clone(),
            title: said.join(" "),
            created_by_user_id: self.0.name.clone(),
            ..Default::default()
        };
        Ok(Response::new(v1::GetChatResponse { chat: Some(chat) }))
    }
}
