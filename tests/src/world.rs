//! The platform of one test, with its users and devices.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tern_local::{Builder, Platform, Role, Shared, until};
use tern_proto::v1;
use tern_types::{ChatId, DeviceId, RequestId, Slot, UserId};
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Response, Status};

use crate::Api;
use crate::bounds::PAUSE;

pub use crate::bounds::BOUND;

/// The time that a draining node may take. It ends as soon as it is done, and fails if that takes longer. Whatever this
/// time is, streams are cut off 5 s after their devices were asked to reconnect.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(60);

/// A running platform, and the keys to it. [`World::end`] checks and ends it.
pub struct World {
    pub platform: Platform,
    api: OnceCell<Api>,
    gateways: Vec<Channel>,
    // Fields are dropped in this order, so the directory is removed last.
    dir: TempDir,
}

/// A user of the platform.
#[derive(Debug, Clone)]
pub struct User {
    pub id: UserId,
    pub external_id: String,
}

/// A device of a user, with its tokens.
#[derive(Debug, Clone)]
pub struct Device {
    pub id: DeviceId,
    pub user: UserId,
    pub access_token: String,
    pub refresh_token: String,
    /// The seq up to which the device has acknowledged its user's own log.
    pub own_log: u64,
}

impl World {
    /// Starts a platform with two gateways, two chat nodes, one presence node and one accounts node, on the run's
    /// servers.
    pub async fn start() -> Self {
        Self::with(|builder| builder).await
    }

    /// Starts as [`World::start`] does, with a changed configuration.
    pub async fn with(change: impl FnOnce(Builder) -> Builder) -> Self {
        let shared = Shared::get()
            .await
            .unwrap_or_else(|error| panic!("servers: {error:#}"));
        Self::build(|builder| change(builder.on(&shared))).await
    }

    /// Starts a platform with its own Postgres and etcd, for tests that stop these.
    pub async fn with_own_servers(change: impl FnOnce(Builder) -> Builder) -> Self {
        Self::build(change).await
    }

    /// Starts a second platform on the same database. It does not know this one's nodes, so every chat has two
    /// owners. It has to end before this one.
    pub async fn beside(&self) -> Self {
        Self::build(|builder| builder.beside(&self.platform)).await
    }

    async fn build(change: impl FnOnce(Builder) -> Builder) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        open_to_all(dir.path());
        let builder = Platform::builder(&tern(), dir.path()).drain_timeout(DRAIN_TIMEOUT);
        let builder = SETTINGS
            .iter()
            .fold(builder, |builder, (name, value)| builder.env(name, value));
        let platform = change(builder).start().await;
        let platform = platform.unwrap_or_else(|error| panic!("the platform does not start: {error:#}"));
        let gateways = platform
            .gateway_urls()
            .iter()
            .map(|url| channel(&platform, url))
            .collect();
        Self {
            platform,
            api: OnceCell::new(),
            gateways,
            dir,
        }
    }

    /// Returns the directory with the platform's files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Opens a new connection to a gateway, shared with nobody, unlike [`World::channel`].
    pub fn new_channel(&self, gateway: usize) -> Channel {
        channel(&self.platform, &self.platform.gateway_url(gateway))
    }

    /// Returns the connection to a gateway that unary calls share.
    pub fn channel(&self, gateway: usize) -> Channel {
        self.gateways[gateway].clone()
    }

    /// Returns the number of gateways at the start.
    pub fn gateways(&self) -> usize {
        self.gateways.len()
    }

    /// Returns the API through the first gateway, called as a back end with every scope.
    pub async fn back_end(&self) -> &Api {
        let key = self.platform.api_key();
        self.api
            .get_or_init(|| async { Api::new(self.channel(0), key) })
            .await
    }

    /// Creates a user with a unique external id.
    pub async fn user(&self, name: &str) -> User {
        let external_id = format!("{name}-{}", RequestId::random());
        let request = v1::CreateUserRequest {
            external_id: external_id.clone(),
            display_name: name.to_owned(),
        };
        let api = self.back_end().await;
        let reply = patiently("a user", || {
            let (api, request) = (api.clone(), request.clone());
            async move { api.users().create_user(request).await }
        })
        .await;
        let user = reply.user.expect("a user in the reply");
        User {
            id: user.user_id.parse().expect("an id"),
            external_id,
        }
    }

    /// Creates several users.
    pub async fn users<const N: usize>(&self, names: [&str; N]) -> [User; N] {
        let users = futures::future::join_all(names.map(|name| self.user(name))).await;
        users
            .try_into()
            .unwrap_or_else(|_| unreachable!("as many as asked for"))
    }

    /// Links one more device to a user. Nothing waits for it afterwards: the entry of the user's own log that says so is
    /// acknowledged.
    pub async fn device(&self, user: &User) -> Device {
        let (api, request) = (self.back_end().await, link(user));
        let reply = patiently("a device", || {
            let (api, request) = (api.clone(), request.clone());
            async move { api.devices().link_device(request).await }
        })
        .await;
        let mut device = linked(user, reply);
        device.own_log = self.acknowledge_own_log(&device).await;
        device
    }

    /// Acknowledges what the own log of the device's user says by now, and returns its head. A version without own logs
    /// says nothing.
    async fn acknowledge_own_log(&self, device: &Device) -> u64 {
        let store = self.store().await;
        until::holds("the own log says what has changed", BOUND, || async {
            let untold = sqlx::query_scalar("SELECT count(*) FROM own_log_outbox WHERE user_id = $1");
            let untold: i64 = untold.bind(device.user.0).fetch_one(&store).await?;
            Ok(untold == 0)
        })
        .await
        .unwrap_or_else(|error| panic!("{error:#}"));
        store.close().await;
        let api = Api::new(self.channel(0), &device.access_token);
        let own = v1::GetChatRequest {
            chat_id: ChatId::own(device.user).to_string(),
            ..Default::default()
        };
        let Ok(reply) = api.chats().get_chat(own).await else {
            return 0;
        };
        let own = reply.into_inner().chat.expect("a chat");
        let ack = v1::AckRequest {
            chat_id: own.chat_id,
            seq: own.head_seq,
        };
        api.inbox().ack(ack).await.expect("an acknowledgement");
        own.head_seq
    }

    /// Links a device as [`World::device`] does, in one attempt, and acknowledges nothing.
    pub async fn try_device(&self, user: &User) -> Result<Device, Status> {
        let mut devices = self.back_end().await.devices();
        let reply = devices.link_device(link(user)).await?;
        Ok(linked(user, reply.into_inner()))
    }

    /// Revokes a device as the back end.
    pub async fn revoke(&self, device: &Device) {
        let request = v1::RevokeDeviceRequest {
            device_id: device.id.to_string(),
        };
        let api = self.back_end().await;
        patiently("a revocation", || {
            let (api, request) = (api.clone(), request.clone());
            async move { api.devices().revoke_device(request).await }
        })
        .await;
    }

    /// Creates a group by the back end. The first member owns it.
    pub async fn group(&self, members: &[&User]) -> ChatId {
        let (owner, others) = members.split_first().expect("an owner");
        let request = v1::CreateGroupRequest {
            request_id: RequestId::random().to_string(),
            title: "a group".to_owned(),
            member_user_ids: others.iter().map(|user| user.id.to_string()).collect(),
            acting_user_id: owner.id.to_string(),
        };
        let api = self.back_end().await;
        let reply = patiently("a group", || {
            let (api, request) = (api.clone(), request.clone());
            async move { api.chats().create_group(request).await }
        })
        .await;
        reply.chat.expect("a chat").chat_id.parse().expect("an id")
    }

    /// Checks that a message still goes from one new user to another.
    pub async fn still_works(&self) {
        let [alice, bob] = self.users(["alice", "bob"]).await;
        let (hers, his) = (self.phone(&alice).await, self.phone(&bob).await);
        let sent = hers.say(bob.id, "still here").await;
        let chat = sent.chat_id.parse().expect("an id");
        his.has(chat, sent.seq).await;
        // It waits for the receipt too: a phone that is dropped before its acknowledgement is sent leaves an inbox
        // row.
        hers.receipt(chat, bob.id, sent.seq, 0).await;
    }

    /// Returns the name of the chat node that owns a chat.
    pub async fn owner_of(&self, chat: ChatId) -> String {
        self.platform
            .owner(Role::Chat, Slot::of_chat(chat))
            .await
            .expect("an owner")
    }

    /// Connects to the store, for tests that check facts that no API shows.
    pub async fn store(&self) -> sqlx::PgPool {
        sqlx::PgPool::connect(self.platform.database_url())
            .await
            .expect("the store")
    }

    /// Checks what must hold after every test, then ends the platform.
    pub async fn end(self) {
        self.check().await;
        self.nothing_swept()
            .await
            .unwrap_or_else(|error| panic!("after the test: {error:#}"));
        self.platform.abort().await.expect("the platform ends");
    }

    /// Ends as [`World::end`] does, for tests in which the sweep has to find rows because nodes do not know of each
    /// other.
    pub async fn end_swept(self) {
        self.check().await;
        self.platform.abort().await.expect("the platform ends");
    }

    async fn check(&self) {
        self.store_and_logs()
            .await
            .unwrap_or_else(|error| panic!("after the test: {error:#}"));
    }
}

/// Repeats a call while the platform answers UNAVAILABLE or DEADLINE_EXCEEDED: on a busy machine a node may
/// not get a connection to the store in time. Panics on any other error, and after [`BOUND`].
pub async fn patiently<T, Call>(what: &str, call: impl Fn() -> Call) -> T
where
    Call: Future<Output = Result<Response<T>, Status>>,
{
    let end = Instant::now() + BOUND;
    loop {
        match call().await {
            Ok(reply) => return reply.into_inner(),
            Err(status)
                if matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded)
                    && Instant::now() < end =>
            {
                sleep(PAUSE).await;
            }
            Err(status) => panic!("{what}: {status:?}"),
        }
    }
}

fn link(user: &User) -> v1::LinkDeviceRequest {
    v1::LinkDeviceRequest {
        user_id: user.id.to_string(),
        request_id: RequestId::random().to_string(),
        display_name: "a phone".to_owned(),
        platform: "test".to_owned(),
    }
}

fn linked(user: &User, reply: v1::LinkDeviceResponse) -> Device {
    let (device, tokens) = (reply.device.expect("a device"), reply.tokens.expect("tokens"));
    Device {
        id: device.device_id.parse().expect("an id"),
        user: user.id,
        access_token: tokens.access_token,
        refresh_token: tokens.refresh_token,
        own_log: 0,
    }
}

/// The settings of every test's nodes. The sweep runs often, nobody is limited for sending fast or to many strangers,
/// and nothing is refused because the machine is busy.
const SETTINGS: &[(&str, &str)] = &[
    ("TERN_LOG", "info"),
    ("TERN_GATEWAY_SWEEP_INTERVAL", "2"),
    SWEEP_GRACE,
    ("TERN_GATEWAY_SENDS_PER_SECOND", "2000"),
    ("TERN_GATEWAY_SEND_BURST", "20000"),
    ("TERN_CHAT_NEW_STRANGERS_A_DAY", "100000"),
    ("TERN_SHEDDING", "off"),
];

/// The age in seconds at which an inbox row that no session knows of counts as forgotten. On a busy machine, look-ups
/// and wakes take longer than the milliseconds that they need.
pub const SWEEP_GRACE: (&str, &str) = ("TERN_GATEWAY_SWEEP_GRACE", "5");

/// The same setting for tests that kill nodes. Before a row counts as forgotten, the leases of killed nodes have to
/// end, and other nodes have to find what they left.
pub const FAILOVER_GRACE: (&str, &str) = (SWEEP_GRACE.0, "25");

/// Returns the path of the program that has `tern` and `tern-dev` in it and was built with these tests.
pub fn tern() -> PathBuf {
    let exe = std::env::current_exe().expect("the path of this test");
    let build = exe.ancestors().nth(2).expect("target/<profile>/deps/<test>");
    build.join("tern-under-test")
}

/// Lets the user `postgres` pass through a directory.
pub fn open_to_all(dir: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).expect("permissions");
}

fn channel(platform: &Platform, url: &str) -> Channel {
    endpoint(platform, url).expect("a gateway's URL").connect_lazy()
}

fn endpoint(platform: &Platform, url: &str) -> anyhow::Result<Endpoint> {
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(platform.ca_pem()?));
    Ok(Endpoint::from_shared(url.to_owned())?
        .tls_config(tls)?
        .tcp_nodelay(true)
        // No test stops a gateway without killing it, and the connection to a killed one breaks at once.
        .connect_timeout(BOUND)
        .http2_keep_alive_interval(BOUND)
        .keep_alive_timeout(BOUND))
}
