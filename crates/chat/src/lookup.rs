//! Who is online: a link to each presence node, asked after something was written (rule 3).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use tern_node::context::NodeContext;
use tern_node::links::{self, gather};
use tern_node::map::{Node, Role};
use tern_proto::internal::presence_client::PresenceClient;
use tern_proto::internal::{LookupReply, LookupRequest, LookupRequests};
use tern_types::{DeviceId, IdMap, SessionId, Slot, UserId};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::metrics;

/// Look-ups on their way to one presence node. A full queue fails the look-up: a settle tries again.
const QUEUE: usize = 1024;
/// Look-ups in one frame.
const GATHER: usize = 64;
/// A presence node answers from memory; one that does not answer by then has failed.
const TIMEOUT: Duration = Duration::from_secs(2);

/// A live session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub user: UserId,
    pub device: DeviceId,
    pub gateway: String,
    pub session: SessionId,
}

/// What the presence nodes know. Where one of them failed, `failed` is set: missing is then not offline (fine print 5).
#[derive(Debug, Default)]
pub struct Sessions {
    pub sessions: Vec<Found>,
    pub failed: bool,
}

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Lookup {
    ctx_map: tern_node::map::MapHandle,
    links: Arc<Mutex<HashMap<String, mpsc::Sender<Ask>>>>,
}

type Ask = (Vec<UserId>, oneshot::Sender<LookupReply>);

impl Lookup {
    /// Keeps a link to each presence node up.
    pub fn start(ctx: &NodeContext) -> Self {
        let lookup = Self {
            ctx_map: ctx.map.clone(),
            links: Arc::default(),
        };
        let (links, node) = (lookup.links.clone(), ctx.clone());
        links::maintain(ctx, Role::Presence, move |presence: Node, channel| {
            link(node.clone(), links.clone(), presence, channel)
        });
        lookup
    }

    /// The live sessions of these users.
    pub async fn sessions(&self, users: Vec<UserId>) -> Sessions {
        let map = self.ctx_map.current();
        let mut result = Sessions::default();
        let mut by_node: IdMap<&str, Vec<UserId>> = IdMap::default();
        for user in users {
            match map.owner(Role::Presence, Slot::of_user(user)) {
                Some(node) => by_node.entry(&node.name).or_default().push(user),
                None => result.failed = true,
            }
        }
        let asked = by_node.into_iter().map(|(node, users)| self.ask(node, users));
        for reply in join_all(asked).await {
            match reply {
                Some(reply) if !reply.not_owner => {
                    result
                        .sessions
                        .extend(reply.sessions.into_iter().filter_map(|session| {
                            Some(Found {
                                user: UserId::from_slice(&session.user_id).ok()?,
                                device: DeviceId::from_slice(&session.device_id).ok()?,
                                gateway: session.gateway,
                                session: SessionId(session.session),
                            })
                        }));
                }
                _ => result.failed = true,
            }
        }
        result
    }

    async fn ask(&self, node: &str, users: Vec<UserId>) -> Option<LookupReply> {
        let link = lock(&self.links).get(node).cloned()?;
        let (answer, answered) = oneshot::channel();
        link.try_send((users, answer)).ok()?;
        tokio::time::timeout(TIMEOUT, answered).await.ok()?.ok()
    }
}

/// One life of a link to a presence node.
async fn link(
    ctx: NodeContext,
    links: Arc<Mutex<HashMap<String, mpsc::Sender<Ask>>>>,
    presence: Node,
    channel: Channel,
) -> Result<(), Status> {
    static REFERENCE: AtomicU64 = AtomicU64::new(1);
    let (frames, frames_out) = mpsc::channel::<LookupRequests>(4);
    let mut request = Request::new(ReceiverStream::new(frames_out));
    links::identify(&mut request, &ctx);
    let mut client = PresenceClient::new(channel).max_decoding_message_size(links::MAX_LINK_MESSAGE_BYTES);
    let mut replies = client.lookup(request).await?.into_inner();
    let (asks, mut queue) = mpsc::channel::<Ask>(QUEUE);
    let _open = Open::new(links, presence.name, asks);
    let mut waiting: IdMap<u64, oneshot::Sender<LookupReply>> = IdMap::default();
    loop {
        tokio::select! {
            asked = gather(&mut queue, GATHER) => {
                let Some(asked) = asked else { return Ok(()) };
                waiting.retain(|_, answer| !answer.is_closed());
                let requests = asked.into_iter().map(|(users, answer)| {
                    let reference = REFERENCE.fetch_add(1, Ordering::Relaxed);
                    waiting.insert(reference, answer);
                    let user_ids = users.into_iter().map(|user| user.to_vec().into()).collect();
                    LookupRequest { r#ref: reference, user_ids }
                });
                let requests = requests.collect();
                let frame = LookupRequests { map_version: ctx.map.current().version(), requests };
                if frames.send(frame).await.is_err() {
                    return Ok(());
                }
            }
            reply = replies.message() => {
                let Some(reply) = reply? else { return Ok(()) };
                for reply in reply.replies {
                    if let Some(answer) = waiting.remove(&reply.r#ref) {
                        let _gone = answer.send(reply);
                    }
                }
            }
        }
    }
}

/// The link takes questions while this lives.
struct Open {
    links: Arc<Mutex<HashMap<String, mpsc::Sender<Ask>>>>,
    name: String,
    asks: mpsc::Sender<Ask>,
}

impl Open {
    fn new(
        links: Arc<Mutex<HashMap<String, mpsc::Sender<Ask>>>>,
        name: String,
        asks: mpsc::Sender<Ask>,
    ) -> Self {
        lock(&links).insert(name.clone(), asks.clone());
        metrics::presence_link_up(&name, true);
        Self { links, name, asks }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut links = lock(&self.links);
        if links
            .get(&self.name)
            .is_some_and(|current| current.same_channel(&self.asks))
        {
            links.remove(&self.name);
            metrics::presence_link_up(&self.name, false);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
