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
use tonic::Status;

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
    Frame(Option<Result<WatchRequests, Status>>),
    News,
    End,
}

/// Runs a watch stream until it ends. States go out as they are when the gateway takes them, so a slow gateway misses
/// only states in between. One frame of them goes out at a time, so that the gateway's requests are taken also while
/// there is always something to tell.
pub fn watch(
    hub: Arc<Hub>,
    store: LastSeen,
    guard: WatchGuard,
    mut inbound: impl Stream<Item = Result<WatchRequests, Status>> + Send + Unpin,
    stop: CancellationToken,
) -> impl Stream<Item = Result<PresenceChanges, Status>> + Send {
    async_stream::try_stream! {
        let version = hub.version();
        let mut patience = Patience::default();
        let mut reads = FuturesUnordered::new();
        loop {
            // Chance decides between branches that are ready, so that none keeps the others waiting.
            let wake = tokio::select! {
                () = stop.cancelled() => Wake::End,
                () = guard.ended.cancelled() => Wake::End,
                // The stream sends what is known already while the store is asked for the rest.
                () = guard.news.notified() => Wake::News,
                Some(()) = reads.next() => continue,
                frame = inbound.next(), if reads.len() < MAX_READS => Wake::Frame(frame),
            };
            match wake {
                Wake::Frame(Some(Ok(frame))) => {
                    let unknown = take_requests(&hub, &guard, frame, &mut patience).await?;
                    for users in unknown.chunks(MAX_READ) {
                        reads.push(reader::read_for(hub.clone(), store.clone(), users.to_vec()));
                    }
                }
                Wake::Frame(None | Some(Err(_))) | Wake::End => break,
                Wake::News => {
                    let news = guard.take(MAX_STATES);
                    if !news.is_empty() {
                        // There may be more.
                        guard.news.notify_one();
                        metrics::changes(news.states.len());
                        let map_version = *version.borrow();
                        yield changes(map_version, news);
                    }
                }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::stream;
    use tern_cluster::{ClusterMap, Node, Role};
    use tern_presence_core::registry::Gateway;
    use tern_store::postgres::{self, PostgresArgs};

    use super::*;

    /// The number of frames that the states of all watched people fill.
    const FRAMES: usize = 20;

    #[tokio::test]
    async fn a_gateway_that_has_gone_is_noticed_while_many_states_wait() {
        let threshold = Duration::from_secs(30);
        let hub = Hub::new("p1".into(), 1, Duration::ZERO, threshold, Duration::ZERO);
        let hub = Arc::new(hub);
        let node = Node {
            name: "p1".into(),
            incarnation: 1,
            ..Node::default()
        };
        hub.follow(&ClusterMap::new(1, [(Role::Presence, node)]));
        let guard = hub.open_watch(&Gateway {
            name: "g1".into(),
            incarnation: 1,
        });
        let users: Vec<UserId> = (0..FRAMES * MAX_STATES).map(|_| UserId::random()).collect();
        guard.watch(&users);
        hub.stored(&users, &HashMap::new());
        let nowhere = PostgresArgs::from_url("postgres://nobody@127.0.0.1:1/none").expect("a URL");
        let store = LastSeen::new(postgres::pool_when_needed(&nowhere));
        let changes = watch(hub, store, guard, stream::empty(), CancellationToken::new());
        assert!(changes.count().await < FRAMES);
    }
}
