//! Runs a private S3 server on 127.0.0.1, for development and tests. It is a process of the program `tern-dev`.
//!
//! - [`server`]: the process: s3s verifies signatures, s3s-fs keeps objects as files
//! - [`checked`]: adds the checksums and multipart uploads that s3s-fs lacks

mod checked;
pub mod server;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::signal::Signal;
use tokio::process::Command;

use crate::{Process, ports, secrets, until};

/// The time limit from the start to the first connection.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// The time that the server has to end before it is killed.
const STOPS_WITHIN: Duration = Duration::from_secs(5);

/// The name of the only bucket.
pub const BUCKET: &str = "tern-media";

/// A running server, which is killed when dropped.
#[derive(Debug)]
pub struct S3 {
    process: Process,
    access: Access,
    data: PathBuf,
}

/// The address and the credentials of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// The server's URL, such as `http://127.0.0.1:…`.
    pub endpoint: String,
    /// The id of the access key.
    pub access_key: String,
    /// The secret of the access key.
    pub secret_key: String,
}

impl Access {
    /// Returns the TERN_… settings with which a media node uses this server.
    pub fn settings(&self) -> [(&'static str, &str); 5] {
        [
            ("TERN_MEDIA_S3_ENDPOINT", &self.endpoint),
            ("TERN_MEDIA_S3_BUCKET", BUCKET),
            ("TERN_MEDIA_S3_ACCESS_KEY_ID", &self.access_key),
            ("TERN_MEDIA_S3_SECRET_ACCESS_KEY", &self.secret_key),
            ("TERN_MEDIA_S3_PATH_STYLE", "true"),
        ]
    }
}

impl S3 {
    /// Starts a server on the data below `dir`, with a program that has the command `s3`. Returns when it accepts
    /// connections, or fails after 30 s.
    pub async fn start(program: &Path, dir: &Path) -> anyhow::Result<Self> {
        // A web page under development knows the last address, so the same port is used again if it is free.
        let remembered = std::fs::read_to_string(dir.join("s3-port"));
        let mut port = remembered.ok().and_then(|port| port.trim().parse().ok());
        for _ in 0..ports::STARTS {
            let server = spawn(program, dir, port.take().map_or_else(ports::free, Ok)?)?;
            if server.process.serves(server.ready()).await? {
                return Ok(server);
            }
        }
        anyhow::bail!("the S3 server found no free port")
    }

    /// Returns the address and the credentials for clients.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// Counts the objects in the bucket.
    pub fn objects(&self) -> anyhow::Result<usize> {
        let bucket = self.data.join("objects").join(BUCKET);
        Ok(std::fs::read_dir(bucket)?.flatten().count())
    }

    /// Returns the server's process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Ends the server with SIGTERM, and kills it after 5 s.
    pub async fn stop(&self) -> anyhow::Result<()> {
        self.process.end(Signal::SIGTERM, STOPS_WITHIN).await?;
        Ok(())
    }

    async fn ready(&self) -> anyhow::Result<()> {
        let address: SocketAddr = self.access.endpoint.trim_start_matches("http://").parse()?;
        until::some("the S3 server answers", READY_WITHIN, || async {
            tokio::net::TcpStream::connect(address).await?;
            Ok(())
        })
        .await
    }
}

fn spawn(program: &Path, dir: &Path, port: u16) -> anyhow::Result<S3> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let access = Access {
        endpoint: format!("http://{address}"),
        access_key: "development".to_owned(),
        secret_key: secret(dir)?,
    };
    let mut command = Command::new(program);
    let data = dir.join("s3");
    secrets::private_dir(&data)?;
    command.arg("s3").arg("--dir").arg(&data);
    command.args(["--listen", &address.to_string()]);
    command.args(["--access-key", &access.access_key]);
    command.env("TERN_S3_SECRET_KEY", &access.secret_key);
    let process = Process::spawn("s3", command, &dir.join("logs").join("s3.log"))?;
    std::fs::write(dir.join("s3-port"), port.to_string())?;
    Ok(S3 {
        process,
        access,
        data,
    })
}

/// Returns the secret key in `dir/s3-secret`, and makes it if it is missing.
fn secret(dir: &Path) -> anyhow::Result<String> {
    let file = dir.join("s3-secret");
    if let Ok(secret) = std::fs::read_to_string(&file) {
        return Ok(secret.trim().to_owned());
    }
    let secret = format!("{:032x}", rand::random::<u128>());
    secrets::write(&file, &secret).context("s3-secret")?;
    Ok(secret)
}
