//! The announce and look-up streams over real gRPC: a node in this process, with gateways and chat nodes as clients.

#![allow(clippy::unwrap_used, reason = "tests")]

mod following;
mod sessions;
mod standing;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tern_cluster::standing::Standing;
use tern_cluster::{ClusterMap, MapHandle, Node, NodeContext, Role};
use tern_identity::principal::{Principal, Scope};
use tern_presence::Config;
use tern_proto::internal::presence_admin_client::PresenceAdminClient;
use tern_proto::internal::presence_client::PresenceClient;
use tern_proto::internal::{
    AnnounceReplies, AnnounceReply, Announcement, Announcements, LookupReplies, LookupReply, LookupRequest,
    LookupRequests,
};
use tern_proto::v1::ListSessionsRequest;
use tern_store::postgres::PostgresArgs;
use tern_types::{DeviceId, Slot, UserId};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::service::RoutesBuilder;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic::{Request, Streaming};

/// The longest time that the tests wait for anything. Nothing takes nearly as long.
const PATIENCE: Duration = Duration::from_secs(60);
/// The time that a frame waits for the node's map to catch up, if it waits in vain.
const MAP_WAIT: Duration = Duration::from_millis(300);
/// The time for which a sign counts. No test takes nearly as long.
const THRESHOLD: Duration = Duration::from_secs(600);

fn node(name: &str) -> Node {
    Node {
        name: name.into(),
        address: String::new(),
        admin: String::new(),
        incarnation: 1,
        ..Node::default()
    }
}

fn map(version: i64, presence: &[&str], gateways: &[&str]) -> ClusterMap {
    let presence = presence.iter().map(|name| (Role::Presence, node(name)));
    let gateways = gateways.iter().map(|name| (Role::Gateway, node(name)));
    ClusterMap::new(version, presence.chain(gateways))
}

/// The presence node p1, whose map the test changes.
struct Presence {
    channel: Channel,
    map: watch::Sender<Arc<ClusterMap>>,
    ctx: NodeContext,
    done: tokio::task::JoinHandle<()>,
}

impl Presence {
    async fn start(first: ClusterMap) -> Self {
        Self::with_map_wait(first, MAP_WAIT).await
    }

    async fn with_map_wait(first: ClusterMap, presence_map_wait: Duration) -> Self {
        Self::placed(first, presence_map_wait, |_| Standing::certain()).await
    }

    /// Starts the node with this place in the map.
    async fn placed(
        first: ClusterMap,
        presence_map_wait: Duration,
        standing: impl FnOnce(MapHandle) -> Standing,
    ) -> Self {
        let (map, handle) = MapHandle::channel(first);
        let mut ctx = NodeContext::alone("p1", 1, handle.clone());
        ctx.standing = standing(handle);
        let mut routes = RoutesBuilder::default();
        let config = Config {
            // Nobody is watched here, so the store is not asked.
            postgres: PostgresArgs::from_url("postgres://nobody@127.0.0.1:1/none").unwrap(),
            presence_map_wait,
            online_threshold: THRESHOLD,
            presence_hold_offline: Duration::from_secs(2),
        };
        let running = tern_presence::server::start(config, ctx.clone(), &mut routes)
            .await
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = Server::builder().add_routes(routes.routes());
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true))));
        let channel = ctx.channels.get(&address).unwrap();
        Self {
            channel,
            map,
            ctx,
            done: tokio::spawn(running.done),
        }
    }

    fn follow(&self, map: ClusterMap) {
        self.map.send_replace(Arc::new(map));
    }

    async fn gateway(&self, name: &str) -> Gateway {
        let (out, frames) = mpsc::channel(16);
        let mut client = PresenceClient::new(self.channel.clone());
        let replies = client
            .announce(identified(name, frames))
            .await
            .unwrap()
            .into_inner();
        Gateway { out, replies }
    }

    /// Returns whether an operator is told that the list of the user's sessions may lack some.
    async fn lists_incomplete(&self, user: UserId) -> bool {
        let mut request = Request::new(ListSessionsRequest {
            user_id: user.to_string(),
        });
        let operator = Principal::Key {
            key_id: "k1".into(),
            scopes: vec![Scope::Admin],
        };
        operator.write(request.metadata_mut());
        let mut client = PresenceAdminClient::new(self.channel.clone());
        let listed = client.list_sessions(request).await.unwrap();
        listed.into_inner().sessions_incomplete
    }

    async fn chat(&self, name: &str) -> Chat {
        let (out, frames) = mpsc::channel(16);
        let mut client = PresenceClient::new(self.channel.clone());
        let replies = client
            .lookup(identified(name, frames))
            .await
            .unwrap()
            .into_inner();
        Chat { out, replies }
    }
}

fn identified<T: Send + 'static>(name: &str, frames: mpsc::Receiver<T>) -> Request<ReceiverStream<T>> {
    let mut request = Request::new(ReceiverStream::new(frames));
    request
        .metadata_mut()
        .insert("tern-node", MetadataValue::try_from(name).unwrap());
    request
        .metadata_mut()
        .insert("tern-incarnation", MetadataValue::from(1));
    request
}

struct Gateway {
    out: mpsc::Sender<Announcements>,
    replies: Streaming<AnnounceReplies>,
}

impl Gateway {
    async fn say(&self, map_version: i64, items: Vec<Announcement>) {
        self.out
            .send(Announcements {
                map_version,
                items,
                ..Announcements::default()
            })
            .await
            .unwrap();
    }

    /// Says that all sessions of all slots are announced.
    async fn has_said_all(&self, map_version: i64) {
        let frame = Announcements {
            map_version,
            said_slots: vec![u8::MAX; 512].into(),
            said_map_version: map_version,
            ..Announcements::default()
        };
        self.out.send(frame).await.unwrap();
    }

    async fn next(&mut self) -> Option<AnnounceReplies> {
        timeout(PATIENCE, self.replies.message()).await.unwrap().unwrap()
    }

    /// Returns the next reply with an item, and its map version.
    async fn next_item(&mut self) -> (i64, AnnounceReply) {
        loop {
            let frame = self.next().await.unwrap();
            if let [item] = frame.items.as_slice() {
                return (frame.map_version, *item);
            }
            assert!(frame.items.is_empty(), "{frame:?}");
        }
    }
}

struct Chat {
    out: mpsc::Sender<LookupRequests>,
    replies: Streaming<LookupReplies>,
}

impl Chat {
    async fn ask(&self, map_version: i64, user_ids: Vec<Bytes>, follow: bool) {
        let requests = vec![LookupRequest {
            r#ref: 7,
            user_ids,
            follow,
        }];
        let frame = LookupRequests {
            map_version,
            requests,
            ..LookupRequests::default()
        };
        self.out.send(frame).await.unwrap();
    }

    async fn next(&mut self) -> LookupReplies {
        timeout(PATIENCE, self.replies.message())
            .await
            .unwrap()
            .unwrap()
            .unwrap()
    }

    async fn look_up(&mut self, map_version: i64, users: &[UserId]) -> LookupReply {
        let user_ids = users.iter().map(|user| user.to_vec().into()).collect();
        self.ask(map_version, user_ids, false).await;
        let frame = self.next().await;
        assert_eq!(frame.replies.len(), 1);
        assert_eq!(frame.replies[0].r#ref, 7);
        frame.replies[0].clone()
    }

    /// Returns the gateway and the session id of each live session.
    async fn sessions(&mut self, map_version: i64, user: UserId) -> Vec<(String, u64)> {
        let reply = self.look_up(map_version, &[user]).await;
        assert!(!reply.not_owner);
        let mut found: Vec<_> = reply
            .sessions
            .into_iter()
            .map(|session| (session.gateway, session.session))
            .collect();
        found.sort();
        found
    }
}

fn announcement(r#ref: u64, user: UserId, device: DeviceId, session: u64, number: u64) -> Announcement {
    Announcement {
        r#ref,
        session,
        user_id: user.to_vec().into(),
        device_id: device.to_vec().into(),
        since_ms: 0,
        stream_number: number,
        ended: false,
        active: false,
        active_at_ms: 0,
        active_said_ms: 0,
    }
}

fn taken(r#ref: u64) -> AnnounceReply {
    AnnounceReply {
        r#ref,
        not_owner: false,
        replaced_session: 0,
    }
}

/// Returns a user whose slot p1 owns (or does not own, if not `p1_owns`) when it shares the slots with p2.
fn user_where(shared: &ClusterMap, p1_owns: bool) -> UserId {
    let owned = |user: &UserId| {
        shared
            .owner(Role::Presence, Slot::of_user(*user))
            .is_some_and(|node| node.name == "p1")
            == p1_owns
    };
    std::iter::repeat_with(UserId::random).find(owned).unwrap()
}

#[tokio::test]
async fn nobody_is_said_for_sure_before_every_gateway_has_said_its_sessions() {
    let presence = Presence::start(map(1, &["p1"], &["g1", "g2"])).await;
    let (user, mut chat) = (UserId::random(), presence.chat("chat-0").await);
    let (g1, g2) = (presence.gateway("g1").await, presence.gateway("g2").await);
    g1.has_said_all(1).await;
    assert!(chat.look_up(1, &[user]).await.unsure, "the user may be on g2");
    assert!(presence.lists_incomplete(user).await);
    g2.has_said_all(1).await;
    let sure = async { while chat.look_up(1, &[user]).await.unsure {} };
    timeout(PATIENCE, sure).await.unwrap();
    assert!(!presence.lists_incomplete(user).await);
    // A gateway that joins has said nothing.
    presence.follow(map(2, &["p1"], &["g1", "g2", "g3"]));
    let unsure = async { while !chat.look_up(2, &[user]).await.unsure {} };
    timeout(PATIENCE, unsure).await.unwrap();
}

#[tokio::test]
async fn a_session_is_found_from_its_announcement_to_its_end() {
    let presence = Presence::start(map(3, &["p1"], &["g1", "g2"])).await;
    let mut gateway = presence.gateway("g1").await;
    let mut chat = presence.chat("c1").await;
    let (user, device) = (UserId::random(), DeviceId::random());
    assert_eq!(
        gateway.next().await.unwrap(),
        AnnounceReplies {
            map_version: 3,
            items: vec![]
        }
    );
    assert_eq!(chat.sessions(3, user).await, []);

    gateway.say(3, vec![announcement(1, user, device, 10, 1)]).await;
    assert_eq!(gateway.next_item().await, (3, taken(1)));
    assert_eq!(chat.sessions(3, user).await, [("g1".into(), 10)]);

    gateway
        .say(
            3,
            vec![Announcement {
                ended: true,
                ..announcement(2, user, device, 10, 1)
            }],
        )
        .await;
    assert_eq!(gateway.next_item().await, (3, taken(2)));
    assert_eq!(chat.sessions(3, user).await, []);
}

#[tokio::test]
async fn the_gateway_of_a_replaced_session_is_told() {
    let presence = Presence::start(map(3, &["p1"], &["g1", "g2"])).await;
    let (mut first, mut second) = (presence.gateway("g1").await, presence.gateway("g2").await);
    let (user, device) = (UserId::random(), DeviceId::random());
    first.say(3, vec![announcement(1, user, device, 10, 1)]).await;
    assert_eq!(first.next_item().await, (3, taken(1)));
    second.say(3, vec![announcement(1, user, device, 20, 2)]).await;
    assert_eq!(second.next_item().await, (3, taken(1)));
    let replaced = AnnounceReply {
        r#ref: 0,
        not_owner: false,
        replaced_session: 10,
    };
    assert_eq!(first.next_item().await, (3, replaced));
    let mut chat = presence.chat("c1").await;
    assert_eq!(
        chat.sessions(3, user).await,
        [("g1".into(), 10), ("g2".into(), 20)]
    );
}

#[tokio::test]
async fn every_map_change_is_confirmed_on_the_announce_stream() {
    let presence = Presence::start(map(3, &["p1"], &["g1"])).await;
    let mut gateway = presence.gateway("g1").await;
    assert_eq!(gateway.next().await.unwrap().map_version, 3);
    presence.follow(map(4, &["p1"], &["g1"]));
    assert_eq!(
        gateway.next().await.unwrap(),
        AnnounceReplies {
            map_version: 4,
            items: vec![]
        }
    );
}

#[tokio::test]
async fn who_is_not_the_owner_says_so_and_forgets() {
    let shared = map(4, &["p1", "p2"], &["g1"]);
    let (stays, moves) = (user_where(&shared, true), user_where(&shared, false));
    let presence = Presence::start(map(3, &["p1"], &["g1"])).await;
    let mut gateway = presence.gateway("g1").await;
    let mut chat = presence.chat("c1").await;
    for (user, session) in [(stays, 10), (moves, 20)] {
        gateway
            .say(3, vec![announcement(1, user, DeviceId::random(), session, 0)])
            .await;
        assert_eq!(gateway.next_item().await, (3, taken(1)));
    }
    presence.follow(shared);
    while gateway.next().await.unwrap().map_version < 4 {}
    assert_eq!(chat.sessions(4, stays).await, [("g1".into(), 10)]);
    // A look-up with an older map than this node's fails too.
    assert!(chat.look_up(3, &[moves]).await.not_owner);
    let both = chat.look_up(4, &[stays, moves]).await;
    assert!(
        both.not_owner && both.sessions.is_empty(),
        "a look-up fails as a whole"
    );
    gateway
        .say(3, vec![announcement(9, moves, DeviceId::random(), 20, 0)])
        .await;
    assert_eq!(
        gateway.next_item().await,
        (
            4,
            AnnounceReply {
                not_owner: true,
                ..taken(9)
            }
        )
    );
}

#[tokio::test]
async fn a_node_with_an_older_map_waits_for_the_newer_one() {
    let shared = map(3, &["p1", "p2"], &["g1"]);
    let comes = user_where(&shared, false);
    let presence = Presence::with_map_wait(shared, PATIENCE).await;
    let mut chat = presence.chat("c1").await;
    assert!(chat.look_up(3, &[comes]).await.not_owner);
    let mut other_chat = presence.chat("c2").await;
    let waiting = tokio::spawn(async move { chat.look_up(4, &[comes]).await });
    // The first look-up has begun to wait by the time that two later look-ups on the connection are answered.
    for _ in 0..2 {
        assert!(other_chat.look_up(3, &[comes]).await.not_owner);
    }
    presence.follow(map(4, &["p1"], &["g1"]));
    assert!(!waiting.await.unwrap().not_owner);
}

#[tokio::test]
async fn a_node_whose_map_stands_still_waits_once_and_not_for_ever() {
    let shared = map(3, &["p1", "p2"], &["g1"]);
    let (mine, other) = (user_where(&shared, true), user_where(&shared, false));
    let presence = Presence::with_map_wait(shared, Duration::from_secs(2)).await;
    let mut chat = presence.chat("c1").await;
    assert!(chat.look_up(9, &[other]).await.not_owner);
    // If each of these waited, they would take longer than the test has patience.
    let later = async {
        for _ in 0..100 {
            assert!(chat.look_up(9, &[other]).await.not_owner);
        }
    };
    timeout(PATIENCE, later).await.expect("later waits are left out");
    assert!(!chat.look_up(9, &[mine]).await.not_owner, "both maps agree on it");
}

#[tokio::test]
async fn the_stream_of_a_gateway_that_left_the_map_ends() {
    let presence = Presence::start(map(3, &["p1"], &["g1", "g2"])).await;
    let mut gateway = presence.gateway("g1").await;
    let user = UserId::random();
    gateway
        .say(3, vec![announcement(1, user, DeviceId::random(), 10, 0)])
        .await;
    gateway.next_item().await;
    presence.follow(map(4, &["p1"], &["g2"]));
    while gateway.next().await.is_some() {}
    assert_eq!(presence.chat("c1").await.sessions(4, user).await, []);
}

#[tokio::test]
async fn bad_ids_end_the_stream_with_a_clear_error() {
    let presence = Presence::start(map(3, &["p1"], &["g1"])).await;
    let mut chat = presence.chat("c1").await;
    chat.ask(3, vec![vec![1, 2, 3].into()], false).await;
    let status = timeout(PATIENCE, chat.replies.message())
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
}
