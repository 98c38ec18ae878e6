//! Keeps the addresses of the store: one of a plain Postgres, or several of a Citus cluster, where every
//! server answers every statement.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool};
use tokio::time::timeout;

/// The timeout of a probe. An answer or a new connection normally takes much less time; a store that is slower than
/// this serves nobody.
const PROBE_TIMEOUT: Duration = Duration::from_millis(1500);

/// The URLs of the database on one server or several, with the credentials. `Debug` does not show the passwords.
///
/// Connections are opened at the servers in turn. A server that does not answer is left out while another one
/// does. Clones share what is known of the servers.
#[derive(Clone)]
pub struct DatabaseUrl(Arc<Servers>);

struct Servers {
    servers: Vec<Server>,
    /// The place in `servers`, modulo their number, at which the search for the next server begins. It starts
    /// at a random place, so that not all nodes begin at the same server.
    turn: AtomicUsize,
    /// One function for each pool that opens its connections at the servers in turn.
    pools: Mutex<Vec<Turn>>,
}

/// A function that gives a pool the server for its next connections.
type Turn = Box<dyn Fn() + Send + Sync>;

struct Server {
    options: PgConnectOptions,
    /// True if the server did not answer the last probe.
    away: AtomicBool,
}

/// The connections by which the servers are probed, in the order of the servers.
#[derive(Debug, Default)]
pub(crate) struct Probes(Vec<Option<PgConnection>>);

impl DatabaseUrl {
    /// Returns the first server, which has to be the coordinator of a cluster.
    pub fn first(&self) -> PgConnectOptions {
        self.0.servers[0].options.clone()
    }

    /// Returns each server as a store of one server, in their order.
    pub fn each(&self) -> Vec<Self> {
        let servers = self.0.servers.iter();
        servers
            .map(|server| Self::of(vec![server.options.clone()]))
            .collect()
    }

    fn of(servers: Vec<PgConnectOptions>) -> Self {
        let server = |options| Server {
            options,
            away: AtomicBool::new(false),
        };
        Self(Arc::new(Servers {
            turn: AtomicUsize::new(rand::random_range(0..servers.len())),
            servers: servers.into_iter().map(server).collect(),
            pools: Mutex::default(),
        }))
    }

    /// Returns the server for the next connection: the next one in turn that answers, or the next one in turn
    /// if none does.
    pub fn in_turn(&self) -> PgConnectOptions {
        let Servers { servers, turn, .. } = &*self.0;
        let at = |offset: usize| &servers[(turn.load(Ordering::Relaxed) + offset) % servers.len()];
        let answers = (0..servers.len()).find(|offset| !at(*offset).away.load(Ordering::Relaxed));
        let offset = answers.unwrap_or(0);
        let options = at(offset).options.clone();
        turn.fetch_add(offset + 1, Ordering::Relaxed);
        options
    }

    /// Makes the pool open its connections at the servers in turn: after each probe it gets the options that
    /// `options` returns then. If there is only one server, it does nothing.
    pub(crate) fn spread(
        &self,
        pool: &PgPool,
        options: impl Fn() -> PgConnectOptions + Send + Sync + 'static,
    ) {
        if self.0.servers.len() == 1 {
            return;
        }
        let pool = pool.clone();
        let turn = Box::new(move || pool.set_connect_options(options()));
        self.pools().push(turn);
    }

    /// Asks all servers at the same time whether they answer, and returns whether one does. Then each pool
    /// gets the server for its next connections.
    pub(crate) async fn probe(
        &self,
        probes: &mut Probes,
        settings: impl Fn(PgConnectOptions) -> PgConnectOptions,
    ) -> bool {
        probes.0.resize_with(self.0.servers.len(), || None);
        let looks = self
            .0
            .servers
            .iter()
            .zip(&mut probes.0)
            .map(async |(server, connection)| {
                let options = settings(server.options.clone());
                let answers = timeout(PROBE_TIMEOUT, sign_of_life(&options, connection)).await;
                let answers = matches!(answers, Ok(Ok(())));
                if !answers {
                    *connection = None;
                }
                server.away.store(!answers, Ordering::Relaxed);
                answers
            });
        let answer = join_all(looks).await.contains(&true);
        for turn in self.pools().iter() {
            turn();
        }
        answer
    }

    fn pools(&self) -> MutexGuard<'_, Vec<Turn>> {
        self.0.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Pings Postgres on the connection, or opens the connection if there is none.
async fn sign_of_life(
    options: &PgConnectOptions,
    connection: &mut Option<PgConnection>,
) -> Result<(), sqlx::Error> {
    match connection {
        Some(connection) => connection.ping().await,
        None => {
            *connection = Some(options.connect().await?);
            Ok(())
        }
    }
}

impl FromStr for DatabaseUrl {
    type Err = sqlx::Error;

    fn from_str(urls: &str) -> Result<Self, sqlx::Error> {
        let servers: Vec<PgConnectOptions> = urls
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        if servers.is_empty() {
            return Err(sqlx::Error::Configuration("no URL".into()));
        }
        Ok(Self::of(servers))
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, server) in self.0.servers.iter().enumerate() {
            let options = &server.options;
            let space = if number == 0 { "" } else { " " };
            write!(
                f,
                "{space}{}:{}/{}",
                options.get_host(),
                options.get_port(),
                options.get_database().unwrap_or_default()
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(options: &PgConnectOptions) -> u16 {
        options.get_port()
    }

    #[test]
    fn connections_are_opened_at_the_servers_in_turn_and_not_where_nobody_answers() {
        let urls: DatabaseUrl = "postgres://a:1/t postgres://b:2/t\npostgres://c:3/t"
            .parse()
            .unwrap();
        assert_eq!(port(&urls.first()), 1);
        let each = urls.each();
        assert_eq!(
            each.iter().map(|one| port(&one.in_turn())).collect::<Vec<_>>(),
            [1, 2, 3]
        );
        let next = |count: usize| {
            let mut ports: Vec<u16> = (0..count).map(|_| port(&urls.in_turn())).collect();
            ports.sort_unstable();
            ports
        };
        assert_eq!(next(6), [1, 1, 2, 2, 3, 3]);
        urls.0.servers[1].away.store(true, Ordering::Relaxed);
        assert!(!next(9).contains(&2), "one does not answer");
        for server in &urls.0.servers {
            server.away.store(true, Ordering::Relaxed);
        }
        assert_eq!(next(3), [1, 2, 3], "all are tried if none answers");
    }

    #[tokio::test]
    async fn a_probe_finds_out_who_is_away_and_gives_pools_another_server() {
        // Nobody listens on port 1.
        let urls: DatabaseUrl = "postgres://tern@127.0.0.1:1/t postgres://tern@127.0.0.1:1/u"
            .parse()
            .unwrap();
        let pool = PgPool::connect_lazy_with(urls.first());
        let turns = Arc::new(AtomicUsize::new(0));
        let counted = turns.clone();
        let of = urls.clone();
        urls.spread(&pool, move || {
            counted.fetch_add(1, Ordering::Relaxed);
            of.in_turn()
        });
        let mut probes = Probes::default();
        assert!(!urls.probe(&mut probes, |options| options).await);
        assert!(
            urls.0
                .servers
                .iter()
                .all(|server| server.away.load(Ordering::Relaxed))
        );
        assert_eq!(turns.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn the_passwords_are_not_shown() {
        let urls: DatabaseUrl = "postgres://tern:secret@a:5/t postgres://tern:hidden@b:6/t"
            .parse()
            .unwrap();
        assert_eq!(format!("{urls:?}"), "a:5/t b:6/t");
        assert!("".parse::<DatabaseUrl>().is_err());
        assert!("postgres://a/t nonsense".parse::<DatabaseUrl>().is_err());
    }
}
