//! The roles of nodes.

/// The role of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Holds the clients' streams.
    Gateway,
    /// Owns chats.
    Chat,
    /// Knows who is online.
    Presence,
    /// Has users, devices and tokens.
    Accounts,
    /// Signs uploads and downloads.
    Media,
    /// Wakes devices that have no stream.
    Push,
}

impl Role {
    /// Returns the role's name in `tern serve` and in the map.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Chat => "chat",
            Self::Presence => "presence",
            Self::Accounts => "accounts",
            Self::Media => "media",
            Self::Push => "push",
        }
    }

    /// Returns the node's name, such as `chat-0`.
    pub fn node_name(self, number: usize) -> String {
        format!("{}-{number}", self.as_str())
    }
}
