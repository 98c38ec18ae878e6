//! Shares out the file descriptors that this process may have open. Each connection takes one, and a process without a
//! spare one reaches neither its database nor the other nodes.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The usual limit, which is assumed if the limit cannot be read.
const USUAL: u64 = 1024;
/// The number of descriptors that are kept for what the node opens itself: etcd, Postgres, links to other nodes, files,
/// the runtime.
const OWN: usize = 64;
/// The part of the limit that is also kept for the node itself: one descriptor in this many, up to [`MOST_OWN`],
/// because larger nodes have more links. For example, a limit of 65,536 keeps 64 + 1,024.
const OWN_PART: usize = 32;
/// The most descriptors that [`OWN_PART`] keeps.
const MOST_OWN: usize = 1024;

/// The number of connections that each kind of listener may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// Connections of clients.
    pub clients: usize,
    /// Connections of other nodes.
    pub internal: usize,
    /// Connections of scrapers and probes.
    pub admin: usize,
}

impl Shares {
    /// Returns the shares of a node without clients: other nodes get the clients' share. Every gateway has a link to each
    /// chat node, and there may be thousands.
    pub fn without_clients(self) -> Self {
        Self {
            clients: 0,
            internal: self.internal + self.clients,
            ..self
        }
    }
}

/// Raises the process's limit of descriptors as far as the system allows. The low default is meant for programs that
/// use `select`, which a server does not.
pub fn raise() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the limit of file descriptors");
    }
}

/// Returns the shares of the present limit.
pub fn shares() -> Shares {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(USUAL, |(limit, _)| limit);
    share(usize::try_from(limit).unwrap_or(usize::MAX))
}

fn share(limit: usize) -> Shares {
    let admin = (limit / 16).clamp(8, 64);
    let internal = (limit / 8).clamp(16, 4096);
    let own = OWN + (limit / OWN_PART).min(MOST_OWN);
    Shares {
        clients: limit.saturating_sub(own + internal + admin).max(1),
        internal,
        admin,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_what_the_node_can_spare() {
        for (limit, clients, internal, admin) in [
            (300, 172, 37, 18),
            (1024, 736, 128, 64),
            (65_536, 60_288, 4096, 64),
            (1 << 20, 1_043_328, 4096, 64),
            (100, 9, 16, 8),
        ] {
            let shares = Shares {
                clients,
                internal,
                admin,
            };
            assert_eq!(share(limit), shares, "{limit}");
        }
    }

    #[test]
    fn other_nodes_get_the_share_of_clients_where_none_come() {
        let shares = share(65_536).without_clients();
        assert_eq!((shares.clients, shares.internal, shares.admin), (0, 64_384, 64));
    }
}
