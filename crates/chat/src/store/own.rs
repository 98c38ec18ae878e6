//! Makes the own logs of users, and reads what they say: how a user keeps their chats ([`settings`]), and which messages
//! they have hidden from themselves ([`hidden`]). An own log, with the rows that belong to it, is in the cell of its own
//! id, and the chats that it is about may be in other cells.

pub mod hidden;
pub mod settings;

use std::collections::HashSet;

use tern_chat_core::chat::{ChatKind, Role};
use tern_store::{Pools, postgres};
use tern_types::{ChatId, UserId};

use super::people;
use super::seal::MasterKey;

/// Makes the own log ($1) of a user ($3) with these devices ($6), an array as text, unless it exists. The user is locked
/// against linking. Own logs are kept until they are delivered (3), whatever the operator chose for chats: each device
/// learns from them what to erase, and a new one reads the settings with the list of chats.
pub const MAKE: &str = "
WITH made AS (
    INSERT INTO chats (chat_id, kind, created_by, wrapped_key, retention_mode, trim_at)
    VALUES ($1, $2, $3, $4, 3, now() + interval '1 day')
    ON CONFLICT DO NOTHING
    RETURNING chat_id, created_by
), heads AS (
    INSERT INTO chat_heads (chat_id, head_seq, head_ordinal) SELECT chat_id, 0, 0 FROM made
)
INSERT INTO members (chat_id, user_id, joined_seq, role, read_seq, devices)
SELECT chat_id, created_by, 1, $5::int2, 0, $6::text::uuid[] FROM made";

/// The result of [`make`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// The own log exists now.
    Done,
    /// There is no such user.
    NobodyFound,
    /// Another transaction has locked the user. Nothing was made.
    Locked,
}

/// Makes the own log of a user, unless it exists.
pub async fn make(pools: &Pools, master: &MasterKey, user: UserId) -> sqlx::Result<Made> {
    let own = ChatId::own(user);
    let mut tx = postgres::begin(pools.of(own)).await?;
    let (free, locked) = people::share_free(&mut tx, HashSet::from([user])).await?;
    if free.is_empty() {
        return Ok(if locked.is_empty() {
            Made::NobodyFound
        } else {
            Made::Locked
        });
    }
    let devices = people::devices(&mut tx, [user]).await?;
    let (_, wrapped) = master.new_chat_key(own);
    sqlx::query(MAKE)
        .bind(own.0)
        .bind(ChatKind::Own as i16)
        .bind(user.0)
        .bind(wrapped)
        .bind(Role::Member as i16)
        .bind(devices.array(user))
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(Made::Done)
}
