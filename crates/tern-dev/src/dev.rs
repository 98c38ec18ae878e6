//! `tern-dev dev`: runs the whole platform on this machine, one process per node, until Ctrl-C. Nodes that die are
//! restarted.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use tern_cluster::links::RetryWaits;
use tern_local::{Platform, PushServers, Role, secrets};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::programs::Programs;
use crate::pushes;

/// The ports of the first gateways, if they are free. Examples and clients in development use these numbers.
const GATEWAY_PORTS: [u16; 2] = [7443, 7444];

/// Run the whole platform on this machine, to try it or to develop clients against it
#[derive(clap::Args, Clone, Debug)]
pub struct DevArgs {
    /// Directory for the platform's data, keys and logs
    #[arg(long, env = "TERN_DEV_DIR", default_value = ".tern/dev")]
    pub dir: PathBuf,
    /// Number of gateways
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=9))]
    pub gateways: u8,
    /// Number of chat nodes
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=9))]
    pub chats: u8,
    #[command(flatten)]
    pub programs: Programs,
}

/// Keeps the platform up until Ctrl-C or SIGTERM, then stops it. A second Ctrl-C ends this program at once.
///
/// # Errors
///
/// Returns an error if another `tern-dev dev` uses the directory, or if the platform cannot be started or stopped.
pub async fn run(args: DevArgs) -> anyhow::Result<()> {
    let _alone = alone(&args.dir)?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    say(&format!(
        "starting Postgres, etcd, an S3 server, push services and the platform in {} …",
        args.dir.display()
    ));
    let push = PushServers::start(&args.dir.join("push")).await?;
    let start = args
        .programs
        .platform(&args.dir)?
        .gateways(args.gateways.into())
        .chats(args.chats.into())
        .media(1)
        .push(&push)
        .gateway_ports(&GATEWAY_PORTS)
        // Whoever reaches a node in plain text is believed to be a node, and other users of this machine reach it.
        .internal_tls()
        .env("TERN_GATEWAY_REFLECTION", "true")
        // A web page under development may be served from any origin. Its token limits what it may do.
        .env("TERN_GATEWAY_ALLOWED_ORIGINS", "*")
        .start();
    let mut platform = tokio::select! {
        platform = start => platform?,
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
    };
    announce(&args.dir, &platform)?;
    tokio::select! {
        () = keep_up(&mut platform) => {}
        () = pushes::follow(&push, say) => {}
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    say("\nstopping (Ctrl-C again: at once) …");
    tokio::select! {
        stopped = platform.stop() => stopped?,
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// When a node is restarted, and how long it stayed up.
struct Restart {
    waits: RetryWaits,
    up_since: Instant,
    /// The time of the next attempt; `None` while the node is up.
    due: Option<Instant>,
}

/// Restarts each node that dies, for ever. The first restart comes at once; the pause grows while the node does not
/// stay up. A node that does not start keeps no other one waiting.
async fn keep_up(platform: &mut Platform) {
    let mut restarts: BTreeMap<String, Restart> = BTreeMap::new();
    let began = Instant::now();
    loop {
        let next = restarts
            .iter()
            .filter_map(|(name, restart)| Some((restart.due?, name.clone())));
        let next = next.min();
        let due = async {
            match next {
                Some((at, name)) => {
                    tokio::time::sleep_until(at).await;
                    name
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            (name, status) = platform.next_exit() => {
                let obituary = obituary(platform, &name, status);
                let restart = restarts.entry(name).or_insert_with(|| Restart {
                    waits: RetryWaits::default(),
                    up_since: began,
                    due: None,
                });
                if restart.due.is_some() {
                    // The end of a failed attempt was reported as such.
                    continue;
                }
                say(&obituary);
                let pause = restart.waits.next(restart.up_since.elapsed());
                restart.due = Some(Instant::now() + pause);
            }
            name = due => {
                let restarted = platform.restart(&name).await;
                let Some(restart) = restarts.get_mut(&name) else { continue };
                match restarted {
                    Ok(()) => {
                        (restart.up_since, restart.due) = (Instant::now(), None);
                        if let Ok(node) = platform.node(&name) {
                            say(&format!("{name} is up again (pid {})", node.process.pid()));
                        }
                    }
                    Err(error) => {
                        say(&format!("{name} does not start: {error:#}"));
                        restart.due = Some(Instant::now() + restart.waits.next(Duration::ZERO));
                    }
                }
            }
        }
    }
}

/// Locks the directory, because two platforms on the same data would corrupt it. The returned file holds the lock.
fn alone(dir: &Path) -> anyhow::Result<File> {
    secrets::private_dir(dir)?;
    let file = File::create(dir.join("lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            anyhow::bail!("another tern-dev dev is running in {}", dir.display())
        }
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Writes `gateways` for clients and `database-url` for `tern admin`, and says what to do next.
fn announce(dir: &Path, platform: &Platform) -> anyhow::Result<()> {
    let gateways = platform.gateway_urls();
    fs::write(dir.join("gateways"), gateways.join("\n") + "\n")?;
    // Readable by this user only, because the URL contains the password.
    secrets::write(
        &dir.join("database-url"),
        &format!("{}\n", platform.database_url()),
    )?;
    let count = |role: Role| platform.nodes().filter(|node| node.role == role).count();
    let tern = std::env::args().next().unwrap_or_else(|| "tern-dev".to_owned());
    let dir_arg = if dir == Path::new(".tern/dev") {
        String::new()
    } else {
        format!(" --dir {}", dir.display())
    };
    let dir = dir.display();
    say(&format!(
        "
Tern is up: {} gateways and {} chat nodes, presence, accounts, media, push, with a Postgres, an etcd, an S3
server and push services of their own.

  gateways   {}
  trust      {dir}/ca.pem
  API key    {dir}/api-key
  database   {dir}/database-url: {}
  logs       {dir}/logs
  push       any token of APNs (hex) or FCM for the app {}; each push is shown here",
        count(Role::Gateway),
        count(Role::Chat),
        gateways.join("  "),
        platform.database_url(),
        tern_local::push::APP,
    ));
    for node in platform.nodes() {
        let (name, pid, admin) = (&node.name, node.process.pid(), node.admin);
        say(&format!("  {name:<10} pid {pid:<8} http://{admin}/metrics"));
    }
    say(&format!(
        "
Two people, in two more terminals:

  {tern} chat --user alice{dir_arg}
  {tern} chat --user bob{dir_arg}

Or kill a node and watch the conversation go on: it is started again. Ctrl-C stops everything and keeps what was written.
"
    ));
    Ok(())
}

/// Returns the text that says that a node has died, and what follows from that.
fn obituary(platform: &Platform, name: &str, status: ExitStatus) -> String {
    let Ok(node) = platform.node(name) else {
        return String::new();
    };
    let alive = platform
        .nodes()
        .filter(|other| other.role == node.role && other.process.exited().is_none())
        .count();
    let next = match (alive, node.role) {
        (0, _) => "no other node of its kind is left until it is up again".to_owned(),
        (_, Role::Gateway) => "its devices reconnect to the others".to_owned(),
        (_, Role::Chat) => {
            "its chats wait for it, or move to the others when its lease has run out".to_owned()
        }
        (_, Role::Presence | Role::Accounts | Role::Media | Role::Push) => "the others take over".to_owned(),
    };
    let log = node.process.log().display();
    format!(
        "{name} (pid {}) has died: {status}; {next}. Starting it again … Its log: {log}",
        node.process.pid()
    )
}

#[allow(clippy::print_stdout, reason = "a command speaks by standard output")]
fn say(text: &str) {
    println!("{text}");
}
