//! Starts the role: links, registry, the listener for clients, the service for nodes, and the drain.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tern_cluster::{Drain, NodeContext, Role};
use tern_identity::token::Verifier;
use tern_proto::internal::gateway_node_server::GatewayNodeServer;
use tern_transport::serve::Running;
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tracing::Instrument;

use crate::audience::Audience;
use crate::auth::Auth;
use crate::barred::{Barred, Streams};
use crate::call_limits::CallLimits;
use crate::chat_links::ChatLinks;
use crate::door::Door;
use crate::gateway::Gateway;
use crate::inbox_reader::InboxReader;
use crate::node_service::NodeService;
use crate::presence_links::PresenceLinks;
use crate::proxy::Proxy;
use crate::public::Public;
use crate::reconnect::CLOSE_PART;
use crate::registry::Registry;
use crate::traces::Traces;
use crate::watches::Watches;
use crate::{Config, door, metrics, reconnect, sweep};

/// The longest time that calls under way and last events may take after the last stream has ended.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Starts a gateway in this process: adds its internal service to `routes` and spawns its tasks. The returned future
/// ends when the gateway has drained.
///
/// # Errors
///
/// If the address cannot be bound or must not be served without TLS, or if a file cannot be read or holds no usable
/// key.
pub async fn start(
    config: Config,
    ctx: NodeContext,
    routes: &mut tonic::service::RoutesBuilder,
) -> anyhow::Result<Running> {
    start_bound(config, ctx, routes).await.map(|(running, _)| running)
}

/// Starts a gateway as [`start`] does. Returns also the address where clients are served, for a listener on port 0.
pub async fn start_bound(
    config: Config,
    ctx: NodeContext,
    routes: &mut tonic::service::RoutesBuilder,
) -> anyhow::Result<(Running, SocketAddr)> {
    metrics::describe();
    metrics::max_sessions(config.gateway_max_sessions);
    let verifier = Arc::new(verifier(&config.token_verify_files).await?);
    let registry = Arc::new(Registry::new(ctx.incarnation));
    let barred = Arc::<Barred>::default();
    let auth = Arc::new(Auth::new(ctx.clone(), verifier.clone(), barred.clone()));
    let audience = Audience::new(ctx.clone(), registry.clone());
    let gateway = gateway(&config, &ctx, registry.clone(), audience.clone(), verifier);
    check_sessions(&config, &gateway, &ctx.drain);
    routes.add_service(GatewayNodeServer::new(NodeService {
        registry: registry.clone(),
        presence: gateway.presence.clone(),
        watches: gateway.watches.clone(),
        audience,
        barred: barred.clone(),
    }));
    list_barred(barred, &gateway, &ctx);

    let linked = gateway.chats.clone();
    ctx.reached.links(Role::Gateway, move || linked.linked());
    let proxy = Arc::new(Proxy::new(ctx.clone(), auth, CallLimits::new(config.rates()))?);
    let public = Public::bind(&config, gateway.clone(), proxy).await?;
    let address = public.address()?;
    keep_door(&gateway, &ctx, public.health());
    let done = run(public, registry, ctx.drain.clone()).instrument(tracing::info_span!("gateway"));
    Ok((
        Running {
            name: "gateway",
            done: Box::pin(done),
        },
        address,
    ))
}

/// Makes what the streams share, and starts the links to the nodes of other roles.
fn gateway(
    config: &Config,
    ctx: &NodeContext,
    registry: Arc<Registry>,
    audience: Arc<Audience>,
    verifier: Arc<Verifier>,
) -> Arc<Gateway> {
    let spread = config.gateway_drain_spread;
    Arc::new(Gateway {
        settings: config.settings(),
        max_sessions: config.gateway_max_sessions,
        chats: ChatLinks::start(ctx, registry.clone(), audience, spread),
        presence: PresenceLinks::start(ctx, registry.clone(), spread),
        watches: Watches::start(ctx, registry.clone()),
        inboxes: InboxReader::start(ctx, registry.clone()),
        registry,
        verifier,
        watchdog: Arc::default(),
        traces: Traces::new(tern_telemetry::share()),
        drain: ctx.drain.clone(),
        door: Door::default(),
        shedding: ctx.shedding.clone(),
        send_queue: ctx.shedding.meter("send_queue"),
    })
}

/// Spawns the tasks that look over all sessions: the sweep, and the watchdog.
fn check_sessions(config: &Config, gateway: &Gateway, drain: &Drain) {
    let sweeping = sweep::run(
        gateway.registry.clone(),
        gateway.inboxes.clone(),
        config.gateway_sweep_interval,
        drain.clone(),
    );
    tokio::spawn(sweeping.instrument(tracing::info_span!("sweep")));
    let watching = gateway
        .watchdog
        .clone()
        .run(config.gateway_stalled_after, drain.clone());
    tokio::spawn(watching.instrument(tracing::info_span!("watchdog")));
}

/// Spawns the task that asks accounts who is barred, and ends the streams of those users and devices.
fn list_barred(barred: Arc<Barred>, gateway: &Gateway, ctx: &NodeContext) {
    let streams = Streams {
        registry: gateway.registry.clone(),
        presence: gateway.presence.clone(),
    };
    let listing = barred.run(ctx.clone(), streams, ctx.readiness.hold());
    tokio::spawn(listing.instrument(tracing::info_span!("barred")));
}

/// Spawns the task that lets devices in only while this gateway reaches the cluster, and that sends them elsewhere if
/// other gateways reach much more of it.
fn keep_door(gateway: &Gateway, ctx: &NodeContext, health: HealthReporter) {
    let (door, chats) = (gateway.door.clone(), gateway.chats.clone());
    let keeping = door::keep(door, ctx.clone(), chats, gateway.registry.clone(), health);
    tokio::spawn(keeping.instrument(tracing::info_span!("door")));
}

/// Makes the verifier of access tokens, with the keys in these PEM files.
async fn verifier(files: &[PathBuf]) -> anyhow::Result<Verifier> {
    let mut pems = Vec::with_capacity(files.len());
    for file in files {
        let pem = tokio::fs::read_to_string(file).await;
        pems.push(pem.with_context(|| format!("--token-verify-files {}", file.display()))?);
    }
    Verifier::from_pems(pems)
}

/// Serves clients until the drain is over, or the listener fails.
async fn run(public: Public, registry: Arc<Registry>, drain: Drain) {
    let (stop, health) = (CancellationToken::new(), public.health());
    let stopped = stop.clone().cancelled_owned();
    let mut server = tokio::spawn(public.serve(stopped).in_current_span());
    tokio::select! {
        served = &mut server => return tracing::error!(?served, "the listener failed"),
        () = drain.wait() => {}
    }
    health.set_service_status("", ServingStatus::NotServing).await;
    drain_sessions(&registry, drain.deadline()).await;
    stop.cancel();
    if tokio::time::timeout(LAST_WORDS, &mut server).await.is_err() {
        server.abort();
    }
}

/// Asks every device to reconnect, spread over the drain's time, and waits until all streams have ended or
/// were cut off. It stops waiting a tenth of the drain's time after the last stream should have been cut off.
async fn drain_sessions(registry: &Registry, deadline: Duration) {
    reconnect::ask(registry, deadline, "draining");
    if tokio::time::timeout(deadline.mul_f64(CLOSE_PART + 0.1), registry.until_empty())
        .await
        .is_err()
    {
        tracing::warn!(
            sessions = registry.len(),
            "streams were still open at the deadline"
        );
    }
}
