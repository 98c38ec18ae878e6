//! Serves watch streams, and answers callers that ask for states once.

use std::collections::HashMap;
use std::sync::Arc;

use futures::stream::FuturesUnordered;
use futures::{Stream, StreamExt};
use tern_proto::internal::{
    GetStatesRequest, GetStatesResponse, PresenceChanges, UserPresence, WatchRequests,
};
use tern_types::{Timestamp, UserId};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use tern_presence_core::activity::Presence;
use tern_presence_core::people::News;

use super::bad_id;
use crate::hub::{Hub, Patience, WatchGuard};
use crate::last_seen::LastSeen;
use crate::metrics;
use crate::reader::{self, MAX_READ};

/// The most states in one frame. A full frame has some 30 KiB.
const MAX_STATES: usize = 1024;
/// The most users in one GetStates request: as many as a screen may watch.
const MAX_ASKED: usize = 256;
/// The number of queries of one stream from which on it takes no frames, and so neither begins nor ends
/// watches, until one of them is answered. The frame before may have begun more of them, one for each
/// [`MAX_READ`] people.
const MAX_READS: usize = 4;

/// The reasons for which a watch stream wakes up.
enum Wake {
    Frame(Result<Option<WatchRequests>, Status>),
    News,
    End,
}

/// Runs a watch stream until it ends. States go out as they are when the gateway takes them, so a slow gateway misses
/// only states in between.
pub fn watch(
    hub: Arc<Hub>,
    store: LastSeen,
    guard: WatchGuard,
    mut inbound: Streaming<WatchRequests>,
    stop: CancellationToken,
) -> impl Stream<Item = Result<PresenceChanges, Status>> + Send {
    async_stream::try_stream! {
        let version = hub.version();
        let mut patience = Patience::default();
        let mut reads = FuturesUnordered::new();
        loop {
            let wake = tokio::select! {
                biased;
                () = stop.cancelled() => Wake::End,
                () = guard.ended.cancelled() => Wake::End,
                // The stream sends what is known already while the store is asked for the rest.
                () = guard.news.notified() => Wake::News,
                Some(()) = reads.next() => continue,
                frame = inbound.message(), if reads.len() < MAX_READS => Wake::Frame(frame),
            };
            match wake {
                Wake::Frame(Ok(Some(frame))) => {
                    let unknown = take_requests(&hub, &guard, frame, &mut patience).await?;
                    for users in unknown.chunks(MAX_READ) {
                        reads.push(reader::read_for(hub.clone(), store.clone(), users.to_vec()));
                    }
                }
                Wake::Frame(Ok(None) | Err(_)) | Wake::End => break,
                Wake::News => loop {
                    let news = guard.take(MAX_STATES);
                    if news.is_empty() {
                        break;
                    }
                    metrics::changes(news.states.len());
                    let map_version = *version.borrow();
                    yield changes(map_version, news);
                },
            }
        }
    }
}

/// Ends and begins the watches that a frame asks for. Returns the people of whom the store has to be asked.
async fn take_requests(
    hub: &Hub,
    guard: &WatchGuard,
    frame: WatchRequests,
    patience: &mut Patience,
) -> Result<Vec<UserId>, Status> {
    let (watch, unwatch) = (ids(&frame.watch)?, ids(&frame.unwatch)?);
    guard.unwatch(&unwatch);
    hub.catch_up(frame.map_version, watch.iter().copied(), patience)
        .await;
    Ok(guard.watch(&watch))
}

/// Answers with the states of these users. Those who are online are known in memory; one query reads all others, and
/// users who do not exist are left out. `Err` if an id is malformed or there are too many.
pub async fn states(
    hub: &Hub,
    store: &LastSeen,
    request: GetStatesRequest,
) -> Result<GetStatesResponse, Status> {
    let users = ids(&request.user_ids)?;
    if users.len() > MAX_ASKED {
        return Err(Status::invalid_argument(format!("at most {MAX_ASKED} users")));
    }
    hub.catch_up(
        request.map_version,
        users.iter().copied(),
        &mut Patience::default(),
    )
    .await;
    let map_version = *hub.version().borrow();
    let Ok(known) = hub.presences(&users).await else {
        return Ok(GetStatesResponse {
            map_version,
            states: Vec::new(),
            not_owner: true,
        });
    };
    let offline: Vec<UserId> = users
        .iter()
        .zip(&known)
        .filter(|(_, presence)| **presence != Some(Presence::Online))
        .map(|(user, _)| *user)
        .collect();
    let stored = if offline.is_empty() {
        HashMap::new()
    } else {
        // If the store is away, nothing is known of these users, not even whether they exist.
        let unknown = || offline.iter().map(|user| (*user, Timestamp(0))).collect();
        reader::read(store, &offline).await.unwrap_or_else(unknown)
    };
    let states = users.iter().zip(known).filter_map(|(user, known)| {
        let presence = match known {
            Some(Presence::Online) => Presence::Online,
            known => {
                let at = *stored.get(user)?;
                match known {
                    Some(Presence::LastSeen(newer)) => Presence::LastSeen(newer.max(at)),
                    _ => Presence::LastSeen(at),
                }
            }
        };
        Some(state(*user, presence))
    });
    Ok(GetStatesResponse {
        map_version,
        states: states.collect(),
        not_owner: false,
    })
}

fn ids(ids: &[bytes::Bytes]) -> Result<Vec<UserId>, Status> {
    ids.iter()
        .map(|id| UserId::from_slice(id).map_err(bad_id))
        .collect()
}

fn changes(map_version: i64, news: News) -> PresenceChanges {
    let states = news.states.into_iter();
    let foreign = news.foreign.into_iter();
    PresenceChanges {
        map_version,
        changes: states.map(|(user, presence)| state(user, presence)).collect(),
        not_owner: foreign.map(|user| user.to_vec().into()).collect(),
    }
}

fn state(user: UserId, presence: Presence) -> UserPresence {
    let (online, last_seen_ms) = match presence {
        Presence::Online => (true, 0),
        Presence::LastSeen(at) => (false, at.0),
    };
    UserPresence {
        user_id: user.to_vec().into(),
        online,
        last_seen_ms,
    }
}
