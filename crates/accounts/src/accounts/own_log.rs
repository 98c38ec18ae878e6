//! Tells a user's own log, and by it all devices of the user, what has changed of the account.
//!
//! A change is noted in the transaction that makes it. After the commit this node has the owner of the own log append the
//! entry, and forgets the note when that is done. If the owner does not answer, or this node dies in between, an accounts
//! node finds the note later. A note has a request_id, so the log has one entry of it however often it is told.

use std::time::Duration;

use futures::future::join_all;
use tern_proto::ApiError;
use tern_proto::v1::entry_content::Content;
use tern_proto::v1::{AccountChange, AccountChanged, EntryContent, ErrorReason};
use tern_types::{DeviceId, RequestId, UserId};

use super::Accounts;
use crate::store::Tx;

/// The time after which any accounts node tells what an own log has not been told.
const TELL_AFTER: Duration = Duration::from_secs(10);
/// The most changes that one round takes. Each of them is a call to a chat node.
const TAKEN_AT_ONCE: i64 = 64;
/// The number of own logs that one round tells at the same time.
const TOLD_AT_ONCE: usize = 8;
/// The changes of a user that are read at a time. They are told one after the other.
const READ_AT_ONCE: i64 = 16;
/// The most changes of a user that wait. While a user has so many, which takes a program that runs wild while chat nodes
/// are away, the calls that would make more fail.
const MAX_WAITING: i64 = 1000;

/// Something of a user's account that has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Changed {
    /// The device was revoked.
    DeviceRevoked(DeviceId),
    /// The person was blocked.
    Blocked(UserId),
    /// The person is blocked no more.
    Unblocked(UserId),
    /// The contacts have changed.
    Contacts,
    /// The settings of who sees what have changed.
    Privacy,
    /// The settings of when the user is notified have changed.
    Notifications,
}

impl Changed {
    /// Returns the encoded content of the entry.
    fn content(self) -> Vec<u8> {
        let (change, subject_id) = match self {
            Self::DeviceRevoked(device) => (AccountChange::DeviceRevoked, device.to_string()),
            Self::Blocked(user) => (AccountChange::Blocked, user.to_string()),
            Self::Unblocked(user) => (AccountChange::Unblocked, user.to_string()),
            Self::Contacts => (AccountChange::Contacts, String::new()),
            Self::Privacy => (AccountChange::Privacy, String::new()),
            Self::Notifications => (AccountChange::Notifications, String::new()),
        };
        let changed = AccountChanged {
            change: change.into(),
            subject_id,
        };
        let content = EntryContent {
            content: Some(Content::AccountChanged(changed)),
            ..EntryContent::default()
        };
        content.encoded().to_vec()
    }

    /// Returns how many changes of the user may wait before this one. A device is always revoked.
    fn most_waiting(self) -> i64 {
        match self {
            Self::DeviceRevoked(_) => i64::MAX,
            Self::Blocked(_) | Self::Unblocked(_) | Self::Contacts | Self::Privacy | Self::Notifications => {
                MAX_WAITING
            }
        }
    }
}

impl Accounts {
    /// Notes the change in the transaction that makes it. Returns `Err` with UNAVAILABLE if too many changes of the user
    /// wait.
    pub(super) async fn note(&self, tx: &mut Tx, user: UserId, changed: Changed) -> Result<(), ApiError> {
        let (content, most) = (changed.content(), changed.most_waiting());
        let request = RequestId::random();
        if self.store.note(tx, user, request, content, most).await? {
            Ok(())
        } else {
            Err(ApiError::unavailable("the user's own log is behind"))
        }
    }

    /// Tells the user's own log what was noted. If that fails, it is told later.
    pub(super) async fn tell_own_log(&self, user: UserId) {
        if let Err(error) = self.tell(user).await {
            tracing::warn!(%user, %error, "the user's own log is told later");
        }
    }

    /// Tells own logs what was noted more than 10 s ago and not told yet. An own log that cannot be told does not hold up
    /// the others. Returns the first error; the next round continues. Without an error, it goes on until nothing waits.
    pub async fn tell_own_logs(&self) -> Result<(), ApiError> {
        loop {
            let users = self.store.take_waiting(TELL_AFTER, TAKEN_AT_ONCE).await?;
            let mut told = Vec::with_capacity(users.len());
            for users in users.chunks(TOLD_AT_ONCE) {
                told.extend(join_all(users.iter().map(|user| self.tell(*user))).await);
            }
            let has_more = users.len() as i64 >= TAKEN_AT_ONCE;
            told.into_iter().collect::<Result<(), ApiError>>()?;
            if !has_more {
                return Ok(());
            }
        }
    }

    /// Tells the user's own log what was noted, in order. So whoever else tells it too cannot change the order.
    async fn tell(&self, user: UserId) -> Result<(), ApiError> {
        loop {
            let waiting = self.store.waiting(user, READ_AT_ONCE).await?;
            if waiting.is_empty() {
                return Ok(());
            }
            for (request, content) in waiting {
                match self.peers.append_own(user, request, content).await {
                    Ok(()) => {}
                    Err(error) if is_final(error.reason) => {
                        tracing::error!(%user, %error, "an own log refuses an entry, which is given up");
                    }
                    Err(error) => return Err(error),
                }
                self.store.told(user, request).await?;
            }
        }
    }
}

/// Returns whether the own log would refuse the entry again: there is no such user, as after a restore, or the request
/// became another entry.
fn is_final(reason: ErrorReason) -> bool {
    matches!(reason, ErrorReason::UserNotFound | ErrorReason::RequestIdReused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_revocation_is_noted_however_many_changes_wait() {
        let user = UserId::random();
        for (changed, most) in [
            (Changed::DeviceRevoked(DeviceId::random()), i64::MAX),
            (Changed::Blocked(user), MAX_WAITING),
            (Changed::Unblocked(user), MAX_WAITING),
            (Changed::Contacts, MAX_WAITING),
            (Changed::Privacy, MAX_WAITING),
            (Changed::Notifications, MAX_WAITING),
        ] {
            assert_eq!(changed.most_waiting(), most, "{changed:?}");
        }
    }
}
