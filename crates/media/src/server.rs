//! Starts the media role in a process: it wires the parts together, and drains the role when the process stops.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tern_cluster::NodeContext;
use tern_cluster::drain::Drain;
use tern_cluster::map::Role;
use tern_proto::v1::media_server::MediaServer;
use tern_store::{Pools, postgres};
use tern_transport::serve::Running;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::collector::Collector;
use crate::domain::cdn::Cdn;
use crate::grpc::Service;
use crate::media::Media;
use crate::s3::S3;
use crate::store::Store;
use crate::store::uploads::Quota;
use crate::{Config, metrics, s3};

/// The time that a node waits before it asks again for a bucket that does not answer.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Starts the role in this process, and adds its service to `routes`. The returned role is done when a drain has begun,
/// the other nodes know of it, and no call is under way. Returns `Err` if a file or the database cannot be used.
pub async fn start(
    config: Config,
    ctx: NodeContext,
    routes: &mut tonic::service::RoutesBuilder,
) -> anyhow::Result<Running> {
    metrics::describe();
    let media = Arc::new(media(&config).await?);
    let create = config.s3.media_s3_create_bucket;
    if !create || find_bucket(&media.s3, create).await.is_err() {
        // The bucket may come later. Until then uploads fail, but the node starts without it.
        let (s3, drain) = (media.s3.clone(), ctx.drain.clone());
        tokio::spawn(async move { until_bucket(&s3, create, &drain).await }.in_current_span());
    }
    let calls = TaskTracker::new();
    routes.add_service(MediaServer::new(Service::new(media.clone(), calls.clone())));

    let stop = CancellationToken::new();
    let collector = Arc::new(Collector::new(media.store.clone(), media.s3.clone()));
    let collect = collector.run(config.media_collect_interval, stop.clone());
    tokio::spawn(collect.instrument(tracing::info_span!("collector")));
    let done = async move {
        ctx.drain.wait().await;
        stop.cancel();
        ctx.finish_calls(Role::Media, &calls).await;
    };
    Ok(Running {
        name: "media",
        done: Box::pin(done),
    })
}

/// Asks for the bucket until it answers or the node drains.
async fn until_bucket(s3: &S3, create: bool, drain: &Drain) {
    while let Err(error) = find_bucket(s3, create).await {
        tracing::warn!(%error, "the bucket does not answer");
        tokio::select! {
            () = sleep(ASK_AGAIN) => {}
            () = drain.wait() => return,
        }
    }
}

/// Asks for the bucket, and makes it if it does not answer and `create` is set.
async fn find_bucket(s3: &S3, create: bool) -> s3::Result<()> {
    match s3.check().await {
        Err(_) if create => s3.create_bucket().await,
        found => found,
    }
}

/// Makes what a node's calls need: the store, the object store's client, the ticket keys and the limits. Returns `Err`
/// if a file or the database cannot be used.
pub async fn media(config: &Config) -> anyhow::Result<Media> {
    let tickets = config.tickets.load()?;
    let pools = Pools::over(postgres::pool(&config.postgres).await?, &config.postgres).await?;
    Ok(Media {
        store: Store::new(pools),
        s3: S3::new(&config.s3, config.media_url_ttl),
        tickets: tickets.context("--media-ticket-key-file is needed by the role media")?,
        cdn: cdn(config)?,
        quota: Quota {
            bytes: config.media_daily_bytes,
            uploads: config.media_daily_uploads,
        },
        url_ttl: config.media_url_ttl,
    })
}

fn cdn(config: &Config) -> anyhow::Result<Option<Cdn>> {
    let Some(base) = &config.cdn.media_cdn_url else {
        return Ok(None);
    };
    let file = config.cdn.media_cdn_key_file.as_ref();
    let file = file.context("--media-cdn-key-file is needed with --media-cdn-url")?;
    let key = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    Cdn::new(base, &key)
        .map(Some)
        .with_context(|| format!("cannot use {}", file.display()))
}
