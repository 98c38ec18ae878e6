//! Processor time, told apart by server.

use serde::Serialize;

/// The servers whose processor time is told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    Gateway,
    Chat,
    Presence,
    Postgres,
    /// Accounts and media nodes, etcd, the object store.
    Others,
}

impl Server {
    /// All servers, in the order in which they are shown.
    pub const ALL: [Self; 5] = [
        Self::Gateway,
        Self::Chat,
        Self::Presence,
        Self::Postgres,
        Self::Others,
    ];

    /// Returns the server's name in tables. It is also the name of its processes in reports of `tern-dev bench`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Chat => "chat",
            Self::Presence => "presence",
            Self::Postgres => "postgres",
            Self::Others => "others",
        }
    }

    /// Returns the server whose processes have this name in a report.
    pub fn named(name: &str) -> Self {
        let mut all = Self::ALL.into_iter();
        all.find(|server| server.name() == name).unwrap_or(Self::Others)
    }
}

/// The processor time that each server spends on one thing, such as a message, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Costs {
    pub gateway: f64,
    pub chat: f64,
    pub presence: f64,
    pub postgres: f64,
    pub others: f64,
}

impl Costs {
    /// Makes the costs by asking `cost` for each server.
    pub fn by(cost: impl Fn(Server) -> f64) -> Self {
        Self {
            gateway: cost(Server::Gateway),
            chat: cost(Server::Chat),
            presence: cost(Server::Presence),
            postgres: cost(Server::Postgres),
            others: cost(Server::Others),
        }
    }

    /// Returns the cost of one server.
    pub fn of(&self, server: Server) -> f64 {
        match server {
            Server::Gateway => self.gateway,
            Server::Chat => self.chat,
            Server::Presence => self.presence,
            Server::Postgres => self.postgres,
            Server::Others => self.others,
        }
    }

    /// Returns the cost of all servers together.
    pub fn total(&self) -> f64 {
        Server::ALL.into_iter().map(|server| self.of(server)).sum()
    }
}
