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
use super::withdraw::{self, Withdrawal};
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

/// Implements [`ByChat`] for parts whose work a function of the store does. Results of other chats extend the result.
macro_rules! by_chat {
    ($(#[$doc:meta])* $part:ty => $found:ty, $run:path) => {
        impl ByChat for $part {
            $(#[$doc])*
            type Found = $found;

            fn chat(&self) -> ChatId {
                self.chat
            }

            async fn run(
                db: &mut PgConnection,
                parts: &[Self],
                heads: Heads,
            ) -> sqlx::Result<(Self::Found, IdSet<ChatId>)> {
                $run(db, parts, heads).await
            }

            fn join(found: &mut Self::Found, more: Self::Found) {
                found.extend(more);
            }
        }
    };
}

by_chat!(
    /// The chats whose batch is committed. In a chat that is neither here nor left out, the head had moved, a request
    /// was in the log already, or somebody had done enough to a message.
    &Batch => IdSet<ChatId>, commit::commit_parts
);
by_chat!(
    /// The devices that are missing in each chat.
    SettleChat => HashMap<ChatId, Vec<Missing>>, settle::settle
);
by_chat!(
    /// The inbox rows that the acknowledgements met.
    AckWrite => Rows, ack::acknowledge
);

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

impl ByChat for Withdrawal {
    /// The number of devices whose push is due now.
    type Found = u64;

    fn chat(&self) -> ChatId {
        self.chat
    }

    async fn run(db: &mut PgConnection, parts: &[Self], heads: Heads) -> sqlx::Result<(u64, IdSet<ChatId>)> {
        withdraw::withdraw(db, parts, heads).await
    }

    fn join(found: &mut u64, more: u64) {
        *found += more;
    }
}
