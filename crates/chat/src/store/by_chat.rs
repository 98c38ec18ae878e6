//! Work on many chats at once that can be done in parts, chat by chat: what is in the way of one chat, or wrong with it,
//! need not fail the others.

use std::collections::HashMap;

use sqlx::PgConnection;
use tern_types::{ChatId, IdSet};

use super::ack::{self, Rows};
use super::heads::Heads;
use super::{commit, settle};
use crate::state::Missing;
use crate::state::chat::Batch;
use crate::state::shard::{AckWrite, ReadMark, SettleChat};

/// One chat's part of such work.
pub trait ByChat: Send + Sync + Sized {
    /// What comes of it.
    type Found: Default + Send;

    fn chat(&self) -> ChatId;

    /// Does all of it in one transaction, but for the chats that somebody else holds, where it is not to wait for them: the
    /// answer names these too.
    fn run(
        db: &mut PgConnection,
        parts: &[Self],
        heads: Heads,
    ) -> impl Future<Output = sqlx::Result<(Self::Found, IdSet<ChatId>)>> + Send;

    /// What comes of other chats comes to it.
    fn join(found: &mut Self::Found, more: Self::Found);
}

impl ByChat for &Batch {
    /// Whose batch is in the store now; those that are not in it are behind.
    type Found = IdSet<ChatId>;

    fn chat(&self) -> ChatId {
        self.chat
    }

    async fn run(
        db: &mut PgConnection,
        parts: &[Self],
        heads: Heads,
    ) -> sqlx::Result<(Self::Found, IdSet<ChatId>)> {
        match heads {
            Heads::Wait => Ok((commit::commit(db, parts.iter().copied()).await?, IdSet::default())),
            Heads::LeaveOut => commit::commit_free(db, parts).await,
        }
    }

    fn join(found: &mut Self::Found, more: Self::Found) {
        found.extend(more);
    }
}

impl ByChat for SettleChat {
    /// Who is missing.
    type Found = HashMap<ChatId, Vec<Missing>>;

    fn chat(&self) -> ChatId {
        self.chat
    }

    async fn run(
        db: &mut PgConnection,
        parts: &[Self],
        heads: Heads,
    ) -> sqlx::Result<(Self::Found, IdSet<ChatId>)> {
        settle::settle(db, parts, heads).await
    }

    fn join(found: &mut Self::Found, more: Self::Found) {
        found.extend(more);
    }
}

impl ByChat for AckWrite {
    type Found = Rows;

    fn chat(&self) -> ChatId {
        self.chat
    }

    async fn run(
        db: &mut PgConnection,
        parts: &[Self],
        heads: Heads,
    ) -> sqlx::Result<(Self::Found, IdSet<ChatId>)> {
        ack::acknowledge(db, parts, heads).await
    }

    fn join(found: &mut Self::Found, more: Self::Found) {
        found.extend(more);
    }
}

impl ByChat for ReadMark {
    type Found = ();

    fn chat(&self) -> ChatId {
        self.chat
    }

    async fn run(db: &mut PgConnection, parts: &[Self], heads: Heads) -> sqlx::Result<((), IdSet<ChatId>)> {
        Ok(((), ack::mark_read(db, parts, heads).await?))
    }

    fn join((): &mut (), (): ()) {}
}
