//! Tests of the push services: they take what the providers' documentation says is in order, and nothing else.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod apns;
mod client;
mod fcm;
mod web_push;

use std::time::Duration;

use tern_local::PushServers;
use tern_types::Clock;

/// The time limit for what happens at once.
const BOUND: Duration = Duration::from_secs(60);

/// Starts the services. The directory lives as long as they do.
async fn servers() -> (PushServers, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (PushServers::start(dir.path()).await.unwrap(), dir)
}

/// Returns the seconds since 1970.
fn now_s() -> i64 {
    Clock::wall().0 / 1000
}

#[tokio::test]
async fn the_settings_name_files_that_are_there() {
    let (servers, dir) = servers().await;
    let apps: serde_json::Value =
        serde_json::from_slice(&std::fs::read(servers.apps_file()).unwrap()).unwrap();
    let names = [
        &apps["apns"][0]["key_file"],
        &apps["fcm"][0]["service_account_file"],
        &apps["web_push"]["key_file"],
        &apps["ca_file"],
    ];
    for name in names {
        assert!(dir.path().join(name.as_str().unwrap()).is_file(), "{name}");
    }
    assert_eq!(apps["apns"][0]["url"], servers.apns.url());
}
