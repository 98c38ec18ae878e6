//! Starts a platform as it is configured.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use anyhow::Context as _;
use tokio::process::Command;

use super::builder::{Beside, Builder};
use super::node::{Cables, Launcher, NodeProcess};
use super::{Platform, Role, Servers};
use crate::authority::Authority;
use crate::secrets::{self, Secrets};
use crate::{Citus, Etcd, Postgres, S3, citus};

/// The time limit for a `tern` command that is run to its end, such as a migration. The schema is small.
const MIGRATES_WITHIN: Duration = Duration::from_secs(60);

impl Builder {
    /// Starts everything. Returns when every node is ready, in the map, and linked (see [`Platform::linked`]).
    pub async fn start(self) -> anyhow::Result<Platform> {
        // The future is large and awaited once, so it is boxed.
        Box::pin(self.start_all()).await
    }

    async fn start_all(mut self) -> anyhow::Result<Platform> {
        secrets::private_dir(&self.dir)?;
        self.dir = self.dir.canonicalize()?;
        let beside = self.beside.take();
        let secrets = match &beside {
            Some(beside) => beside.secrets.clone(),
            None => Secrets::in_dir(&self.dir)?,
        };
        if self.internal_tls {
            let authority = Authority::new("Tern nodes")?;
            secrets.certify_nodes(&authority, authority.pem())?;
        }
        let (servers, database_url) = self.servers(beside.as_ref()).await?;
        self.migrate(&database_url, &secrets, servers.is_citus()).await?;
        let api_key = match beside {
            Some(beside) => beside.api_key,
            None => self.api_key(&database_url, &secrets).await?,
        };
        let wants_s3 = self.s3.is_none() && self.counts.get(&Role::Media).is_some_and(|count| *count > 0);
        let s3 = if wants_s3 {
            Some(S3::start(&self.s3_program, &self.dir).await?)
        } else {
            None
        };
        let mut cables = BTreeMap::new();
        for node in &self.cuttable {
            cables.insert(node.clone(), Cables::start(servers.etcd(), &database_url).await?);
        }
        let mut platform = Platform {
            nodes: BTreeMap::new(),
            cables,
            servers,
            s3,
            secrets,
            api_key,
            database_url,
            reported: BTreeSet::new(),
            builder: self,
        };
        platform.nodes = launch_all(&platform.launcher()).await?;
        platform
            .map_until("the map shows every node", |map| {
                platform.nodes.values().all(|node| map.has(node.role, &node.name))
            })
            .await?;
        match platform.linked().await {
            Ok(()) => Ok(platform),
            Err(error) => anyhow::bail!("{error:#}\n{}", platform.tails()),
        }
    }

    /// Starts the private servers, or takes the shared ones. Returns them, and the URL of the platform's database.
    async fn servers(&mut self, beside: Option<&Beside>) -> anyhow::Result<(Servers, String)> {
        if let Some(shared) = self.shared.take() {
            let owns_database = beside.is_none();
            let url = match beside {
                Some(beside) => beside.database_url.clone(),
                None => shared.database().await?,
            };
            return Ok((
                Servers::Shared {
                    shared,
                    owns_database,
                },
                url,
            ));
        }
        let store = async {
            if self.citus {
                let cluster = Citus::start(&self.dir).await?;
                let url = citus::create_database(&cluster.urls(), "tern").await?;
                return anyhow::Ok((url, cluster.coordinator, cluster.workers));
            }
            let postgres = Postgres::start(&self.dir).await?;
            Ok((postgres.create_database("tern").await?, postgres, Vec::new()))
        };
        let ((url, postgres, workers), etcd) = tokio::try_join!(store, Etcd::start(&self.dir))?;
        let servers = Servers::Private {
            postgres,
            workers,
            etcd,
        };
        Ok((servers, url))
    }

    async fn migrate(&self, database_url: &str, secrets: &Secrets, citus: bool) -> anyhow::Result<()> {
        let cells = self.cells.map(|cells| format!("--cells={cells}"));
        let citus = citus.then(|| "--citus".to_owned());
        let flags: Vec<String> = cells.into_iter().chain(citus).collect();
        let command: Vec<&str> = std::iter::once("migrate")
            .chain(flags.iter().map(String::as_str))
            .collect();
        self.run(database_url, secrets, &command)
            .await
            .context("tern migrate")?;
        Ok(())
    }

    /// Runs a `tern` command to its end, and returns what it prints.
    async fn run(&self, database_url: &str, secrets: &Secrets, args: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(&self.tern);
        command
            .args(args)
            .env("TERN_DATABASE_URL", database_url)
            .env("TERN_CHAT_MASTER_KEY_FILE", &secrets.master_key);
        command.kill_on_drop(true);
        let output = tokio::time::timeout(MIGRATES_WITHIN, command.output())
            .await
            .with_context(|| format!("not within {MIGRATES_WITHIN:?}"))?
            .with_context(|| format!("run {}", self.tern.display()))?;
        anyhow::ensure!(
            output.status.success(),
            "{}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Returns the API key in `dir/api-key`, and makes it if it is missing.
    async fn api_key(&self, database_url: &str, secrets: &Secrets) -> anyhow::Result<String> {
        let file = self.dir.join("api-key");
        if let Ok(key) = fs::read_to_string(&file) {
            return Ok(key.trim().to_owned());
        }
        let printed = self
            .run(
                database_url,
                secrets,
                &[
                    "admin",
                    "keys",
                    "create",
                    "--name",
                    "development",
                    "--scopes",
                    "admin",
                ],
            )
            .await
            .context("tern admin keys create")?;
        let key = printed
            .split_whitespace()
            .last()
            .context("tern admin keys create printed nothing")?
            .to_owned();
        secrets::write(&file, &key)?;
        Ok(key)
    }
}

/// Starts all nodes at once. They need no order, because each of them finds the others in the map.
async fn launch_all(launcher: &Launcher<'_>) -> anyhow::Result<BTreeMap<String, NodeProcess>> {
    let launches = launcher.builder.counts.iter().flat_map(|(role, count)| {
        (0..*count).map(move |number| async move {
            let name = role.node_name(number);
            Ok::<_, anyhow::Error>((name.clone(), launcher.launch(*role, &name).await?))
        })
    });
    Ok(futures::future::try_join_all(launches)
        .await?
        .into_iter()
        .collect())
}
