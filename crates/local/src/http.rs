//! Gets an admin page by HTTP.

use std::fmt::Display;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, ToSocketAddrs};

/// The time limit of [`get`]. A node answers in milliseconds, and a frozen process never does.
const PATIENCE: Duration = Duration::from_secs(3);
/// The time limit for callers that need the answer, which may take seconds on a busy machine.
const LONG_PATIENCE: Duration = Duration::from_secs(60);

/// Gets a page, and returns its status code and body. Fails after 3 s, so it suits callers that ask again or can do
/// without the answer.
pub async fn get(address: impl ToSocketAddrs + Display, path: &str) -> anyhow::Result<(u16, String)> {
    within(PATIENCE, address, path, "*/*").await
}

/// Gets a page as [`get`] does, but fails only after 60 s, for callers that need the answer.
pub async fn get_patiently(
    address: impl ToSocketAddrs + Display,
    path: &str,
) -> anyhow::Result<(u16, String)> {
    get_as(address, path, "*/*").await
}

/// Gets a page as [`get_patiently`] does, with the media type `accept` in the accept header.
pub async fn get_as(
    address: impl ToSocketAddrs + Display,
    path: &str,
    accept: &str,
) -> anyhow::Result<(u16, String)> {
    within(LONG_PATIENCE, address, path, accept).await
}

async fn within(
    patience: Duration,
    address: impl ToSocketAddrs + Display,
    path: &str,
    accept: &str,
) -> anyhow::Result<(u16, String)> {
    tokio::time::timeout(patience, request(&address, path, accept))
        .await
        .with_context(|| format!("{address}{path}: no answer"))?
}

async fn request(
    address: &(impl ToSocketAddrs + Display),
    path: &str,
    accept: &str,
) -> anyhow::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    // With HTTP/1.0 the server closes the connection and sends no chunks.
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
