//! Whom this gateway takes no calls of: users who were suspended lately. Who was suspended before that has no good access
//! token any more, and opening a stream asks the store.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tern_node::links::BackOff;
use tern_node::{NodeContext, Role};
use tern_proto::internal::ListSuspendedRequest;
use tern_proto::internal::accounts_node_client::AccountsNodeClient;
use tern_types::UserId;
use tonic::Status;

use crate::nodes;

/// A gateway that was not told of a suspension finds out within this.
const INTERVAL: Duration = Duration::from_secs(30);
/// An accounts node that does not answer by then is asked again.
const TIMEOUT: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug, Default)]
pub struct Suspended {
    users: RwLock<HashSet<UserId>>,
    /// Counts what was told: a list that was asked for before is not believed.
    told: AtomicU64,
}

impl Suspended {
    pub fn contains(&self, user: UserId) -> bool {
        let users = self.users.read().unwrap_or_else(PoisonError::into_inner);
        users.contains(&user)
    }

    /// Somebody was suspended or resumed just now.
    pub fn tell(&self, user: UserId, suspended: bool) {
        let mut users = self.users.write().unwrap_or_else(PoisonError::into_inner);
        self.told.fetch_add(1, Ordering::AcqRel);
        if suspended {
            users.insert(user);
        } else {
            users.remove(&user);
        }
    }

    /// How often something was told so far.
    fn told(&self) -> u64 {
        self.told.load(Ordering::Acquire)
    }

    /// Takes a list that was asked for after `told`; false: it may be older than what was told since.
    fn replace(&self, list: HashSet<UserId>, told: u64) -> bool {
        let mut users = self.users.write().unwrap_or_else(PoisonError::into_inner);
        if self.told() != told {
            return false;
        }
        *users = list;
        true
    }

    /// Keeps the list up to date until the drain has ended.
    pub async fn run(self: Arc<Self>, ctx: NodeContext) {
        let mut back_off = BackOff::default();
        loop {
            let told = self.told();
            let wait = match ask(&ctx).await {
                Ok(list) => {
                    back_off.reset();
                    let taken = self.replace(list, told);
                    if taken { INTERVAL } else { Duration::ZERO }
                }
                Err(status) => {
                    tracing::warn!(code = ?status.code(), message = status.message(),
                        "cannot ask who is suspended");
                    back_off.next(Duration::ZERO)
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = ctx.drain.ended() => return,
            }
        }
    }
}

async fn ask(ctx: &NodeContext) -> Result<HashSet<UserId>, Status> {
    let (node, _) = nodes::find(&ctx.map, |map| map.any(Role::Accounts)).await?;
    let mut client = AccountsNodeClient::new(ctx.channels.get(&node.address)?);
    let answer = tokio::time::timeout(TIMEOUT, client.list_suspended(ListSuspendedRequest {})).await;
    let answer = answer.map_err(|_| Status::deadline_exceeded("no answer in time"))??;
    let users = answer.into_inner().user_ids;
    Ok(users
        .iter()
        .filter_map(|id| UserId::from_slice(id).ok())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_was_asked_for_before_a_suspension_does_not_undo_it() {
        let (suspended, [alice, bob]) = (Suspended::default(), [UserId::random(), UserId::random()]);
        let before = suspended.told();
        suspended.tell(alice, true);
        assert!(!suspended.replace(HashSet::from([bob]), before));
        assert!(suspended.contains(alice) && !suspended.contains(bob));
        assert!(suspended.replace(HashSet::from([bob]), suspended.told()));
        assert!(!suspended.contains(alice) && suspended.contains(bob));
        suspended.tell(bob, false);
        assert!(!suspended.contains(bob));
    }
}
