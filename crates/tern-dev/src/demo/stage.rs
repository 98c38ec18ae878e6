//! Starts the platform, and creates its people and their devices.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use tern_client::{BackEnd, ClientConfig, StoreLocation, Tls};
use tern_local::{Platform, PushServers};
use tern_types::ChatId;

use super::phone::Phone;
use super::report::Report;
use crate::programs::Programs;

/// The platform and the devices that the scenes use.
pub struct Stage {
    /// The platform.
    pub platform: Platform,
    /// The URLs of the gateways.
    pub gateways: Vec<String>,
    /// Alice's phone.
    pub alice: Phone,
    /// Alice's laptop.
    pub laptop: Phone,
    /// Bob's phone.
    pub bob: Phone,
    /// Carol's phone.
    pub carol: Phone,
    /// The group, after it was created.
    pub group: Option<ChatId>,
    /// The push services.
    pub push: PushServers,
    cast: Cast,
}

impl Stage {
    /// Starts the platform, creates the people and links their devices. No device is connected yet.
    pub async fn start(programs: &Programs, dir: &Path, report: &mut Report) -> anyhow::Result<Self> {
        report.title(&[
            "Tern: a conversation on a platform of its own. Two gateways and two chat nodes, presence, accounts, media and",
            "push, Postgres, etcd and S3, a process each. Every line below happened, or this ends with an error.",
        ]);
        report.scene("The platform starts");
        let began = Instant::now();
        let push = PushServers::start(&dir.join("push")).await?;
        let builder = programs.platform(dir)?.presences(2).media(1).push(&push);
        let platform = builder.start().await?;
        for node in platform.nodes() {
            report.note(&format!(
                "{:<11} {}",
                node.name,
                report.dim(&format!("pid {}", node.process.pid()))
            ));
        }
        let gateways = platform.gateway_urls();
        report.note(&report.dim(&format!(
            "Postgres and etcd of its own; gateways {}",
            gateways.join("  ")
        )));
        report.checked(&format!(
            "every node is up and in the map after {:.1} s",
            began.elapsed().as_secs_f64()
        ));

        let cast = Cast {
            back_end: BackEnd::new(&gateways, &Tls::Roots(platform.ca_pem()?), platform.api_key())?,
            tls: Tls::Roots(platform.ca_pem()?),
            gateways: gateways.clone(),
            dir: dir.to_owned(),
        };
        let alice = cast.phone("Alice", "Alice", 0).await?;
        let laptop = cast.phone("Alice", "Alice's laptop", 1).await?;
        let bob = cast.phone("Bob", "Bob", 1).await?;
        let carol = cast.phone("Carol", "Carol", 0).await?;
        report.checked("a back end made Alice (phone and laptop), Bob and Carol with its API key");
        Ok(Self {
            platform,
            gateways,
            alice,
            laptop,
            bob,
            carol,
            group: None,
            push,
            cast,
        })
    }

    /// Links one more device called `name` of the person `who`. It tries the gateway with this number first.
    pub async fn link(&self, who: &'static str, name: &'static str, gateway: usize) -> anyhow::Result<Phone> {
        self.cast.phone(who, name, gateway).await
    }

    /// Returns the four devices that every scene has.
    pub fn phones(&self) -> [&Phone; 4] {
        [&self.alice, &self.laptop, &self.bob, &self.carol]
    }

    /// Returns the group, or an error if it was not created yet.
    pub fn group(&self) -> anyhow::Result<ChatId> {
        self.group.context("the group was not made")
    }

    /// Returns the direct chat of Alice and Bob.
    pub fn direct(&self) -> ChatId {
        ChatId::direct(self.alice.user, self.bob.user)
    }

    /// Switches the devices off and lets the nodes drain.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        for phone in [&mut self.alice, &mut self.laptop, &mut self.bob, &mut self.carol] {
            phone.disconnect().await?;
        }
        self.platform.stop().await
    }

    /// Ends everything at once, without a drain.
    pub async fn abort(self) -> anyhow::Result<()> {
        self.platform.abort().await
    }
}

/// The values with which people and devices are created.
struct Cast {
    back_end: BackEnd,
    tls: Tls,
    gateways: Vec<String>,
    dir: PathBuf,
}

impl Cast {
    /// Links a device called `name` of the person `who`, who is created if need be. The device tries the gateway with
    /// this number first.
    async fn phone(&self, who: &'static str, name: &'static str, gateway: usize) -> anyhow::Result<Phone> {
        let user = self.back_end.create_user(&who.to_lowercase(), who).await?;
        let credentials = self.back_end.link_device(user, name, "demo").await?;
        let mut gateways = self.gateways.clone();
        gateways.rotate_left(gateway);
        let file = self
            .dir
            .join("devices")
            .join(format!("{}.db", name.replace([' ', '\''], "-")));
        let config = ClientConfig::new(gateways, StoreLocation::File(file)).tls(self.tls.clone());
        Ok(Phone::new(who, name, user, config.credentials(credentials)))
    }
}
