//! The users and devices that are barred: users who were suspended and devices that were revoked lately. The gateway
//! takes no calls of them. An access token shows neither, so everyone who was barred within a token's lifetime has to
//! be known here. Streams need no such list, since opening one asks the store.
//!
//! Accounts nodes tell every gateway at once of a suspension or revocation. A gateway that was not told, since it did
//! not answer or had not started yet, learns it from accounts' list. It asks for the list before it takes calls of
//! devices, once more when the accounts nodes know of this gateway, and every [`INTERVAL`].

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};
use std::time::Duration;

use moka::future::Cache;
use tern_cluster::links::RetryWaits;
use tern_cluster::{NodeContext, Role};
use tern_identity::token::ACCEPTED_FOR;
use tern_proto::internal::ListBarredRequest;
use tern_proto::internal::accounts_node_client::AccountsNodeClient;
use tern_transport::admin::Hold;
use tern_types::{DeviceId, UserId};
use tokio::sync::watch;
use tonic::Status;

use tern_gateway_core::session::CloseRequest;

use crate::nodes;
use crate::presence_links::PresenceLinks;
use crate::registry::Registry;

/// The time between two requests for the list.
const INTERVAL: Duration = Duration::from_secs(30);
/// The longest time that an accounts node may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The time from when this gateway's own map shows this gateway to when the maps of the accounts nodes do. From then on
/// they tell it of each suspension and revocation.
const MAPS_AGREE: Duration = Duration::from_secs(2);
/// The longest time that a call waits for the first list: an accounts node may be about to start.
const PATIENCE: Duration = Duration::from_secs(2);
/// The time for which the gateway remembers a revocation that it was told of. By then the device's last access token
/// has expired, even if no accounts node answers all that time.
const TOLD_TTL: Duration = ACCEPTED_FOR;
/// The most told revocations that are remembered: more than there are in an hour. The list has them within
/// [`INTERVAL`].
const MAX_TOLD: u64 = 100_000;

/// The users and devices that are barred, as far as this gateway knows.
#[derive(Debug)]
pub struct Barred {
    known: RwLock<Known>,
    /// The devices of whose revocation the gateway was told. A revocation is never taken back, so a list that lacks one
    /// is only older.
    told: Cache<DeviceId, ()>,
    /// True once the first list has come.
    listed: watch::Sender<bool>,
}

/// The users and devices of the last list, with the users changed by what was told since.
#[derive(Debug, Default)]
struct Known {
    users: HashSet<UserId>,
    /// The devices of the last list.
    devices: HashSet<DeviceId>,
    /// The users of whose suspension, or its end, this gateway was told since it asked for the newest list. The value is
    /// true if the user was suspended last. The list may be older than these changes, so they are made in it too.
    told: HashMap<UserId, bool>,
}

/// Everyone who is barred, as one answer of an accounts node has them.
#[derive(Debug, Default, PartialEq, Eq)]
struct List {
    users: HashSet<UserId>,
    devices: HashSet<DeviceId>,
}

/// The error while the first list has not come, so that it is not known who is barred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotListed;

impl Default for Barred {
    fn default() -> Self {
        Self {
            known: RwLock::default(),
            told: Cache::builder()
                .max_capacity(MAX_TOLD)
                .time_to_live(TOLD_TTL)
                .build(),
            listed: watch::channel(false).0,
        }
    }
}

impl Barred {
    /// Waits for the first list, at most [`PATIENCE`]. `Err` if it has not come by then.
    pub async fn listed(&self) -> Result<(), NotListed> {
        if *self.listed.borrow() {
            return Ok(());
        }
        let mut listed = self.listed.subscribe();
        match tokio::time::timeout(PATIENCE, listed.wait_for(|listed| *listed)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(NotListed),
        }
    }

    /// Returns whether the user is suspended, as far as is known.
    pub fn user(&self, user: UserId) -> bool {
        self.read(|known| known.users.contains(&user))
    }

    /// Returns whether the device is revoked, as far as is known.
    pub fn device(&self, device: DeviceId) -> bool {
        self.told.contains_key(&device) || self.read(|known| known.devices.contains(&device))
    }

    /// Takes note that a user was suspended or resumed just now.
    pub fn suspended(&self, user: UserId, suspended: bool) {
        let mut known = self.write();
        known.told.insert(user, suspended);
        change(&mut known.users, user, suspended);
    }

    /// Takes note that a device was revoked just now.
    pub async fn revoked(&self, device: DeviceId) {
        self.told.insert(device, ()).await;
    }

    /// Asks for the list again and again until the drain has ended. The first list lets go of `hold`, so that the
    /// node can become ready.
    pub async fn run(self: Arc<Self>, ctx: NodeContext, streams: Streams, hold: Hold) {
        let (mut waits, mut hold) = (RetryWaits::default(), Some(hold));
        let mut known_to_others = std::pin::pin!(known_to_others(&ctx));
        let mut is_known = false;
        loop {
            self.asks();
            let wait = match ask(&ctx).await {
                Ok(list) => {
                    waits.reset();
                    streams.end(&self.take(list));
                    hold.take();
                    INTERVAL
                }
                Err(status) => {
                    tracing::warn!(code = ?status.code(), message = status.message(), "cannot ask who is barred");
                    waits.next(Duration::ZERO)
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = &mut known_to_others, if !is_known => is_known = true,
                () = ctx.drain.ended() => return,
            }
        }
    }

    /// Takes note that a list is asked for now.
    fn asks(&self) {
        self.write().told.clear();
    }

    /// Takes the list that was asked for last, with the changes that were told since. Returns what is new on it.
    fn take(&self, mut list: List) -> List {
        let mut known = self.write();
        for (user, suspended) in &known.told {
            change(&mut list.users, *user, *suspended);
        }
        let new_users = list.users.difference(&known.users).copied();
        let new_devices = list.devices.difference(&known.devices).copied();
        let news = List {
            users: new_users.collect(),
            devices: new_devices.collect(),
        };
        (known.users, known.devices) = (list.users, list.devices);
        drop(known);
        self.listed
            .send_if_modified(|listed| !std::mem::replace(listed, true));
        news
    }

    fn read<T>(&self, read: impl FnOnce(&Known) -> T) -> T {
        read(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds a user who was suspended to the suspended ones, or removes one who was resumed.
fn change(users: &mut HashSet<UserId>, user: UserId, suspended: bool) {
    if suspended {
        users.insert(user);
    } else {
        users.remove(&user);
    }
}

/// The parts of this gateway that end streams.
pub struct Streams {
    /// The sessions of this gateway.
    pub registry: Arc<Registry>,
    /// The links over which presence is told that a session has ended.
    pub presence: Arc<PresenceLinks>,
}

impl Streams {
    /// Ends the streams of everyone on the list.
    fn end(&self, barred: &List) {
        for device in &barred.devices {
            if let Some(session) = self.registry.of_device(*device) {
                self.presence.end(&session, CloseRequest::Revoked);
            }
        }
        if barred.users.is_empty() {
            return;
        }
        for session in self
            .registry
            .sessions(|session| barred.users.contains(&session.user))
        {
            self.presence.end(&session, CloseRequest::Suspended);
        }
    }
}

/// Waits until this gateway is told of everything that accounts nodes tell all gateways.
async fn known_to_others(ctx: &NodeContext) {
    let mut changes = ctx.map.clone();
    let mut map = changes.current();
    while map
        .node(Role::Gateway, &ctx.name)
        .is_none_or(|node| node.incarnation != ctx.incarnation)
    {
        map = changes.changed().await;
    }
    tokio::time::sleep(MAPS_AGREE).await;
}

/// Asks an accounts node for the list.
async fn ask(ctx: &NodeContext) -> Result<List, Status> {
    let (node, _) = nodes::find(&ctx.map, |map| map.any(Role::Accounts)).await?;
    let mut client = AccountsNodeClient::new(ctx.channels.get(&node.address)?);
    let answer = tokio::time::timeout(TIMEOUT, client.list_barred(ListBarredRequest {})).await;
    let answer = answer.map_err(|_| Status::deadline_exceeded("no answer in time"))??;
    let answer = answer.into_inner();
    let malformed = |_| Status::internal("ids are 16 bytes");
    let users = answer.user_ids.iter().map(|id| UserId::from_slice(id));
    let devices = answer.device_ids.iter().map(|id| DeviceId::from_slice(id));
    Ok(List {
        users: users.collect::<Result<_, _>>().map_err(malformed)?,
        devices: devices.collect::<Result<_, _>>().map_err(malformed)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(users: &[UserId], devices: &[DeviceId]) -> List {
        List {
            users: users.iter().copied().collect(),
            devices: devices.iter().copied().collect(),
        }
    }

    #[test]
    fn a_list_that_was_asked_for_before_a_suspension_does_not_undo_it_and_all_others_on_it_count() {
        let barred = Barred::default();
        let [alice, bob, carol] = [(); 3].map(|()| UserId::random());
        let phone = DeviceId::random();
        barred.asks();
        barred.suspended(alice, true);
        barred.suspended(carol, false);
        let news = barred.take(list(&[bob, carol], &[phone]));
        assert_eq!(news, list(&[bob], &[phone]));
        assert!(barred.user(alice) && barred.user(bob) && !barred.user(carol));
        assert!(barred.device(phone), "nothing contradicts a revocation");
        barred.asks();
        assert_eq!(barred.take(list(&[carol], &[phone])), list(&[carol], &[]));
        assert!(!barred.user(alice) && !barred.user(bob) && barred.user(carol));
        barred.suspended(carol, false);
        assert!(!barred.user(carol));
    }

    #[tokio::test]
    async fn a_list_that_was_asked_for_before_a_revocation_does_not_undo_it() {
        let (barred, [one, other]) = (Barred::default(), [DeviceId::random(), DeviceId::random()]);
        barred.revoked(one).await;
        barred.take(list(&[], &[other]));
        assert!(barred.device(one) && barred.device(other));
        assert!(!barred.device(DeviceId::random()));
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_before_the_first_list_waits_for_it_but_not_for_ever() {
        let barred = Barred::default();
        assert_eq!(barred.listed().await, Err(NotListed));
        let comes = async { barred.take(List::default()) };
        let (listed, _) = tokio::join!(barred.listed(), comes);
        assert_eq!(listed, Ok(()));
        assert_eq!(barred.listed().await, Ok(()));
    }
}
