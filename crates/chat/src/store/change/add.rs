//! Members are added, with the devices that they have at this moment.

use std::time::Duration;

use sqlx::PgConnection;
use tern_types::UserId;

use tern_chat_core::{ChangeRefusal, Refusal, Role};

use super::{At, Statements};
use crate::store::{join_requests, joining, people};

/// The refusal if it has changed who may be added. The same request, sent again, decides anew.
pub(super) const REFUSED_MEANWHILE: ChangeRefusal = ChangeRefusal::Common(Refusal::Unavailable {
    reason: "who may be added has changed meanwhile",
    retry_after: Duration::ZERO,
});

pub(super) struct Add<'a>(pub &'a [UserId]);

impl Statements for Add<'_> {
    /// Refuses to add a user who does not exist, or who has blocked the actor or left the group since the caller
    /// looked. Blocking somebody locks the row of the one who blocks, and those rows are locked here.
    async fn before(&self, db: &mut PgConnection, at: &At) -> sqlx::Result<Option<ChangeRefusal>> {
        if let Some(unknown) = people::share(db, self.0).await? {
            return Ok(Some(ChangeRefusal::UserNotFound(unknown)));
        }
        if at.actor == UserId::SYSTEM {
            return Ok(None);
        }
        let addable = joining::addable(db, at.chat, at.actor, self.0).await?;
        Ok((addable.len() != self.0.len()).then_some(REFUSED_MEANWHILE))
    }

    async fn write(&self, db: &mut PgConnection, at: &At) -> sqlx::Result<()> {
        let devices = people::devices(db, self.0.iter().copied()).await?;
        joining::add_members(db, at.chat, self.0, &devices, at.seq, Role::Member).await?;
        join_requests::admit(db, at.chat, self.0).await
    }
}
