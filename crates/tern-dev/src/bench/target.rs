//! The platform that is measured: one that runs already, or one that is started for the bench.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use anyhow::Context as _;
use nix::unistd::getpid;
use sqlx::{Connection as _, PgConnection};
use tern_client::connection::Gateways;
use tern_client::{BackEnd, Tls};
use tern_cluster::shedding::Level;
use tern_local::{Platform, PushServers, Role};
use tokio::time::sleep;

use super::Common;
use super::cost::{self, Snapshot, Watched};
use super::meter::Meter;
use super::page_cache;

/// The Postgres settings that decide throughput and growth. They are shown with every result.
const SETTINGS: [&str; 9] = [
    "server_version",
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "shared_buffers",
    "wal_compression",
    "max_wal_size",
    "checkpoint_timeout",
    "wal_level",
];
/// The limit of sends and calls a second of a started platform. It is so high that the limits of a single device or
/// back end are not measured.
const SENDS_PER_SECOND: &str = "100000";
/// The name of this process among the measured processes.
pub const GENERATOR: &str = "load generator";

/// The platform that is measured: how to reach it, and which processes and database count as its cost.
pub struct Target {
    /// The gateways, for streams.
    pub gateways: Gateways,
    /// The URLs of the gateways.
    pub urls: Vec<String>,
    /// The certificate authorities that signed the gateways' certificates.
    pub tls_roots: Tls,
    /// The back end that creates users and devices.
    pub back_end: BackEnd,
    /// The URL of the database, if it is known.
    pub database_url: Option<String>,
    /// The processes whose cost is measured.
    pub watched: Vec<Watched>,
    /// True if devices connect by TLS.
    tls: bool,
    /// The platform, if it was started here.
    own: Option<Own>,
}

/// The parts that a platform which is started has besides those that every load needs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Parts {
    /// A media node and an object store.
    pub media: bool,
    /// A push node, and push services in this process.
    pub push: bool,
}

/// A platform that was started here.
struct Own {
    platform: Platform,
    push: Option<PushServers>,
    _dir: Option<tempfile::TempDir>,
}

/// The numbers of things that were shed (dropped or put off), by the name of their level.
#[derive(Debug, Default)]
pub struct Shed(BTreeMap<&'static str, f64>);

impl Shed {
    /// Returns the sum over all levels.
    pub fn total(&self) -> f64 {
        self.0.values().sum()
    }
}

impl fmt::Display for Shed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self
            .0
            .iter()
            .map(|(what, count)| format!("{what} {count}"))
            .collect();
        f.write_str(&parts.join(", "))
    }
}

/// The cost counters at one moment. [`Target::since`] returns the difference to a later one.
pub struct Mark {
    cpu: Snapshot,
    wal: Option<i64>,
}

/// The cost between two moments.
#[derive(Debug, Clone)]
pub struct Spent {
    /// The time between the two moments, in seconds.
    pub seconds: f64,
    /// The processor seconds by the name of the process.
    pub cpu: BTreeMap<String, f64>,
    /// The bytes of WAL that were written; `None` without a database URL.
    pub wal_bytes: Option<i64>,
}

impl Spent {
    /// Returns the processor seconds of all servers, without the load generator.
    pub fn servers(&self) -> f64 {
        let servers = self.cpu.iter().filter(|(name, _)| *name != GENERATOR);
        servers.map(|(_, seconds)| seconds).sum()
    }
}

impl Target {
    /// Reaches the running platform that the flags name, or starts one with these parts.
    ///
    /// # Errors
    ///
    /// Returns an error if a file cannot be read or the platform cannot be reached or started.
    pub async fn reach(common: &Common, parts: Parts) -> anyhow::Result<Self> {
        if common.gateways.is_empty() {
            return Box::pin(Self::start(common, parts, &[])).await;
        }
        let tls = match &common.ca_file {
            Some(file) => Tls::Roots(read(file)?),
            None => Tls::System,
        };
        let key = common.api_key_file.as_ref().context("--api-key-file is needed")?;
        let mut watched = cost::find();
        watched.push(myself());
        Ok(Self {
            gateways: Gateways::new(&common.gateways, &tls)?,
            back_end: BackEnd::new(&common.gateways, &tls, read(key)?.trim())?,
            urls: common.gateways.clone(),
            tls_roots: tls,
            database_url: common.database_url.clone(),
            watched,
            tls: common
                .gateways
                .iter()
                .any(|gateway| gateway.starts_with("https:")),
            own: None,
        })
    }

    /// Starts a platform with these parts, and with these environment variables set for its nodes.
    pub async fn start(common: &Common, parts: Parts, env: &[(&str, &str)]) -> anyhow::Result<Self> {
        let temporary = match &common.dir {
            Some(_) => None,
            None => Some(tempfile::Builder::new().prefix("tern-bench-").tempdir()?),
        };
        let dir: PathBuf = match (&common.dir, &temporary) {
            (Some(dir), _) => dir.clone(),
            (None, Some(temporary)) => temporary.path().to_owned(),
            (None, None) => anyhow::bail!("no directory"),
        };
        let mut builder = common
            .programs
            .platform(&dir)?
            .gateways(common.start_gateways)
            .chats(common.start_chats)
            .media(parts.media.into())
            .cells(common.cells)
            .env("TERN_MEDIA_DAILY_UPLOADS", "1000000000")
            .env("TERN_CHAT_NEW_STRANGERS_A_DAY", "100000")
            .env("TERN_GATEWAY_SENDS_PER_SECOND", SENDS_PER_SECOND)
            .env("TERN_GATEWAY_SEND_BURST", SENDS_PER_SECOND)
            .env("TERN_GATEWAY_KEY_CALLS_PER_SECOND", SENDS_PER_SECOND);
        for (name, value) in env {
            builder = builder.env(name, value);
        }
        let push = match parts.push {
            true => Some(PushServers::start(&dir.join("push")).await?),
            false => None,
        };
        if let Some(push) = &push {
            builder = builder.push(push);
        }
        if common.plain {
            builder = builder.plain_clients();
        }
        let mut platform = builder.start().await?;
        let watched = processes(&mut platform);
        let (urls, tls) = (platform.gateway_urls(), Tls::Roots(platform.ca_pem()?));
        Ok(Self {
            gateways: Gateways::new(&urls, &tls)?,
            back_end: BackEnd::new(&urls, &tls, platform.api_key())?,
            urls,
            tls_roots: tls,
            database_url: Some(platform.database_url().to_owned()),
            watched,
            tls: !common.plain,
            own: Some(Own {
                platform,
                push,
                _dir: temporary,
            }),
        })
    }

    /// Restarts Postgres, and the chat and accounts nodes, with empty memory. Neither Postgres nor the operating system
    /// then has any of the store cached, and the nodes have no chats loaded. Returns false, and changes nothing, if the
    /// platform was not started here.
    pub async fn chill(&mut self) -> anyhow::Result<bool> {
        let Some(own) = &mut self.own else {
            return Ok(false);
        };
        let platform = &mut own.platform;
        let stores: Vec<String> = platform
            .nodes()
            .filter(|node| matches!(node.role, Role::Chat | Role::Accounts))
            .map(|node| node.name.clone())
            .collect();
        for name in &stores {
            platform.drain(name)?;
            platform.drained(name).await?;
        }
        let Some((postgres, _)) = platform.private_servers() else {
            return Ok(false);
        };
        postgres.shut_down().await?;
        page_cache::evict(postgres.data())?;
        postgres.restart().await?;
        for name in &stores {
            platform.restart(name).await?;
        }
        platform.linked().await?;
        self.watched = processes(platform);
        Ok(true)
    }

    /// Returns the push services and the platform. Fails if the platform was not started here with push services.
    pub fn push(&self) -> anyhow::Result<(&PushServers, &Platform)> {
        let own = self.own.as_ref();
        own.and_then(|own| Some((own.push.as_ref()?, &own.platform)))
            .context("this load needs a platform that the bench starts itself")
    }

    /// Ends the platform if it was started here.
    pub async fn leave(self) -> anyhow::Result<()> {
        match self.own {
            Some(own) => own.platform.stop().await,
            None => Ok(()),
        }
    }

    /// Lets the running load warm up, measures its cost, and tells it to stop. Returns the cost.
    pub async fn measure(&self, common: &Common, meter: &Meter) -> anyhow::Result<Spent> {
        sleep(common.warm_up).await;
        let mark = self.mark().await?;
        meter.begin();
        sleep(common.measure).await;
        meter.end();
        let spent = self.since(&mark).await;
        meter.stop();
        spent
    }

    /// Returns whether the platform was started here.
    pub fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// Returns the transport between devices and gateways, for titles.
    pub fn transport(&self) -> &'static str {
        if self.tls { "TLS" } else { "plain text" }
    }

    /// Reads the cost counters now.
    pub async fn mark(&self) -> anyhow::Result<Mark> {
        Ok(Mark {
            cpu: Snapshot::take(&self.watched),
            wal: self.wal().await?,
        })
    }

    /// Returns the cost since an earlier mark.
    pub async fn since(&self, mark: &Mark) -> anyhow::Result<Spent> {
        let (seconds, cpu) = Snapshot::take(&self.watched).since(&mark.cpu);
        let wal_bytes = self.wal().await?.zip(mark.wal).map(|(now, before)| now - before);
        Ok(Spent {
            seconds,
            cpu,
            wal_bytes,
        })
    }

    /// Returns the resident memory of all gateways together, in KiB.
    pub fn gateway_kib(&self) -> u64 {
        self.resident_kib(Role::Gateway.as_str())
    }

    /// Returns the resident memory of all processes of this name together, in KiB.
    pub fn resident_kib(&self, name: &str) -> u64 {
        let named = self.watched.iter().filter(|process| process.name == name);
        named.filter_map(|process| cost::resident_kib(process.pid)).sum()
    }

    /// Returns how many rows the gateways' sweeps have found; each is a defect. `None` if the platform was not
    /// started here.
    pub async fn sweep_found(&self) -> anyhow::Result<Option<u64>> {
        let Some(own) = &self.own else { return Ok(None) };
        let found = own
            .platform
            .metric_of(Role::Gateway, "tern_gateway_sweep_found_total", &[]);
        Ok(Some(found.await? as u64))
    }

    /// Returns the level of shedding of the gateway. With several gateways the levels are added up. If the platform was
    /// not started here, the level is [`Level::Nothing`].
    pub async fn level(&self) -> anyhow::Result<Level> {
        let Some(own) = &self.own else {
            return Ok(Level::Nothing);
        };
        let labels = [("of", "effect")];
        let level = own
            .platform
            .metric_of(Role::Gateway, "tern_node_shed_level", &labels)
            .await?;
        Ok(Level::from_wire(level as u32))
    }

    /// Returns how many things gateways and chat nodes have shed so far; nothing if the platform was not started here.
    pub async fn shed(&self) -> anyhow::Result<Shed> {
        let mut shed = Shed::default();
        let Some(own) = &self.own else { return Ok(shed) };
        for level in &Level::ALL[1..] {
            for role in [Role::Gateway, Role::Chat] {
                let labels = [("what", level.name())];
                *shed.0.entry(level.name()).or_default() += own
                    .platform
                    .metric_of(role, "tern_node_shed_total", &labels)
                    .await?;
            }
        }
        Ok(shed)
    }

    /// Returns the bytes of WAL written so far, or `None` without a database URL.
    async fn wal(&self) -> anyhow::Result<Option<i64>> {
        let Some(url) = &self.database_url else {
            return Ok(None);
        };
        let mut db = PgConnection::connect(url).await?;
        let bytes = sqlx::query_scalar("SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::int8")
            .fetch_one(&mut db)
            .await?;
        db.close().await?;
        Ok(Some(bytes))
    }

    /// Returns the Postgres settings of [`SETTINGS`]; empty without a database URL.
    pub async fn settings(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let Some(url) = &self.database_url else {
            return Ok(BTreeMap::new());
        };
        let mut db = PgConnection::connect(url).await?;
        let rows: Vec<(String, String)> =
            sqlx::query_as("SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY($1)")
                .bind(SETTINGS.map(str::to_owned).to_vec())
                .fetch_all(&mut db)
                .await?;
        db.close().await?;
        Ok(rows.into_iter().collect())
    }
}

/// Returns all processes of a platform that was started here, and this process.
fn processes(platform: &mut Platform) -> Vec<Watched> {
    let mut watched: Vec<Watched> = platform
        .nodes()
        .map(|node| Watched {
            name: node.role.as_str().to_owned(),
            pid: node.process.pid(),
            family: false,
        })
        .collect();
    if let Some((postgres, etcd)) = platform.private_servers() {
        let (postgres, etcd) = (postgres.process().pid(), etcd.process().pid());
        watched.extend(
            [("postgres", postgres), ("etcd", etcd)].map(|(name, pid)| Watched {
                name: name.to_owned(),
                pid,
                family: true,
            }),
        );
    }
    if let Some(s3) = platform.s3() {
        watched.push(Watched {
            name: "s3".to_owned(),
            pid: s3.process().pid(),
            family: false,
        });
    }
    watched.push(myself());
    watched
}

fn myself() -> Watched {
    Watched {
        name: GENERATOR.to_owned(),
        pid: getpid().as_raw(),
        // Its children are the platform's processes, which are measured apart.
        family: false,
    }
}

fn read(file: &PathBuf) -> anyhow::Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))
}
