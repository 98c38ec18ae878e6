//! Finds the two synthetic users by their external ids, or creates them, and links one new device to each.

use anyhow::Context as _;
use tern_client::{BackEnd, Client, ClientConfig, EventStream, StoreLocation, Tls};
use tern_proto::v1;
use tern_types::UserId;

/// The name of the canary's devices. Devices of this name that an earlier run has left are revoked, because a user may
/// have only 10 devices.
const DEVICE: &str = "canary";

/// The values that are needed to find or create the two users.
pub struct People {
    /// The back end that creates users and links devices.
    pub back_end: BackEnd,
    /// The URLs of the gateways, to which the clients connect.
    pub gateways: Vec<String>,
    /// The certificate authorities that the clients trust.
    pub tls: Tls,
    /// The prefix of the users' external ids.
    pub name: String,
}

/// One of the two users, with a client on a device of its own.
pub struct Person {
    /// The user's id.
    pub user: UserId,
    /// The client of the user's device.
    pub client: Client,
    /// The events of that client.
    pub events: EventStream,
}

impl People {
    /// Returns both users with their clients, which are connecting. Fails if a user or a device cannot be created.
    pub async fn pair(&self) -> anyhow::Result<[Person; 2]> {
        let (a, b) = tokio::try_join!(self.person("a"), self.person("b"))?;
        Ok([a, b])
    }

    /// Finds or creates one user, revokes the devices that earlier runs have left, links a new one, and
    /// starts its client. `which` is the end of the external id: `a` or `b`.
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

    /// Revokes the user's devices that are called [`DEVICE`].
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
