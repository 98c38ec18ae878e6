//! A platform with push services, and devices of people who are away.

use sqlx::PgPool;
use tempfile::TempDir;
use tern_client::NotificationKey;
use tern_local::{Builder, until};
use tern_proto::v1::{self, Notification, PushClass};
use tern_tests::world::BOUND;
use tern_tests::{Api, Device, User, World};
use tern_types::ChatId;
use tonic::Status;

use crate::services::{Address, Arrived, Service, Services};

/// The name of the push node that every platform of these tests has.
pub const PUSH: &str = "push-0";
/// A time in seconds that is longer than a worker's claim of a push. A push that is put off for longer waits for
/// something, and no worker has it.
pub const CLAIM_S: f64 = 31.0;

/// A platform with a push node and push services.
pub struct Scene {
    pub world: World,
    pub services: Services,
    pub store: PgPool,
    // Fields are dropped in this order, so the directory is removed last.
    _dir: TempDir,
}

/// A device that has a push token and no stream.
#[derive(Debug, Clone)]
pub struct Away {
    pub device: Device,
    pub address: Address,
    pub key: NotificationKey,
}

/// The push of a device for a chat, as the store has it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Due {
    /// The time after which the push is looked at again, in seconds from now. `None`: nothing is due.
    pub in_s: Option<f64>,
    /// The time between the push becoming due and being looked at again, in seconds.
    pub waits_s: Option<f64>,
    /// The number of times that a provider did not take it.
    pub tries: i16,
}

impl Scene {
    pub async fn start() -> Self {
        Self::with(|builder| builder).await
    }

    /// Starts as [`Scene::start`] does, with a changed configuration.
    pub async fn with(change: impl FnOnce(Builder) -> Builder) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let services = Services::start(dir.path()).await;
        let world = World::with(|builder| change(services.of(builder))).await;
        Self::of(world, services, dir).await
    }

    /// Starts with a Postgres of its own, for tests that stop it.
    pub async fn with_own_servers() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let services = Services::start(dir.path()).await;
        let world = World::with_own_servers(|builder| services.of(builder)).await;
        Self::of(world, services, dir).await
    }

    /// Makes the scene of a platform that sends its pushes to these services, which keep their files in `dir`.
    pub async fn of(world: World, services: Services, dir: TempDir) -> Self {
        Self {
            store: world.store().await,
            world,
            services,
            _dir: dir,
        }
    }

    /// Links a device that never opens a stream, and registers a token of the service for it.
    pub async fn away(&self, user: &User, service: Service) -> Away {
        let device = self.world.device(user).await;
        self.away_as(device, service).await
    }

    /// Registers a token of the service for a device. Its notifications are sealed, unless the service is Web Push.
    pub async fn away_as(&self, device: Device, service: Service) -> Away {
        let address = self.services.address(service);
        let away = Away {
            device,
            address,
            key: NotificationKey::generate(),
        };
        self.register(&away).await.expect("a token");
        away
    }

    /// Registers a device's token. It may be called again.
    pub async fn register(&self, away: &Away) -> Result<(), Status> {
        let sealing_key = match away.address.service {
            Service::Apns | Service::Fcm => away.key.public().to_vec().into(),
            Service::WebPush => bytes::Bytes::new(),
        };
        let token = v1::PushToken {
            provider: Some(away.address.provider.clone()),
            sealing_key,
        };
        let request = v1::SetPushTokenRequest { token: Some(token) };
        self.api(away).devices().set_push_token(request).await?;
        Ok(())
    }

    /// Returns the unary services, called as this device. They do not make it live.
    pub fn api(&self, away: &Away) -> Api {
        Api::new(self.world.channel(0), &away.device.access_token)
    }

    /// Returns the pushes of a device that its service took, in order.
    pub fn taken(&self, away: &Away) -> Vec<Arrived> {
        self.services.taken(&away.address)
    }

    /// Waits until the device's service has taken so many pushes, and returns them. Fails if it has taken more.
    pub async fn pushes(&self, away: &Away, count: usize) -> Vec<Arrived> {
        let what = format!("{count} pushes to {}", away.device.id);
        until::holds(&what, BOUND, || async { Ok(self.taken(away).len() >= count) })
            .await
            .unwrap_or_else(|error| panic!("{error:#}; refused: {:?}", self.services.refused(&away.address)));
        let taken = self.taken(away);
        assert_eq!(taken.len(), count, "{taken:?}");
        taken
    }

    /// Waits until the device's service has refused so many pushes.
    pub async fn refusals(&self, away: &Away, count: usize) {
        let what = format!("{count} refused pushes to {}", away.device.id);
        let refused = || async { Ok(self.services.refused(&away.address).len() >= count) };
        until::holds(&what, BOUND, refused)
            .await
            .unwrap_or_else(|error| panic!("{error:#}"));
    }

    /// Waits until the device's service has taken a push, and the platform knows it. Fails if it has taken more than
    /// `most`.
    pub async fn reached(&self, away: &Away, chat: ChatId, most: usize) {
        let what = format!("a push to {}", away.device.id);
        until::holds(&what, BOUND, || async { Ok(!self.taken(away).is_empty()) })
            .await
            .unwrap_or_else(|error| panic!("{error:#}; refused: {:?}", self.services.refused(&away.address)));
        self.decided(away, chat).await;
        let taken = self.taken(away);
        assert!(taken.len() <= most, "{taken:?}");
    }

    /// Waits for the device's push number `count`, which has to be an alert, and returns it with what it says.
    pub async fn alert(&self, away: &Away, count: usize) -> (Arrived, Notification) {
        let push = self.pushes(away, count).await.pop().expect("a push");
        assert_eq!(push.class, PushClass::Alert, "{push:?}");
        let says = match &push.sealed {
            Some(sealed) => away.key.open(&push.tag, sealed).expect("sealed to this device"),
            None => push.notification.clone().expect("a notification"),
        };
        (push, says)
    }

    /// Returns what the store says of the push of a device for a chat; `None` if the device lacks nothing of the chat.
    pub async fn due(&self, away: &Away, chat: ChatId) -> anyhow::Result<Option<Due>> {
        let row: Option<(Option<f64>, Option<f64>, i16)> = sqlx::query_as(
            "SELECT extract(epoch FROM push_at - now())::float8, \
             extract(epoch FROM push_at - push_since)::float8, push_tries \
             FROM inbox WHERE device_id = $1 AND chat_id = $2",
        )
        .bind(away.device.id.0)
        .bind(chat.0)
        .fetch_optional(&self.store)
        .await?;
        Ok(row.map(|(in_s, waits_s, tries)| Due { in_s, waits_s, tries }))
    }

    /// Waits until `holds` is true of the push of a device for a chat.
    pub async fn until_due(&self, away: &Away, chat: ChatId, what: &str, holds: impl Fn(Due) -> bool) {
        until::some(what, BOUND, || async {
            let due = self.due(away, chat).await?;
            anyhow::ensure!(due.is_some_and(&holds), "{due:?}");
            Ok(())
        })
        .await
        .unwrap_or_else(|error| panic!("{error:#}"));
    }

    /// Waits until the push of a device for a chat was decided. The device lacks something of the chat, and nothing is
    /// due any more, so that what has arrived by now is all. A push that waits for its minute is made due now.
    pub async fn decided(&self, away: &Away, chat: ChatId) {
        let due_now = "UPDATE inbox SET push_at = now() \
             WHERE device_id = $1 AND chat_id = $2 AND push_at > now() + make_interval(secs => $3)";
        until::some("nothing is due any more", BOUND, || async {
            let due = self.due(away, chat).await?;
            sqlx::query(due_now)
                .bind(away.device.id.0)
                .bind(chat.0)
                .bind(CLAIM_S)
                .execute(&self.store)
                .await?;
            anyhow::ensure!(due.is_some_and(|due| due.in_s.is_none()), "{due:?}");
            Ok(())
        })
        .await
        .unwrap_or_else(|error| panic!("{error:#}"));
    }

    /// Makes the store believe that the last push of a device for a chat is a minute older, so that the next one is due
    /// at once.
    pub async fn a_minute_later(&self, away: &Away, chat: ChatId) {
        self.decided(away, chat).await;
        let earlier = "UPDATE inbox SET pushed_at = pushed_at - interval '1 minute' \
             WHERE device_id = $1 AND chat_id = $2";
        sqlx::query(earlier)
            .bind(away.device.id.0)
            .bind(chat.0)
            .execute(&self.store)
            .await
            .expect("the store");
    }

    /// Returns the number of push tokens that the platform has of a device.
    pub async fn tokens(&self, away: &Away) -> anyhow::Result<i64> {
        let count = "SELECT count(*) FROM push_tokens WHERE device_id = $1";
        let count = sqlx::query_scalar(count).bind(away.device.id.0);
        Ok(count.fetch_one(&self.store).await?)
    }

    /// Waits until the platform has no push token of a device.
    pub async fn token_ends(&self, away: &Away, what: &str) {
        until::holds(what, BOUND, || async { Ok(self.tokens(away).await? == 0) })
            .await
            .unwrap_or_else(|error| panic!("{error:#}"));
    }

    /// Checks what must hold after every test, then ends the platform.
    pub async fn end(self) {
        self.store.close().await;
        self.world.end().await;
    }
}
