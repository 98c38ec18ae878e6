//! Looks up which devices are online, after something was written (rule 3). It asks the presence nodes, over a link
//! to each. For users whose presence node cannot be asked, it asks the gateways over their own links.
//!
//! - A gateway registers a session in its own registry before it reads the device's inbox. So the answers of all
//!   gateways in the map together are as good as the answer of presence. If one of them does not answer, the look-up
//!   has failed.
//! - A node that does not answer is waited for once, and then only probed ([`silent`]).

mod silent;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use tern_cluster::context::NodeContext;
use tern_cluster::links::{self, Peer, gather};
use tern_cluster::map::{MapHandle, Node, Role};
use tern_cluster::standing::Standing;
use tern_proto::internal::presence_client::PresenceClient;
use tern_proto::internal::{FoundSession, LookupReply, LookupRequest, LookupRequests};
use tern_types::{DeviceId, IdMap, SessionId, Slot, UserId};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Status};
use tracing::Instrument;

use silent::{Ask, Silent};

use crate::gateways::{Gateways, Question};
use crate::metrics;

/// The most look-ups that wait for one presence node. If its queue is full, the gateways are asked.
const QUEUE: usize = 1024;
/// The most look-ups in one frame.
const GATHER: usize = 64;
/// The longest times that a look-up waits for an answer.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// The longest wait for a presence node's answer. A presence node answers from memory, within milliseconds. After
    /// this time the gateways are asked, so that a message is late by no more than this when the network is cut.
    pub presence: Duration,
    /// The longest wait for a gateway's answer. A gateway answers from memory too, after the items that are before the
    /// question on its link. If it does not answer in this time, the look-up has failed.
    pub gateway: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            presence: Duration::from_millis(300),
            gateway: Duration::from_secs(1),
        }
    }
}

/// The time for which a late answer is still listened for, because it shows that the node answers again.
const LATE: Duration = Duration::from_secs(2);

/// A live session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub user: UserId,
    pub device: DeviceId,
    /// The node name of the gateway that has the session.
    pub gateway: String,
    pub session: SessionId,
}

/// The result of a look-up. A user without a session here is offline only if neither `failed` nor `unsure` is set
/// (fine print 5).
#[derive(Debug, Default)]
pub struct Sessions {
    /// The sessions that were found.
    pub sessions: Vec<Found>,
    /// True if a node that had to be asked did not answer.
    pub failed: bool,
    /// True if this node, or a presence node that was asked, may use a map that others no longer use. Gateways may then
    /// have announced sessions to a presence node that was not asked.
    pub unsure: bool,
}

/// The look-up of sessions. It is cheap to clone.
#[derive(Debug, Clone)]
pub struct Lookup {
    map: MapHandle,
    standing: Standing,
    links: Links,
    gateways: Gateways,
    silent: Arc<Mutex<Silent>>,
    patience: Patience,
}

/// The queues of the open links to presence nodes, by node name.
type Links = Arc<Mutex<HashMap<String, mpsc::Sender<ToPresence>>>>;

/// A question to a presence node: the users, and the channel for its answer.
type ToPresence = (Vec<UserId>, oneshot::Sender<LookupReply>);

impl Lookup {
    /// Starts the links: one to each presence node, which is made again when it breaks.
    pub fn start(ctx: &NodeContext, gateways: Gateways, patience: Patience) -> Self {
        let lookup = Self {
            map: ctx.map.clone(),
            standing: ctx.standing.clone(),
            links: Arc::default(),
            gateways,
            silent: Arc::default(),
            patience,
        };
        let (links, node) = (lookup.links.clone(), ctx.clone());
        links::maintain(ctx, Role::Presence, move |presence: Node, channel| {
            link(node.clone(), links.clone(), presence, channel)
        });
        lookup
    }

    /// Looks up the live sessions of these users. It answers within the sum of the two times of [`Patience`],
    /// because the gateways are asked after the presence nodes.
    pub async fn sessions(&self, users: Vec<UserId>) -> Sessions {
        let map = self.map.current();
        let mut sessions = Vec::new();
        let mut elsewhere = Vec::new();
        let mut by_node: IdMap<&str, (Peer, Vec<UserId>)> = IdMap::default();
        for user in users {
            match map.owner(Role::Presence, Slot::of_user(user)) {
                Some(node) => {
                    let of_node = by_node
                        .entry(&node.name)
                        .or_insert_with(|| (peer(node), Vec::new()));
                    of_node.1.push(user);
                }
                None => elsewhere.push(user),
            }
        }
        let asked = by_node
            .into_values()
            .map(|(node, users)| self.of_owner(node, users));
        let (mut failed, mut unsure) = (false, false);
        for answer in join_all(asked).await {
            match answer {
                Ok((found, owner_unsure)) => {
                    sessions.extend(found);
                    unsure |= owner_unsure;
                }
                Err(users) => elsewhere.extend(users),
            }
        }
        if !elsewhere.is_empty() {
            let at_gateways = self.at_gateways(&elsewhere).await;
            metrics::looked_up_at_gateways(!at_gateways.failed);
            sessions.extend(at_gateways.sessions);
            failed = at_gateways.failed;
        }
        Sessions {
            sessions,
            failed,
            // The lease is checked last: if it is alive now, it was alive when the map was read.
            unsure: unsure || !self.standing.is_held(),
        }
    }

    /// Asks the presence node that owns these users. Returns their sessions, and whether the node is unsure. `Err`
    /// gives the users back if the node was not asked, did not answer in time, or does not own them.
    async fn of_owner(&self, node: Peer, users: Vec<UserId>) -> Result<(Vec<Found>, bool), Vec<UserId>> {
        let ask = self.silent().ask(&node, Instant::now());
        if ask == Ask::Skip {
            return Err(users);
        }
        let Some(mut answer) = self.ask(&node.name, users.clone()) else {
            return Err(users);
        };
        if ask == Ask::Probe {
            self.listen(node, async move { answer.await.is_ok() });
            return Err(users);
        }
        match timeout(self.patience.presence, &mut answer).await {
            Ok(Ok(reply)) if !reply.not_owner => {
                let sessions = reply.sessions.into_iter().filter_map(|session| {
                    found(
                        &session.user_id,
                        &session.device_id,
                        &session.gateway,
                        session.session,
                    )
                });
                Ok((sessions.collect(), reply.unsure))
            }
            // Its map or this node's is out of date, or the link broke.
            Ok(_) => Err(users),
            Err(_) => {
                tracing::warn!(
                    presence = node.name,
                    "no answer to a look-up: asking the gateways"
                );
                self.silent().fell_silent(node.clone(), Instant::now());
                self.listen(node, async move { answer.await.is_ok() });
                Err(users)
            }
        }
    }

    /// Puts a question on the link to a presence node. `None` if there is no link, or its queue is full.
    fn ask(&self, node: &str, users: Vec<UserId>) -> Option<oneshot::Receiver<LookupReply>> {
        let link = lock(&self.links).get(node).cloned()?;
        let (answer, answered) = oneshot::channel();
        link.try_send((users, answer)).ok()?;
        Some(answered)
    }

    /// Notes that the node answers again, if it does within [`LATE`].
    fn listen(&self, node: Peer, answer: impl Future<Output = bool> + Send + 'static) {
        let lookup = self.clone();
        let listen = async move {
            if timeout(LATE, answer).await.unwrap_or(false) && lookup.silent().answered(&node) {
                tracing::info!(node = node.name, "answers look-ups again");
            }
        };
        tokio::spawn(listen.in_current_span());
    }

    /// Asks all gateways that are linked or in the map for the sessions of these users. The look-up has failed unless
    /// all gateways in the map answer, and there is at least one.
    async fn at_gateways(&self, users: &[UserId]) -> Sessions {
        let map = self.map.current();
        let mut gateways: HashMap<Peer, bool> = self
            .gateways
            .linked()
            .into_iter()
            .map(|gateway| (gateway, false))
            .collect();
        gateways.extend(map.nodes(Role::Gateway).iter().map(|node| (peer(node), true)));
        let user_ids: Vec<Bytes> = users.iter().map(|user| user.to_vec().into()).collect();
        let asked = gateways
            .into_iter()
            .map(|(gateway, counts)| self.at_gateway(gateway, counts, user_ids.clone()));
        let mut result = Sessions {
            sessions: Vec::new(),
            failed: map.nodes(Role::Gateway).is_empty(),
            unsure: false,
        };
        for (gateway, counts, answer) in join_all(asked).await {
            let sessions = answer.iter().flatten().filter_map(|session| {
                found(
                    &session.user_id,
                    &session.device_id,
                    &gateway.name,
                    session.session,
                )
            });
            result.sessions.extend(sessions);
            result.failed |= counts && answer.is_none();
        }
        result
    }

    /// Asks one gateway, which may be silent. Returns the gateway and `counts` as they were given, and the answer;
    /// `counts` says whether the look-up fails without it.
    async fn at_gateway(
        &self,
        gateway: Peer,
        counts: bool,
        user_ids: Vec<Bytes>,
    ) -> (Peer, bool, Option<Vec<FoundSession>>) {
        let ask = self.silent().ask(&gateway, Instant::now());
        let question = match ask {
            Ask::Skip => None,
            Ask::Wait | Ask::Probe => self.gateways.find_sessions(&gateway, user_ids),
        };
        let answer = match question {
            Some(question) if ask == Ask::Wait => self.within_patience(&gateway, question).await,
            Some(question) => {
                self.listen(
                    gateway.clone(),
                    async move { question.answered().await.is_some() },
                );
                None
            }
            None => None,
        };
        (gateway, counts, answer)
    }

    /// Waits for a gateway's answer. `None` if it does not come in time, after which the gateway counts as silent.
    async fn within_patience(&self, gateway: &Peer, question: Question) -> Option<Vec<FoundSession>> {
        match timeout(self.patience.gateway, question.answered()).await {
            Ok(answer) => answer,
            Err(_) => {
                tracing::warn!(gateway = gateway.name, "no answer to a look-up");
                self.silent().fell_silent(gateway.clone(), Instant::now());
                None
            }
        }
    }

    fn silent(&self) -> MutexGuard<'_, Silent> {
        lock(&self.silent)
    }
}

fn peer(node: &Node) -> Peer {
    Peer {
        name: node.name.clone(),
        incarnation: node.incarnation,
    }
}

/// Makes a session of its parts; `None` if the ids are malformed.
fn found(user: &[u8], device: &[u8], gateway: &str, session: u64) -> Option<Found> {
    Some(Found {
        user: UserId::from_slice(user).ok()?,
        device: DeviceId::from_slice(device).ok()?,
        gateway: gateway.to_owned(),
        session: SessionId(session),
    })
}

/// Runs a link to a presence node until it breaks.
async fn link(ctx: NodeContext, links: Links, presence: Node, channel: Channel) -> Result<(), Status> {
    static REFERENCE: AtomicU64 = AtomicU64::new(1);
    let (frames, frames_out) = mpsc::channel::<LookupRequests>(4);
    let mut request = Request::new(ReceiverStream::new(frames_out));
    links::identify(&mut request, &ctx);
    let mut client = PresenceClient::new(channel).max_decoding_message_size(links::MAX_LINK_MESSAGE_BYTES);
    let mut replies = client.lookup(request).await?.into_inner();
    let (asks, mut queue) = mpsc::channel::<ToPresence>(QUEUE);
    let _open = Open::new(links, presence.name, asks);
    // The questions without an answer, each with the version of the map from which the node was chosen.
    let mut waiting: IdMap<u64, (i64, oneshot::Sender<LookupReply>)> = IdMap::default();
    loop {
        tokio::select! {
            asked = gather(&mut queue, GATHER) => {
                let Some(asked) = asked else { return Ok(()) };
                waiting.retain(|_, (_, answer)| !answer.is_closed());
                let map_version = ctx.map.current().version();
                let requests = asked.into_iter().map(|(users, answer)| {
                    let reference = REFERENCE.fetch_add(1, Ordering::Relaxed);
                    waiting.insert(reference, (map_version, answer));
                    let user_ids = users.into_iter().map(|user| user.to_vec().into()).collect();
                    LookupRequest { r#ref: reference, user_ids }
                });
                let requests = requests.collect();
                let frame = LookupRequests { map_version, requests };
                if frames.send(frame).await.is_err() {
                    return Ok(());
                }
            }
            reply = replies.message() => {
                let Some(reply) = reply? else { return Ok(()) };
                let by = reply.map_version;
                for mut reply in reply.replies {
                    if let Some((asked_by, answer)) = waiting.remove(&reply.r#ref) {
                        // A node with an older map may believe in slots whose new owner has been told of sessions
                        // since.
                        reply.unsure |= by < asked_by;
                        let _gone = answer.send(reply);
                    }
                }
            }
        }
    }
}

/// The registration of an open link. The link takes questions until this is dropped.
struct Open {
    links: Links,
    name: String,
    asks: mpsc::Sender<ToPresence>,
}

impl Open {
    fn new(links: Links, name: String, asks: mpsc::Sender<ToPresence>) -> Self {
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
