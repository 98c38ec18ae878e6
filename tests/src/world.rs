//! A platform for one test.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tern_local::{Builder, Platform, Role, Shared};
use tern_proto::v1;
use tern_types::{ChatId, DeviceId, RequestId, Slot, UserId};
use tokio::sync::OnceCell;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use crate::{Api, Phone, checks};

/// What a test waits for comes within milliseconds, over a failover within the lease; much later on a machine that has
/// other things to do.
pub const BOUND: Duration = Duration::from_secs(60);

/// A running platform and the keys to it. [`World::end`] checks and ends it.
pub struct World {
    pub platform: Platform,
    api: OnceCell<Api>,
    gateways: Vec<Channel>,
    // Removed last.
    dir: TempDir,
}

/// A person.
#[derive(Debug, Clone)]
pub struct User {
    pub id: UserId,
    pub external_id: String,
}

/// An installation of the app, with its tokens.
#[derive(Debug, Clone)]
pub struct Device {
    pub id: DeviceId,
    pub user: UserId,
    pub access_token: String,
    pub refresh_token: String,
}

impl World {
    /// Two gateways, two chat nodes, a presence and an accounts node.
    pub async fn start() -> Self {
        Self::with(|builder| builder).await
    }

    /// Something else than that, on the run's servers.
    pub async fn with(change: impl FnOnce(Builder) -> Builder) -> Self {
        let shared = Shared::get()
            .await
            .unwrap_or_else(|error| panic!("servers: {error:#}"));
        Self::build(|builder| change(builder.on(&shared))).await
    }

    /// With a Postgres and an etcd of its own, for tests that stop them.
    pub async fn with_own_servers(change: impl FnOnce(Builder) -> Builder) -> Self {
        Self::build(change).await
    }

    /// A second platform on the same database that knows nothing of this one's nodes: every chat has two owners then.
    /// End it first.
    pub async fn beside(&self) -> Self {
        Self::build(|builder| builder.beside(&self.platform)).await
    }

    async fn build(change: impl FnOnce(Builder) -> Builder) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        open_to_all(dir.path());
        let builder = Platform::builder(&tern(), dir.path());
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

    /// Where the platform keeps its files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A connection of its own to a gateway: unlike [`World::channel`], not shared with others.
    pub fn new_channel(&self, gateway: usize) -> Channel {
        channel(&self.platform, &self.platform.gateway_url(gateway))
    }

    /// The connection to a gateway that unary calls share.
    pub fn channel(&self, gateway: usize) -> Channel {
        self.gateways[gateway].clone()
    }

    /// How many gateways there were at the start.
    pub fn gateways(&self) -> usize {
        self.gateways.len()
    }

    /// The back end, with every scope, through the first gateway.
    pub async fn back_end(&self) -> &Api {
        let key = self.platform.api_key();
        self.api
            .get_or_init(|| async { Api::new(self.channel(0), key) })
            .await
    }

    /// A new person with a unique external id.
    pub async fn user(&self, name: &str) -> User {
        let external_id = format!("{name}-{}", RequestId::random());
        let request = v1::CreateUserRequest {
            external_id: external_id.clone(),
            display_name: name.to_owned(),
        };
        let reply = self
            .back_end()
            .await
            .users()
            .create_user(request)
            .await
            .expect("a user");
        let user = reply.into_inner().user.expect("a user in the reply");
        User {
            id: user.user_id.parse().expect("an id"),
            external_id,
        }
    }

    /// Several new people.
    pub async fn users<const N: usize>(&self, names: [&str; N]) -> [User; N] {
        let users = futures::future::join_all(names.map(|name| self.user(name))).await;
        users
            .try_into()
            .unwrap_or_else(|_| unreachable!("as many as asked for"))
    }

    /// Links one more device to a user.
    pub async fn device(&self, user: &User) -> Device {
        self.try_device(user).await.expect("a device")
    }

    pub async fn try_device(&self, user: &User) -> Result<Device, tonic::Status> {
        let request = v1::LinkDeviceRequest {
            user_id: user.id.to_string(),
            request_id: RequestId::random().to_string(),
            display_name: "a phone".to_owned(),
            platform: "test".to_owned(),
        };
        let reply = self
            .back_end()
            .await
            .devices()
            .link_device(request)
            .await?
            .into_inner();
        let (device, tokens) = (reply.device.expect("a device"), reply.tokens.expect("tokens"));
        Ok(Device {
            id: device.device_id.parse().expect("an id"),
            user: user.id,
            access_token: tokens.access_token,
            refresh_token: tokens.refresh_token,
        })
    }

    /// Revokes a device as the back end.
    pub async fn revoke(&self, device: &Device) {
        let request = v1::RevokeDeviceRequest {
            device_id: device.id.to_string(),
        };
        self.back_end()
            .await
            .devices()
            .revoke_device(request)
            .await
            .expect("a revocation");
    }

    /// A device with a phone that is online.
    pub async fn phone(&self, user: &User) -> Phone {
        let device = self.device(user).await;
        self.phone_of(&device).await
    }

    /// A phone for this device, online.
    pub async fn phone_of(&self, device: &Device) -> Phone {
        let phone = Phone::new(self, device);
        phone.connect().await;
        phone
    }

    /// A group made by the back end, owned by the first of these.
    pub async fn group(&self, members: &[&User]) -> ChatId {
        let (owner, others) = members.split_first().expect("an owner");
        let request = v1::CreateGroupRequest {
            request_id: RequestId::random().to_string(),
            title: "a group".to_owned(),
            member_user_ids: others.iter().map(|user| user.id.to_string()).collect(),
            acting_user_id: owner.id.to_string(),
        };
        let reply = self
            .back_end()
            .await
            .chats()
            .create_group(request)
            .await
            .expect("a group");
        reply
            .into_inner()
            .chat
            .expect("a chat")
            .chat_id
            .parse()
            .expect("an id")
    }

    /// Carries a message from one new person to another.
    pub async fn still_works(&self) {
        let [alice, bob] = self.users(["alice", "bob"]).await;
        let (hers, his) = (self.phone(&alice).await, self.phone(&bob).await);
        let sent = hers.say(bob.id, "still here").await;
        let chat = sent.chat_id.parse().expect("an id");
        his.has(chat, sent.seq).await;
        // With the tick: a phone that is dropped before its acknowledgement is on the way leaves a row behind.
        hers.receipt(chat, bob.id, sent.seq, 0).await;
    }

    /// The chat node that owns a chat.
    pub async fn owner_of(&self, chat: ChatId) -> String {
        self.platform
            .owner(Role::Chat, Slot::of_chat(chat))
            .await
            .expect("an owner")
    }

    /// Waits until every commit so far is settled.
    pub async fn settled(&self) {
        let store = self.store().await;
        checks::settled(&store)
            .await
            .unwrap_or_else(|error| panic!("{error:#}"));
        store.close().await;
    }

    /// A connection to the store, for looking at what tests cannot see from outside.
    pub async fn store(&self) -> sqlx::PgPool {
        sqlx::PgPool::connect(self.platform.database_url())
            .await
            .expect("the store")
    }

    /// Checks what must hold after every test, then ends the platform.
    pub async fn end(self) {
        self.check().await;
        checks::nothing_swept(&self)
            .await
            .unwrap_or_else(|error| panic!("after the test: {error:#}"));
        self.platform.abort().await.expect("the platform ends");
    }

    /// The same where the sweep has to find something: nodes that know nothing of each other.
    pub async fn end_swept(self) {
        self.check().await;
        self.platform.abort().await.expect("the platform ends");
    }

    async fn check(&self) {
        checks::store_and_logs(self)
            .await
            .unwrap_or_else(|error| panic!("after the test: {error:#}"));
    }
}

/// Settings of every test's nodes: the net below live delivery is looked at often, and nobody is held up for writing
/// fast, or to many.
const SETTINGS: &[(&str, &str)] = &[
    ("TERN_LOG", "info"),
    ("TERN_GATEWAY_SWEEP_INTERVAL", "2"),
    SWEEP_GRACE,
    ("TERN_GATEWAY_SENDS_PER_SECOND", "2000"),
    ("TERN_GATEWAY_SEND_BURST", "20000"),
    ("TERN_CHAT_NEW_STRANGERS_A_DAY", "100000"),
];

/// An inbox row this old that no session knows of was forgotten: on a machine with too much to do, looking up and
/// waking take longer than the milliseconds that they need.
pub const SWEEP_GRACE: (&str, &str) = ("TERN_GATEWAY_SWEEP_GRACE", "5");

/// The same where nodes are killed: their leases have to end, and others to find what they left, before a row counts
/// as forgotten.
pub const FAILOVER_GRACE: (&str, &str) = (SWEEP_GRACE.0, "25");

/// The `tern` program as it was built with these tests.
pub fn tern() -> PathBuf {
    let exe = std::env::current_exe().expect("the path of this test");
    let build = exe.ancestors().nth(2).expect("target/<profile>/deps/<test>");
    build.join("tern-under-test")
}

/// Lets the user `postgres` through to its data.
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
        .connect_timeout(Duration::from_secs(5))
        .http2_keep_alive_interval(Duration::from_secs(5))
        .keep_alive_timeout(Duration::from_secs(5)))
}
