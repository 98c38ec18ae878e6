//! `tern-dev dev`, run as a program.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use tern_local::{Process, until};
use tern_proto::v1::{CreateUserRequest, User};
use tern_tests::{Api, world};
use tokio::process::Command;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

/// This only ends a step that hangs. A node alone may take two minutes to start on a busy machine.
const BOUND: Duration = Duration::from_secs(240);

fn dev(dir: &Path) -> Process {
    let mut command = Command::new(world::tern());
    command
        .args(["dev", "--dir"])
        .arg(dir)
        .env("TERN_PROGRAM", world::tern())
        .env("TERN_LOG", "info");
    Process::spawn("tern-dev dev", command, &dir.join("dev.log")).unwrap()
}

/// Creates a user as a back end would, with the files that `tern-dev dev` leaves in its directory.
async fn make_user(dir: &Path) -> (User, bool) {
    let read = |name| fs::read_to_string(dir.join(name)).unwrap();
    let gateway = read("gateways").lines().next().unwrap().to_owned();
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read("ca.pem")));
    let channel = Channel::from_shared(gateway)
        .unwrap()
        .tls_config(tls)
        .unwrap()
        .connect()
        .await
        .unwrap();
    let request = CreateUserRequest {
        external_id: "alice".to_owned(),
        display_name: "Alice".to_owned(),
    };
    let reply = Api::new(channel, read("api-key").trim())
        .users()
        .create_user(request)
        .await
        .unwrap()
        .into_inner();
    (reply.user.unwrap(), reply.created)
}

/// Returns the processes that work in this directory, found by their environment and arguments.
fn processes(dir: &Path) -> BTreeSet<String> {
    let dir = dir.to_str().unwrap();
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let says = |file| {
            String::from_utf8_lossy(&fs::read(entry.path().join(file)).unwrap_or_default()).into_owned()
        };
        if says("cmdline").contains(dir) || says("environ").contains(dir) {
            found.insert(says("cmdline").replace('\0', " "));
        }
    }
    found
}

/// Returns the URL at which the node listens for other nodes, which its log says.
fn internal_url(dir: &Path, node: &str) -> String {
    let log = fs::read_to_string(dir.join("logs").join(format!("{node}.log"))).unwrap();
    let up = log.lines().find(|line| line.contains("node is up")).unwrap();
    let (_, port) = up.split_once("127.0.0.1:").unwrap();
    let port: String = port.chars().take_while(char::is_ascii_digit).collect();
    format!("http://127.0.0.1:{port}")
}

/// Checks what another user of this machine can do, who reaches every port and may list the directory.
async fn nobody_else_gets_in(dir: &Path) {
    let open = fs::read_dir(dir).unwrap().map(Result::unwrap);
    let open = open.filter(|entry| entry.metadata().unwrap().permissions().mode() & 0o077 != 0);
    let open: BTreeSet<String> = open
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let public = BTreeSet::from(["gateways", "lock", "s3-port"].map(str::to_owned));
    assert!(open.is_subset(&public), "{open:?} are open");

    let node = Endpoint::from_shared(internal_url(dir, "accounts-0")).unwrap();
    let asked = HealthClient::new(node.connect_lazy())
        .check(HealthCheckRequest::default())
        .await;
    asked.expect_err("who has no certificate is no node");
}

async fn all_gone(dir: &Path) {
    until::holds("every process has ended", BOUND, || async {
        let left = processes(dir);
        anyhow::ensure!(left.is_empty(), "{left:?}");
        Ok(true)
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn tern_dev_keeps_what_was_written_and_leaves_nothing_running() {
    let dir = tempfile::tempdir().unwrap();
    world::open_to_all(dir.path());
    let first = dev(dir.path());
    first.line("Ctrl-C stops everything", BOUND).await.unwrap();
    assert!(processes(dir.path()).len() >= 6, "{:?}", processes(dir.path()));
    let (alice, created) = make_user(dir.path()).await;
    assert!(created);
    nobody_else_gets_in(dir.path()).await;

    // Two instances on the same data would damage them.
    let second = dev(dir.path());
    assert!(!second.wait().await.success());
    second
        .line("another tern-dev dev is running", BOUND)
        .await
        .unwrap();

    // A node that dies is reported and started again. The others go on.
    let pid = first.line("chat-0", BOUND).await.unwrap();
    let pid: i32 = pid.split_whitespace().nth(2).unwrap().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    first.line("has died", BOUND).await.unwrap();
    assert_eq!(make_user(dir.path()).await, (alice.clone(), false));
    let again = first.line("chat-0 is up again", BOUND).await.unwrap();
    let again = again.trim_end_matches(')').rsplit(' ').next().unwrap();
    assert_ne!(again.parse::<i32>().unwrap(), pid);
    assert!(
        processes(dir.path())
            .iter()
            .any(|process| process.contains("serve chat")),
        "{:?}",
        processes(dir.path())
    );

    assert!(
        first.end(Signal::SIGINT, BOUND).await.unwrap(),
        "it stops by itself"
    );
    assert!(first.exited().unwrap().success());
    all_gone(dir.path()).await;

    let again = dev(dir.path());
    until::holds("it is up again", BOUND, || async {
        Ok(fs::read_to_string(again.log())?
            .matches("Ctrl-C stops everything")
            .count()
            == 2)
    })
    .await
    .unwrap();
    assert_eq!(make_user(dir.path()).await, (alice, false));

    // When it is killed, all its processes end as well.
    again.kill().await.unwrap();
    all_gone(dir.path()).await;
}
