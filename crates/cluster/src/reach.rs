//! Keeps what this process reaches in each of its roles: Postgres, and the nodes that it is linked to.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::map::Role;
use crate::metrics;

/// The things that a node reaches in one of its roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// True if Postgres answers, or the role does not need it.
    pub store: bool,
    /// The number of nodes of the [`partner`] role that it is linked to.
    pub links: u32,
}

/// Returns the role whose nodes a role is linked to, or `None` if it needs no links.
pub(crate) fn partner(role: Role) -> Option<Role> {
    match role {
        Role::Chat | Role::Presence => Some(Role::Gateway),
        Role::Gateway => Some(Role::Chat),
        Role::Accounts | Role::Media | Role::Push => None,
    }
}

/// The state of what this process reaches in each role. Its roles and the probe of Postgres keep it up to date. Clones
/// share one state.
#[derive(Clone)]
pub struct Reached(Arc<Inner>);

struct Inner {
    store: watch::Sender<bool>,
    links: Mutex<HashMap<Role, Links>>,
    unwell: watch::Sender<Vec<Role>>,
}

type Links = Box<dyn Fn() -> u32 + Send>;

impl Default for Reached {
    fn default() -> Self {
        Self(Arc::new(Inner {
            store: watch::Sender::new(true),
            links: Mutex::default(),
            unwell: watch::Sender::default(),
        }))
    }
}

impl fmt::Debug for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reached").finish_non_exhaustive()
    }
}

impl Reached {
    /// Sets how a role's links are counted: `count` returns the number of distinct nodes of its [`partner`] role that
    /// it is linked to.
    pub fn links(&self, role: Role, count: impl Fn() -> u32 + Send + 'static) {
        metrics::unwell(role, false);
        self.lock().insert(role, Box::new(count));
    }

    /// Sets whether Postgres answers.
    pub fn store(&self, answers: bool) {
        self.0.store.send_replace(answers);
    }

    /// Returns what this process reaches in `role` at present.
    pub fn of(&self, role: Role) -> Reach {
        let needs_store = matches!(role, Role::Chat | Role::Accounts | Role::Media | Role::Push);
        Reach {
            store: !needs_store || *self.0.store.borrow(),
            links: self.lock().get(&role).map_or(0, |count| count()),
        }
    }

    /// Returns whether this node has marked itself as unwell in the role.
    pub fn is_unwell(&self, role: Role) -> bool {
        self.0.unwell.borrow().contains(&role)
    }

    /// Waits until this node has marked itself as unwell in the role.
    pub async fn unwell(&self, role: Role) {
        let mut unwell = self.0.unwell.subscribe();
        // This cannot fail, since `self` keeps the sender.
        let _ = unwell.wait_for(|roles| roles.contains(&role)).await;
    }

    /// Notes that this node has marked itself in the role as unwell, or as well again.
    pub fn said(&self, role: Role, is_unwell: bool) {
        metrics::unwell(role, is_unwell);
        self.0.unwell.send_modify(|roles| {
            roles.retain(|of| *of != role);
            if is_unwell {
                roles.push(role);
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Role, Links>> {
        self.0.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
