//! A gateway with fake nodes around it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use tern_cluster::{ClusterMap, MapHandle, Node, NodeContext, Role};
use tern_gateway::{Config, server};
use tern_identity::token::{Signer, generate_pem};
use tern_proto::internal::accounts_node_server::AccountsNodeServer;
use tern_proto::internal::chat_link_server::ChatLinkServer;
use tern_proto::internal::chat_node_server::ChatNodeServer;
use tern_proto::internal::presence_server::PresenceServer;
use tern_proto::internal::{
    AnnounceReplies, AnnounceReply, Announcement, ControlDown, DownItem, InboxRow, ListBarredResponse,
    LiveDown, PresenceChanges, Push, UpItem, UserPresence, WatchRequests, WindowReplies, WindowReply,
    WindowRequest, down_item,
};
use tern_proto::v1::server_event::Event;
use tern_types::{ChatId, Clock, DeviceId, UserId};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};

use super::calls::{FakeAccounts, FakeChats};
use super::items::open;
use super::nodes::FakeChat;
use super::{Phone, soon};

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    config: Config,
}

/// The most notes that a test has not looked at yet: more than any leaves.
const NOTES: usize = 1024;

/// A gateway, the fake nodes around it, and what they were told.
pub struct World {
    pub url: String,
    pub ctx: NodeContext,
    pub map: watch::Sender<Arc<ClusterMap>>,
    pub items: mpsc::Receiver<UpItem>,
    pub windows: mpsc::Receiver<WindowRequest>,
    pub announced: mpsc::Receiver<Announcement>,
    pub watched: mpsc::Receiver<WatchRequests>,
    /// The URL of the gateway's service for other nodes.
    pub internal: String,
    pub chat: FakeChat,
    pub nodes: Vec<(Role, Node)>,
    /// The task that ends when the gateway has drained.
    pub done: tokio::task::JoinHandle<()>,
    signer: Signer,
    server: tokio::task::JoinHandle<()>,
    _dir: tempfile::TempDir,
}

pub fn node(name: &str, address: &str) -> Node {
    Node {
        name: name.into(),
        address: address.into(),
        admin: String::new(),
        incarnation: 1,
        ..Node::default()
    }
}

impl World {
    /// Starts a gateway with these flags. Nobody is barred.
    pub async fn start(flags: &[&str]) -> Self {
        Self::barring(flags, Some(ListBarredResponse::default())).await
    }

    /// Starts a gateway with these flags. Its accounts node says that these are barred, or fails if there is no list.
    pub async fn barring(flags: &[&str], barred: Option<ListBarredResponse>) -> Self {
        let (items_in, items) = mpsc::channel(NOTES);
        let (windows_in, windows) = mpsc::channel(NOTES);
        let (announced_in, announced) = mpsc::channel(NOTES);
        let (watched_in, watched) = mpsc::channel(NOTES);
        let chat = FakeChat::new("chat-0", items_in, windows_in, announced_in, watched_in);
        *chat.barred.lock().unwrap() = barred;
        let other = chat.beside("chat-1");
        let (address, server) = serve(&chat).await;
        let (other_address, _) = serve(&other).await;
        let spare = Node {
            draining: true,
            ..node("chat-1", &other_address)
        };
        let nodes = vec![
            (Role::Chat, node("chat-0", &address)),
            (Role::Presence, node("presence-0", &address)),
            (Role::Accounts, node("accounts-0", &address)),
            (Role::Chat, spare),
        ];
        let (map, handle) = MapHandle::channel(ClusterMap::new(1, nodes.clone()));
        let ctx = NodeContext::alone("gateway-0", 1, handle);
        ctx.readiness.set(true);

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
            watched,
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

    /// Opens a channel of a client that never grants the server room to write.
    pub async fn deaf_channel(&self) -> Channel {
        let endpoint = Channel::from_shared(self.url.clone()).unwrap();
        endpoint.initial_stream_window_size(0).connect().await.unwrap()
    }

    /// Opens a stream, and reads its `Opened`.
    pub async fn open(&mut self, user: UserId, device: DeviceId) -> Phone {
        let mut phone = self.say_open(self.channel().await, user, device).await;
        let opened = phone.event().await;
        assert!(matches!(opened, Event::Opened(_)), "{opened:?}");
        phone
    }

    /// Opens a stream of a client that never grants room to write. When this returns, its `Opened` waits for room.
    pub async fn open_deaf(&mut self, user: UserId, device: DeviceId) -> Phone {
        // The session asks for a window when it puts Opened.
        self.inbox(ChatId::own(user), 1);
        let phone = self.say_open(self.deaf_channel().await, user, device).await;
        self.window().await;
        phone
    }

    async fn say_open(&mut self, channel: Channel, user: UserId, device: DeviceId) -> Phone {
        let mut phone = Phone::connect(channel).await;
        phone.say(open(self.token(user, device))).await;
        let announced = self.announced().await;
        let expected = (&device.as_bytes()[..], false);
        assert_eq!((&announced.device_id[..], announced.ended), expected);
        phone.session = announced.session;
        phone
    }

    pub fn token(&self, user: UserId, device: DeviceId) -> String {
        self.signer
            .sign(user, device, Clock::wall(), Duration::from_secs(3600))
            .unwrap()
    }

    /// Returns the next item that the chat node gets.
    pub async fn item(&mut self) -> UpItem {
        soon(self.items.recv()).await.expect("an item")
    }

    /// Returns the next request for a window that the chat node gets.
    pub async fn window(&mut self) -> WindowRequest {
        soon(self.windows.recv()).await.expect("a request")
    }

    /// Returns the next announcement that the presence node gets.
    pub async fn announced(&mut self) -> Announcement {
        soon(self.announced.recv()).await.expect("news")
    }

    /// Returns the next users whom the presence node is asked to watch, or to watch no more.
    pub async fn watched(&mut self) -> WatchRequests {
        soon(self.watched.recv()).await.expect("a request")
    }

    /// Lets the presence node say a user's state.
    pub async fn shows(&self, user: UserId, online: bool, last_seen_ms: i64) {
        let state = UserPresence {
            user_id: user.to_vec().into(),
            online,
            last_seen_ms,
        };
        let changes = PresenceChanges {
            map_version: 1,
            changes: vec![state],
            not_owner: Vec::new(),
        };
        self.chat.shown.say(changes).await;
    }

    /// Lets the chat node send an item on its control stream.
    pub async fn down(&self, item: down_item::Item) {
        let (map_version, items) = (1, vec![DownItem { item: Some(item) }]);
        self.chat
            .down
            .say(ControlDown {
                map_version,
                items,
                shed_level: 0,
            })
            .await;
    }

    /// Lets the chat node say how overloaded it is.
    pub async fn shed(&self, shed_level: u32) {
        let frame = ControlDown {
            shed_level,
            ..Default::default()
        };
        self.chat.down.say(frame).await;
    }

    /// Lets the chat node push an event to a session.
    pub async fn push(&self, session: u64, chat: ChatId, seq: u64, event: Bytes) {
        let push = Push {
            sessions: vec![session],
            event,
            chat_id: chat.to_vec().into(),
            seq,
            traceparent: String::new(),
        };
        let frame = LiveDown {
            pushes: vec![push],
            ..LiveDown::default()
        };
        self.chat.live.say(frame).await;
    }

    /// Lets the chat node answer a request for a window.
    pub async fn reply(&self, reply: WindowReply) {
        let (map_version, replies) = (1, vec![reply]);
        self.chat
            .replies
            .say(WindowReplies { map_version, replies })
            .await;
    }

    /// Lets the presence node say that a stream on another gateway replaces the session.
    pub async fn replaced(&self, session: u64) {
        let item = AnnounceReply {
            replaced_session: session,
            ..Default::default()
        };
        self.presence_says(0, 1, vec![item]).await;
    }

    /// Lets the presence node confirm a map over the announce stream of this number, counted from the first that was
    /// opened.
    pub async fn presence_follows(&self, stream: usize, map_version: i64) {
        self.presence_says(stream, map_version, Vec::new()).await;
    }

    async fn presence_says(&self, stream: usize, map_version: i64, items: Vec<AnnounceReply>) {
        let stream = self.chat.announce_streams.lock().unwrap()[stream].clone();
        stream
            .send(Ok(AnnounceReplies { map_version, items }))
            .await
            .unwrap();
    }

    /// Gives every device an inbox of one row, which begins at `from_seq` of the chat.
    pub fn inbox(&self, chat: ChatId, from_seq: u64) {
        *self.chat.inbox.lock().unwrap() = vec![InboxRow {
            chat_id: chat.to_vec().into(),
            from_seq,
            age_ms: 0,
        }];
    }

    /// Makes this node the only one that answers for chats. With `follow` the map says so too.
    pub fn owner(&mut self, name: &str, version: i64, follow: bool) {
        *self.chat.owner.lock().unwrap() = name.to_owned();
        if follow {
            for (_, node) in self.nodes.iter_mut().filter(|(role, _)| *role == Role::Chat) {
                node.draining = node.name != name;
            }
            self.follow(version);
        }
    }

    /// Publishes a map with these presence nodes, all of which are the same fake. Each has its name, and
    /// whether it is draining.
    pub fn presence(&mut self, version: i64, names: &[(&str, bool)]) {
        let address = self.nodes[0].1.address.clone();
        self.nodes.retain(|(role, _)| *role != Role::Presence);
        for (name, draining) in names {
            let draining = *draining;
            let node = Node {
                draining,
                ..node(name, &address)
            };
            self.nodes.push((Role::Presence, node));
        }
        self.follow(version);
    }

    /// Publishes a map of the nodes as they are now.
    pub fn follow(&self, version: i64) {
        let map = ClusterMap::new(version, self.nodes.clone());
        self.map.send_replace(Arc::new(map));
    }

    /// Ends the control stream, as when the node is gone.
    pub fn break_link(&self) {
        self.chat.down.end();
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
        .add_service(AccountsNodeServer::new(FakeAccounts(chat.clone())))
        .add_service(FakeChats(chat.clone()))
        .serve_with_incoming(TcpIncoming::from(listener));
    (address, tokio::spawn(async move { server.await.unwrap() }))
}
