//! Keeps the map up to date: it lists the keys, then watches for changes from there, and lists again whenever the watch
//! breaks or etcd has compacted its changes away. While etcd does not answer, it uses the records of etcd that other
//! nodes know.

use std::time::Duration;

use etcd_client::{EventType, KeyValue, WatchOptions, WatchResponse, WatchStream};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::peers::News;
use super::{EtcdError, Out, Peers, Store, base, timely};
use crate::map::ClusterMap;
use crate::membership::{Change, Membership};
use crate::metrics;
use crate::retry_waits::RetryWaits;
use crate::standing::Standing;

/// The time between two requests for a sign of life on the watch.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// The time after which a silent watch counts as broken, even if its connection looks healthy. It is shorter than a
/// lease.
const SILENCE: Duration = Duration::from_secs(3);

/// Follows the map until it is dropped. `revision` is the revision at which `membership` was listed.
pub(super) async fn follow(
    store: Store,
    mut membership: Membership,
    mut revision: i64,
    out: Out,
    others: Option<(Peers, Standing)>,
) {
    let mut waits = RetryWaits::default();
    loop {
        let began = Instant::now();
        out.publish(&membership);
        if let Err(error) = watch_from(&store, revision, &mut membership, &out).await {
            tracing::info!(%error, "cluster map frozen until etcd answers again");
        }
        let mut lived = began.elapsed();
        revision = loop {
            tokio::time::sleep(waits.next(lived)).await;
            lived = Duration::ZERO;
            let list = store.list_above(membership.version());
            let (listed, news) = tokio::join!(list, ask(&others, membership.map()));
            match listed {
                // The news of others is not needed: if it is newer than the list, the watch brings it too.
                Ok(listed) => {
                    metrics::map_listed();
                    let revision = listed.revision;
                    membership.list(listed, Instant::now());
                    break revision;
                }
                Err(error) => {
                    tracing::debug!(%error, "etcd does not answer");
                    hear(news, &mut membership, &out);
                }
            }
        };
        tracing::info!(revision, "cluster map read again");
    }
}

/// Asks other nodes for etcd's records, and returns them if they are newer than `map`.
async fn ask(others: &Option<(Peers, Standing)>, map: ClusterMap) -> Option<News> {
    let (peers, standing) = others.as_ref()?;
    peers.ask(&map, standing).await
}

/// Applies the records of another node, if there are some.
fn hear(news: Option<News>, membership: &mut Membership, out: &Out) {
    let now = Instant::now();
    if let Some(news) = news
        && membership.told(news.version, news.nodes, news.cautious, now)
    {
        metrics::map_told();
        tracing::info!(version = news.version, "cluster map heard of from another node");
    }
    membership.expire(now);
    out.publish(membership);
}

/// Applies all changes after `revision` until the watch breaks. Returns `Err` with the reason why it broke.
async fn watch_from(
    store: &Store,
    revision: i64,
    membership: &mut Membership,
    out: &Out,
) -> Result<(), EtcdError> {
    let options = WatchOptions::new()
        .with_prefix()
        .with_start_revision(revision + 1);
    let mut stream = timely(
        store
            .client
            .watch_client()
            .watch(store.prefix.clone(), Some(options)),
    )
    .await?;
    let mut probe = interval(PROBE_INTERVAL);
    probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = Instant::now();
    loop {
        let expiry = membership.next_expiry();
        tokio::select! {
            response = stream.message() => {
                let response = ended(response?)?;
                // An etcd that has lost data says nothing more to this watch until it comes to the revision again.
                if response.header().is_none_or(|header| header.revision() >= revision) {
                    heard = Instant::now();
                }
                apply(store, &response, membership)?;
            }
            _ = probe.tick() => probe_watch(&mut stream, heard).await?,
            () = sleep_until(expiry.unwrap_or(heard)), if expiry.is_some() => membership.expire(Instant::now()),
        }
        out.publish(membership);
    }
}

/// Returns the watch's response, or `Err` if the response says that the watch has ended.
fn ended(response: Option<WatchResponse>) -> Result<WatchResponse, EtcdError> {
    match response {
        None => Err(EtcdError::WatchEnded("closed by etcd".to_owned())),
        Some(response) if response.compact_revision() > 0 => Err(EtcdError::WatchEnded(format!(
            "compacted up to {}",
            response.compact_revision()
        ))),
        Some(response) if response.canceled() => {
            Err(EtcdError::WatchEnded(response.cancel_reason().to_owned()))
        }
        Some(response) => Ok(response),
    }
}

async fn probe_watch(stream: &mut WatchStream, heard: Instant) -> Result<(), EtcdError> {
    if heard.elapsed() > SILENCE {
        return Err(EtcdError::TimedOut);
    }
    timely(stream.request_progress()).await
}

/// Applies a response. Returns `Err`, and changes nothing, if the versions would fall because the base was deleted.
fn apply(store: &Store, response: &WatchResponse, membership: &mut Membership) -> Result<(), EtcdError> {
    // The revision in the response's header is not used: in a watch that catches up it is that of the whole store, and in
    // a response without events it may be that of events still to come (a known fault of older etcds). The key of a
    // deletion has the revision of the deletion.
    let keys = response.events().iter().filter_map(|event| event.kv());
    let Some(revision) = keys.map(KeyValue::mod_revision).max() else {
        return Ok(());
    };
    let base = response.events().iter().rev().find_map(|event| {
        let kv = event.kv().filter(|kv| store.is_base(kv))?;
        Some(match event.event_type() {
            EventType::Put => base::parse(kv),
            EventType::Delete => 0,
        })
    });
    if !membership.rebase(base, revision) {
        return Err(EtcdError::Fell);
    }
    let changes = response.events().iter().filter_map(|event| {
        let kv = event.kv().filter(|kv| !store.is_base(kv))?;
        match event.event_type() {
            EventType::Put => store.parse(kv).map(|(role, node)| Change::Put(role, node)),
            EventType::Delete => store.parse_key(kv.key()).map(Change::Delete),
        }
    });
    membership.change(revision, changes, Instant::now());
    Ok(())
}
