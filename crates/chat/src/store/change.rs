//! Commits an entry that changes its chat, in one transaction with the change. The statements of each action are in a
//! file of its own, as its rules are in `tern_chat_core::change`.

mod add;
mod freeze;
mod hand_over;
mod join;
pub mod own;
mod remove;
mod set_description;
mod set_picture;
mod set_policy;
mod set_retention;
mod set_role;
mod set_title;
mod succeed;

use std::time::Duration;

use sqlx::{Connection, PgConnection};
use tern_types::{ChatId, Seq, UserId};

use tern_chat_core::ChangeRefusal;
use tern_chat_core::change::Action;
use tern_chat_core::chat::Batch;

use super::commit::commit;

pub use remove::REMOVE_MEMBER;

/// Sets how long statements wait for locks, until the transaction ends.
const LOCK_TIMEOUT: &str = "SELECT set_config('lock_timeout', $1, true)";

/// The result of a change.
#[derive(Debug, PartialEq, Eq)]
pub enum Changed {
    /// The change is committed.
    Stored,
    /// The head had moved, or the request is in the log already: nothing was written.
    Conflict,
    /// The store's facts do not allow the change: nothing was written.
    Refused(ChangeRefusal),
}

/// The entry that a change is committed with.
struct At {
    chat: ChatId,
    seq: Seq,
    actor: UserId,
}

/// The statements of one action. All of them run in the transaction that commits the action's entry.
trait Statements {
    /// Locks and reads what the change depends on, before the entry is committed. `Some` refuses the change, because
    /// the store knows more than the chat's owner knew when it permitted the change.
    async fn before(&self, _db: &mut PgConnection, _at: &At) -> sqlx::Result<Option<ChangeRefusal>> {
        Ok(None)
    }

    /// Writes the change, once the entry is in the log.
    async fn write(&self, db: &mut PgConnection, at: &At) -> sqlx::Result<()>;
}

/// Commits a batch that is a change, and makes the change, in one transaction. `patience` is the longest time
/// that each statement waits for a lock. If it is `None`, the connection's own `lock_timeout` holds.
pub async fn change(
    db: &mut PgConnection,
    batch: &Batch,
    patience: Option<Duration>,
) -> sqlx::Result<Changed> {
    match &batch.change {
        None => Ok(Changed::Conflict),
        Some(Action::Add(users)) => run(db, batch, patience, &add::Add(users)).await,
        Some(Action::Remove(user)) => run(db, batch, patience, &remove::Remove(*user)).await,
        Some(Action::SetRole(user, role)) => run(db, batch, patience, &set_role::SetRole(*user, *role)).await,
        Some(Action::SetTitle(title)) => run(db, batch, patience, &set_title::SetTitle(title)).await,
        Some(Action::SetPicture(picture)) => {
            let media = picture.map(|picture| picture.media);
            run(db, batch, patience, &set_picture::SetPicture(media)).await
        }
        Some(Action::Join { invite, user }) => {
            let (invite, user) = (*invite, *user);
            run(db, batch, patience, &join::Join { invite, user }).await
        }
        Some(Action::SetDescription(text)) => {
            run(db, batch, patience, &set_description::SetDescription(text)).await
        }
        Some(Action::SetPolicy(policy)) => run(db, batch, patience, &set_policy::SetPolicy(*policy)).await,
        Some(Action::Freeze(frozen)) => run(db, batch, patience, &freeze::Freeze(*frozen)).await,
        Some(Action::HandOver { from, to }) => {
            let (from, to) = (*from, *to);
            run(db, batch, patience, &hand_over::HandOver { from, to }).await
        }
        Some(Action::Succeed { owner, heir }) => {
            let (owner, heir) = (*owner, *heir);
            run(db, batch, patience, &succeed::Succeed { owner, heir }).await
        }
        Some(Action::SetRetention(retention)) => {
            run(db, batch, patience, &set_retention::SetRetention(*retention)).await
        }
        Some(Action::Own(change)) => run(db, batch, patience, &own::Own(change, &batch.key)).await,
    }
}

async fn run(
    db: &mut PgConnection,
    batch: &Batch,
    patience: Option<Duration>,
    action: &impl Statements,
) -> sqlx::Result<Changed> {
    debug_assert_eq!(batch.entries.len(), 1, "a change is the only entry of its batch");
    let Some(entry) = batch.entries.first() else {
        return Ok(Changed::Conflict);
    };
    let at = At {
        chat: batch.chat,
        seq: entry.seq,
        actor: entry.new.sender,
    };
    let mut tx = db.begin().await?;
    if let Some(patience) = patience {
        let millis = patience.as_millis().to_string();
        sqlx::query(LOCK_TIMEOUT).bind(millis).execute(&mut *tx).await?;
    }
    if let Some(refusal) = action.before(&mut tx, &at).await? {
        return Ok(Changed::Refused(refusal));
    }
    if commit(&mut tx, [batch]).await?.is_empty() {
        return Ok(Changed::Conflict);
    }
    action.write(&mut tx, &at).await?;
    tx.commit().await?;
    Ok(Changed::Stored)
}
