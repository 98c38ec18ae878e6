//! This module serves the streams of `tern.internal.v1.Presence`. Ids are parsed here.
//!
//! Each stream is one task that waits in one place. Announcements and look-ups that have already arrived are
//! taken together and answered in one frame; nothing waits for more frames to come.

mod sessions;
mod watching;

use std::num::NonZeroU64;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::{FutureExt, Stream};
use tern_cluster::links;
use tern_cluster::standing::Standing;
use tern_proto::internal::presence_server::Presence;
use tern_proto::internal::{
    Activity, AnnounceReplies, AnnounceReply, Announcements, GetSessionsRequest, GetSessionsResponse,
    GetStatesRequest, GetStatesResponse, LiveSession, LookupReplies, LookupReply, LookupRequest,
    LookupRequests, OpenedStream, PresenceChanges, WatchRequests,
};
use tern_types::{Clock, DeviceId, IdError, SessionId, Timestamp, UserId};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use tern_presence_core::activity::Arrival;
use tern_presence_core::follows::Ended;
use tern_presence_core::registry::{Announcement, Event, Gateway, SlotSet};

use crate::hub::{FollowGuard, Hub, LinkGuard, Patience};
use crate::last_seen::LastSeen;

/// The most frames that are answered together: enough to share a write, few enough that no frame waits for long.
const MAX_FRAMES: usize = 64;

/// The most sessions in one frame of look-up replies, unless a single reply has more. Such a frame is below 1 MiB, far
/// from [`links::MAX_LINK_MESSAGE_BYTES`].
const MAX_SESSIONS_IN_FRAME: usize = 8192;

/// The most replaced sessions in one frame.
const MAX_REPLACED_IN_FRAME: usize = 1024;

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The gRPC service on top of the hub.
#[derive(Clone)]
pub struct PresenceService {
    hub: Arc<Hub>,
    last_seen: LastSeen,
    stop: CancellationToken,
    standing: Standing,
}

impl PresenceService {
    /// Makes the service. Cancelling `stop` ends every stream.
    pub fn new(hub: Arc<Hub>, last_seen: LastSeen, stop: CancellationToken) -> Self {
        Self {
            hub,
            last_seen,
            stop,
            standing: Standing::certain(),
        }
    }

    /// Makes the service say in its answers about sessions when the node's place in the map is not certain.
    #[must_use]
    pub fn standing(self, standing: Standing) -> Self {
        Self { standing, ..self }
    }
}

#[tonic::async_trait]
impl Presence for PresenceService {
    type AnnounceStream = Replies<AnnounceReplies>;
    type LookupStream = Replies<LookupReplies>;

    async fn announce(
        &self,
        request: Request<Streaming<Announcements>>,
    ) -> Result<Response<Self::AnnounceStream>, Status> {
        let gateway = gateway(&request)?;
        tracing::info!(gateway = %gateway.name, incarnation = gateway.incarnation, "gateway linked");
        let link = self.hub.link(gateway);
        let stream = announce(self.hub.clone(), link, request.into_inner(), self.stop.clone());
        Ok(Response::new(Box::pin(stream)))
    }

    async fn lookup(
        &self,
        request: Request<Streaming<LookupRequests>>,
    ) -> Result<Response<Self::LookupStream>, Status> {
        let peer = links::identity(&request)?;
        tracing::info!(node = %peer.name, incarnation = peer.incarnation, "look-ups linked");
        let (hub, standing) = (self.hub.clone(), self.standing.clone());
        let stream = lookup(hub, standing, request.into_inner(), self.stop.clone());
        Ok(Response::new(Box::pin(stream)))
    }

    type WatchStream = Replies<PresenceChanges>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequests>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let gateway = gateway(&request)?;
        tracing::info!(gateway = %gateway.name, incarnation = gateway.incarnation, "watching gateway linked");
        let guard = self.hub.open_watch(&gateway);
        let (hub, store, stop) = (self.hub.clone(), self.last_seen.clone(), self.stop.clone());
        let stream = watching::watch(hub, store, guard, request.into_inner(), stop);
        Ok(Response::new(Box::pin(stream)))
    }

    async fn get_states(
        &self,
        request: Request<GetStatesRequest>,
    ) -> Result<Response<GetStatesResponse>, Status> {
        let response = watching::states(&self.hub, &self.last_seen, request.into_inner()).await?;
        Ok(Response::new(response))
    }

    async fn get_sessions(
        &self,
        request: Request<GetSessionsRequest>,
    ) -> Result<Response<GetSessionsResponse>, Status> {
        let response = sessions::sessions(&self.hub, &self.standing, request.into_inner()).await?;
        Ok(Response::new(response))
    }
}

/// The reasons for which an announce stream wakes up.
enum Wake {
    MapChanged,
    Frame(Result<Option<Announcements>, Status>),
    Replaced(Option<Vec<SessionId>>),
    End,
}

fn announce(
    hub: Arc<Hub>,
    mut link: LinkGuard,
    mut inbound: Streaming<Announcements>,
    stop: CancellationToken,
) -> impl Stream<Item = Result<AnnounceReplies, Status>> + Send {
    async_stream::try_stream! {
        let mut version = hub.version();
        let mut patience = Patience::default();
        let map_version = *version.borrow_and_update();
        yield AnnounceReplies { map_version, items: Vec::new() };
        loop {
            // A new version of the map goes out first, even when this node stops, because gateways wait for it before
            // they read inboxes.
            let wake = tokio::select! {
                biased;
                Ok(()) = version.changed() => Wake::MapChanged,
                () = link.ended.cancelled() => Wake::End,
                () = stop.cancelled() => Wake::End,
                replaced = links::gather(&mut link.replaced, MAX_REPLACED_IN_FRAME) => Wake::Replaced(replaced),
                frame = inbound.message() => Wake::Frame(frame),
            };
            let items = match wake {
                Wake::MapChanged => Vec::new(),
                Wake::Frame(Ok(Some(frame))) => {
                    let frames = with_those_at_hand(frame, &mut inbound);
                    take_announcements(&hub, &link, frames, &mut patience).await?
                }
                Wake::Replaced(Some(sessions)) => sessions.into_iter().map(replaced_reply).collect(),
                Wake::Frame(Ok(None) | Err(_)) | Wake::Replaced(None) | Wake::End => break,
            };
            let map_version = *version.borrow_and_update();
            yield AnnounceReplies { map_version, items };
        }
        tracing::info!(gateway = %link.gateway.name, incarnation = link.gateway.incarnation, "gateway unlinked");
    }
}

/// Applies frames of announcements, and returns the replies to their items.
async fn take_announcements(
    hub: &Hub,
    link: &LinkGuard,
    frames: Vec<Announcements>,
    patience: &mut Patience,
) -> Result<Vec<AnnounceReply>, Status> {
    let mut replies = Vec::new();
    for frame in frames {
        let arrival = Arrival {
            gateway: Timestamp(frame.now_ms),
            now: Clock::monotonic(),
            wall: Clock::wall(),
        };
        let mut refs = Vec::with_capacity(frame.items.len());
        let mut events = Vec::with_capacity(frame.items.len());
        let mut users = Vec::with_capacity(frame.items.len());
        for item in frame.items {
            let user = UserId::from_slice(&item.user_id).map_err(bad_id)?;
            refs.push(item.r#ref);
            users.push(user);
            events.push(announce_event(link, user, &item, arrival)?);
        }
        hub.catch_up(frame.map_version, users, patience).await;
        let signs: Vec<Event> = frame
            .activities
            .iter()
            .map(|activity| signed_event(link, activity, arrival))
            .collect::<Result<_, _>>()?;
        let opened: Vec<Event> = frame
            .opened
            .iter()
            .filter_map(|stream| opened_event(link, stream).transpose())
            .collect::<Result<_, _>>()?;
        let taken = hub.announce(events);
        hub.announce(signs);
        hub.announce(opened);
        if let Some(slots) = SlotSet::from_bits(&frame.said_slots) {
            hub.announce([Event::Said {
                gateway: link.gateway.clone(),
                link: link.id,
                slots,
                map_version: frame.said_map_version,
            }]);
        }
        let reply = |(r#ref, taken): (u64, Result<(), _>)| AnnounceReply {
            r#ref,
            not_owner: taken.is_err(),
            replaced_session: 0,
        };
        replies.extend(refs.into_iter().zip(taken).map(reply));
    }
    Ok(replies)
}

fn announce_event(
    link: &LinkGuard,
    user: UserId,
    item: &tern_proto::internal::Announcement,
    arrival: Arrival,
) -> Result<Event, Status> {
    let gateway = link.gateway.clone();
    let session = SessionId(item.session);
    if item.ended {
        return Ok(Event::Ended {
            gateway,
            link: link.id,
            user,
            session,
        });
    }
    let device = DeviceId::from_slice(&item.device_id).map_err(bad_id)?;
    let announcement = Announcement {
        user,
        device,
        session,
        since: Timestamp(item.since_ms),
        number: NonZeroU64::new(item.stream_number),
        sign: arrival.sign(
            item.active,
            Timestamp(item.active_at_ms),
            Timestamp(item.active_said_ms),
        ),
    };
    Ok(Event::Announced {
        gateway,
        link: link.id,
        announcement,
    })
}

fn signed_event(link: &LinkGuard, activity: &Activity, arrival: Arrival) -> Result<Event, Status> {
    Ok(Event::Signed {
        gateway: link.gateway.clone(),
        link: link.id,
        user: UserId::from_slice(&activity.user_id).map_err(bad_id)?,
        session: SessionId(activity.session),
        sign: arrival.sign(
            activity.active,
            Timestamp(activity.at_ms),
            Timestamp(activity.said_ms),
        ),
    })
}

/// Makes the event of a stream that was opened. Returns `None` if the stream has no number.
fn opened_event(link: &LinkGuard, stream: &OpenedStream) -> Result<Option<Event>, Status> {
    let user = UserId::from_slice(&stream.user_id).map_err(bad_id)?;
    Ok(NonZeroU64::new(stream.stream_number).map(|number| Event::Opened {
        gateway: link.gateway.clone(),
        link: link.id,
        user,
        session: SessionId(stream.session),
        number,
    }))
}

fn replaced_reply(session: SessionId) -> AnnounceReply {
    AnnounceReply {
        r#ref: 0,
        not_owner: false,
        replaced_session: session.0,
    }
}

fn lookup(
    hub: Arc<Hub>,
    standing: Standing,
    mut inbound: Streaming<LookupRequests>,
    stop: CancellationToken,
) -> impl Stream<Item = Result<LookupReplies, Status>> + Send {
    async_stream::try_stream! {
        let version = hub.version();
        let follows = hub.open_follow();
        let mut patience = Patience::default();
        loop {
            let frame = tokio::select! {
                () = stop.cancelled() => break,
                () = follows.news.notified() => None,
                frame = inbound.message() => Some(frame),
            };
            let Some(frame) = frame else {
                let ended = follows.take();
                let map_version = *version.borrow();
                if !ended.is_empty() {
                    yield changed(map_version, ended);
                }
                continue;
            };
            let Ok(Some(frame)) = frame else { break };
            let mut replies = Vec::new();
            let mut sessions = 0;
            for frame in with_those_at_hand(frame, &mut inbound) {
                if frame.unfollow_all {
                    follows.unfollow_all();
                }
                for request in frame.requests {
                    let asked = (&follows, frame.map_version);
                    let reply = answer(&hub, &standing, asked, request, &mut patience).await?;
                    if !replies.is_empty() && sessions + reply.sessions.len() > MAX_SESSIONS_IN_FRAME {
                        let map_version = *version.borrow();
                        yield found(map_version, std::mem::take(&mut replies));
                        sessions = 0;
                    }
                    sessions += reply.sessions.len();
                    replies.push(reply);
                }
            }
            let map_version = *version.borrow();
            if !replies.is_empty() {
                yield found(map_version, replies);
            }
        }
    }
}

/// Makes a frame of replies.
fn found(map_version: i64, replies: Vec<LookupReply>) -> LookupReplies {
    LookupReplies {
        map_version,
        replies,
        ..LookupReplies::default()
    }
}

/// Makes the frame that tells who is not followed any more.
fn changed(map_version: i64, ended: Ended) -> LookupReplies {
    LookupReplies {
        map_version,
        changed: ended.users.into_iter().map(|user| user.to_vec().into()).collect(),
        all_changed: ended.all,
        ..LookupReplies::default()
    }
}

/// Parses the ids of users.
fn ids(users: &[Bytes]) -> Result<Vec<UserId>, Status> {
    let ids = users.iter().map(|id| UserId::from_slice(id));
    ids.collect::<Result<_, _>>().map_err(bad_id)
}

/// Answers one look-up, which came on this stream from a node with this version of the map.
async fn answer(
    hub: &Hub,
    standing: &Standing,
    (follows, sender_version): (&FollowGuard, i64),
    request: LookupRequest,
    patience: &mut Patience,
) -> Result<LookupReply, Status> {
    let users = ids(&request.user_ids)?;
    hub.catch_up(sender_version, users.iter().copied(), patience)
        .await;
    let mut sessions = Vec::new();
    let looked_up = follows.look_up(&users, request.follow && standing.is_held(), |session| {
        sessions.push(LiveSession {
            user_id: session.user.to_vec().into(),
            device_id: session.device.to_vec().into(),
            gateway: session.gateway.name.to_string(),
            session: session.session.0,
        });
    });
    Ok(LookupReply {
        r#ref: request.r#ref,
        sessions,
        not_owner: looked_up.is_err(),
        // The standing is read after the look-up: if this node is certain of its place now, it was so during the
        // look-up.
        unsure: looked_up.is_ok_and(|looked_up| !looked_up.sure) || !standing.is_held(),
        followed: looked_up.is_ok_and(|looked_up| looked_up.followed),
    })
}

/// Returns `first` and the frames that have arrived in the meantime, up to [`MAX_FRAMES`].
fn with_those_at_hand<T>(first: T, inbound: &mut Streaming<T>) -> Vec<T> {
    let mut frames = vec![first];
    while frames.len() < MAX_FRAMES
        && let Some(Ok(Some(frame))) = inbound.message().now_or_never()
    {
        frames.push(frame);
    }
    frames
}

fn gateway<T>(request: &Request<T>) -> Result<Gateway, Status> {
    let peer = links::identity(request)?;
    Ok(Gateway {
        name: peer.name.into(),
        incarnation: peer.incarnation,
    })
}

fn bad_id(_: IdError) -> Status {
    Status::invalid_argument("ids are 16 bytes")
}
