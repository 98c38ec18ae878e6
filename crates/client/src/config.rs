//! The settings of a client.

use std::path::PathBuf;

use tern_client_core::model::Credentials;

use crate::search_text::SearchText;

/// The default number of sends of one chat that may be without a result at a time. With one, messages enter the log in
/// the order in which they were written, whatever fails in between.
pub const SENDS_PER_CHAT: usize = 1;

/// The certificate authorities that the client trusts.
#[derive(Debug, Clone, Default)]
pub enum Tls {
    /// Certificates signed by one of these authorities (PEM). For the object store, those that this machine
    /// trusts count too, because it is often a public service.
    Roots(String),
    /// Certificates signed by an authority that this machine trusts.
    #[default]
    System,
}

/// The place where the device keeps its state.
#[derive(Debug, Clone)]
pub enum StoreLocation {
    /// One SQLite file per device. Only one program at a time may have it open.
    File(PathBuf),
    /// The memory of this process, for load generators and tests. The state is lost with the client.
    Memory,
}

/// The settings that [`crate::Client::start`] takes.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// The gateways' addresses, `https://host:port` or `http://host:port`. The client tries them in this order, round
    /// and round.
    pub gateways: Vec<String>,
    /// The certificate authorities that the client trusts.
    pub tls: Tls,
    /// The place where the device keeps its state.
    pub store: StoreLocation,
    /// The credentials from linking the device. Only the first start needs them; later the store has newer ones.
    pub credentials: Option<Credentials>,
    /// The app's name and version for the operators' statistics, such as "acme-cli/4.2".
    pub client_version: String,
    /// True if a person looks at the app from the start.
    pub active: bool,
    /// True if entries are stored. Without them, [`crate::Client::history`] finds nothing, what was unread at
    /// the last stop counts as unread after the next start until all of it is read, and own messages are not
    /// sent again to a server's store that was restored from a backup.
    pub keep_history: bool,
    /// The texts by which [`crate::Client::search`] finds messages. Without history it finds nothing.
    pub search: SearchText,
    /// The number of sends of one chat that may be without a result at a time (see [`SENDS_PER_CHAT`]). With more than
    /// one, sending is faster, and messages may change places when a node fails.
    pub sends_per_chat: usize,
}

impl ClientConfig {
    /// Returns the default settings: system certificates, active, history kept, no credentials.
    pub fn new(gateways: Vec<String>, store: StoreLocation) -> Self {
        Self {
            gateways,
            tls: Tls::default(),
            store,
            credentials: None,
            client_version: concat!("tern-rust/", env!("CARGO_PKG_VERSION")).to_owned(),
            active: true,
            keep_history: true,
            search: SearchText::default(),
            sends_per_chat: SENDS_PER_CHAT,
        }
    }

    /// Sets the trusted certificate authorities.
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = tls;
        self
    }

    /// Sets the credentials for the first start.
    #[must_use]
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = Some(credentials);
        self
    }
}
