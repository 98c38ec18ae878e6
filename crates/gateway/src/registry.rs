//! The sessions of this gateway, by id, by device and by user. A session is registered as long as its
//! [`Registration`] lives, unless it is ended before.

use std::collections::BTreeSet;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tern_types::{DeviceId, IdMap, SessionId, Slot, Timestamp, UserId};
use tokio::sync::Notify;

use tern_gateway_core::session::CloseRequest;

use crate::mailbox::Mailbox;
use crate::metrics;

/// The number of tables over which sessions are spread. Each has a lock, so that links and streams seldom wait for each
/// other.
const TABLES: usize = 16;

/// One session, as the rest of the gateway sees it. It may have ended: then the registry does not have it any more.
#[derive(Debug)]
pub struct Handle {
    /// The id of the session.
    pub id: SessionId,
    /// The user of the session.
    pub user: UserId,
    /// The device of the session.
    pub device: DeviceId,
    /// The time at which the session began, by the wall clock. It is for operators.
    pub since: Timestamp,
    /// The mailbox into which other tasks put what they have for the session.
    pub mailbox: Arc<Mailbox>,
    /// True once presence has taken an announcement of the session.
    announced: AtomicBool,
    /// The stream's number, which orders the device's streams on all gateways. 0 while the stream is not open yet.
    number: AtomicU64,
    /// The newest sign of the user's activity on this session.
    sign: Mutex<Sign>,
}

/// A sign of a user's activity on a session: the user is at the device, or has left it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sign {
    /// True if the user is at the device, false if they have left it.
    pub active: bool,
    /// The time at which the sign came, by the wall clock. It is shown as last seen. Zero if there was no sign.
    pub at: Timestamp,
    /// The time at which the sign came, in monotonic time.
    pub said: Timestamp,
}

impl Handle {
    /// Returns the slot of the user, which says which presence node is told of the session.
    pub fn slot(&self) -> Slot {
        Slot::of_user(self.user)
    }

    /// Returns whether presence has ever taken an announcement of the session.
    pub fn is_announced(&self) -> bool {
        self.announced.load(Ordering::Acquire)
    }

    /// Replaces the newest sign.
    pub fn set_sign(&self, sign: Sign) {
        *self.sign.lock().unwrap_or_else(PoisonError::into_inner) = sign;
    }

    /// Returns the newest sign.
    pub fn sign(&self) -> Sign {
        *self.sign.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the stream's number, drawn from the store when the stream was opened. `None` while it is not open yet.
    pub fn number(&self) -> Option<NonZeroU64> {
        NonZeroU64::new(self.number.load(Ordering::Acquire))
    }

    /// Sets the stream's number, unless it has one.
    pub fn set_number(&self, number: u64) {
        let _kept = self
            .number
            .compare_exchange(0, number, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Notes that presence has taken an announcement. Returns true if it is the first one.
    pub fn first_announced(&self) -> bool {
        !self.announced.swap(true, Ordering::AcqRel)
    }
}

/// Returns the mark of a store: the first 8 bytes of its epoch as a number, or 1 if that is 0. An epoch that is no UUID
/// comes from a test.
fn mark(epoch: &str) -> u64 {
    let epoch = uuid::Uuid::try_parse(epoch).unwrap_or_default();
    epoch.as_u64_pair().0.max(1)
}

/// The sessions of one gateway, and the store that they belong to.
#[derive(Debug)]
pub struct Registry {
    tables: [RwLock<IdMap<SessionId, Arc<Handle>>>; TABLES],
    devices: Mutex<IdMap<DeviceId, SessionId>>,
    /// The pairs of a user and a session, in order, so that the sessions of a user take no allocation of their own.
    users: Mutex<BTreeSet<(UserId, SessionId)>>,
    /// The number of registered sessions.
    count: AtomicUsize,
    /// Notified when the last session is unregistered.
    emptied: Notify,
    incarnation: u64,
    /// The lower 32 bits of the newest session id.
    last: AtomicU32,
    store: Store,
}

/// The store that the sessions belong to, as far as it is known.
#[derive(Debug, Default)]
struct Store {
    /// The epoch, as in `tern.v1.Opened.store_epoch`. Empty while it is not known.
    epoch: Mutex<String>,
    /// The mark, as in `tern.internal.v1.ControlUp.store`. 0 while it is not known.
    mark: AtomicU64,
}

/// The guard that keeps a session registered. Dropping it ends the session.
#[derive(Debug)]
pub struct Registration {
    registry: Arc<Registry>,
    handle: Arc<Handle>,
}

impl Registry {
    /// Makes an empty registry of a gateway of this incarnation. Session ids begin with its lower 32 bits, so that none
    /// is used twice.
    pub fn new(incarnation: u64) -> Self {
        Self {
            tables: Default::default(),
            devices: Mutex::default(),
            users: Mutex::default(),
            count: AtomicUsize::new(0),
            emptied: Notify::new(),
            incarnation,
            last: AtomicU32::new(0),
            store: Store::default(),
        }
    }

    /// Returns whether the sessions belong to the store of this epoch.
    pub fn knows_store(&self, epoch: &str) -> bool {
        *self.epoch() == epoch
    }

    /// Returns the mark of the store, as the links carry it. 0 while it is not known.
    pub fn store_mark(&self) -> u64 {
        self.store.mark.load(Ordering::Acquire)
    }

    /// Makes the store of this epoch the one that sessions belong to. If they belonged to another one they are all
    /// told to end: what they know of the chats' logs is not true there.
    pub fn store_is(&self, epoch: &str) {
        let before = std::mem::replace(&mut *self.epoch(), epoch.to_owned());
        self.store.mark.store(mark(epoch), Ordering::Release);
        if before.is_empty() || before == epoch {
            return;
        }
        let sessions = self.sessions(|_| true);
        tracing::warn!(epoch, sessions = sessions.len(), "another store: all streams end");
        for session in sessions {
            session.mailbox.close(CloseRequest::Restored);
        }
    }

    fn epoch(&self) -> MutexGuard<'_, String> {
        self.store.epoch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns an id for a new session.
    pub fn next_id(&self) -> SessionId {
        let number = self.last.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        SessionId(self.incarnation << 32 | u64::from(number))
    }

    /// Registers a session. An older session of the device on this gateway is told that it was replaced, is
    /// unregistered at once, and returned.
    pub fn register(
        self: &Arc<Self>,
        id: SessionId,
        user: UserId,
        device: DeviceId,
        since: Timestamp,
        mailbox: Arc<Mailbox>,
    ) -> (Registration, Option<Arc<Handle>>) {
        let handle = Arc::new(Handle {
            id,
            user,
            device,
            since,
            mailbox,
            announced: AtomicBool::new(false),
            number: AtomicU64::new(0),
            sign: Mutex::default(),
        });
        let older = self.insert(&handle).and_then(|older| self.get(older));
        let older = older.filter(|older| self.end(older, CloseRequest::Replaced));
        let registration = Registration {
            registry: self.clone(),
            handle,
        };
        (registration, older)
    }

    /// Puts the session in. Returns the id of the device's session before it. The session's table stays locked until it
    /// is everywhere, since whoever finds it there may end it.
    fn insert(&self, handle: &Arc<Handle>) -> Option<SessionId> {
        let mut table = self.write(handle.id);
        table.insert(handle.id, handle.clone());
        self.users().insert((handle.user, handle.id));
        metrics::sessions(self.count.fetch_add(1, Ordering::AcqRel) + 1);
        self.devices().insert(handle.device, handle.id)
    }

    /// Unregisters the session and tells its stream to end, which may take long or never happen. Returns false when
    /// it was not registered any more.
    pub fn end(&self, handle: &Handle, why: CloseRequest) -> bool {
        handle.mailbox.close(why);
        self.unregister(handle)
    }

    /// Returns the session with this id, while it is registered.
    pub fn get(&self, id: SessionId) -> Option<Arc<Handle>> {
        self.read(id).get(&id).cloned()
    }

    /// Returns the newest session of the device on this gateway. `None` if the device has none here.
    pub fn of_device(&self, device: DeviceId) -> Option<Arc<Handle>> {
        let id = self.devices().get(&device).copied()?;
        self.get(id)
    }

    /// Returns all sessions of the user on this gateway, also those that are not open yet, and those of a device that
    /// has a newer one.
    pub fn of_user(&self, user: UserId) -> Vec<Arc<Handle>> {
        let ids: Vec<SessionId> = {
            let users = self.users();
            let of_user = users.range((user, SessionId(0))..=(user, SessionId(u64::MAX)));
            of_user.map(|(_, id)| *id).collect()
        };
        ids.into_iter().filter_map(|id| self.get(id)).collect()
    }

    /// Returns the number of registered sessions.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Returns whether no session is registered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits until no session is registered.
    pub async fn until_empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.is_empty() {
                return;
            }
            emptied.await;
        }
    }

    /// Returns every session that `which` accepts.
    pub fn sessions(&self, which: impl Fn(&Handle) -> bool) -> Vec<Arc<Handle>> {
        let mut sessions = Vec::new();
        for table in &self.tables {
            let table = table.read().unwrap_or_else(PoisonError::into_inner);
            sessions.extend(table.values().filter(|handle| which(handle)).cloned());
        }
        sessions
    }

    /// Takes the session out. Returns false when it was not there.
    fn unregister(&self, handle: &Handle) -> bool {
        if self.write(handle.id).remove(&handle.id).is_none() {
            return false;
        }
        self.users().remove(&(handle.user, handle.id));
        let left = self.count.fetch_sub(1, Ordering::AcqRel) - 1;
        metrics::sessions(left);
        if left == 0 {
            self.emptied.notify_waiters();
        }
        let mut devices = self.devices();
        if devices.get(&handle.device) == Some(&handle.id) {
            devices.remove(&handle.device);
        }
        true
    }

    fn devices(&self) -> MutexGuard<'_, IdMap<DeviceId, SessionId>> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn users(&self) -> MutexGuard<'_, BTreeSet<(UserId, SessionId)>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, id: SessionId) -> RwLockReadGuard<'_, IdMap<SessionId, Arc<Handle>>> {
        self.tables[id.0 as usize % TABLES]
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, id: SessionId) -> RwLockWriteGuard<'_, IdMap<SessionId, Arc<Handle>>> {
        self.tables[id.0 as usize % TABLES]
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registration {
    /// Returns the registered session.
    pub fn handle(&self) -> &Arc<Handle> {
        &self.handle
    }

    /// Unregisters the session. Returns false when that had happened before.
    pub fn end(&self) -> bool {
        self.registry.unregister(&self.handle)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn the_newest_session_of_a_device_wins_and_a_drop_undoes_a_registration() {
        let registry = Arc::new(Registry::new(0x1_0000_0007));
        let (user, device) = (UserId::random(), DeviceId::random());
        let register = |mailbox: &Arc<Mailbox>| {
            registry.register(registry.next_id(), user, device, Timestamp(1), mailbox.clone())
        };
        let (first, second) = (Arc::new(Mailbox::default()), Arc::new(Mailbox::default()));
        let (older, none) = register(&first);
        assert!(none.is_none() && registry.get(older.handle().id).is_some());
        let (newer, replaced) = register(&second);
        assert_eq!(replaced.map(|handle| handle.id), Some(older.handle().id));
        assert!(
            registry.get(older.handle().id).is_none() && registry.len() == 1,
            "over, before its stream knows"
        );
        assert_eq!(newer.handle().id, SessionId(7 << 32 | 2));
        let waiting = match first.poll_take(&mut Context::from_waker(Waker::noop()), true) {
            Poll::Ready(waiting) => waiting,
            Poll::Pending => panic!("the older session was not told"),
        };
        assert_eq!(waiting.close, Some(CloseRequest::Replaced));
        drop(older);
        assert_eq!(
            registry.of_device(device).map(|handle| handle.id),
            Some(newer.handle().id)
        );
        drop(newer);
        assert!(registry.of_device(device).is_none() && registry.is_empty());
    }

    #[test]
    fn the_sessions_of_a_user_are_found_while_they_are_registered() {
        let registry = Arc::new(Registry::new(1));
        let [alice, bob] = [UserId::random(), UserId::random()];
        let register = |user| {
            let mailbox = Arc::new(Mailbox::default());
            registry
                .register(
                    registry.next_id(),
                    user,
                    DeviceId::random(),
                    Timestamp(1),
                    mailbox,
                )
                .0
        };
        let (phone, laptop, his) = (register(alice), register(alice), register(bob));
        let found = |user| -> Vec<SessionId> {
            let sessions = registry.of_user(user);
            sessions.iter().map(|session| session.id).collect()
        };
        assert_eq!(found(alice), [phone.handle().id, laptop.handle().id]);
        assert_eq!(found(bob), [his.handle().id]);
        drop(phone);
        assert_eq!(found(alice), [laptop.handle().id]);
        assert!(found(UserId::random()).is_empty());
    }

    #[test]
    fn a_session_that_is_ended_while_it_is_registered_leaves_nothing_behind() {
        let registry = Arc::new(Registry::new(1));
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    for session in registry.sessions(|_| true) {
                        registry.end(&session, CloseRequest::Revoked);
                    }
                }
            });
            for _ in 0..20_000 {
                let (user, device) = (UserId::random(), DeviceId::random());
                let mailbox = Arc::default();
                drop(registry.register(registry.next_id(), user, device, Timestamp(1), mailbox));
            }
            done.store(true, Ordering::Release);
        });
        assert!(registry.is_empty());
        assert!(registry.users().is_empty() && registry.devices().is_empty());
    }

    #[test]
    fn on_another_store_every_session_ends() {
        let registry = Arc::new(Registry::new(1));
        let mailbox = Arc::new(Mailbox::default());
        let (user, device) = (UserId::random(), DeviceId::random());
        let (one, other) = (uuid::Uuid::from_u128(1 << 64), uuid::Uuid::from_u128(2 << 64));
        assert_eq!(registry.store_mark(), 0, "not known yet");
        registry.store_is(&one.to_string());
        let (_open, _) = registry.register(registry.next_id(), user, device, Timestamp(1), mailbox.clone());
        registry.store_is(&one.to_string());
        assert!(!mailbox.is_closing() && registry.knows_store(&one.to_string()));
        registry.store_is(&other.to_string());
        assert!(mailbox.is_closing() && !registry.knows_store(&one.to_string()));
        assert_eq!(registry.store_mark(), 2);
    }
}
