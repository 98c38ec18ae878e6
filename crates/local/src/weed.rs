//! Runs SeaweedFS, an independent S3 server, for tests: code that works with it does not depend on our own server.
//!
//! The program is taken from TERN_TEST_WEED, from PATH, or from `.tern/tools`, where `make tools` puts it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use crate::s3::Access;
use crate::{Process, ports, until};

/// The time from the start to the first answer, at most. It is long because the program starts several servers.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// The distance of two ports: for each port that the server is given, it also takes the one that is higher by
/// this number, for gRPC.
const GRPC_OFFSET: u16 = 10_000;

/// A running server, which is killed when dropped.
#[derive(Debug)]
pub struct Weed {
    /// The server's process.
    pub process: Process,
    /// The server's address and credentials.
    pub access: Access,
}

/// Returns the path of the program, or `None` if it is not installed.
pub fn program() -> Option<PathBuf> {
    if let Ok(named) = std::env::var("TERN_TEST_WEED") {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let here = std::env::current_dir().unwrap_or_default();
    places.extend(here.ancestors().map(|dir| dir.join(".tern/tools/weed/bin")));
    places
        .into_iter()
        .map(|dir| dir.join("weed"))
        .find(|file| file.is_file())
}

impl Weed {
    /// Starts a server with its data below `dir`. Returns when it answers, or fails after 60 s.
    pub async fn start(program: &Path, dir: &Path) -> anyhow::Result<Self> {
        let data = dir.join("weed");
        std::fs::create_dir_all(&data)?;
        let mut ports = Vec::new();
        while ports.len() < 4 {
            let port = ports::free()?;
            if port < u16::MAX - GRPC_OFFSET {
                ports.push(port);
            }
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ports[0]));
        let access = Access {
            endpoint: format!("http://{address}"),
            access_key: "key".to_owned(),
            secret_key: "secret".to_owned(),
        };
        let mut command = Command::new(program);
        command
            .arg("mini")
            .arg(format!("-dir={}", data.display()))
            .args([
                "-ip=127.0.0.1",
                "-ip.bind=127.0.0.1",
                "-admin.ui=false",
                "-webdav=false",
            ])
            .args(["-s3.port.iceberg=0", "-s3.port.lance=0"])
            .current_dir(&data)
            .env("HOME", &data)
            .env("AWS_ACCESS_KEY_ID", &access.access_key)
            .env("AWS_SECRET_ACCESS_KEY", &access.secret_key);
        for (flag, port) in ["s3", "master", "volume", "filer"].iter().zip(&ports) {
            command.arg(format!("-{flag}.port={port}"));
        }
        let process = Process::spawn("weed", command, &dir.join("weed.log"))?;
        let weed = Self { process, access };
        until::some("SeaweedFS answers", READY_WITHIN, || async {
            let (status, _) = crate::http::get(address, "/healthz").await?;
            anyhow::ensure!(status == 200, "status {status}");
            Ok(())
        })
        .await
        .map_err(|error| error.context(weed.process.tail(10)))?;
        Ok(weed)
    }
}
