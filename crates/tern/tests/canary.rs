//! `tern canary` against a platform of real processes: success, and each way to fail.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::SocketAddr;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use nix::sys::signal::Signal;
use tern_client::{BackEnd, Tls};
use tern_local::platform::metric_sum;
use tern_local::{Platform, Process, Shared, http, ports, until};
use tern_proto::v1;
use tokio::process::Command;

/// Time for a gateway to start again and for clients to come back to it, which wait up to 30 s between two attempts.
const PATIENCE: Duration = Duration::from_secs(120);

struct Place {
    platform: Platform,
    dir: tempfile::TempDir,
}

impl Place {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tern = Path::new(env!("CARGO_BIN_EXE_tern"));
        let shared = Shared::get().await.unwrap();
        let platform = Platform::builder(tern, dir.path())
            .on(&shared)
            .gateways(1)
            .chats(1)
            // Nothing is refused because the machine is busy.
            .env("TERN_SHEDDING", "off")
            .start()
            .await
            .unwrap();
        Self { platform, dir }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tern"));
        command
            .args(["canary", "--gateway", &self.platform.gateway_url(0)])
            .arg("--ca-file")
            .arg(&self.platform.secrets().ca)
            .args(args)
            .env("TERN_API_KEY", self.platform.api_key())
            .env("RUST_BACKTRACE", "0")
            .kill_on_drop(true);
        command
    }

    async fn once(&self, args: &[&str]) -> Output {
        let run = self.command(&["--once"]).args(args).output();
        let run = async { run.await.unwrap() };
        tokio::time::timeout(PATIENCE, run).await.expect("it ends")
    }

    /// Starts a canary that runs until it is told to end. Returns the address of its metrics too.
    fn start(&self, interval: &str) -> (Process, SocketAddr) {
        let admin = SocketAddr::from(([127, 0, 0, 1], ports::free().unwrap()));
        let listen = format!("--admin-listen={admin}");
        let command = self.command(&["--interval", interval, "--timeout=15", &listen]);
        let log = self.dir.path().join("canary.log");
        (Process::spawn("canary", command, &log).unwrap(), admin)
    }

    fn back_end(&self) -> BackEnd {
        let tls = Tls::Roots(self.platform.ca_pem().unwrap());
        let gateways = [self.platform.gateway_url(0)];
        BackEnd::new(&gateways, &tls, self.platform.api_key()).unwrap()
    }

    async fn devices_of(&self, external_id: &str) -> Vec<v1::Device> {
        let back_end = self.back_end();
        let user = back_end
            .find_user(external_id)
            .await
            .unwrap()
            .expect("it was made");
        let of = v1::ListDevicesRequest {
            user_id: user.to_string(),
        };
        back_end.api().list_devices(of).await.unwrap().devices
    }
}

async fn count(admin: SocketAddr, metric: &str, label: (&str, &str)) -> anyhow::Result<f64> {
    Ok(metric_sum(
        &http::get_patiently(admin, "/metrics").await?.1,
        metric,
        &[label],
    ))
}

/// Waits until this counter is higher than it is now.
async fn rises(admin: SocketAddr, metric: &str, label: (&str, &str)) {
    let before = count(admin, metric, label).await.unwrap_or(0.0);
    until::holds(&format!("{metric} {label:?} rises"), PATIENCE, || async {
        Ok(count(admin, metric, label).await? > before)
    })
    .await
    .unwrap();
}

/// Waits until the canary is ready or not ready. A single round may go either way on a busy machine, so this waits
/// for a later one.
async fn is_ready(admin: SocketAddr, ready: bool) {
    let status = if ready { 200 } else { 503 };
    until::holds(&format!("/readyz says {status}"), PATIENCE, || async {
        Ok(http::get(admin, "/readyz").await?.0 == status)
    })
    .await
    .unwrap();
}

const OK: (&str, (&str, &str)) = ("tern_canary_messages_total", ("outcome", "ok"));
const FAILED: (&str, (&str, &str)) = ("tern_canary_messages_total", ("outcome", "failed"));

#[tokio::test]
async fn one_message_each_way_and_no_device_is_left_behind() {
    let place = Place::new().await;
    for _ in 0..2 {
        let output = place.once(&["--name", "probe", "--timeout", "30"]).await;
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let complete = |line: &&str| {
            ["accepted after", "delivered after", "receipt after"]
                .iter()
                .all(|step| line.contains(step))
        };
        assert_eq!(said.lines().filter(complete).count(), 2, "{said}");
    }
    assert_eq!(
        place.devices_of("probe-a").await.len(),
        1,
        "the first run's device is revoked"
    );
    place.platform.abort().await.unwrap();
}

#[tokio::test]
async fn failures_count_up_while_the_gateway_is_gone_and_end_when_it_is_back() {
    let mut place = Place::new().await;
    let (canary, admin) = place.start("0.2");
    rises(admin, OK.0, OK.1).await;
    let delivered = count(admin, "tern_canary_message_seconds_count", ("step", "delivered")).await;
    assert!(delivered.unwrap() >= 1.0);
    is_ready(admin, true).await;

    place.platform.kill("gateway-0").await.unwrap();
    rises(admin, "tern_canary_failures_total", ("step", "accepted")).await;
    assert!(count(admin, FAILED.0, FAILED.1).await.unwrap() >= 1.0);
    is_ready(admin, false).await;

    place.platform.restart("gateway-0").await.unwrap();
    rises(admin, OK.0, OK.1).await;
    canary.signal(Signal::SIGTERM).unwrap();
    assert!(canary.wait().await.success(), "{}", canary.tail(20));
    place.platform.abort().await.unwrap();
}

/// A canary waits for most of the time. If a device is stopped meanwhile, the message that fails for it says why.
#[tokio::test]
async fn a_device_that_is_revoked_between_two_messages_is_said_to_be() {
    let place = Place::new().await;
    let (canary, admin) = place.start("5");
    rises(admin, OK.0, OK.1).await;
    for device in place.devices_of("canary-a").await {
        let request = v1::RevokeDeviceRequest {
            device_id: device.device_id,
        };
        place.back_end().api().revoke_device(request).await.unwrap();
    }
    canary
        .line("a device was stopped: Revoked", PATIENCE)
        .await
        .unwrap();
    // It links new devices, and goes on.
    rises(admin, OK.0, OK.1).await;
    place.platform.abort().await.unwrap();
}

#[tokio::test]
async fn a_platform_that_does_not_answer_is_an_error_and_says_which_step() {
    let place = Place::new().await;
    place.platform.kill("gateway-0").await.unwrap();
    let output = place.once(&["--timeout", "2"]).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("linked: "), "{said}");
    place.platform.abort().await.unwrap();
}
