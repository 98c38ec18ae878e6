//! A user joins by an invite link, with the devices that they have at this moment.

use sqlx::PgConnection;
use tern_types::{Clock, InviteId, UserId};

use tern_chat_core::{ChangeRefusal, Role};

use super::add::REFUSED_MEANWHILE;
use super::{At, Statements};
use crate::store::{invites, join_requests, joining, people};

pub(super) struct Join {
    pub invite: InviteId,
    pub user: UserId,
}

impl Statements for Join {
    /// Refuses a link that is not in force any more, and one that a block is in the way of. The lock on the link keeps
    /// others from using it up meanwhile. Blocking somebody locks the row of the one who blocks, and those rows are
    /// locked here. A user who has to ask is sent back to ask: they were a member when the caller looked.
    async fn before(&self, db: &mut PgConnection, at: &At) -> sqlx::Result<Option<ChangeRefusal>> {
        let offered = invites::lock_offer(db, at.chat, self.invite, Clock::wall()).await?;
        let Some((maker, needs_approval)) = offered else {
            return Ok(Some(ChangeRefusal::InviteNotFound));
        };
        let hosts = invites::hosts(db, at.chat, maker).await?;
        let people: Vec<UserId> = std::iter::once(self.user).chain(hosts.iter().copied()).collect();
        // A host may be a user no more, or the back end. The first of the people is the one who joins.
        if people::share(db, &people).await? == Some(self.user) {
            return Ok(Some(ChangeRefusal::UserNotFound(self.user)));
        }
        if invites::bars(db, &hosts, self.user).await? {
            return Ok(Some(ChangeRefusal::InviteNotFound));
        }
        let asks = needs_approval || joining::was_removed(db, at.chat, self.user).await?;
        Ok(asks.then_some(REFUSED_MEANWHILE))
    }

    async fn write(&self, db: &mut PgConnection, at: &At) -> sqlx::Result<()> {
        let user = &[self.user];
        invites::count_use(db, at.chat, self.invite).await?;
        let devices = people::devices(db, [self.user]).await?;
        joining::add_members(db, at.chat, user, &devices, at.seq, Role::Member).await?;
        join_requests::end(db, at.chat, user).await
    }
}
