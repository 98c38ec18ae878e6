//! `tern serve`: a node from its start to the end of its drain, as a real process with a real etcd.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::SocketAddr;
use std::time::Duration;

use nix::sys::signal::Signal;
use sqlx::{Connection, Executor, PgConnection};
use tern_cluster::etcd::{Cluster, EtcdArgs};
use tern_cluster::{MapHandle, Node, Role};
use tern_local::secrets::Secrets;
use tern_local::{Process, Shared, http, ports, until};
use tokio::process::Command;

const PATIENCE: Duration = Duration::from_secs(60);

struct Place {
    shared: Shared,
    prefix: String,
    logs: tempfile::TempDir,
}

impl Place {
    async fn new() -> Self {
        let shared = Shared::get().await.unwrap();
        Self {
            shared,
            prefix: tern_local::shared::unique("/serve"),
            logs: tempfile::tempdir().unwrap(),
        }
    }

    async fn cluster(&self) -> Cluster {
        let args = EtcdArgs {
            etcd_endpoints: vec![self.shared.etcd().to_owned()],
            etcd_prefix: self.prefix.clone(),
        };
        Cluster::connect(&args).await.unwrap()
    }

    fn serve(&self, roles: &str, env: &[(&str, &str)]) -> (Process, SocketAddr) {
        let admin = SocketAddr::from(([127, 0, 0, 1], ports::free().unwrap()));
        let mut command = Command::new(env!("CARGO_BIN_EXE_tern"));
        command
            .args(["serve", roles, "--node-name", "n-0", "--drain-timeout", "60"])
            .env("RUST_BACKTRACE", "0")
            .env("TERN_ADMIN_LISTEN", admin.to_string())
            .env("TERN_ETCD_ENDPOINTS", self.shared.etcd())
            .env("TERN_ETCD_PREFIX", &self.prefix)
            .envs(env.iter().copied());
        (
            Process::spawn("n-0", command, &self.logs.path().join("n-0.log")).unwrap(),
            admin,
        )
    }

    /// Runs `tern migrate`, which has to fail. Returns what it says.
    async fn refuses_to_migrate(&self, database: &str, etcd: &str, flags: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tern"));
        command
            .arg("migrate")
            .args(flags)
            .env("RUST_BACKTRACE", "0")
            .env("TERN_DATABASE_URL", database)
            .env("TERN_ETCD_ENDPOINTS", etcd)
            .env("TERN_ETCD_PREFIX", &self.prefix);
        let output = command.output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{said}");
        said
    }
}

async fn ready(admin: SocketAddr) {
    until::holds("the node is ready", PATIENCE, || async {
        Ok(http::get(admin, "/readyz").await?.0 == 200)
    })
    .await
    .unwrap();
}

/// Waits until the node in the map satisfies `right`. Returns it, if it is in the map.
async fn seen(map: &mut MapHandle, right: impl Fn(Option<&Node>) -> bool) -> Option<Node> {
    let wait = async {
        let mut now = map.current();
        while !right(now.node(Role::Presence, "n-0")) {
            now = map.changed().await;
        }
        now.node(Role::Presence, "n-0").cloned()
    };
    tokio::time::timeout(PATIENCE, wait)
        .await
        .expect("the map becomes right")
}

#[tokio::test]
async fn a_node_registers_answers_probes_drains_and_leaves() {
    let place = Place::new().await;
    let cluster = place.cluster().await;
    let mut map = cluster.map();
    let (process, admin) = place.serve("presence", &[]);
    ready(admin).await;
    let node = seen(&mut map, |node| node.is_some()).await.unwrap();
    assert!(!node.draining);
    assert_eq!(http::get_patiently(admin, "/healthz").await.unwrap().0, 200);
    until::holds("the metrics say that etcd answers", PATIENCE, || async {
        let (_, page) = http::get_patiently(admin, "/metrics").await?;
        Ok(page.contains("tern_node_etcd_up 1"))
    })
    .await
    .unwrap();

    process.signal(Signal::SIGTERM).unwrap();
    assert!(process.wait().await.success(), "{}", process.tail(20));
    // Read the map from etcd anew. If the node had not left, its lease would keep it there for seconds.
    let left = place.cluster().await.map().current();
    assert_eq!(left.node(Role::Presence, "n-0"), None, "it leaves before it ends");
    seen(&mut map, |node| node.is_none()).await;
}

#[tokio::test]
async fn a_node_that_is_started_again_is_a_newer_one() {
    let place = Place::new().await;
    let cluster = place.cluster().await;
    let mut map = cluster.map();
    let (process, admin) = place.serve("presence", &[]);
    ready(admin).await;
    let first = seen(&mut map, |node| node.is_some()).await.unwrap();
    process.kill().await.unwrap();
    let (_process, admin) = place.serve("presence", &[]);
    ready(admin).await;
    seen(&mut map, |node| {
        node.is_some_and(|node| node.incarnation > first.incarnation)
    })
    .await;
}

#[tokio::test]
async fn a_node_waits_for_etcd_and_stops_when_told_to() {
    let place = Place::new().await;
    let nobody = format!("http://127.0.0.1:{}", ports::free().unwrap());
    let (process, admin) = place.serve("presence", &[("TERN_ETCD_ENDPOINTS", &nobody)]);
    process.line("etcd does not answer", PATIENCE).await.unwrap();
    assert_eq!(http::get_patiently(admin, "/readyz").await.unwrap().0, 503);
    assert_eq!(http::get_patiently(admin, "/healthz").await.unwrap().0, 200);
    process.signal(Signal::SIGTERM).unwrap();
    assert!(process.wait().await.success(), "{}", process.tail(20));
}

#[tokio::test]
async fn one_process_may_have_several_roles() {
    let place = Place::new().await;
    let database = place.shared.database().await.unwrap();
    let args = tern_store::postgres::PostgresArgs::from_url(&database).unwrap();
    let wanted = tern_store::schema::Wanted {
        cells: None,
        citus: place.shared.is_citus(),
    };
    tern_store::schema::migrate(&args, wanted).await.unwrap();
    let secrets = Secrets::in_dir(place.logs.path()).unwrap();
    // No provider is set up in it.
    let apps = place.logs.path().join("apps.json");
    std::fs::write(&apps, "{}").unwrap();
    let cluster = place.cluster().await;
    let mut map = cluster.map();
    let (process, admin) = place.serve(
        "gateway,chat,presence,accounts,media,push",
        &[
            ("TERN_DATABASE_URL", &database),
            ("TERN_GATEWAY_LISTEN", "127.0.0.1:0"),
            ("TERN_TOKEN_VERIFY_FILES", secrets.token_key.to_str().unwrap()),
            ("TERN_TOKEN_KEY_FILE", secrets.token_key.to_str().unwrap()),
            ("TERN_CHAT_MASTER_KEY_FILE", secrets.master_key.to_str().unwrap()),
            ("TERN_MEDIA_TICKET_KEY_FILE", secrets.ticket_key.to_str().unwrap()),
            // Nodes start even when the object store is away.
            ("TERN_MEDIA_S3_ENDPOINT", "http://127.0.0.1:1"),
            ("TERN_PUSH_APPS", apps.to_str().unwrap()),
        ],
    );
    ready(admin).await;
    seen(&mut map, |node| node.is_some()).await;
    for role in Role::ALL {
        assert_eq!(cluster.map().current().nodes(role).len(), 1, "{role}");
    }
    process.signal(Signal::SIGTERM).unwrap();
    assert!(process.wait().await.success(), "{}", process.tail(20));
    seen(&mut map, |node| node.is_none()).await;
}

#[tokio::test]
async fn a_chat_node_refuses_a_database_that_was_never_migrated() {
    let place = Place::new().await;
    let database = place.shared.database().await.unwrap();
    let (process, _) = place.serve("chat", &[("TERN_DATABASE_URL", &database)]);
    assert!(!process.wait().await.success());
    assert!(process.tail(20).contains("tern migrate"), "{}", process.tail(20));
}

/// The database looks like that of a version 0.1, whose tables are moved. A node of that version may have no connection to
/// Postgres at the moment.
#[tokio::test]
async fn tables_are_not_moved_while_a_node_is_in_the_map_or_while_that_is_not_known() {
    let place = Place::new().await;
    let database = place.shared.database().await.unwrap();
    let mut db = PgConnection::connect(&database).await.unwrap();
    db.execute("CREATE TABLE public._sqlx_migrations (version int8, success boolean)")
        .await
        .unwrap();
    let (process, admin) = place.serve("presence", &[]);
    ready(admin).await;
    let etcd = place.shared.etcd();
    let said = place.refuses_to_migrate(&database, etcd, &[]).await;
    assert!(said.contains("1 nodes are in the cluster map"), "{said}");
    let nobody = format!("http://127.0.0.1:{}", ports::free().unwrap());
    let said = place.refuses_to_migrate(&database, &nobody, &[]).await;
    assert!(said.contains("etcd does not say whether nodes run"), "{said}");
    let made: bool = sqlx::query_scalar("SELECT to_regnamespace('tern') IS NOT NULL")
        .fetch_one(&mut db)
        .await
        .unwrap();
    assert!(!made, "nothing is written");

    // Both ways lead on to the next reason for which such a store is refused.
    let beyond = "older than version 0.1";
    let flags = ["--all-nodes-are-stopped"];
    let said = place.refuses_to_migrate(&database, &nobody, &flags).await;
    assert!(said.contains(beyond), "{said}");
    process.signal(Signal::SIGTERM).unwrap();
    assert!(process.wait().await.success(), "{}", process.tail(20));
    let said = place.refuses_to_migrate(&database, etcd, &[]).await;
    assert!(said.contains(beyond), "{said}");
}

#[tokio::test]
async fn wrong_flags_are_refused_with_words() {
    let cases: [(&[&str], &str); 7] = [
        (&["serve", "router", "--node-name", "a"], "no such role: router"),
        (&["serve", "presence", "--node-name", "a/b"], "a-z, 0-9"),
        (&["serve", "presence"], "--node-name"),
        (
            &["serve", "presence", "--node-name", "a", "--otlp-sample", "5"],
            "between 0 and 1",
        ),
        (
            &["serve", "presence,gateway", "--node-name", "a"],
            "--token-verify-files is needed by the role gateway",
        ),
        (
            &[
                "serve",
                "presence",
                "--node-name",
                "a",
                "--internal-listen",
                "0.0.0.0:0",
            ],
            "--internal-advertise",
        ),
        (
            &[
                "serve",
                "presence",
                "--node-name",
                "a",
                "--profile",
                "production",
                "--internal-listen",
                "0.0.0.0:0",
                "--internal-advertise",
                "h:1",
            ],
            "--internal-plaintext",
        ),
    ];
    for (args, word) in cases {
        let output = Command::new(env!("CARGO_BIN_EXE_tern"))
            .args(args)
            .output()
            .await
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && said.contains(word),
            "{args:?}: {said}"
        );
    }
}
