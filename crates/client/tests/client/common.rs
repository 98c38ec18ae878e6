//! A small gateway in this process. It has one chat, and keeps the promises of the protocol.

use std::sync::{Arc, Mutex, MutexGuard};

use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _, stream};
use tern_client::{ClientConfig, Credentials, StoreLocation};
use tern_proto::ApiError;
use tern_proto::v1::auth_server::{Auth, AuthServer};
use tern_proto::v1::chats_server::{Chats, ChatsServer};
use tern_proto::v1::client_item::Item;
use tern_proto::v1::messaging_server::{Messaging, MessagingServer};
use tern_proto::v1::server_event::Event;
use tern_proto::v1::{self, ErrorReason, send_result::Outcome};
use tern_types::{ChatId, Clock, DeviceId, UserId};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

/// The number of entries that a stream sends ahead of the acknowledgements.
const WINDOW: u64 = 256;

pub const CHAT: ChatId = ChatId(Uuid::from_u128(1));

/// The state that all gateways share.
#[derive(Debug, Default)]
pub struct State {
    /// The request_id and body of each entry.
    pub log: Vec<(String, String)>,
    /// The highest seq that the device has acknowledged.
    pub acked: u64,
    /// The number of the tokens that are valid now: `access-0` and `refresh-0`, say.
    pub token: u32,
    /// The number of streams that were opened.
    pub streams: usize,
    /// The reasons for which the next streams and calls are refused, the last one first.
    pub refuse: Vec<ErrorReason>,
}

#[derive(Clone)]
pub struct World {
    state: Arc<Mutex<State>>,
    changed: watch::Sender<()>,
}

impl World {
    pub fn new() -> Self {
        Self {
            state: Arc::default(),
            changed: watch::Sender::new(()),
        }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub async fn until(&self, holds: impl Fn(&State) -> bool) {
        let mut changed = self.changed.subscribe();
        while !holds(&self.state()) {
            changed.changed().await.unwrap();
        }
    }

    /// Starts one more gateway.
    pub fn gateway(&self) -> Gateway {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let server = tonic::transport::Server::builder()
            .add_service(MessagingServer::new(self.clone()))
            .add_service(ChatsServer::new(self.clone()))
            .add_service(AuthServer::new(self.clone()));
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            server
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
                .unwrap();
        });
        Gateway {
            url,
            runtime: Some(runtime),
        }
    }

    fn refusal(&self) -> Option<ApiError> {
        self.state()
            .refuse
            .pop()
            .map(|reason| ApiError::new(reason, "as ordered"))
    }
}

/// A gateway with its own runtime, so that all its connections end with it.
pub struct Gateway {
    pub url: String,
    runtime: Option<Runtime>,
}

impl Gateway {
    pub fn kill(&mut self) {
        self.runtime
            .take()
            .into_iter()
            .for_each(Runtime::shutdown_background);
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.kill();
    }
}

pub fn config(gateways: &[&Gateway]) -> ClientConfig {
    let credentials = Credentials {
        user: UserId(Uuid::from_u128(10)),
        device: DeviceId(Uuid::from_u128(11)),
        access_token: "access-0".into(),
        access_expires_at: Clock::wall() + std::time::Duration::from_secs(3000),
        refresh_token: "refresh-0".into(),
    };
    let gateways = gateways.iter().map(|gateway| gateway.url.clone()).collect();
    ClientConfig::new(gateways, StoreLocation::Memory).credentials(credentials)
}

fn opened() -> Event {
    Event::Opened(v1::Opened {
        session_id: "s".into(),
        store_epoch: Uuid::from_u128(1).to_string(),
        heartbeat_interval_ms: 45_000,
        window: 256,
        ..Default::default()
    })
}

impl World {
    /// Handles one item and returns the events that answer it. `ahead` is the seq up to which the stream has got
    /// entries; it is moved on.
    fn take(&self, item: Item, ahead: &mut u64) -> Vec<Event> {
        let mut state = self.state();
        let mut events = Vec::new();
        match item {
            Item::Open(_) => {
                state.streams += 1;
                *ahead = state.acked;
                events.extend([opened(), Event::CaughtUp(v1::CaughtUp {})]);
            }
            Item::Send(send) => {
                let result = state.commit(&send);
                // The result stands for the next entry, which is therefore not sent to this stream.
                if result.1 == *ahead + 1 {
                    *ahead += 1;
                }
                events.push(result.0);
            }
            Item::Ack(ack) => state.acked = state.acked.max(ack.seq),
            _ => {}
        }
        let to = (state.log.len() as u64).min(state.acked + WINDOW);
        while *ahead < to {
            let (request, body) = &state.log[usize::try_from(*ahead).unwrap()];
            *ahead += 1;
            events.push(Event::Entry(entry(*ahead, request, body)));
        }
        drop(state);
        self.changed.send_replace(());
        events
    }

    fn answers(
        self,
        frames: Streaming<v1::ClientFrame>,
    ) -> impl Stream<Item = Result<v1::ServerFrame, Status>> {
        let mut ahead = 0;
        frames.filter_map(move |frame| {
            let items = frame.map(|frame| frame.items).unwrap_or_default();
            let events = items.into_iter().filter_map(|item| item.item);
            let events = events.flat_map(|item| self.take(item, &mut ahead));
            let events: Vec<_> = events
                .map(|event| v1::ServerEvent { event: Some(event) })
                .collect();
            futures::future::ready((!events.is_empty()).then_some(Ok(v1::ServerFrame { events })))
        })
    }
}

impl State {
    fn commit(&mut self, send: &v1::SendMessage) -> (Event, u64) {
        let known = self
            .log
            .iter()
            .position(|(request, _)| *request == send.request_id);
        let index = known.unwrap_or_else(|| {
            let body = String::from_utf8_lossy(&send.body).into_owned();
            self.log.push((send.request_id.clone(), body));
            self.log.len() - 1
        });
        let seq = index as u64 + 1;
        let sent = v1::Sent {
            chat_id: CHAT.to_string(),
            seq,
            sent_at_ms: 1,
        };
        let (request_id, outcome) = (send.request_id.clone(), Some(Outcome::Sent(sent)));
        (Event::SendResult(v1::SendResult { request_id, outcome }), seq)
    }

    fn messages(&self, request: &v1::ListMessagesRequest) -> v1::ListMessagesResponse {
        let below = match request.before_seq {
            0 => self.log.len() as u64 + 1,
            before => before,
        };
        let seqs = (1..below).rev().take(request.page_size as usize);
        let messages = seqs.map(|seq| {
            let (request, body) = &self.log[usize::try_from(seq - 1).unwrap()];
            entry(seq, request, body)
        });
        v1::ListMessagesResponse {
            entries: messages.collect(),
            ..Default::default()
        }
    }
}

/// Makes a message of another person.
pub fn entry(seq: u64, request: &str, body: &str) -> v1::Entry {
    let message = v1::Message {
        envelope: None,
        body: body.as_bytes().to_vec().into(),
    };
    v1::Entry {
        chat_id: CHAT.to_string(),
        seq,
        sender_user_id: Uuid::from_u128(20).to_string(),
        request_id: request.to_owned(),
        content: v1::EntryContent {
            content: Some(v1::entry_content::Content::Message(message)),
            ..Default::default()
        }
        .encoded(),
        ..Default::default()
    }
}

#[tonic::async_trait]
impl Messaging for World {
    type StreamStream = BoxStream<'static, Result<v1::ServerFrame, Status>>;

    async fn stream(
        &self,
        request: Request<Streaming<v1::ClientFrame>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        if let Some(error) = self.refusal() {
            return Ok(Response::new(stream::iter([Err(error.into())]).boxed()));
        }
        Ok(Response::new(self.clone().answers(request.into_inner()).boxed()))
    }
}

#[tonic::async_trait]
impl Auth for World {
    async fn refresh_token(
        &self,
        request: Request<v1::RefreshTokenRequest>,
    ) -> Result<Response<v1::RefreshTokenResponse>, Status> {
        let mut state = self.state();
        if request.get_ref().refresh_token != format!("refresh-{}", state.token) {
            return Err(ApiError::new(ErrorReason::RefreshTokenInvalid, "unknown").into());
        }
        state.token += 1;
        let tokens = v1::TokenPair {
            access_token: format!("access-{}", state.token),
            access_expires_at_ms: Clock::wall().0 + 3_000_000,
            refresh_token: format!("refresh-{}", state.token),
        };
        Ok(Response::new(v1::RefreshTokenResponse { tokens: Some(tokens) }))
    }
}

macro_rules! chats {
    ($($method:ident($request:ident) -> $response:ident;)*) => {
        #[tonic::async_trait]
        impl Chats for World {
            async fn list_chats(
                &self,
                request: Request<v1::ListChatsRequest>,
            ) -> Result<Response<v1::ListChatsResponse>, Status> {
                let expected = format!("Bearer access-{}", self.state().token);
                match request.metadata().get("authorization") {
                    Some(token) if token.as_bytes() == expected.as_bytes() => {}
                    _ => return Err(ApiError::new(ErrorReason::TokenExpired, "refresh it").into()),
                }
                if let Some(error) = self.refusal() {
                    return Err(error.into());
                }
                Ok(Response::new(v1::ListChatsResponse::default()))
            }

            async fn list_messages(
                &self,
                request: Request<v1::ListMessagesRequest>,
            ) -> Result<Response<v1::ListMessagesResponse>, Status> {
                Ok(Response::new(self.state().messages(request.get_ref())))
            }

            async fn set_chat_settings(
                &self,
                request: Request<v1::SetChatSettingsRequest>,
            ) -> Result<Response<v1::SetChatSettingsResponse>, Status> {
                let settings = v1::ChatSettings {
                    archived: request.get_ref().archived.unwrap_or_default(),
                    ..Default::default()
                };
                Ok(Response::new(v1::SetChatSettingsResponse {
                    settings: Some(settings),
                    own_seq: 1,
                }))
            }

            async fn hide_messages(
                &self,
                _: Request<v1::HideMessagesRequest>,
            ) -> Result<Response<v1::HideMessagesResponse>, Status> {
                Ok(Response::new(v1::HideMessagesResponse { own_seq: 2 }))
            }

            $(
                async fn $method(&self, _: Request<v1::$request>) -> Result<Response<v1::$response>, Status> {
                    Err(ApiError::new(ErrorReason::ChatNotFound, "not here").into())
                }
            )*
        }
    };
}

chats! {
    send_message(SendMessageRequest) -> SendMessageResponse;
    create_group(CreateGroupRequest) -> CreateGroupResponse;
    get_chat(GetChatRequest) -> GetChatResponse;
    update_chat(UpdateChatRequest) -> UpdateChatResponse;
    set_chat_picture(SetChatPictureRequest) -> SetChatPictureResponse;
    add_members(AddMembersRequest) -> AddMembersResponse;
    remove_member(RemoveMemberRequest) -> RemoveMemberResponse;
    leave_chat(LeaveChatRequest) -> LeaveChatResponse;
    set_role(SetRoleRequest) -> SetRoleResponse;
    list_members(ListMembersRequest) -> ListMembersResponse;
    list_entries(ListEntriesRequest) -> ListEntriesResponse;
    get_message(GetMessageRequest) -> GetMessageResponse;
    list_edits(ListEditsRequest) -> ListEditsResponse;
    list_undelivered(ListUndeliveredRequest) -> ListUndeliveredResponse;
    list_user_messages(ListUserMessagesRequest) -> ListUserMessagesResponse;
    get_receipts(GetReceiptsRequest) -> GetReceiptsResponse;
    get_message_receipts(GetMessageReceiptsRequest) -> GetMessageReceiptsResponse;
    mark_chat_read(MarkChatReadRequest) -> MarkChatReadResponse;
    set_retention(SetRetentionRequest) -> SetRetentionResponse;
}
