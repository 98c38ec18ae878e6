//! Does work on many chats at once that can be split by chat, so that a lock on one chat, or an error in it, need not
//! fail the others.

use std::collections::HashMap;

use sqlx::PgConnection;
use tern_types::{ChatId, IdSet};

use tern_chat_core::Missing;
use tern_chat_core::chat::Batch;
use tern_chat_core::shard::{AckWrite, ReadMark, SettleChat};

use super::ack::{self, Rows};
use super::heads::Heads;
use super::{commit, settle};

/// A part of work on many chats. Each part belongs to one chat.
pub trait ByChat: Send + Sync + Sized {
    /// The result of the work.
    type Found: Default + Send;

    /// Returns the chat that the part belongs to.
    fn chat(&self) -> ChatId;

    /// Does all parts in one transaction. With [`Heads::LeaveOut`] it leaves out the chats that another transaction
    /// has locked. Returns the result, and the chats that were left out.
    fn run(
        db: &mut PgConnection,
        parts: &[Self],
        heads: Heads,
    ) -> impl Future<Output = sqlx::Result<(Self::Found, IdSet<ChatId>)>> + Send;

    /// Adds the result of other chats to `found`.
    fn join(found: &mut Self::Found, more: Self::Found);
}

impl ByChat for &Batch {
    /// The chats whose batch is committed. In a chat that is neither here nor left out, the head had moved or a request
    /// was in the log already.
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
    /// The devices that are missing in each chat.
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
    /// The inbox rows that the acknowledgements met.
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
