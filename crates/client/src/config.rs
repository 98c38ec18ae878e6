//! How a client is set up.

use std::path::PathBuf;

use crate::model::Credentials;

/// Sends without a result that one chat may have: with one, the order of writing is the order of the log,
/// whatever fails in between.
pub const SENDS_PER_CHAT: usize = 1;

/// Whom to trust.
#[derive(Debug, Clone, Default)]
pub enum Tls {
    /// Certificates signed by one of these authorities (PEM).
    Roots(String),
    /// Certificates signed by an authority that this machine trusts.
    #[default]
    System,
}

/// Where the device keeps its state.
#[derive(Debug, Clone)]
pub enum StoreLocation {
    /// One SQLite file a device; nobody else may have it open.
    File(PathBuf),
    /// Forgotten with the client: for load generation and tests.
    Memory,
}

/// What [`crate::Client::start`] needs.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// `https://host:port` or `http://host:port`, tried in turn from the first one on.
    pub gateways: Vec<String>,
    pub tls: Tls,
    pub store: StoreLocation,
    /// From linking the device. Needed for the first start only; later the store has newer ones.
    pub credentials: Option<Credentials>,
    /// Name and version for the operators' statistics: "acme-cli/4.2".
    pub client_version: String,
    /// True when a person looks at the app from the start.
    pub active: bool,
    /// Whether entries are kept, so that history survives a restart.
    pub keep_history: bool,
    /// See [`SENDS_PER_CHAT`]. More are faster, and may be reordered when a node fails.
    pub sends_per_chat: usize,
}

impl ClientConfig {
    pub fn new(gateways: Vec<String>, store: StoreLocation) -> Self {
        Self {
            gateways,
            tls: Tls::default(),
            store,
            credentials: None,
            client_version: concat!("tern-rust/", env!("CARGO_PKG_VERSION")).to_owned(),
            active: true,
            keep_history: true,
            sends_per_chat: SENDS_PER_CHAT,
        }
    }

    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = tls;
        self
    }

    #[must_use]
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = Some(credentials);
        self
    }
}
