//! One HTTP GET of an admin page.

use std::fmt::Display;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, ToSocketAddrs};

/// An admin page answers in milliseconds; a stopped process never does.
const PATIENCE: Duration = Duration::from_secs(3);

/// Status code and body.
pub async fn get(address: impl ToSocketAddrs + Display, path: &str) -> anyhow::Result<(u16, String)> {
    get_as(address, path, "*/*").await
}

/// The same as a client that accepts this media type.
pub async fn get_as(
    address: impl ToSocketAddrs + Display,
    path: &str,
    accept: &str,
) -> anyhow::Result<(u16, String)> {
    tokio::time::timeout(PATIENCE, request(&address, path, accept))
        .await
        .with_context(|| format!("{address}{path}: no answer"))?
}

async fn request(
    address: &(impl ToSocketAddrs + Display),
    path: &str,
    accept: &str,
) -> anyhow::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    // HTTP/1.0: the server closes, and sends no chunks.
    stream
        .write_all(format!("GET {path} HTTP/1.0\r\nhost: {address}\r\naccept: {accept}\r\n\r\n").as_bytes())
        .await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8(answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("an answer without an empty line")?;
    let status = head
        .split(' ')
        .nth(1)
        .context("an answer without a status")?
        .parse()?;
    Ok((status, body.to_owned()))
}
