//! Runs the push services of Apple, Google and a browser's vendor on 127.0.0.1, for development and tests. They are
//! written from the providers' documentation, they check what they are sent as the real ones do, and a test can make
//! them fail. They run in this process, and end with [`PushServers`].
//!
//! - [`record`]: what a service has been sent, and how it is to answer
//! - [`apns`], [`fcm`], [`web_push`]: the services
//! - [`server`]: listens with HTTP/2, with or without TLS, and makes connections fail
//! - [`jwt`]: verifies the tokens by which a push node says who it is

mod apns;
mod fcm;
mod jwt;
mod record;
mod server;
mod web_push;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::KeyPair;
use sha2::{Digest as _, Sha256};
use tern_types::{ChatId, DeviceId};
use tokio_rustls::rustls::ServerConfig;

pub use apns::Apns;
pub use fcm::Fcm;
pub use record::{Answer, Provider, Received, Record};
pub use web_push::{Subscription, WebPush};

use crate::authority::Authority;
use crate::secrets;

/// The bundle id and the package name of the app for which the services accept pushes.
pub const APP: &str = "com.example.chat";
/// The team whose key signs the tokens for Apple.
pub const TEAM_ID: &str = "ABCDE12345";
/// The id of that key.
pub const KEY_ID: &str = "ABC123DEFG";

/// The three push services, with the settings file that makes a push node use them.
#[derive(Debug)]
pub struct PushServers {
    /// Apple's service, with its sandbox.
    pub apns: Apns,
    /// Google's service, which also gives out the access tokens for it.
    pub fcm: Fcm,
    /// A browser vendor's service.
    pub web_push: WebPush,
    apps_file: PathBuf,
}

impl PushServers {
    /// Starts the services on free ports. Makes new keys for them, and writes into `dir` the keys, the certificate that
    /// signed the services', and `apps.json`, which names all of them. The keys replace those of an earlier start.
    pub async fn start(dir: &Path) -> anyhow::Result<Self> {
        secrets::private_dir(dir)?;
        let dir = dir.canonicalize()?;
        let authority = Authority::new("Tern push services of development")?;
        let certificate = authority.sign(&["127.0.0.1", "localhost"])?;
        let (apns_key, vapid_key) = (KeyPair::generate()?, KeyPair::generate()?);
        secrets::write(&dir.join("ca.pem"), authority.pem())?;
        secrets::write(&dir.join("apns.p8"), &apns_key.serialize_pem())?;
        secrets::write(&dir.join("vapid.pem"), &vapid_key.serialize_pem())?;
        let tls = |protocols: &[&str]| server::tls(&certificate, protocols);
        // Apple speaks nothing but HTTP/2.
        let apns = Apns::start(apns_key.public_key_raw(), tls(&["h2"])?).await?;
        let fcm = Fcm::start(tls(&["h2", "http/1.1"])?).await?;
        let web_push = WebPush::start(vapid_key.public_key_raw()).await?;
        secrets::write(&dir.join("fcm.json"), &fcm.service_account().to_string())?;
        let apps = serde_json::json!({
            "apns": [{
                "bundle_id": APP,
                "team_id": TEAM_ID,
                "key_id": KEY_ID,
                "key_file": "apns.p8",
                "url": apns.url(),
                "sandbox_url": apns.sandbox_url(),
            }],
            "fcm": [{ "app": APP, "service_account_file": "fcm.json", "url": fcm.url() }],
            "web_push": {
                "key_file": "vapid.pem",
                "subject": "mailto:development@example.com",
                "allow_private": true,
            },
            "ca_file": "ca.pem",
        });
        let apps_file = dir.join("apps.json");
        secrets::write(&apps_file, &format!("{apps:#}\n"))?;
        Ok(Self {
            apns,
            fcm,
            web_push,
            apps_file,
        })
    }

    /// Returns the path of the settings file (`--push-apps`).
    pub fn apps_file(&self) -> &Path {
        &self.apps_file
    }

    /// Returns the records of all three services.
    pub fn records(&self) -> [&Arc<Record>; 3] {
        [self.apns.record(), self.fcm.record(), self.web_push.record()]
    }
}

/// Returns the tag of a chat on a device, as `push.proto` tells: unpadded base64url of the first 16 bytes of
/// SHA-256("tern push tag" || device || chat). Tests compare it with what arrives.
pub fn tag(device: DeviceId, chat: ChatId) -> String {
    let mut hash = Sha256::new();
    hash.update(b"tern push tag");
    hash.update(device.as_bytes());
    hash.update(chat.as_bytes());
    URL_SAFE_NO_PAD.encode(&hash.finalize()[..16])
}

/// The TLS settings of a service. `None` stands for plain text.
type Tls = Option<Arc<ServerConfig>>;
