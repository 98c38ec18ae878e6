//! Starts presence nodes that do as a test tells them.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::{Stream, StreamExt};
use tern_cluster::Node;
use tern_proto::internal::presence_server::{Presence, PresenceServer};
use tern_proto::internal::{
    AnnounceReplies, Announcements, GetSessionsRequest, GetSessionsResponse, GetStatesRequest,
    GetStatesResponse, LiveSession, LookupReplies, LookupReply, LookupRequest, LookupRequests,
    PresenceChanges, WatchRequests,
};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

/// A presence node that does as it is told. Dropping it ends it.
pub struct PresenceNode {
    mood: watch::Sender<Mood>,
    /// The node as the map has it.
    pub node: Node,
    /// The number of look-ups that reached it.
    pub asked: Arc<AtomicUsize>,
    server: JoinHandle<()>,
}

impl PresenceNode {
    /// Starts a node that answers that nobody is online.
    pub async fn start(name: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let node = node(name, &listener.local_addr().unwrap().to_string());
        let asked = Arc::<AtomicUsize>::default();
        let (mood, moods) = watch::channel(Mood::Knows(Vec::new()));
        let serving = Server::builder()
            .add_service(PresenceServer::new(Moody {
                mood: moods,
                asked: asked.clone(),
            }))
            .serve_with_incoming(TcpIncoming::from(listener));
        let server = tokio::spawn(async move { serving.await.unwrap() });
        Self {
            mood,
            node,
            asked,
            server,
        }
    }

    /// Sets how the node answers from now on.
    pub fn is(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }
}

impl Drop for PresenceNode {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// The behaviour of a presence node when it is asked.
#[derive(Debug, Clone)]
pub enum Mood {
    /// It answers that these sessions are online.
    Knows(Vec<LiveSession>),
    /// The same, but who follows users has not been told that it has become so.
    KnowsUntold(Vec<LiveSession>),
    /// It answers that these sessions are online, and perhaps others.
    Unsure(Vec<LiveSession>),
    /// It answers that nobody is online, by an older map than the asker's.
    Behind,
    /// It answers that perhaps somebody is online, by a newer map than the asker's.
    UnsureAndAhead,
    /// It answers that it does not own the users.
    NotOwner,
    /// It does not answer.
    Hangs,
    /// It ends the stream.
    Fails,
}

/// The service of a presence node.
#[derive(Clone)]
struct Moody {
    mood: watch::Receiver<Mood>,
    /// The number of look-ups that reached it.
    asked: Arc<AtomicUsize>,
}

type Out<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Presence for Moody {
    type AnnounceStream = Out<AnnounceReplies>;
    type LookupStream = Out<LookupReplies>;

    async fn announce(
        &self,
        _: Request<Streaming<Announcements>>,
    ) -> Result<Response<Self::AnnounceStream>, Status> {
        Err(Status::unimplemented("no gateway is here"))
    }

    async fn lookup(
        &self,
        request: Request<Streaming<LookupRequests>>,
    ) -> Result<Response<Self::LookupStream>, Status> {
        let (mut frames, mood) = (request.into_inner(), self.mood.clone());
        let asked = self.asked.clone();
        let replies = async_stream::stream! {
            let mut moods = mood.clone();
            loop {
                let frame = tokio::select! {
                    Ok(()) = moods.changed() => None,
                    frame = frames.message() => Some(frame),
                };
                let Some(frame) = frame else {
                    let all_changed = !matches!(&*moods.borrow(), Mood::KnowsUntold(_));
                    yield Ok(LookupReplies { all_changed, ..LookupReplies::default() });
                    continue;
                };
                let Ok(Some(frame)) = frame else { return };
                asked.fetch_add(frame.requests.len(), Ordering::Relaxed);
                let mood = mood.borrow().clone();
                if matches!(mood, Mood::Fails) {
                    yield Err(Status::unavailable("by the test"));
                    return;
                }
                let replies = frame.requests.into_iter().filter_map(|request| reply(&request, &mood));
                let map_version = match mood {
                    Mood::Behind => 0,
                    Mood::UnsureAndAhead => 2,
                    _ => 1,
                };
                let replies = replies.collect();
                yield Ok(LookupReplies { map_version, replies, ..LookupReplies::default() });
            }
        };
        Ok(Response::new(replies.boxed()))
    }

    type WatchStream = Out<PresenceChanges>;

    async fn watch(
        &self,
        _: Request<Streaming<WatchRequests>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("nobody watches here"))
    }

    async fn get_states(&self, _: Request<GetStatesRequest>) -> Result<Response<GetStatesResponse>, Status> {
        Err(Status::unimplemented("nobody watches here"))
    }

    async fn get_sessions(
        &self,
        _: Request<GetSessionsRequest>,
    ) -> Result<Response<GetSessionsResponse>, Status> {
        Err(Status::unimplemented("nobody pushes here"))
    }
}

/// Answers one look-up; `None` if the mood is to give no answer.
fn reply(request: &LookupRequest, mood: &Mood) -> Option<LookupReply> {
    let (sessions, not_owner) = match mood {
        Mood::Knows(sessions) | Mood::KnowsUntold(sessions) | Mood::Unsure(sessions) => {
            (sessions.clone(), false)
        }
        Mood::Behind | Mood::UnsureAndAhead => (Vec::new(), false),
        Mood::NotOwner => (Vec::new(), true),
        Mood::Hangs | Mood::Fails => return None,
    };
    Some(LookupReply {
        r#ref: request.r#ref,
        sessions,
        not_owner,
        unsure: matches!(mood, Mood::Unsure(_) | Mood::UnsureAndAhead),
        followed: request.follow && matches!(mood, Mood::Knows(_)),
    })
}

/// Returns the first incarnation of a node for the map.
pub fn node(name: &str, address: &str) -> Node {
    Node {
        name: name.to_owned(),
        address: address.to_owned(),
        admin: String::new(),
        incarnation: 1,
        ..Node::default()
    }
}
