//! Watching people over real gRPC, with their last seen in a real Postgres.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use tern_cluster::{ClusterMap, MapHandle, Node, NodeContext, Role, links};
use tern_local::{Shared, until};
use tern_presence::last_seen::{self, LastSeen};
use tern_presence::{Config, server};
use tern_proto::internal::presence_client::PresenceClient;
use tern_proto::internal::{
    Activity, Announcement, Announcements, GetStatesRequest, GetStatesResponse, PresenceChanges,
    UserPresence, WatchRequests,
};
use tern_store::postgres::{self, PostgresArgs};
use tern_store::schema;
use tern_types::{Clock, DeviceId, Timestamp, UserId};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::RoutesBuilder;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic::{Request, Streaming};

/// The longest time that the tests wait for anything. Nothing takes nearly as long.
const PATIENCE: Duration = Duration::from_secs(60);

struct Store {
    pool: PgPool,
    url: String,
    _servers: Shared,
}

impl Store {
    async fn start() -> Self {
        let servers = Shared::get().await.unwrap();
        let url = servers.database().await.unwrap();
        let args = PostgresArgs::from_url(&url).unwrap();
        let wanted = schema::Wanted {
            cells: None,
            citus: servers.is_citus(),
        };
        schema::migrate(&args, wanted).await.unwrap();
        let pool = postgres::pool(&args).await.unwrap();
        Self {
            pool,
            url,
            _servers: servers,
        }
    }

    async fn user(&self) -> UserId {
        let user = UserId::random();
        sqlx::query("INSERT INTO users (user_id, external_id, display_name) VALUES ($1, $2, '')")
            .bind(user.0)
            .bind(user.to_string())
            .execute(&self.pool)
            .await
            .unwrap();
        user
    }
}

fn node(name: &str) -> Node {
    Node {
        name: name.into(),
        address: String::new(),
        admin: String::new(),
        incarnation: 1,
        ..Node::default()
    }
}

fn map(version: i64, presence: &str) -> Arc<ClusterMap> {
    let nodes = [(Role::Presence, node(presence)), (Role::Gateway, node("g1"))];
    Arc::new(ClusterMap::new(version, nodes))
}

/// The presence node p1, and the gateway g1's links to it.
struct Presence {
    channel: Channel,
    map: watch::Sender<Arc<ClusterMap>>,
    ctx: NodeContext,
    done: tokio::task::JoinHandle<()>,
    announce: mpsc::Sender<Announcements>,
    _replies: Streaming<tern_proto::internal::AnnounceReplies>,
}

impl Presence {
    /// Starts a node on which nobody goes offline because time passes.
    async fn start(url: &str) -> Self {
        Self::with_threshold(url, Duration::from_secs(600)).await
    }

    async fn with_threshold(url: &str, online_threshold: Duration) -> Self {
        let (map, handle) = MapHandle::channel(ClusterMap::clone(&map(1, "p1")));
        let ctx = NodeContext::alone("p1", 1, handle);
        let mut routes = RoutesBuilder::default();
        let config = Config {
            postgres: PostgresArgs::from_url(url).unwrap(),
            presence_map_wait: Duration::from_millis(300),
            online_threshold,
            presence_hold_offline: Duration::from_secs(2),
        };
        let running = server::start(config, ctx.clone(), &mut routes).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let services = Server::builder().add_routes(routes.routes());
        tokio::spawn(services.serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true))));
        let channel = ctx.channels.get(&address).unwrap();
        let (announce, frames) = mpsc::channel(64);
        let frames = gateway(ReceiverStream::new(frames));
        let replies = PresenceClient::new(channel.clone())
            .announce(frames)
            .await
            .unwrap();
        Self {
            channel,
            map,
            ctx,
            done: tokio::spawn(running.done),
            announce,
            _replies: replies.into_inner(),
        }
    }

    async fn watch(&self, users: &[UserId]) -> Watch {
        let (requests, frames) = mpsc::channel(64);
        let frames = gateway(ReceiverStream::new(frames));
        let changes = PresenceClient::new(self.channel.clone())
            .watch(frames)
            .await
            .unwrap();
        let watch = Watch {
            requests,
            changes: changes.into_inner(),
        };
        let watched = WatchRequests {
            map_version: 1,
            watch: ids(users),
            unwatch: Vec::new(),
        };
        watch.requests.send(watched).await.unwrap();
        watch
    }

    /// Announces a session of the user, the same one each time.
    async fn announce(&self, user: UserId, active: bool, at: Timestamp) {
        let announcement = Announcement {
            r#ref: 1,
            session: 1,
            user_id: user.to_vec().into(),
            device_id: DeviceId(user.0).to_vec().into(),
            since_ms: 1,
            stream_number: 1,
            ended: false,
            active,
            active_at_ms: at.0,
            active_said_ms: at.0,
        };
        self.say(vec![announcement], Vec::new()).await;
    }

    async fn sign(&self, user: UserId, active: bool, at: Timestamp) {
        let activity = Activity {
            session: 1,
            user_id: user.to_vec().into(),
            active,
            at_ms: at.0,
            said_ms: at.0,
        };
        self.say(Vec::new(), vec![activity]).await;
    }

    async fn say(&self, items: Vec<Announcement>, activities: Vec<Activity>) {
        let frame = Announcements {
            map_version: 1,
            items,
            activities,
            now_ms: Clock::wall().0,
            ..Announcements::default()
        };
        self.announce.send(frame).await.unwrap();
    }

    async fn states(&self, users: &[UserId]) -> GetStatesResponse {
        let request = GetStatesRequest {
            map_version: 1,
            user_ids: ids(users),
        };
        let mut client = PresenceClient::new(self.channel.clone());
        timeout(PATIENCE, client.get_states(request))
            .await
            .unwrap()
            .unwrap()
            .into_inner()
    }

    async fn drain(self) {
        self.ctx.drain.start();
        self.map.send_replace(map(2, "p2"));
        timeout(PATIENCE, self.done).await.unwrap().unwrap();
    }
}

struct Watch {
    requests: mpsc::Sender<WatchRequests>,
    changes: Streaming<PresenceChanges>,
}

impl Watch {
    async fn frame(&mut self) -> PresenceChanges {
        let frame = timeout(PATIENCE, self.changes.message()).await.unwrap();
        frame.unwrap().expect("a frame")
    }

    async fn change(&mut self) -> (UserId, bool, Timestamp) {
        let frame = self.frame().await;
        assert_eq!((frame.changes.len(), frame.not_owner.len()), (1, 0), "{frame:?}");
        seen(&frame.changes[0])
    }
}

fn seen(state: &UserPresence) -> (UserId, bool, Timestamp) {
    let user = UserId::from_slice(&state.user_id).unwrap();
    (user, state.online, Timestamp(state.last_seen_ms))
}

fn ids(users: &[UserId]) -> Vec<bytes::Bytes> {
    users.iter().map(|user| user.to_vec().into()).collect()
}

fn gateway<T>(message: T) -> Request<T> {
    let ctx = NodeContext::alone("g1", 1, MapHandle::fixed(ClusterMap::default()));
    let mut request = Request::new(message);
    links::identify(&mut request, &ctx);
    request
}

/// The last seen of a user who was never seen.
const NEVER: Timestamp = Timestamp(0);

#[tokio::test]
async fn a_gateway_that_watches_gets_the_state_and_each_change_and_nothing_after_it_stopped() {
    let store = Store::start().await;
    let presence = Presence::start(&store.url).await;
    let (user, other) = (store.user().await, store.user().await);
    let mut watch = presence.watch(&[user]).await;
    assert_eq!(watch.change().await, (user, false, NEVER));
    let now = Clock::wall();
    presence.announce(user, true, now).await;
    assert_eq!(watch.change().await, (user, true, NEVER));
    presence.sign(user, false, now + Duration::from_millis(5)).await;
    let (_, online, at) = watch.change().await;
    assert!(!online && at >= now, "{at:?}");

    let stop = WatchRequests {
        map_version: 1,
        watch: ids(&[other]),
        unwatch: ids(&[user]),
    };
    watch.requests.send(stop).await.unwrap();
    assert_eq!(watch.change().await, (other, false, NEVER));
    presence.sign(user, true, Clock::wall()).await;
    let session_of_other = Announcement {
        r#ref: 2,
        session: 2,
        user_id: other.to_vec().into(),
        device_id: DeviceId(other.0).to_vec().into(),
        since_ms: 1,
        stream_number: 1,
        ended: false,
        active: true,
        active_at_ms: Clock::wall().0,
        active_said_ms: Clock::wall().0,
    };
    presence.say(vec![session_of_other], Vec::new()).await;
    assert_eq!(
        watch.change().await,
        (other, true, NEVER),
        "the first is watched no longer"
    );
}

#[tokio::test]
async fn who_is_not_heard_of_for_the_threshold_is_offline_and_a_session_that_moves_nothing_is_no_sign() {
    let threshold = Duration::from_secs(2);
    let store = Store::start().await;
    let presence = Presence::with_threshold(&store.url, threshold).await;
    let user = store.user().await;
    let mut watch = presence.watch(&[user]).await;
    watch.change().await;
    let at = Clock::wall();
    presence.announce(user, true, at).await;
    // The session is announced again unchanged, so its sign is still the old one.
    presence.announce(user, true, at).await;
    // If the machine stalls for the threshold, the user is offline from the beginning.
    let mut seen = watch.change().await;
    if seen == (user, true, NEVER) {
        seen = watch.change().await;
    }
    assert_eq!(seen, (user, false, at));
    assert!(Clock::wall().since(at) >= threshold);
}

#[tokio::test]
async fn last_seen_outlives_the_node_after_a_drain() {
    let store = Store::start().await;
    let presence = Presence::start(&store.url).await;
    let (stays, leaves, never) = (store.user().await, store.user().await, store.user().await);
    let at = Clock::wall();
    presence.announce(stays, true, at).await;
    let mut watch = presence.watch(&[stays]).await;
    assert_eq!(watch.change().await, (stays, true, NEVER));
    presence.drain().await;
    let kept = LastSeen::new(store.pool.clone())
        .read(&[stays, leaves])
        .await
        .unwrap();
    assert_eq!(kept, HashMap::from([(stays, at), (leaves, NEVER)]));

    let next = Presence::start(&store.url).await;
    let unknown = UserId::random();
    let states = next.states(&[never, stays, unknown]).await;
    let states: Vec<_> = states.states.iter().map(seen).collect();
    assert_eq!(
        states,
        [(never, false, NEVER), (stays, false, at)],
        "who does not exist is left out"
    );
}

#[tokio::test]
async fn what_a_node_that_drains_cannot_write_is_tried_again() {
    let store = Store::start().await;
    let presence = Presence::start(&store.url).await;
    let (user, at) = (store.user().await, Clock::wall());
    presence.announce(user, true, at).await;
    let mut watch = presence.watch(&[user]).await;
    assert_eq!(watch.change().await, (user, true, NEVER));
    // Each write is refused and counted. A sequence keeps its value although the statement fails.
    let refuse = "CREATE SEQUENCE tries;
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN PERFORM nextval(''tries''); RAISE EXCEPTION ''by the test''; END';
        CREATE TRIGGER refuses BEFORE INSERT ON last_seen FOR EACH STATEMENT EXECUTE FUNCTION refuse()";
    sqlx::raw_sql(refuse).execute(&store.pool).await.unwrap();
    let takes_again = async {
        let tried = || async {
            let tried = sqlx::query_scalar("SELECT is_called FROM tries");
            Ok(tried.fetch_one(&store.pool).await?)
        };
        until::holds("a write is tried", PATIENCE, tried).await.unwrap();
        let accept = sqlx::query("DROP TRIGGER refuses ON last_seen");
        accept.execute(&store.pool).await.unwrap();
    };
    let drained = async { tokio::join!(presence.drain(), takes_again) };
    timeout(PATIENCE, drained).await.unwrap();
    let kept = LastSeen::new(store.pool.clone()).read(&[user]).await.unwrap();
    assert_eq!(kept[&user], at);
}

#[tokio::test]
async fn an_older_time_is_never_written_over_a_newer_one_and_the_statements_use_the_index() {
    let store = Store::start().await;
    let user = store.user().await;
    let seen = LastSeen::new(store.pool.clone());
    for (write, expected) in [(5_000, 5_000), (9_123, 9_123), (7_000, 9_123)] {
        seen.write(&[(user, Timestamp(write))]).await.unwrap();
        assert_eq!(seen.read(&[user]).await.unwrap()[&user], Timestamp(expected));
    }
    let args = PostgresArgs::from_url(&store.url).unwrap();
    let pool = postgres::pool_when_needed(&args);
    let statement = last_seen::READ.replace("$1", "ARRAY[gen_random_uuid(), gen_random_uuid()]");
    let plan: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("EXPLAIN {statement}")))
        .fetch_all(&pool)
        .await
        .unwrap();
    let plan = plan.join("\n");
    assert!(!plan.contains("Seq Scan"), "{plan}");
}

#[tokio::test]
async fn while_the_store_is_away_online_is_told_and_last_seen_is_not_known() {
    let presence = Presence::start("postgres://nobody@127.0.0.1:1/none").await;
    let user = UserId::random();
    presence.announce(user, true, Clock::wall()).await;
    let mut watch = presence.watch(&[user]).await;
    assert_eq!(watch.change().await, (user, true, NEVER));
    let mut other = presence.watch(&[UserId::random()]).await;
    let (_, online, at) = other.change().await;
    assert_eq!((online, at), (false, NEVER));
    // The person may have gone offline meanwhile, because asking a store that is away takes its time.
    presence.announce(user, true, Clock::wall()).await;
    presence.watch(&[user]).await.change().await;
    let states = presence.states(&[user, UserId::random()]).await.states;
    let states: Vec<(bool, i64)> = states
        .iter()
        .map(|state| (state.online, state.last_seen_ms))
        .collect();
    assert_eq!(states, [(true, 0), (false, 0)]);
}

#[tokio::test]
async fn who_is_watched_while_the_store_is_away_is_told_of_when_it_is_back() {
    let store = Store::start().await;
    let presence = Presence::start(&store.url).await;
    let (user, at) = (store.user().await, Timestamp(5_000));
    let last_seen = LastSeen::new(store.pool.clone());
    last_seen.write(&[(user, at)]).await.unwrap();
    // Without its table the store answers with an error, as if it were away.
    let take_away = sqlx::query("ALTER TABLE last_seen RENAME TO away");
    take_away.execute(&store.pool).await.unwrap();
    let mut watch = presence.watch(&[user]).await;
    assert_eq!(watch.change().await, (user, false, NEVER));
    let bring_back = sqlx::query("ALTER TABLE away RENAME TO last_seen");
    bring_back.execute(&store.pool).await.unwrap();
    assert_eq!(watch.change().await, (user, false, at));
}

#[tokio::test]
async fn watches_of_slots_that_left_are_given_back_and_only_the_newest_stream_of_a_gateway_counts() {
    let store = Store::start().await;
    let presence = Presence::start(&store.url).await;
    let user = store.user().await;
    let mut older = presence.watch(&[user]).await;
    older.change().await;
    let mut newer = presence.watch(&[user]).await;
    newer.change().await;
    let ended = timeout(PATIENCE, older.changes.message()).await.unwrap();
    assert!(matches!(ended, Ok(None) | Err(_)), "{ended:?}");
    presence.map.send_replace(map(2, "p2"));
    let frame = newer.frame().await;
    assert_eq!((frame.map_version, frame.not_owner), (2, ids(&[user])));
    let states = presence.states(&[user]).await;
    assert!(states.not_owner && states.states.is_empty());
}
