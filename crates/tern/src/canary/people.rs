//! The two synthetic users: found by their external ids or created, each with one newly linked device.

use anyhow::Context as _;
use tern_client::{BackEnd, Client, ClientConfig, EventStream, StoreLocation, Tls};
use tern_proto::v1;
use tern_types::UserId;

/// Name of the canary's devices. Devices of this name that an earlier run has left are revoked, because a user may
/// have only 10.
const DEVICE: &str = "canary";

/// Everything that is needed to find or create the two users.
pub struct People {
    pub back_end: BackEnd,
    pub gateways: Vec<String>,
    pub tls: Tls,
    /// Prefix of their external ids.
    pub name: String,
}

/// One of the two users, with a client on a device of its own.
pub struct Person {
    pub user: UserId,
    pub client: Client,
    pub events: EventStream,
}

impl People {
    /// Returns both users with their clients, which are connecting. Fails if a user or a device cannot be created.
    pub async fn pair(&self) -> anyhow::Result<[Person; 2]> {
        let (a, b) = tokio::try_join!(self.person("a"), self.person("b"))?;
        Ok([a, b])
    }

    async fn person(&self, which: &str) -> anyhow::Result<Person> {
        let name = format!("{}-{which}", self.name);
        let user = self
            .back_end
            .create_user(&name, &name)
            .await
            .with_context(|| format!("make the user {name}"))?;
        self.revoke_old(user)
            .await
            .with_context(|| format!("revoke old devices of {name}"))?;
        let linked = self.back_end.link_device(user, DEVICE, "canary").await;
        let linked = linked.with_context(|| format!("link a device of {name}"))?;
        let mut config = ClientConfig::new(self.gateways.clone(), StoreLocation::Memory)
            .tls(self.tls.clone())
            .credentials(linked);
        config.client_version = concat!("tern-canary/", env!("CARGO_PKG_VERSION")).to_owned();
        config.keep_history = false;
        let (client, events) = Client::start(config).await?;
        Ok(Person { user, client, events })
    }

    async fn revoke_old(&self, user: UserId) -> anyhow::Result<()> {
        let of = v1::ListDevicesRequest {
            user_id: user.to_string(),
        };
        let devices = self.back_end.api().list_devices(of).await?.devices;
        for device in devices.into_iter().filter(|device| device.display_name == DEVICE) {
            let request = v1::RevokeDeviceRequest {
                device_id: device.device_id,
            };
            self.back_end.api().revoke_device(request).await?;
        }
        Ok(())
    }
}
