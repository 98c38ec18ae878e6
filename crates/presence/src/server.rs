//! Starts the role: connects the map with the hub and the hub with gRPC, writes last seen, and drains.

use std::sync::Arc;

use tern_cluster::context::NodeContext;
use tern_cluster::links::MAX_LINK_MESSAGE_BYTES;
use tern_cluster::map::{MapHandle, Role};
use tern_proto::internal::presence_admin_server::PresenceAdminServer;
use tern_proto::internal::presence_server::PresenceServer;
use tern_store::postgres;
use tern_transport::serve::Running;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::admin::AdminService;
use crate::grpc::PresenceService;
use crate::hub::Hub;
use crate::last_seen::LastSeen;
use crate::{Config, metrics, reader, writer};

/// Starts the role in this process, and adds its services to `routes`. The returned role is done when, after the drain
/// has started, every slot has gone to other nodes or the drain's deadline has passed, the last writes of last seen
/// have ended, and the streams have been told to end.
pub async fn start(
    config: Config,
    ctx: NodeContext,
    routes: &mut tonic::service::RoutesBuilder,
) -> anyhow::Result<Running> {
    metrics::describe();
    let hub = Arc::new(Hub::new(
        ctx.name.clone(),
        ctx.incarnation,
        config.presence_map_wait,
        config.online_threshold,
        config.presence_hold_offline,
    ));
    let last_seen = LastSeen::new(postgres::pool_when_needed(&config.postgres));
    let stop = CancellationToken::new();
    hub.follow(&ctx.map.current());
    let follower = follow(hub.clone(), ctx.map.clone(), stop.clone());
    tokio::spawn(follower.instrument(tracing::info_span!("presence")));
    let service = PresenceService::new(hub.clone(), last_seen.clone(), stop.clone());
    let service = PresenceServer::new(service.standing(ctx.standing.clone()));
    let linked = hub.clone();
    ctx.reached.links(Role::Presence, move || linked.gateways());
    routes.add_service(service.max_decoding_message_size(MAX_LINK_MESSAGE_BYTES));
    routes.add_service(PresenceAdminServer::new(AdminService::new(
        hub.clone(),
        ctx.name.clone(),
        ctx.standing.clone(),
    )));
    let time = hub.clone();
    tokio::spawn(async move { time.keep_time().await }.instrument(tracing::info_span!("presence")));
    let reading = reader::run(hub.clone(), last_seen.clone(), stop.clone());
    tokio::spawn(reading.instrument(tracing::info_span!("last_seen")));
    let written = CancellationToken::new();
    let writing = writer::run(hub.clone(), last_seen, written.clone());
    let writing = tokio::spawn(writing.instrument(tracing::info_span!("last_seen")));
    let done = async move {
        ctx.drain.wait().await;
        if tokio::time::timeout(ctx.drain.deadline(), hub.handed_over())
            .await
            .is_err()
        {
            tracing::warn!("slots were not handed over in time");
        }
        written.cancel();
        let _ended = writing.await;
        stop.cancel();
    };
    Ok(Running {
        name: "presence",
        done: Box::pin(done),
    })
}

/// Passes each newer map on to the hub, until `stop` is cancelled.
pub async fn follow(hub: Arc<Hub>, mut map: MapHandle, stop: CancellationToken) {
    // The map may have changed before this task ran.
    hub.follow(&map.current());
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            map = map.changed() => hub.follow(&map),
        }
    }
}
