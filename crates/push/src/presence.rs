//! Asks presence nodes which devices have a stream, and on which of them a person is active.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use futures::future::join_all;
use tern_cluster::NodeContext;
use tern_cluster::map::Role;
use tern_proto::internal::GetSessionsRequest;
use tern_proto::internal::presence_client::PresenceClient;
use tern_push_core::facts::Presence;
use tern_types::{DeviceId, Slot, UserId};
use tokio::time::timeout;
use tonic::Status;

use crate::metrics;

/// The time within which a presence node has to answer. A push to a device about which nothing is known waits for some
/// seconds, so a node that hangs delays pushes, but none is lost.
const PATIENCE: Duration = Duration::from_millis(300);
/// The most users of one question: see `GetSessionsRequest.user_ids`.
const MAX_USERS: usize = 256;

/// Asks the presence nodes of the platform. It is cheap to clone.
#[derive(Clone)]
pub struct Sessions {
    ctx: NodeContext,
}

/// The answers of presence nodes.
#[derive(Debug, Default)]
pub struct Found {
    /// The devices with a stream, and whether the person is active on each.
    live: HashMap<DeviceId, bool>,
    /// The users of whom no sure answer came.
    unsure: HashSet<UserId>,
}

impl Found {
    /// Returns what is known of the user's device.
    pub fn presence(&self, user: UserId, device: DeviceId) -> Presence {
        match self.live.get(&device) {
            Some(true) => Presence::Active,
            Some(false) => Presence::Live,
            None if self.unsure.contains(&user) => Presence::Unsure,
            None => Presence::Offline,
        }
    }
}

impl Sessions {
    /// Makes a client that finds the presence nodes by the map of `ctx`.
    pub fn new(ctx: NodeContext) -> Self {
        Self { ctx }
    }

    /// Asks the owners of the users' slots, all at the same time. Users whose owner is unknown, is unsure or does not
    /// answer in time are unsure.
    pub async fn of(&self, users: HashSet<UserId>) -> Found {
        let map = self.ctx.map.current();
        let mut found = Found::default();
        let mut by_node: BTreeMap<&str, Vec<UserId>> = BTreeMap::new();
        for user in users {
            match map.owner(Role::Presence, Slot::of_user(user)) {
                Some(node) => {
                    by_node.entry(&node.address).or_default().push(user);
                }
                None => {
                    found.unsure.insert(user);
                }
            }
        }
        let mut questions = Vec::new();
        for (address, users) in by_node {
            for some in users.chunks(MAX_USERS) {
                questions.push(self.ask(address, some.to_vec(), map.version()));
            }
        }
        for (users, sessions) in join_all(questions).await {
            match sessions {
                Some(sessions) => {
                    for (device, active) in sessions {
                        let live = found.live.entry(device).or_default();
                        *live |= active;
                    }
                }
                None => found.unsure.extend(users),
            }
        }
        found
    }

    /// Asks one node about some users. Returns the users, and their sessions if the answer is sure.
    async fn ask(
        &self,
        address: &str,
        users: Vec<UserId>,
        map_version: i64,
    ) -> (Vec<UserId>, Option<Vec<(DeviceId, bool)>>) {
        let request = GetSessionsRequest {
            map_version,
            user_ids: users.iter().map(|user| user.to_vec().into()).collect(),
        };
        let call = async {
            let mut client = PresenceClient::new(self.ctx.channels.get(address)?);
            client.get_sessions(request).await
        };
        let answer = timeout(PATIENCE, call)
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")));
        let answer = match answer {
            Ok(answer) => answer.into_inner(),
            Err(status) => {
                metrics::presence_failed();
                tracing::debug!(code = ?status.code(), message = status.message(), "a presence node does not answer");
                return (users, None);
            }
        };
        if answer.not_owner || answer.unsure {
            return (users, None);
        }
        let sessions = answer.sessions.iter().filter_map(|session| {
            let device = DeviceId::from_slice(&session.device_id).ok()?;
            Some((device, session.active))
        });
        let sessions = sessions.collect();
        (users, Some(sessions))
    }
}
