//! `tern serve`: runs a node with one or several roles, from its start to the end of its drain.
//!
//! ```text
//! listen -> map (etcd) -> roles start -> serve -> register -> ready …
//! drain: flag in etcd -> roles finish -> leave the map -> end
//! ```

mod args;
mod roles;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tern_cluster::config::{NodeArgs, Profile, Switch};
use tern_cluster::etcd::{Cluster, Peers, Registration};
use tern_cluster::info::Info;
use tern_cluster::links::RetryWaits;
use tern_cluster::shedding::Shedding;
use tern_cluster::wellness::{self, Reached};
use tern_cluster::{Drain, Node, NodeContext, Role};
use tern_store::postgres::{self, PostgresArgs};
use tern_store::schema;
use tern_transport::admin::Readiness;
use tern_transport::channels::Channels;
use tern_transport::internal_tls::InternalTls;
use tern_transport::serve::{Extras, Running};
use tern_transport::{admin, descriptors, serve};
use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinSet};
use tokio_util::task::AbortOnDropHandle;
use tonic::service::RoutesBuilder;
use tracing::Instrument;

pub use args::ServeArgs;

/// The time for which the drain waits for etcd to store this node's draining flag. After that it goes on without it.
const FLAG_TIMEOUT: Duration = Duration::from_secs(3);

/// The time after the drain's deadline in which roles that were cut off may still log that they were, and in
/// which the node leaves the map. After this time [`run`] returns an error.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Runs the node until it has drained.
///
/// # Errors
///
/// Returns an error if the node could not start, if a role or the internal server ended or failed by itself, or if
/// the drain took longer than its deadline plus [`LAST_WORDS`].
pub async fn run(args: ServeArgs) -> anyhow::Result<()> {
    let _telemetry = tern_telemetry::init(&args.node.telemetry, &args.node.node_name)?;
    let metrics = tern_telemetry::recorder()?;
    tern_cluster::metrics::describe();
    tern_transport::metrics::describe();
    tern_store::metrics::describe();
    descriptors::raise();
    let drain = Drain::new(args.node.drain_timeout);
    drain.on_signals()?;
    let readiness = Readiness::default();
    let listener = listen(args.node.admin_listen, "--admin-listen").await?;
    let admin = listener.local_addr()?;
    let probes = AbortOnDropHandle::new(tokio::spawn(admin::serve(listener, metrics, readiness.clone())));
    let span = tracing::info_span!("node", name = args.node.node_name);
    let outcome = tokio::select! {
        outcome = node(args, admin, drain.clone(), readiness).instrument(span) => outcome,
        () = overdue(&drain) => Err(anyhow::anyhow!("the drain was not over in time")),
    };
    drop(probes);
    outcome
}

/// Waits until a drain has started and has taken longer than its deadline plus [`LAST_WORDS`].
async fn overdue(drain: &Drain) {
    drain.wait().await;
    tokio::time::sleep(drain.deadline() + LAST_WORDS).await;
}

/// Starts the node, waits until it has to stop, and drains it.
async fn node(args: ServeArgs, admin: SocketAddr, drain: Drain, readiness: Readiness) -> anyhow::Result<()> {
    let mut started = tokio::select! {
        started = start(args, admin, &drain, &readiness) => started?,
        () = drain.wait() => return Ok(()),
    };
    readiness.set(true);
    let failure = started.until_drain(&drain).await;
    readiness.set(false);
    drain.start();
    let Started {
        registration,
        mut roles,
        server,
        cluster,
        watching,
    } = started;
    if tokio::time::timeout(FLAG_TIMEOUT, registration.drain())
        .await
        .is_err()
    {
        tracing::warn!("draining without a flag in etcd: it does not answer");
    }
    while let Some(ended) = roles.join_next().await {
        tracing::info!(role = ended.unwrap_or("one that panicked"), "role has drained");
    }
    registration.leave().await;
    drain.end();
    drop((server, cluster, watching));
    tracing::info!("node has drained");
    failure.map_or(Ok(()), Err)
}

/// A node that has registered and takes work. Dropping this value ends the node at once, without a drain.
struct Started {
    registration: Arc<Registration>,
    /// One task per role. It returns the role's name when the role has drained.
    roles: JoinSet<&'static str>,
    /// The task of the internal gRPC server.
    server: AbortOnDropHandle<anyhow::Result<()>>,
    /// The connection to etcd, which keeps the node's map up to date.
    cluster: Cluster,
    /// The tasks that check whether this node reaches Postgres and the nodes that it works with.
    watching: JoinSet<()>,
}

impl Started {
    /// Waits until the node has to stop. Returns the fault that stops it, or `None` if a drain was started.
    async fn until_drain(&mut self, drain: &Drain) -> Option<anyhow::Error> {
        let fault = tokio::select! {
            () = drain.wait() => return None,
            Some(ended) = self.roles.join_next() => match ended {
                Ok(name) => anyhow::anyhow!("the role {name} ended by itself"),
                Err(error) => anyhow::Error::new(error).context("a role failed"),
            },
            served = &mut self.server => server_fault(served),
        };
        // A role may end by itself in the moment that the drain starts.
        (!drain.started()).then_some(fault)
    }
}

/// Returns the fault of an internal server whose task has ended although nothing told it to.
fn server_fault(served: Result<anyhow::Result<()>, JoinError>) -> anyhow::Error {
    let error = match served {
        Ok(Ok(())) => return anyhow::anyhow!("the internal server ended by itself"),
        Ok(Err(error)) => error,
        Err(error) => error.into(),
    };
    error.context("the internal server failed")
}

/// Starts the node's internal server and its roles, and registers the node. Waits for Postgres and etcd if they do not
/// answer.
async fn start(
    args: ServeArgs,
    admin: SocketAddr,
    drain: &Drain,
    readiness: &Readiness,
) -> anyhow::Result<Started> {
    args.node.check_internal_listener()?;
    let listener = listen(args.node.internal_listen, "--internal-listen").await?;
    let address = advertised(&args.node, listener.local_addr()?)?;
    let need_postgres = args.roles.need_postgres();
    if need_postgres {
        check_postgres(&args.postgres, args.node.profile).await?;
    }
    let tls = InternalTls::load(&args.node.internal_tls).await?;
    let channels = Channels::new(tls.clone());
    let peers = Peers::new(channels.clone(), &address);
    let cluster = Cluster::connect_among(&args.node.etcd, Some(peers)).await?;
    let ctx = context(&args.node, &cluster, channels, drain, readiness);
    let mut watching = JoinSet::new();
    if need_postgres {
        let reached = ctx.reached.clone();
        let probing = postgres::probe(args.postgres, move |answers| reached.store(answers));
        watching.spawn(probing.in_current_span());
    }
    let names = args.roles.names();
    let mut routes = RoutesBuilder::default();
    let running = args.roles.start(&ctx, &mut routes).await?;
    routes.add_service(Info::service(
        ctx.clone(),
        cluster.records(),
        env!("CARGO_PKG_VERSION"),
    ));
    let extras = extras(args.node.reflection, &names);
    let ended = drain.clone();
    let shutdown = async move { ended.ended().await };
    let served = serve::internal(
        listener,
        tls,
        routes.routes(),
        extras,
        readiness.clone(),
        shutdown,
    );
    let server = AbortOnDropHandle::new(tokio::spawn(served));
    let node = entry(&ctx, &address, admin);
    let nodes = names.iter().map(|role| (*role, node.clone())).collect();
    let registration = Arc::new(cluster.register(nodes, drain.clone()).await);
    let incarnation = ctx.incarnation;
    watching.spawn(wellness::watch(ctx, names.clone(), registration.clone()).in_current_span());
    tracing::info!(roles = ?names, address, incarnation, "node is up");
    Ok(Started {
        registration,
        roles: spawn(running),
        server,
        cluster,
        watching,
    })
}

/// Returns what the internal server of a node with these roles serves and bears besides the roles' services.
fn extras(reflection: bool, names: &[Role]) -> Extras {
    let mut extras = Extras {
        reflection,
        ..Extras::default()
    };
    if !names.contains(&Role::Gateway) {
        extras.bounds.connections = descriptors::shares().without_clients().internal;
    }
    extras
}

/// Makes the context that all roles of the node share.
fn context(
    args: &NodeArgs,
    cluster: &Cluster,
    channels: Channels,
    drain: &Drain,
    readiness: &Readiness,
) -> NodeContext {
    let name: Arc<str> = args.node_name.as_str().into();
    NodeContext {
        incarnation: cluster.incarnation(&name),
        name,
        map: cluster.map(),
        channels,
        drain: drain.clone(),
        shedding: Shedding::start(args.shedding == Switch::On, drain.clone()),
        standing: cluster.standing(),
        reached: Reached::default(),
        obituaries: cluster.obituaries(),
        readiness: readiness.clone(),
    }
}

/// Returns the node's entry in the map, which each of its roles has.
fn entry(ctx: &NodeContext, address: &str, admin: SocketAddr) -> Node {
    Node {
        name: ctx.name.to_string(),
        address: address.to_owned(),
        admin: admin_address(admin, address),
        incarnation: ctx.incarnation,
        knows_own_logs: true,
        ..Node::default()
    }
}

/// Makes a task for each role, which returns the role's name when the role has drained.
fn spawn(running: Vec<Running>) -> JoinSet<&'static str> {
    let mut roles = JoinSet::new();
    for Running { name, done } in running {
        roles.spawn(
            async move {
                done.await;
                name
            }
            .in_current_span(),
        );
    }
    roles
}

async fn listen(address: SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} ({flag})"))
}

/// Returns the address (`host:port`) that other nodes connect to: `--internal-advertise`, or else the listener's own
/// address. Fails if the listener is bound to every address and no address to advertise is given.
fn advertised(args: &NodeArgs, listening: SocketAddr) -> anyhow::Result<String> {
    if let Some(address) = &args.internal_advertise {
        return Ok(address.clone());
    }
    let every = listening.ip().is_unspecified();
    anyhow::ensure!(
        !every,
        "listening on every address, --internal-advertise has to say which one others use"
    );
    Ok(listening.to_string())
}

/// Returns the `host:port` under which others reach the metrics. If the listener is bound to every address, the host
/// is taken from `advertised`, the node's gRPC address.
fn admin_address(listening: SocketAddr, advertised: &str) -> String {
    match advertised.rsplit_once(':') {
        Some((host, _)) if listening.ip().is_unspecified() => format!("{host}:{}", listening.port()),
        _ => listening.to_string(),
    }
}

/// Waits for Postgres, however long that takes. Then checks that the durability settings of each of its servers suit the
/// profile and that the schema is up to date.
async fn check_postgres(args: &PostgresArgs, profile: Profile) -> anyhow::Result<()> {
    let mut waits = RetryWaits::default();
    let pool = loop {
        match postgres::pool(args).await {
            Ok(pool) => break pool,
            Err(error) => tracing::warn!(error = format!("{error:#}"), "postgres does not answer"),
        }
        tokio::time::sleep(waits.next(Duration::ZERO)).await;
    };
    postgres::enforce_durability(args, profile == Profile::Production).await?;
    schema::require(&pool).await?;
    pool.close().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_that_panicked_is_said_to_have_failed() {
        let panics: tokio::task::JoinHandle<anyhow::Result<()>> =
            tokio::spawn(async { panic!("by the test") });
        let fault = format!("{:#}", server_fault(panics.await));
        assert!(
            fault.starts_with("the internal server failed") && fault.contains("panicked"),
            "{fault}"
        );
        let ended = server_fault(Ok(Ok(())));
        assert_eq!(ended.to_string(), "the internal server ended by itself");
    }

    #[test]
    fn a_node_without_clients_takes_more_connections_of_other_nodes() {
        let connections = |roles: &[Role]| extras(false, roles).bounds.connections;
        let shares = descriptors::shares();
        assert_eq!(connections(&[Role::Chat, Role::Gateway]), shares.internal);
        assert_eq!(connections(&[Role::Chat]), shares.internal + shares.clients);
    }

    #[test]
    fn the_metrics_are_where_the_node_is() {
        let address = |listening: &str, advertised| admin_address(listening.parse().unwrap(), advertised);
        assert_eq!(address("127.0.0.1:9090", "10.0.0.1:7000"), "127.0.0.1:9090");
        assert_eq!(address("0.0.0.0:9090", "chat-0.chat:7000"), "chat-0.chat:9090");
        assert_eq!(address("[::]:9090", "[fd00::1]:7000"), "[fd00::1]:9090");
    }
}
