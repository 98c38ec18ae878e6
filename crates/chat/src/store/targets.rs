//! The rows of a commit that say what its entries do to earlier messages, whom they mention, when they disappear, and how
//! they are announced.

use std::time::Duration;

use sqlx::Postgres;
use sqlx::postgres::PgArguments;
use sqlx::query::QueryScalar;
use tern_types::Seq;
use tern_types::limits::MAX_ACTS_PER_PERSON;
use uuid::Uuid;

use tern_chat_core::chat::ChatKey;
use tern_chat_core::content::fingerprint;
use tern_chat_core::{Entry, EntryKind};

/// The most entries about a deleted message that the commit of the deletion erases with it: all edits, which may refer
/// to files, and more reactions than nearly all messages have. The others are erased afterwards, because all chats of
/// the commit wait for it.
pub const ERASED_IN_COMMIT: i64 = 256;

/// The columns of the entries of one commit that are about other entries, in a thread, or otherwise need more than a
/// row of the log. Most commits have none.
#[derive(Default)]
pub(super) struct TargetRows {
    chat: Vec<Uuid>,
    seq: Vec<i64>,
    target: Vec<i64>,
    kind: Vec<i16>,
    take_back: Vec<bool>,
    user: Vec<Uuid>,
    /// The keys of reactions. They are empty for other kinds.
    key: Vec<Vec<u8>>,
    mentions: MentionRows,
    expiring: ExpiringRows,
    hints: HintRows,
}

/// The columns of the mentions in messages.
#[derive(Default)]
struct MentionRows {
    chat: Vec<Uuid>,
    user: Vec<Uuid>,
    seq: Vec<i64>,
}

/// The columns of the messages that disappear.
#[derive(Default)]
struct ExpiringRows {
    chat: Vec<Uuid>,
    seq: Vec<i64>,
    /// The times at which they disappear, in milliseconds.
    at: Vec<i64>,
}

/// The columns of the push hints that are not the usual ones.
#[derive(Default)]
struct HintRows {
    chat: Vec<Uuid>,
    seq: Vec<i64>,
    hint: Vec<i16>,
}

impl TargetRows {
    /// Returns whether no entry is about another, in a thread, mentions anybody, disappears, or has a push hint of its
    /// own.
    pub(super) fn is_empty(&self) -> bool {
        self.chat.is_empty()
            && self.mentions.chat.is_empty()
            && self.expiring.chat.is_empty()
            && self.hints.chat.is_empty()
    }

    /// Adds the entry's rows, if it has some. `key` is the chat's data key.
    pub(super) fn push(&mut self, entry: &Entry, key: &ChatKey) {
        let new = &entry.new;
        // A message that does not count as unread writes no mentions, because they would count as unread mentions.
        for user in new.mentions.iter().filter(|_| new.counts) {
            self.mentions.chat.push(entry.chat.0);
            self.mentions.user.push(user.0);
            self.mentions.seq.push(entry.seq.to_i64());
        }
        // An edit goes with its message, so it needs no time of its own.
        if new.expires_after_s > 0 && new.kind == EntryKind::Message {
            let expires_at = entry.sent_at + Duration::from_secs(new.expires_after_s.into());
            self.expiring.chat.push(entry.chat.0);
            self.expiring.seq.push(entry.seq.to_i64());
            self.expiring.at.push(expires_at.0);
        }
        if let Some(hint) = new.hint.stored() {
            self.hints.chat.push(entry.chat.0);
            self.hints.seq.push(entry.seq.to_i64());
            self.hints.hint.push(hint);
        }
        let (target, take_back) = match (&new.about, new.thread_root) {
            (Some(about), _) => (about.target, about.take_back),
            (None, Some(root)) if root < entry.seq => (root, false),
            // A thread does not begin with an entry that is not there yet.
            (None, _) => return,
        };
        self.chat.push(entry.chat.0);
        self.seq.push(entry.seq.to_i64());
        self.target.push(Seq::to_i64(target));
        self.kind.push(new.kind.number());
        self.take_back.push(take_back);
        self.user.push(new.sender.0);
        let reaction = new.about.as_ref().filter(|_| new.kind == EntryKind::Reaction);
        self.key.push(reaction.map_or_else(Vec::new, |about| {
            // Without the data key nobody can find out from this column, by trying, which reaction it is.
            fingerprint([&key.0[..], &about.reaction]).to_vec()
        }));
    }

    /// Binds the columns as the statement has them.
    pub(super) fn bind<'q>(
        self,
        query: QueryScalar<'q, Postgres, Uuid, PgArguments>,
    ) -> QueryScalar<'q, Postgres, Uuid, PgArguments> {
        query
            .bind(self.chat)
            .bind(self.seq)
            .bind(self.target)
            .bind(self.kind)
            .bind(self.take_back)
            .bind(self.user)
            .bind(self.key)
            .bind(self.mentions.chat)
            .bind(self.mentions.user)
            .bind(self.mentions.seq)
            .bind(i64::from(MAX_ACTS_PER_PERSON))
            .bind(ERASED_IN_COMMIT)
            .bind(self.expiring.chat)
            .bind(self.expiring.seq)
            .bind(self.expiring.at)
            .bind(self.hints.chat)
            .bind(self.hints.seq)
            .bind(self.hints.hint)
    }
}
