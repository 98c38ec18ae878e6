//! Reads the file of the flag `--push-apps`: which apps pushes are sent for, and with which keys.

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use jsonwebtoken::EncodingKey;
use reqwest::Url;
use rustls::pki_types::CertificateDer;
use serde::Deserialize;
use tern_transport::tls;

use crate::jwt::{self, EcKey};

/// The address of Apple's push service.
const APNS: &str = "https://api.push.apple.com";
/// The address of Apple's push service for builds that were signed for development.
const APNS_SANDBOX: &str = "https://api.sandbox.push.apple.com";
/// The address of Firebase Cloud Messaging.
const FCM: &str = "https://fcm.googleapis.com";
/// The text of alerts on Apple's platforms if the file names none.
const TEXT: &str = "New message";
/// The most bytes of that text: it has to fit into a payload of 4,096 bytes with all that is beside it.
const MAX_TEXT: usize = 200;
/// The most bytes of a bundle id, which is Apple's limit. Package names are no longer than 255.
const MAX_APP: usize = 255;

/// The apps for which pushes are sent, with their keys. `Debug` shows no key.
#[derive(Debug, Clone, Default)]
pub struct Apps {
    /// The apps of Apple's platforms.
    pub(crate) apns: Vec<ApnsApp>,
    /// The apps of Firebase Cloud Messaging.
    pub(crate) fcm: Vec<FcmApp>,
    /// The keys of Web Push. `None`: there is no Web Push.
    pub(crate) web_push: Option<WebPushApp>,
    /// The relay to which pushes of other apps go.
    pub(crate) relay: Option<RelayApp>,
    /// True if Apple's alerts say in clear text who sent something.
    pub(crate) templates: bool,
    /// The URL of the proxy through which Apple and Google are called.
    pub(crate) proxy: Option<Secret>,
    /// The certificates that are trusted beside the system's.
    pub(crate) roots: Vec<CertificateDer<'static>>,
}

/// An app of Apple's platforms.
#[derive(Debug, Clone)]
pub(crate) struct ApnsApp {
    pub bundle_id: String,
    pub team_id: String,
    pub key_id: String,
    pub key: EcKey,
    /// The text that an alert shows.
    pub text: String,
    pub url: String,
    pub sandbox_url: String,
}

/// An app of Firebase Cloud Messaging.
#[derive(Debug, Clone)]
pub(crate) struct FcmApp {
    pub app: String,
    pub account: ServiceAccount,
    pub url: String,
}

/// A service account of Google.
#[derive(Debug, Clone)]
pub(crate) struct ServiceAccount {
    pub project_id: String,
    pub email: String,
    pub key_id: Option<String>,
    pub key: EncodingKey,
    /// The URL that gives out access tokens.
    pub token_url: String,
}

/// The settings of Web Push.
#[derive(Debug, Clone)]
pub(crate) struct WebPushApp {
    pub key: EcKey,
    /// The URL, mailto or https, at which a push service may ask about this server.
    pub subject: String,
    /// True if endpoints may be http and at private addresses, for development.
    pub allow_private: bool,
    /// The URL of the proxy through which Web Push services are called. It has to refuse private addresses.
    pub proxy: Option<Secret>,
}

/// A relay of pushes.
#[derive(Debug, Clone)]
pub(crate) struct RelayApp {
    pub url: String,
    pub key: Secret,
}

/// A text that `Debug` does not show.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    apns: Vec<ApnsEntry>,
    #[serde(default)]
    fcm: Vec<FcmEntry>,
    web_push: Option<WebPushEntry>,
    relay: Option<RelayEntry>,
    #[serde(default)]
    templates: bool,
    proxy: Option<String>,
    ca_file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ApnsEntry {
    bundle_id: String,
    team_id: String,
    key_id: String,
    key_file: PathBuf,
    text: Option<String>,
    url: Option<String>,
    sandbox_url: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FcmEntry {
    app: String,
    service_account_file: PathBuf,
    url: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WebPushEntry {
    key_file: PathBuf,
    subject: String,
    #[serde(default)]
    allow_private: bool,
    proxy: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RelayEntry {
    url: String,
    key_file: PathBuf,
}

/// The fields of Google's file that are needed. It has others too.
#[derive(Deserialize)]
struct AccountFile {
    project_id: String,
    client_email: String,
    private_key_id: Option<String>,
    private_key: String,
    token_uri: String,
}

impl Apps {
    /// Reads the file at `path` and the files that it names, whose relative paths begin at its directory.
    ///
    /// # Errors
    ///
    /// Fails with the names of file and field if a file cannot be read, a field is unknown, missing or of no use, or
    /// two entries are for the same app.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let dir = path.parent().unwrap_or(Path::new(""));
        let name = || path.display().to_string();
        let text = std::fs::read(path).with_context(name)?;
        let file: File = serde_json::from_slice(&text).with_context(name)?;
        Self::checked(file, dir).with_context(name)
    }

    fn checked(file: File, dir: &Path) -> anyhow::Result<Self> {
        let (mut apns, mut fcm) = (Vec::new(), Vec::new());
        for (at, entry) in file.apns.into_iter().enumerate() {
            apns.push(entry.checked(dir).with_context(|| format!("apns[{at}]"))?);
        }
        for (at, entry) in file.fcm.into_iter().enumerate() {
            fcm.push(entry.checked(dir).with_context(|| format!("fcm[{at}]"))?);
        }
        once("apns", apns.iter().map(|app| app.bundle_id.as_str()))?;
        once("fcm", fcm.iter().map(|app| app.app.as_str()))?;
        let web_push = file.web_push.map(|entry| entry.checked(dir));
        let relay = file.relay.map(|entry| entry.checked(dir));
        let roots = file
            .ca_file
            .map(|path| content(dir, &path).and_then(|pem| tls::certificates(&pem)));
        Ok(Self {
            apns,
            fcm,
            web_push: web_push.transpose().context("web_push")?,
            relay: relay.transpose().context("relay")?,
            templates: file.templates,
            proxy: file.proxy.map(proxy).transpose()?,
            roots: roots.transpose().context("ca_file")?.unwrap_or_default(),
        })
    }
}

impl ApnsEntry {
    fn checked(self, dir: &Path) -> anyhow::Result<ApnsApp> {
        named("bundle_id", &self.bundle_id)?;
        named("team_id", &self.team_id)?;
        named("key_id", &self.key_id)?;
        let text = self.text.unwrap_or_else(|| TEXT.to_owned());
        ensure!(
            !text.is_empty() && text.len() <= MAX_TEXT,
            "text: it must have 1 to {MAX_TEXT} bytes"
        );
        let key = content(dir, &self.key_file).and_then(|pem| EcKey::from_pem(&pem));
        Ok(ApnsApp {
            bundle_id: self.bundle_id,
            team_id: self.team_id,
            key_id: self.key_id,
            key: key.context("key_file")?,
            text,
            url: base("url", self.url.as_deref().unwrap_or(APNS))?,
            sandbox_url: base("sandbox_url", self.sandbox_url.as_deref().unwrap_or(APNS_SANDBOX))?,
        })
    }
}

impl FcmEntry {
    fn checked(self, dir: &Path) -> anyhow::Result<FcmApp> {
        named("app", &self.app)?;
        let account = content(dir, &self.service_account_file).and_then(|text| account(&text));
        Ok(FcmApp {
            app: self.app,
            account: account.context("service_account_file")?,
            url: base("url", self.url.as_deref().unwrap_or(FCM))?,
        })
    }
}

impl WebPushEntry {
    fn checked(self, dir: &Path) -> anyhow::Result<WebPushApp> {
        let key = content(dir, &self.key_file).and_then(|pem| EcKey::from_pem(&pem));
        ensure!(
            self.subject.starts_with("mailto:") || self.subject.starts_with("https:"),
            "subject: it must begin with mailto: or https:"
        );
        Ok(WebPushApp {
            key: key.context("key_file")?,
            subject: self.subject,
            allow_private: self.allow_private,
            proxy: self.proxy.map(proxy).transpose()?,
        })
    }
}

impl RelayEntry {
    fn checked(self, dir: &Path) -> anyhow::Result<RelayApp> {
        let key = content(dir, &self.key_file).context("key_file")?;
        let key = String::from_utf8(key).ok().map(|key| key.trim().to_owned());
        let visible = |key: &String| !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic());
        let key = key
            .filter(visible)
            .context("key_file: it must have one line of visible ASCII")?;
        Ok(RelayApp {
            url: base("url", &self.url)?,
            key: Secret(key),
        })
    }
}

/// Reads Google's file of a service account. Fails with the field's name, and never shows the key.
fn account(text: &[u8]) -> anyhow::Result<ServiceAccount> {
    let file: AccountFile = serde_json::from_slice(text)?;
    let project = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b':');
    ensure!(
        !file.project_id.is_empty() && file.project_id.bytes().all(project),
        "project_id: it is no project's id"
    );
    let key = jwt::rsa_key(file.private_key.as_bytes()).context("private_key")?;
    checked_url(&file.token_uri).with_context(|| format!("token_uri {}", file.token_uri))?;
    Ok(ServiceAccount {
        project_id: file.project_id,
        email: file.client_email,
        key_id: file.private_key_id,
        key,
        token_url: file.token_uri,
    })
}

/// Fails if a name is there twice.
fn once<'a>(of: &str, names: impl Iterator<Item = &'a str>) -> anyhow::Result<()> {
    let mut seen = HashSet::new();
    for name in names {
        ensure!(seen.insert(name), "{of}: {name} is there twice");
    }
    Ok(())
}

fn content(dir: &Path, path: &Path) -> anyhow::Result<Vec<u8>> {
    let path = dir.join(path);
    std::fs::read(&path).with_context(|| path.display().to_string())
}

fn named(field: &str, text: &str) -> anyhow::Result<()> {
    let fits = text.bytes().all(|byte| byte.is_ascii_graphic());
    ensure!(
        fits && (1..=MAX_APP).contains(&text.len()),
        "{field}: it must have 1 to {MAX_APP} characters of visible ASCII"
    );
    Ok(())
}

/// Checks the address of a service, and returns it without the slash at its end.
fn base(field: &str, url: &str) -> anyhow::Result<String> {
    checked_url(url).with_context(|| format!("{field} {url}"))?;
    Ok(url.trim_end_matches('/').to_owned())
}

/// Checks the URL of a proxy. Its user and password may be in it, so the error does not show it.
fn proxy(url: String) -> anyhow::Result<Secret> {
    let known = Url::parse(&url).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    ensure!(known, "proxy: it must begin with http:// or https://");
    Ok(Secret(url))
}

/// Checks a URL to which keys are shown: it must be https, or http at this machine, which development uses.
fn checked_url(url: &str) -> anyhow::Result<()> {
    let url = Url::parse(url)?;
    let host = url.host_str().unwrap_or_default();
    let address: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
    let here = host == "localhost" || address.is_some_and(|address| address.is_loopback());
    ensure!(
        url.scheme() == "https" || (url.scheme() == "http" && here),
        "it must begin with https://"
    );
    let plain = url.username().is_empty() && url.password().is_none();
    ensure!(
        plain && url.query().is_none() && url.fragment().is_none(),
        "it must have no user, no query and no fragment"
    );
    Ok(())
}

#[cfg(test)]
mod tests;
