//! The two synthetic users: found by their external ids or made, each with one device, linked anew.

use anyhow::Context as _;
use tern_client::{BackEnd, Client, ClientConfig, EventStream, StoreLocation, Tls};
use tern_proto::v1;
use tern_types::UserId;

/// Name of the canary's devices. Those of this name that an earlier run left are revoked: a user has but ten.
const DEVICE: &str = "canary";

/// How to get at them.
pub struct People {
    pub back_end: BackEnd,
    pub gateways: Vec<String>,
    pub tls: Tls,
    /// What their external ids begin with.
    pub name: String,
}

/// One of the two, with a device of its own.
pub struct Person {
    pub user: UserId,
    pub client: Client,
    pub events: EventStream,
}

impl People {
    /// Both, connecting.
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
