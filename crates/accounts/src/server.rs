//! Starts the accounts role in a process: it wires the parts together, drains the role when the process stops, finishes
//! revocations whose call was cut short, and tells users' own logs what they were not told.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tern_cluster::NodeContext;
use tern_cluster::map::Role;
use tern_proto::internal::accounts_admin_server::AccountsAdminServer;
use tern_proto::internal::accounts_node_server::AccountsNodeServer;
use tern_proto::v1::auth_server::AuthServer;
use tern_proto::v1::devices_server::DevicesServer;
use tern_proto::v1::users_server::UsersServer;
use tern_store::postgres;
use tern_transport::serve::Running;
use tern_types::Clock;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::accounts::{Accounts, Limits, TokenMaker};
use crate::grpc::Service;
use crate::peers::Peers;
use crate::store::Store;
use crate::{Config, metrics};

/// The time between two looks for changes that users' own logs were not told of.
const TELL_INTERVAL: Duration = Duration::from_secs(10);
/// The time between two looks for unfinished revocations. There is no hurry: such a device has no streams and no tokens
/// any more, only its place in the chats' lists of devices.
const RESUME_INTERVAL: Duration = Duration::from_secs(30);

/// Starts the role in this process, and adds its services to `routes`. The returned role is done when a drain has
/// begun, the other nodes know of it, and no call is under way. Returns `Err` if the token key or the store cannot be
/// used.
pub async fn start(
    config: Config,
    ctx: NodeContext,
    routes: &mut tonic::service::RoutesBuilder,
) -> anyhow::Result<Running> {
    metrics::describe();
    let file = config
        .token_key_file
        .context("--token-key-file is needed by the role accounts")?;
    let pem = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let tokens = TokenMaker::from_pem(&pem, config.accounts_access_token_ttl)
        .with_context(|| format!("cannot use {}", file.display()))?;
    let limits = Limits {
        new_strangers: config.max_new_strangers_a_day as usize,
    };
    let store = Store::new(postgres::pool(&config.postgres).await?);
    let accounts = Arc::new(Accounts::new(store, Peers::new(ctx.clone()), tokens, limits));

    let calls = TaskTracker::new();
    let service = Service::new(accounts.clone(), calls.clone());
    routes.add_service(UsersServer::new(service.clone()));
    routes.add_service(DevicesServer::new(service.clone()));
    routes.add_service(AuthServer::new(service.clone()));
    routes.add_service(AccountsAdminServer::new(service.clone()));
    routes.add_service(AccountsNodeServer::new(service));

    let stop = CancellationToken::new();
    let resume = resume_revocations(accounts.clone(), stop.clone());
    tokio::spawn(resume.instrument(tracing::info_span!("accounts")));
    let tell = tell_own_logs(accounts, stop.clone());
    tokio::spawn(tell.instrument(tracing::info_span!("accounts")));
    let done = async move {
        ctx.drain.wait().await;
        stop.cancel();
        ctx.finish_calls(Role::Accounts, &calls).await;
    };
    Ok(Running {
        name: "accounts",
        done: Box::pin(done),
    })
}

async fn resume_revocations(accounts: Arc<Accounts>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(RESUME_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if let Err(error) = accounts.resume_revocations(Clock::wall()).await {
            tracing::warn!(%error, "revocations are not finished yet");
        }
    }
}

async fn tell_own_logs(accounts: Arc<Accounts>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(TELL_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if let Err(error) = accounts.tell_own_logs().await {
            tracing::warn!(%error, "own logs are not told of all changes yet");
        }
    }
}
