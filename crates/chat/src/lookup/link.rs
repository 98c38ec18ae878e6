//! Runs the link to one presence node: questions go out, replies come in, and the node tells whose sessions have
//! changed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tern_cluster::context::NodeContext;
use tern_cluster::links::{self, NodeIdentity, gather};
use tern_proto::internal::presence_client::PresenceClient;
use tern_proto::internal::{LookupReplies, LookupReply, LookupRequest, LookupRequests};
use tern_types::{IdMap, UserId};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, interval_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::known::Known;
use super::{Found, lock};
use crate::metrics;

/// The most look-ups that wait for one presence node. If its queue is full, the gateways are asked.
const QUEUE: usize = 1024;
/// The most look-ups in one frame.
const GATHER: usize = 64;
/// The time after which a node follows nobody any more and begins anew. So users of whom nobody writes any more are given
/// up; the others are looked up once more.
const BEGIN_ANEW: Duration = Duration::from_secs(600);

/// The open links to presence nodes, by node name. The table is copied when a link opens or ends.
pub type Links = Arc<Mutex<Arc<HashMap<String, Link>>>>;

/// The node's end of an open link.
#[derive(Debug, Clone)]
pub struct Link {
    incarnation: u64,
    questions: mpsc::Sender<Question>,
    known: Arc<Mutex<Known>>,
}

/// A question to a presence node.
#[derive(Debug)]
struct Question {
    users: Vec<UserId>,
    /// True if the users are to be followed.
    follow: bool,
    answer: oneshot::Sender<Answer>,
}

/// The presence node's answer to a question.
#[derive(Debug)]
pub struct Answer {
    /// The reply to the look-up. It is unsure as well if the node's map is older than that of the question.
    pub reply: LookupReply,
    /// The version of the node's map.
    pub map_version: i64,
}

/// A question without an answer.
#[derive(Debug)]
struct Asked {
    /// The version of the map from which the node was chosen.
    map_version: i64,
    users: Vec<UserId>,
    answer: oneshot::Sender<Answer>,
}

impl Link {
    /// Puts a question on the link. `None` if its queue is full.
    pub fn ask(&self, users: Vec<UserId>, follow: bool) -> Option<oneshot::Receiver<Answer>> {
        let (answer, answered) = oneshot::channel();
        let question = Question {
            users,
            follow,
            answer,
        };
        self.questions.try_send(question).ok()?;
        Some(answered)
    }

    /// Forgets all sessions that are known: the presence node does not answer, so it may not tell of changes either.
    pub fn forget(&self) {
        lock(&self.known).forget_all();
    }

    /// Appends the sessions of a user whom this node follows over this link, if it leads to this incarnation of the
    /// presence node. Returns false if they are not known: they have to be looked up.
    pub fn known(&self, incarnation: u64, user: UserId, sessions: &mut Vec<Found>) -> bool {
        self.incarnation == incarnation && lock(&self.known).get(user, sessions)
    }
}

/// Runs a link until it breaks.
pub async fn run(
    ctx: NodeContext,
    links: Links,
    presence: NodeIdentity,
    channel: Channel,
) -> Result<(), Status> {
    static REFERENCE: AtomicU64 = AtomicU64::new(1);
    let (frames, frames_out) = mpsc::channel::<LookupRequests>(4);
    let mut request = Request::new(ReceiverStream::new(frames_out));
    links::identify(&mut request, &ctx);
    let mut client = PresenceClient::new(channel).max_decoding_message_size(links::MAX_LINK_MESSAGE_BYTES);
    let mut replies = client.lookup(request).await?.into_inner();
    let (questions, mut queue) = mpsc::channel::<Question>(QUEUE);
    let known = Arc::<Mutex<Known>>::default();
    let link = Link {
        incarnation: presence.incarnation,
        questions,
        known: known.clone(),
    };
    let _open = Open::new(links, presence.name, link);
    let mut waiting: IdMap<u64, Asked> = IdMap::default();
    let mut begin_anew = interval_at(Instant::now() + BEGIN_ANEW, BEGIN_ANEW);
    // A frame that waits for room. Replies are read meanwhile: the presence node may read nothing until they are.
    let mut out = None::<LookupRequests>;
    loop {
        tokio::select! {
            room = frames.reserve(), if out.is_some() => match (room, out.take()) {
                (Ok(room), Some(frame)) => room.send(frame),
                _ => return Ok(()),
            },
            asked = gather(&mut queue, GATHER), if out.is_none() => {
                let Some(asked) = asked else { return Ok(()) };
                waiting.retain(|_, asked| !asked.answer.is_closed());
                let map_version = ctx.map.current().version();
                let requests = asked.into_iter().map(|question| {
                    let reference = REFERENCE.fetch_add(1, Ordering::Relaxed);
                    let Question { users, follow, answer } = question;
                    let user_ids = users.iter().map(|user| user.to_vec().into()).collect();
                    waiting.insert(reference, Asked { map_version, users, answer });
                    LookupRequest { r#ref: reference, user_ids, follow }
                });
                let requests = requests.collect();
                out = Some(LookupRequests { map_version, requests, ..LookupRequests::default() });
            }
            reply = replies.message() => {
                let Some(reply) = reply? else { return Ok(()) };
                take(reply, &mut waiting, &known);
            }
            _ = begin_anew.tick(), if out.is_none() => {
                lock(&known).begin_anew(REFERENCE.load(Ordering::Relaxed));
                let map_version = ctx.map.current().version();
                out = Some(LookupRequests { map_version, unfollow_all: true, ..LookupRequests::default() });
            }
        }
    }
}

/// Takes a frame of replies, or of users whose sessions have changed.
fn take(frame: LookupReplies, waiting: &mut IdMap<u64, Asked>, known: &Mutex<Known>) {
    for mut reply in frame.replies {
        let Some(asked) = waiting.remove(&reply.r#ref) else {
            continue;
        };
        // A node with an older map may believe in slots whose new owner has been told of sessions since.
        reply.unsure |= frame.map_version < asked.map_version;
        if reply.followed && !reply.unsure {
            lock(known).learn(reply.r#ref, &asked.users, found(&reply));
        }
        let map_version = frame.map_version;
        let _gone = asked.answer.send(Answer { reply, map_version });
    }
    if frame.all_changed {
        lock(known).forget_all();
    }
    let changed = frame
        .changed
        .iter()
        .filter_map(|user| UserId::from_slice(user).ok());
    lock(known).forget(changed);
}

/// Returns the sessions of a reply, without those whose ids are malformed.
pub fn found(reply: &LookupReply) -> impl Iterator<Item = Found> {
    reply.sessions.iter().filter_map(|session| {
        super::found(
            &session.user_id,
            &session.device_id,
            &session.gateway,
            session.session,
        )
    })
}

/// The registration of an open link. The link takes questions until this is dropped.
struct Open {
    links: Links,
    name: String,
    link: Link,
}

impl Open {
    fn new(links: Links, name: String, link: Link) -> Self {
        Arc::make_mut(&mut lock(&links)).insert(name.clone(), link.clone());
        metrics::presence_link_up(&name, true);
        Self { links, name, link }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut links = lock(&self.links);
        if links
            .get(&self.name)
            .is_some_and(|current| current.questions.same_channel(&self.link.questions))
        {
            Arc::make_mut(&mut links).remove(&self.name);
            metrics::presence_link_up(&self.name, false);
        }
    }
}
