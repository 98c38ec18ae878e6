//! Looks up which devices are online, after something was written (rule 3). It asks the presence nodes, over a link
//! to each. For users whose presence node cannot be asked, it asks the gateways over their own links. A settle asks them
//! as well about users whose presence node may not know all sessions, for example because a gateway does not reach it.
//!
//! - A gateway registers a session in its own registry before it reads the device's inbox. So the answers of all
//!   gateways in the map together are as good as the answer of presence. If one of them does not answer, the look-up
//!   has failed.
//! - A node that does not answer is waited for once, and then only probed ([`silent`]).
//! - For pushes, the answers of presence nodes are kept until they say that a user's sessions have changed ([`known`]).
//!   A settle always looks up anew.
//!
//! - [`link`]: the link to one presence node

mod known;
mod link;
mod silent;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use tern_cluster::context::NodeContext;
use tern_cluster::links::{self, NodeIdentity};
use tern_cluster::map::{MapHandle, Node, Role};
use tern_cluster::standing::Standing;
use tern_proto::internal::FoundSession;
use tern_types::{DeviceId, IdMap, IdSet, SessionId, Slot, UserId};
use tokio::time::{Instant, timeout};
use tracing::Instrument;

use link::Links;
use silent::{Ask, Silent};

use crate::gateways::{Gateways, Question};
use crate::metrics;

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
    /// The user who has the session.
    pub user: UserId,
    /// The device that has the session.
    pub device: DeviceId,
    /// The node name of the gateway that has the session.
    pub gateway: Arc<str>,
    /// The session's id on its gateway.
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
    /// have announced sessions to a presence node that was not asked. It is also true if a presence node may not have
    /// heard of all sessions, and the gateways did not make up for that.
    pub unsure: bool,
}

impl Sessions {
    /// Adds sessions, except those that are there already.
    fn add(&mut self, mut found: Vec<Found>) {
        let known = self.sessions.iter();
        let known: IdSet<(&str, SessionId)> = known
            .map(|session| (&*session.gateway, session.session))
            .collect();
        found.retain(|session| !known.contains(&(&*session.gateway, session.session)));
        self.sessions.extend(found);
    }
}

/// The answer of the presence node that owns some users.
struct OwnersAnswer {
    sessions: Vec<Found>,
    /// The users, if the node may not know all of their sessions; otherwise none.
    doubted: Vec<UserId>,
    /// The version of the node's map.
    map_version: i64,
}

/// The sessions to which something is pushed.
#[derive(Debug, Default)]
pub struct Live {
    /// The sessions that are known, or were found.
    pub sessions: Vec<Found>,
    /// The users whose sessions were known, and not looked up.
    pub followed: Vec<UserId>,
    /// True if a node that had to be asked did not answer.
    pub failed: bool,
}

impl From<Sessions> for Live {
    fn from(found: Sessions) -> Self {
        Self {
            sessions: found.sessions,
            followed: Vec::new(),
            failed: found.failed,
        }
    }
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
            link::run(node.clone(), links.clone(), identity_of(&presence), channel)
        });
        lookup
    }

    /// Returns the live sessions of these users for a push that may miss a session, because something else makes up
    /// for it. It looks up only those users whom this node does not follow; then it follows them. A session that has
    /// just begun may be missing among those of a followed user, until the presence node has told of it.
    pub async fn live(&self, users: Vec<UserId>) -> Live {
        let (mut live, unknown) = self.known(users);
        if !unknown.is_empty() {
            let found = self.look_up(unknown, true).await;
            live.sessions.extend(found.sessions);
            live.failed = found.failed;
        }
        live
    }

    /// Returns the sessions of the users whom this node follows at the owners of their slots, and the other users.
    fn known(&self, users: Vec<UserId>) -> (Live, Vec<UserId>) {
        let (mut live, mut unknown) = (Live::default(), Vec::new());
        let (map, links) = (self.map.current(), lock(&self.links).clone());
        for user in users {
            let known = map
                .owner(Role::Presence, Slot::of_user(user))
                .is_some_and(|owner| {
                    let link = links.get(&owner.name);
                    link.is_some_and(|link| link.known(owner.incarnation, user, &mut live.sessions))
                });
            let of = if known { &mut live.followed } else { &mut unknown };
            of.push(user);
        }
        (live, unknown)
    }

    /// Looks up the live sessions of these users. It answers within the sum of the two times of [`Patience`],
    /// because the gateways are asked after the presence nodes.
    pub async fn sessions(&self, users: Vec<UserId>) -> Sessions {
        self.look_up(users, false).await
    }

    /// Looks up the live sessions of these users. With `follow` it follows those whose presence node answers, and is
    /// content with what an unsure presence node knows.
    async fn look_up(&self, users: Vec<UserId>, follow: bool) -> Sessions {
        let map = self.map.current();
        let (mut elsewhere, mut doubted) = (Vec::new(), Vec::new());
        let mut by_node: IdMap<&str, (NodeIdentity, Vec<UserId>)> = IdMap::default();
        for user in users {
            match map.owner(Role::Presence, Slot::of_user(user)) {
                Some(node) => {
                    let of_node = by_node
                        .entry(&node.name)
                        .or_insert_with(|| (identity_of(node), Vec::new()));
                    of_node.1.push(user);
                }
                None => elsewhere.push(user),
            }
        }
        let asked = by_node
            .into_values()
            .map(|(node, users)| self.of_owner(node, users, follow));
        let (mut result, mut newest) = (Sessions::default(), 0);
        for answer in join_all(asked).await {
            match answer {
                Ok(answer) => {
                    result.sessions.extend(answer.sessions);
                    doubted.extend(answer.doubted);
                    newest = newest.max(answer.map_version);
                }
                Err(users) => elsewhere.extend(users),
            }
        }
        result.unsure = !doubted.is_empty();
        // The gateways in this node's map can make up for what a presence node does not know, unless that node's map has
        // further gateways, which are new.
        let asks = !follow && self.standing.is_held() && newest <= self.map.current().version();
        let needed = !elsewhere.is_empty();
        if asks {
            elsewhere.extend(doubted);
        }
        if !elsewhere.is_empty() {
            let at_gateways = self.at_gateways(&elsewhere).await;
            metrics::looked_up_at_gateways(!at_gateways.failed);
            result.failed = needed && at_gateways.failed;
            result.unsure &= !asks || at_gateways.failed;
            result.add(at_gateways.sessions);
        }
        // The lease is checked last: if it is alive now, it was alive when the map was read.
        result.unsure |= !self.standing.is_held();
        result
    }

    /// Asks the presence node that owns these users. `Err` gives the users back if the node was not asked, did not
    /// answer in time, or does not own them.
    async fn of_owner(
        &self,
        node: NodeIdentity,
        users: Vec<UserId>,
        follow: bool,
    ) -> Result<OwnersAnswer, Vec<UserId>> {
        let ask = self.silent().ask(Role::Presence, &node, Instant::now());
        if ask == Ask::Skip {
            return Err(users);
        }
        let link = lock(&self.links).get(&node.name).cloned();
        let Some(link) = link else { return Err(users) };
        let Some(mut answer) = link.ask(users.clone(), follow) else {
            return Err(users);
        };
        if ask == Ask::Probe {
            self.listen(Role::Presence, node, async move { answer.await.is_ok() });
            return Err(users);
        }
        match timeout(self.patience.presence, &mut answer).await {
            Ok(Ok(answer)) if !answer.reply.not_owner => Ok(OwnersAnswer {
                sessions: link::found(&answer.reply).collect(),
                doubted: if answer.reply.unsure { users } else { Vec::new() },
                map_version: answer.map_version,
            }),
            // Its map or this node's is out of date, or the link broke.
            Ok(_) => Err(users),
            Err(_) => {
                tracing::warn!(
                    presence = node.name,
                    "no answer to a look-up: asking the gateways"
                );
                link.forget();
                self.silent()
                    .fell_silent(Role::Presence, node.clone(), Instant::now());
                self.listen(Role::Presence, node, async move { answer.await.is_ok() });
                Err(users)
            }
        }
    }

    /// Notes that the node answers again, if it does within [`LATE`].
    fn listen(&self, role: Role, node: NodeIdentity, answer: impl Future<Output = bool> + Send + 'static) {
        let lookup = self.clone();
        let listen = async move {
            if timeout(LATE, answer).await.unwrap_or(false) && lookup.silent().answered(role, &node) {
                tracing::info!(node = node.name, "answers look-ups again");
            }
        };
        tokio::spawn(listen.in_current_span());
    }

    /// Asks all gateways that are linked or in the map for the sessions of these users. The look-up has failed unless
    /// all gateways in the map answer, and there is at least one.
    async fn at_gateways(&self, users: &[UserId]) -> Sessions {
        let map = self.map.current();
        let mut gateways: HashMap<NodeIdentity, bool> = self
            .gateways
            .linked()
            .into_iter()
            .map(|gateway| (gateway, false))
            .collect();
        gateways.extend(
            map.nodes(Role::Gateway)
                .iter()
                .map(|node| (identity_of(node), true)),
        );
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
        gateway: NodeIdentity,
        counts: bool,
        user_ids: Vec<Bytes>,
    ) -> (NodeIdentity, bool, Option<Vec<FoundSession>>) {
        let ask = self.silent().ask(Role::Gateway, &gateway, Instant::now());
        let question = match ask {
            Ask::Skip => None,
            Ask::Wait | Ask::Probe => self.gateways.find_sessions(&gateway, user_ids),
        };
        let answer = match question {
            Some(question) if ask == Ask::Wait => self.within_patience(&gateway, question).await,
            Some(question) => {
                self.listen(Role::Gateway, gateway.clone(), async move {
                    question.answered().await.is_some()
                });
                None
            }
            None => None,
        };
        (gateway, counts, answer)
    }

    /// Waits for a gateway's answer. `None` if it does not come in time, after which the gateway counts as silent.
    async fn within_patience(&self, gateway: &NodeIdentity, question: Question) -> Option<Vec<FoundSession>> {
        match timeout(self.patience.gateway, question.answered()).await {
            Ok(answer) => answer,
            Err(_) => {
                tracing::warn!(gateway = gateway.name, "no answer to a look-up");
                self.silent()
                    .fell_silent(Role::Gateway, gateway.clone(), Instant::now());
                None
            }
        }
    }

    fn silent(&self) -> MutexGuard<'_, Silent> {
        lock(&self.silent)
    }
}

fn identity_of(node: &Node) -> NodeIdentity {
    NodeIdentity {
        name: node.name.clone(),
        incarnation: node.incarnation,
    }
}

/// Makes a session of its parts; `None` if the ids are malformed.
fn found(user: &[u8], device: &[u8], gateway: &str, session: u64) -> Option<Found> {
    Some(Found {
        user: UserId::from_slice(user).ok()?,
        device: DeviceId::from_slice(device).ok()?,
        gateway: gateway.into(),
        session: SessionId(session),
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Live messages wait for a look-up. So this bounds their delay when the network between chat and presence nodes is
    /// cut.
    #[test]
    fn where_presence_does_not_answer_a_look_up_is_over_within_two_seconds() {
        let patience = Patience::default();
        assert!(
            patience.presence + patience.gateway < Duration::from_secs(2),
            "{patience:?}"
        );
    }
}
