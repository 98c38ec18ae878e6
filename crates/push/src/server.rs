//! Starts the push role in a process: it wires the parts together, and drains the role when the process stops.

use tern_cluster::NodeContext;
use tern_cluster::map::Role;
use tern_proto::internal::push_admin_server::PushAdminServer;
use tern_proto::v1::push_server::PushServer;
use tern_store::Pools;
use tern_transport::serve::Running;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::apps::Apps;
use crate::grpc::Service;
use crate::presence::Sessions;
use crate::providers::Providers;
use crate::store::Store;
use crate::worker::{Limits, Worker};
use crate::{Config, metrics};

/// Starts the role in this process, and adds its services to `routes`. The returned role is done when a drain has
/// begun, what is claimed has come to its end or is given back, and no call is under way. Returns `Err` if a file or
/// the database cannot be used.
pub async fn start(
    config: Config,
    ctx: NodeContext,
    routes: &mut tonic::service::RoutesBuilder,
) -> anyhow::Result<Running> {
    metrics::describe();
    let apps = match &config.push_apps {
        Some(file) => Apps::read(file)?,
        None => Apps::default(),
    };
    let providers = Providers::new(&apps)?;
    let store = Store::new(Pools::open(&config.postgres).await?);
    let calls = TaskTracker::new();
    let service = Service::new(store.clone(), providers.clone(), calls.clone());
    routes.add_service(PushServer::new(service.clone()));
    routes.add_service(PushAdminServer::new(service));
    let limits = Limits {
        batch: config.push_batch,
        batches: config.push_batches,
    };
    let worker = Worker::new(store, providers, Sessions::new(ctx.clone()), limits);
    let working = worker.run(ctx.drain.clone());
    let working = tokio::spawn(working.instrument(tracing::info_span!("push")));
    let done = async move {
        ctx.drain.wait().await;
        let finished = ctx.finish_calls(Role::Push, &calls);
        let (_worked, ()) = tokio::join!(working, finished);
    };
    Ok(Running {
        name: "push",
        done: Box::pin(done),
    })
}
