//! A gateway with fake nodes around it: they note what they are told and say what the test says.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use futures::Stream;
use std::pin::Pin;
use tern_gateway::{Config, server};
use tern_node::token::{Signer, generate_pem};
use tern_node::{ClusterMap, MapHandle, Node, NodeContext, Role};
use tern_proto::internal::accounts_node_server::{AccountsNode, AccountsNodeServer};
use tern_proto::internal::chat_link_server::{ChatLink, ChatLinkServer};
use tern_proto::internal::chat_node_server::{ChatNode, ChatNodeServer};
use tern_proto::internal::presence_server::{Presence, PresenceServer};
use tern_proto::internal::{
    AnnounceReplies, AnnounceReply, Announcement, Announcements, AuthenticateKeyRequest,
    AuthenticateKeyResponse, ControlDown, ControlUp, DeviceInbox, DownItem, InboxRow, LinkDeviceRequest,
    LinkDeviceResponse, LiveDown, LiveRequest, LookupReplies, LookupRequests, Push, ReadInboxRequest,
    ReadInboxResponse, UnlinkDeviceRequest, UnlinkDeviceResponse, UpItem, WindowReplies, WindowReply,
    WindowRequest, WindowRequests, down_item,
};
use tern_proto::v1;
use tern_proto::v1::messaging_client::MessagingClient;
use tern_types::{ChatId, DeviceId, Timestamp, UserId};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status, Streaming};

pub type Out<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Where a stream's messages to the gateway are put, while it is open.
type Downward<T> = Arc<Mutex<Option<mpsc::Sender<Result<T, Status>>>>>;

type ReplySender = mpsc::Sender<Result<AnnounceReplies, Status>>;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a fake chat node was told, and how it answers.
#[derive(Clone)]
pub struct FakeChat {
    items: mpsc::Sender<UpItem>,
    windows: mpsc::Sender<WindowRequest>,
    announced: mpsc::Sender<Announcement>,
    down: Downward<ControlDown>,
    live: Downward<LiveDown>,
    replies: Downward<WindowReplies>,
    announce_streams: Arc<Mutex<Vec<ReplySender>>>,
    inbox: Arc<Mutex<Vec<InboxRow>>>,
    /// Owner of everything in Chats, by node name; others answer not-owner.
    owner: Arc<Mutex<String>>,
    name: String,
    /// Keys that accounts were asked for.
    pub key_lookups: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl ChatLink for FakeChat {
    type ControlStream = Out<ControlDown>;
    type LiveStream = Out<LiveDown>;
    type CatchUpStream = Out<WindowReplies>;

    async fn control(
        &self,
        request: Request<Streaming<ControlUp>>,
    ) -> Result<Response<Out<ControlDown>>, Status> {
        let (tx, rx) = mpsc::channel(64);
        *self.down.lock().unwrap() = Some(tx);
        let (items, mut frames) = (self.items.clone(), request.into_inner());
        tokio::spawn(async move {
            while let Ok(Some(frame)) = frames.message().await {
                for item in frame.items {
                    let _ = items.send(item).await;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(rx))))
    }

    async fn live(&self, _: Request<LiveRequest>) -> Result<Response<Out<LiveDown>>, Status> {
        let (tx, rx) = mpsc::channel(64);
        *self.live.lock().unwrap() = Some(tx);
        Ok(Response::new(Box::pin(ReceiverStream::new(rx))))
    }

    async fn catch_up(
        &self,
        request: Request<Streaming<WindowRequests>>,
    ) -> Result<Response<Out<WindowReplies>>, Status> {
        let (tx, rx) = mpsc::channel(64);
        *self.replies.lock().unwrap() = Some(tx);
        let (windows, mut frames) = (self.windows.clone(), request.into_inner());
        tokio::spawn(async move {
            while let Ok(Some(frame)) = frames.message().await {
                for request in frame.requests {
                    let _ = windows.send(request).await;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(rx))))
    }
}

#[tonic::async_trait]
impl ChatNode for FakeChat {
    async fn read_inbox(
        &self,
        request: Request<ReadInboxRequest>,
    ) -> Result<Response<ReadInboxResponse>, Status> {
        let rows = self.inbox.lock().unwrap().clone();
        let devices = request.into_inner().device_ids.into_iter();
        let devices = devices
            .map(|device_id| DeviceInbox {
                device_id,
                active: true,
                rows: rows.clone(),
            })
            .collect();
        Ok(Response::new(ReadInboxResponse {
            devices,
            store_epoch: "epoch".into(),
        }))
    }

    async fn link_device(
        &self,
        _: Request<LinkDeviceRequest>,
    ) -> Result<Response<LinkDeviceResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn unlink_device(
        &self,
        _: Request<UnlinkDeviceRequest>,
    ) -> Result<Response<UnlinkDeviceResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

#[tonic::async_trait]
impl Presence for FakeChat {
    type AnnounceStream = Out<AnnounceReplies>;
    type LookupStream = Out<LookupReplies>;

    async fn announce(
        &self,
        request: Request<Streaming<Announcements>>,
    ) -> Result<Response<Out<AnnounceReplies>>, Status> {
        let (tx, rx) = mpsc::channel(64);
        self.announce_streams.lock().unwrap().push(tx.clone());
        let (announced, mut frames) = (self.announced.clone(), request.into_inner());
        tokio::spawn(async move {
            while let Ok(Some(frame)) = frames.message().await {
                let reply = |item: &Announcement| AnnounceReply {
                    r#ref: item.r#ref,
                    ..Default::default()
                };
                let items = frame.items.iter().map(reply).collect();
                let _ = tx
                    .send(Ok(AnnounceReplies {
                        map_version: 1,
                        items,
                    }))
                    .await;
                for item in frame.items {
                    let _ = announced.send(item).await;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(rx))))
    }

    async fn lookup(
        &self,
        _: Request<Streaming<LookupRequests>>,
    ) -> Result<Response<Out<LookupReplies>>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// API key "tern_good" has chats:read. Counts what it is asked.
struct FakeAccounts(Arc<AtomicUsize>);

#[tonic::async_trait]
impl AccountsNode for FakeAccounts {
    async fn authenticate_key(
        &self,
        request: Request<AuthenticateKeyRequest>,
    ) -> Result<Response<AuthenticateKeyResponse>, Status> {
        self.0.fetch_add(1, Ordering::Relaxed);
        match request.into_inner().api_key.as_str() {
            "tern_good" => Ok(Response::new(AuthenticateKeyResponse {
                key_id: "k1".into(),
                scopes: vec!["chats:read".into()],
            })),
            _ => Err(tern_proto::ApiError::new(v1::ErrorReason::ApiKeyInvalid, "no such key").into()),
        }
    }
}

/// Chats/GetChat answers with who asked, as title, and the answering node as creator; by hand, since only this method is
/// of interest.
#[derive(Clone)]
struct FakeChats(FakeChat);

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

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    config: Config,
}

/// See the module.
pub struct World {
    pub url: String,
    pub ctx: NodeContext,
    pub map: watch::Sender<Arc<ClusterMap>>,
    pub items: mpsc::Receiver<UpItem>,
    pub windows: mpsc::Receiver<WindowRequest>,
    pub announced: mpsc::Receiver<Announcement>,
    pub internal: String,
    pub chat: FakeChat,
    pub nodes: Vec<(Role, Node)>,
    pub done: tokio::task::JoinHandle<()>,
    signer: Signer,
    server: tokio::task::JoinHandle<()>,
    _dir: tempfile::TempDir,
}

pub fn node(name: &str, address: &str) -> Node {
    Node {
        name: name.into(),
        address: address.into(),
        incarnation: 1,
        draining: false,
    }
}

impl World {
    pub async fn start(flags: &[&str]) -> Self {
        let (items_in, items) = mpsc::channel(1024);
        let (windows_in, windows) = mpsc::channel(1024);
        let (announced_in, announced) = mpsc::channel(1024);
        let chat = FakeChat {
            items: items_in,
            windows: windows_in,
            announced: announced_in,
            down: Arc::default(),
            live: Arc::default(),
            replies: Arc::default(),
            announce_streams: Arc::default(),
            inbox: Arc::default(),
            owner: Arc::new(Mutex::new("chat-0".into())),
            name: "chat-0".into(),
            key_lookups: Arc::default(),
        };
        // Links of its own: the newest of a node takes the older one's place.
        let other = FakeChat {
            name: "chat-1".into(),
            down: Arc::default(),
            live: Arc::default(),
            replies: Arc::default(),
            ..chat.clone()
        };
        let (address, server) = serve(&chat).await;
        let (other_address, _) = serve(&other).await;
        let nodes = vec![
            (Role::Chat, node("chat-0", &address)),
            (Role::Presence, node("presence-0", &address)),
            (Role::Accounts, node("accounts-0", &address)),
            (
                Role::Chat,
                Node {
                    draining: true,
                    ..node("chat-1", &other_address)
                },
            ),
        ];
        let (map, handle) = MapHandle::channel(ClusterMap::new(1, nodes.clone()));
        let ctx = NodeContext::alone("gateway-0", 1, handle);

        let dir = tempfile::tempdir().unwrap();
        let (key, pem) = (dir.path().join("key.pem"), generate_pem().unwrap());
        std::fs::write(&key, &pem).unwrap();
        let key = key.to_string_lossy().into_owned();
        let all = [
            "gateway",
            "--gateway-listen",
            "127.0.0.1:0",
            "--token-verify-files",
            &key,
        ];
        let config = Flags::parse_from(all.iter().chain(flags)).config;
        let mut routes = tonic::service::Routes::builder();
        let (running, address) = server::start_bound(config, ctx.clone(), &mut routes)
            .await
            .unwrap();
        let internal = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let internal_url = format!("http://{}", internal.local_addr().unwrap());
        let services = Server::builder()
            .add_routes(routes.routes())
            .serve_with_incoming(TcpIncoming::from(internal));
        tokio::spawn(async move { services.await.unwrap() });
        Self {
            url: format!("http://{address}"),
            ctx,
            map,
            items,
            windows,
            announced,
            internal: internal_url,
            chat,
            nodes,
            done: tokio::spawn(running.done),
            signer: Signer::from_pem(&pem).unwrap(),
            server,
            _dir: dir,
        }
    }

    pub async fn channel(&self) -> Channel {
        Channel::from_shared(self.url.clone())
            .unwrap()
            .connect()
            .await
            .unwrap()
    }

    /// A client that never grants the server room to write.
    pub async fn deaf_channel(&self) -> Channel {
        let endpoint = Channel::from_shared(self.url.clone()).unwrap();
        endpoint.initial_stream_window_size(0).connect().await.unwrap()
    }

    /// Opens a stream of a client that never grants room; its `Opened` waits for that when this returns.
    pub async fn open_deaf(&mut self, user: UserId, device: DeviceId) -> Phone {
        // A window is asked for in the same breath as Opened is put.
        self.inbox(ChatId::own(user), 1);
        let mut phone = Phone::connect(self.deaf_channel().await).await;
        let access_token = self.token(user, device);
        phone
            .say(v1::client_item::Item::Open(v1::Open {
                access_token,
                ..Default::default()
            }))
            .await;
        phone.session = self.announced().await.session;
        self.window().await;
        phone
    }

    pub fn token(&self, user: UserId, device: DeviceId) -> String {
        self.signer
            .sign(user, device, Timestamp::now(), Duration::from_secs(3600))
            .unwrap()
    }

    /// The next item that the chat node gets.
    pub async fn item(&mut self) -> UpItem {
        timeout(PATIENCE, self.items.recv())
            .await
            .expect("an item in time")
            .expect("an item")
    }

    pub async fn window(&mut self) -> WindowRequest {
        timeout(PATIENCE, self.windows.recv())
            .await
            .expect("a request in time")
            .expect("a request")
    }

    pub async fn announced(&mut self) -> Announcement {
        timeout(PATIENCE, self.announced.recv())
            .await
            .expect("news in time")
            .expect("news")
    }

    pub async fn down(&self, item: down_item::Item) {
        let down = self.chat.down.lock().unwrap().clone().expect("a link");
        let items = vec![DownItem { item: Some(item) }];
        down.send(Ok(ControlDown {
            map_version: 1,
            items,
        }))
        .await
        .unwrap();
    }

    pub async fn push(&self, session: u64, chat: ChatId, seq: u64, event: Bytes) {
        let live = self.chat.live.lock().unwrap().clone().expect("a link");
        let push = Push {
            sessions: vec![session],
            event,
            chat_id: chat.to_vec().into(),
            seq,
            traceparent: String::new(),
        };
        live.send(Ok(LiveDown { pushes: vec![push] })).await.unwrap();
    }

    pub async fn reply(&self, reply: WindowReply) {
        let replies = self.chat.replies.lock().unwrap().clone().expect("a link");
        replies
            .send(Ok(WindowReplies {
                map_version: 1,
                replies: vec![reply],
            }))
            .await
            .unwrap();
    }

    pub async fn replaced(&self, session: u64) {
        let stream = self.chat.announce_streams.lock().unwrap()[0].clone();
        let item = AnnounceReply {
            replaced_session: session,
            ..Default::default()
        };
        stream
            .send(Ok(AnnounceReplies {
                map_version: 1,
                items: vec![item],
            }))
            .await
            .unwrap();
    }

    pub fn inbox(&self, chat: ChatId, from_seq: u64) {
        *self.chat.inbox.lock().unwrap() = vec![InboxRow {
            chat_id: chat.to_vec().into(),
            from_seq,
            age_ms: 0,
        }];
    }

    /// From now on only this node answers for chats; the map says so when `follow`.
    pub fn owner(&mut self, name: &str, version: i64, follow: bool) {
        *self.chat.owner.lock().unwrap() = name.to_owned();
        if follow {
            for (_, node) in self.nodes.iter_mut().filter(|(role, _)| *role == Role::Chat) {
                node.draining = node.name != name;
            }
            self.map
                .send_replace(Arc::new(ClusterMap::new(version, self.nodes.clone())));
        }
    }

    /// The presence nodes of a new map; all of them are the same fake.
    pub fn presence(&mut self, version: i64, names: &[(&str, bool)]) {
        let address = self.nodes[0].1.address.clone();
        self.nodes.retain(|(role, _)| *role != Role::Presence);
        self.nodes.extend(names.iter().map(|(name, draining)| {
            (
                Role::Presence,
                Node {
                    draining: *draining,
                    ..node(name, &address)
                },
            )
        }));
        self.map
            .send_replace(Arc::new(ClusterMap::new(version, self.nodes.clone())));
    }

    /// The first announce stream that was opened says by which map it goes.
    pub async fn presence_follows(&self, stream: usize, map_version: i64) {
        let stream = self.chat.announce_streams.lock().unwrap()[stream].clone();
        stream
            .send(Ok(AnnounceReplies {
                map_version,
                items: Vec::new(),
            }))
            .await
            .unwrap();
    }

    /// The control stream ends as when the node is gone.
    pub fn break_link(&self) {
        self.chat.down.lock().unwrap().take();
    }

    pub async fn open(&mut self, user: UserId, device: DeviceId) -> Phone {
        let mut phone = Phone::connect(self.channel().await).await;
        let access_token = self.token(user, device);
        phone
            .say(v1::client_item::Item::Open(v1::Open {
                access_token,
                ..Default::default()
            }))
            .await;
        let announced = self.announced().await;
        assert_eq!(
            (&announced.device_id[..], announced.ended),
            (&device.as_bytes()[..], false)
        );
        let opened = phone.event().await;
        assert!(matches!(opened, v1::server_event::Event::Opened(_)), "{opened:?}");
        phone.session = announced.session;
        phone
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.server.abort();
        self.ctx.drain.end();
    }
}

async fn serve(chat: &FakeChat) -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = Server::builder()
        .add_service(ChatLinkServer::new(chat.clone()))
        .add_service(ChatNodeServer::new(chat.clone()))
        .add_service(PresenceServer::new(chat.clone()))
        .add_service(AccountsNodeServer::new(FakeAccounts(chat.key_lookups.clone())))
        .add_service(FakeChats(chat.clone()))
        .serve_with_incoming(TcpIncoming::from(listener));
    (address, tokio::spawn(async move { server.await.unwrap() }))
}

/// One end of a device stream.
pub struct Phone {
    pub session: u64,
    out: Option<mpsc::Sender<v1::ClientFrame>>,
    events: std::collections::VecDeque<v1::server_event::Event>,
    frames: Streaming<v1::ServerFrame>,
}

impl Phone {
    pub async fn connect(channel: Channel) -> Self {
        let (out, frames_out) = mpsc::channel(16);
        let frames = MessagingClient::new(channel)
            .stream(ReceiverStream::new(frames_out))
            .await
            .unwrap()
            .into_inner();
        Self {
            session: 0,
            out: Some(out),
            events: Default::default(),
            frames,
        }
    }

    pub async fn say(&self, item: v1::client_item::Item) {
        self.frame(v1::ClientFrame {
            items: vec![v1::ClientItem { item: Some(item) }],
        })
        .await;
    }

    pub async fn frame(&self, frame: v1::ClientFrame) {
        self.out.as_ref().expect("not hung up").send(frame).await.unwrap();
    }

    pub fn hang_up(&mut self) {
        self.out = None;
    }

    pub async fn event(&mut self) -> v1::server_event::Event {
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            let frame = timeout(PATIENCE, self.frames.next())
                .await
                .expect("a frame in time");
            let frame = frame.expect("the stream goes on").expect("no status");
            self.events
                .extend(frame.events.into_iter().filter_map(|event| event.event));
        }
    }

    /// Whether the stream ends without a word.
    pub async fn breaks(&mut self) -> bool {
        let end = timeout(PATIENCE, self.frames.next())
            .await
            .expect("the end in time");
        end.is_none_or(|frame| frame.is_err())
    }

    /// The last event, which must be Closing, and the status after it.
    pub async fn end(&mut self) -> (v1::Closing, Option<Status>) {
        let mut last = None;
        loop {
            last = self.events.drain(..).next_back().or(last);
            match timeout(PATIENCE, self.frames.next())
                .await
                .expect("the end in time")
            {
                Some(Ok(frame)) => self
                    .events
                    .extend(frame.events.into_iter().filter_map(|event| event.event)),
                Some(Err(status)) => return (closing(last), Some(status)),
                None => return (last.map(|last| closing(Some(last))).unwrap_or_default(), None),
            }
        }
    }
}

fn closing(event: Option<v1::server_event::Event>) -> v1::Closing {
    match event {
        Some(v1::server_event::Event::Closing(closing)) => closing,
        other => panic!("the last event was {other:?}"),
    }
}
