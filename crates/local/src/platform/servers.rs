//! The servers that the nodes of a platform use.

use crate::{Etcd, Postgres, Shared};

/// The Postgres and the etcd of the platform.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one of a platform")]
pub(super) enum Servers {
    Private {
        /// The only server, or the coordinator of a Citus cluster.
        postgres: Postgres,
        /// The other nodes of the cluster.
        workers: Vec<Postgres>,
        etcd: Etcd,
    },
    Shared {
        shared: Shared,
        owns_database: bool,
    },
}

impl Servers {
    pub(super) fn etcd(&self) -> &str {
        match self {
            Self::Private { etcd, .. } => etcd.endpoint(),
            Self::Shared { shared, .. } => shared.etcd(),
        }
    }

    /// Returns the URLs of the database on all servers, with spaces between them. `first` is its URL on the
    /// first server.
    pub(super) fn database_urls(&self, first: &str) -> String {
        let mut urls = vec![first.to_owned()];
        if let (Self::Private { workers, .. }, Some((_, name))) = (self, first.rsplit_once('/')) {
            urls.extend(workers.iter().map(|worker| worker.url(name)));
        }
        urls.join(" ")
    }

    /// Returns whether the store is to be placed on a Citus cluster.
    pub(super) fn is_citus(&self) -> bool {
        match self {
            Self::Private { workers, .. } => !workers.is_empty(),
            Self::Shared { shared, .. } => shared.is_citus(),
        }
    }
}
