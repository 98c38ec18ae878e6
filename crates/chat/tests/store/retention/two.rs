//! A chat whose entries were sent at chosen times, and calls that trim it and show what is left.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use sqlx::{AssertSqlSafe, PgConnection, PgPool};
use tern_chat::store::entries::{self, Item};
use tern_chat::store::history::{Begin, Bounds, Only, Reader};
use tern_chat::store::trim::{self, Trimmed};
use tern_chat::store::{commit, load, settle};
use tern_chat_core::change::Action;
use tern_chat_core::chat::LookUp;
use tern_chat_core::retention::{Mode, Retention};
use tern_chat_core::target::{About, Target};
use tern_chat_core::{EntryKind, MediaRef, NewEntry};
use tern_proto::v1::entry_content::Content;
use tern_store::schema::CELL_TABLES;
use tern_types::{ChatId, Clock, DeviceId, MediaId, Seq, Timestamp, UserId};

use super::{HOUR, MINUTE};
use crate::harness::{Known, Store, direct, new_entry};

/// A chat of two people with a device each, and what is needed to write to it.
pub struct Two {
    pub store: Store,
    pub people: [UserId; 2],
    pub devices: [DeviceId; 2],
    pub chat: Known,
    pub db: PgConnection,
    pub now: Timestamp,
}

/// Makes an entry of this kind about the message at `target`. A reaction has the content as its key.
pub fn about(sender: UserId, kind: EntryKind, target: u64, content: &str) -> NewEntry {
    NewEntry {
        about: Some(About {
            target: Seq(target),
            take_back: false,
            reaction: Bytes::copy_from_slice(content.as_bytes()),
        }),
        ..new_entry(sender, kind, content.as_bytes())
    }
}

impl Two {
    pub async fn new() -> Self {
        let (store, people, devices, chat, db) = direct().await;
        Self {
            store,
            people,
            devices,
            chat,
            db,
            now: Clock::wall(),
        }
    }

    pub fn pool(&self) -> &PgPool {
        self.store.pools.of(self.chat.id)
    }

    /// Commits entries that were sent so long ago, and returns the seq of the last.
    pub async fn put(&mut self, new: Vec<NewEntry>, ago: Duration) -> Seq {
        let mut batch = self.chat.batch(new);
        for entry in &mut batch.entries {
            entry.sent_at = self.now - ago;
        }
        let stored = commit::commit(&mut self.db, std::slice::from_ref(&batch)).await;
        assert!(stored.unwrap().contains(&self.chat.id));
        self.chat.head = batch.head();
        self.chat.ordinal = batch.entries.last().unwrap().ordinal;
        self.chat.head
    }

    pub async fn say(&mut self, person: usize, text: &str, ago: Duration) -> Seq {
        let new = new_entry(self.people[person], EntryKind::Message, text.as_bytes());
        self.put(vec![new], ago).await
    }

    /// Commits the entries 1 to 5, which were sent two hours ago: a message with all that there can be, another one,
    /// and what is done to the first.
    pub async fn fill(&mut self) {
        let ([a, b], ago) = (self.people, HOUR * 2);
        let (media, expires_at) = (MediaId::random(), Timestamp(i64::MAX));
        let picture = NewEntry {
            media: vec![MediaRef { media, expires_at }],
            mentions: vec![b],
            ..new_entry(a, EntryKind::Message, b"a picture")
        };
        self.put(vec![picture], ago).await;
        self.say(1, "old", ago).await;
        for new in [
            about(a, EntryKind::Edit, 1, "edited"),
            about(b, EntryKind::Reaction, 1, "+"),
            about(a, EntryKind::Pin, 1, ""),
        ] {
            self.put(vec![new], ago).await;
        }
    }

    /// Commits the entries 6 to 8, which were sent a minute ago: a message, a reaction to it, and one to an old
    /// message.
    pub async fn fill_young(&mut self) {
        self.say(0, "young", MINUTE).await;
        let b = self.people[1];
        for target in [6, 2] {
            self.put(vec![about(b, EntryKind::Reaction, target, "+")], MINUTE)
                .await;
        }
    }

    /// Lets the first person change how long messages are kept.
    pub async fn retain(&mut self, mode: Mode) {
        let retention = Retention {
            mode,
            disappear_after_s: 0,
        };
        let (actor, action) = (self.people[0], Action::SetRetention(retention));
        self.store
            .change(&mut self.db, &mut self.chat, actor, action)
            .await;
    }

    /// Settles up to the head, with acknowledgements of everything by these devices.
    pub async fn settle(&mut self, by: &[DeviceId]) {
        let (id, head) = (self.chat.id, self.chat.head);
        let acks: Vec<_> = by.iter().map(|device| (*device, head.0)).collect();
        self.store.settle(&mut self.db, id, head, &acks).await;
        settle::close(&mut self.db, &[(id, head)]).await.unwrap();
    }

    /// Claims the chat and trims it at a time.
    pub async fn trim(&self, now: Timestamp) -> Trimmed {
        let claim = now + MINUTE;
        let claimed = trim::claim(self.pool(), now, claim, 10).await.unwrap();
        let chats: Vec<ChatId> = claimed.into_iter().map(|(chat, _)| chat).collect();
        assert_eq!(chats, [self.chat.id], "it is due");
        let trimmed = trim::chats(self.pool(), &chats, Mode::Default, now, Some(claim)).await;
        trimmed.unwrap()
    }

    /// Trims the chat because of a hint.
    pub async fn hint(&self, now: Timestamp) -> Trimmed {
        let trimmed = trim::chats(self.pool(), &[self.chat.id], Mode::Default, now, None).await;
        trimmed.unwrap()
    }

    /// Returns the time to the next look at the chat, as the store has it; `None` if there is none.
    pub async fn next_look(&self) -> Option<Timestamp> {
        let select = "SELECT (extract(epoch FROM trim_at) * 1000)::int8 FROM chats WHERE chat_id = $1";
        let at = sqlx::query_scalar::<_, Option<i64>>(select).bind(self.chat.id.0);
        at.fetch_one(self.pool()).await.unwrap().map(Timestamp)
    }

    /// Returns the seqs of the entries of which the cell has anything but what stays: a row of the log without a
    /// content, which entry it is about, and that a message is gone.
    pub async fn left(&self) -> Vec<i64> {
        let mut left = BTreeSet::new();
        for table in CELL_TABLES {
            let columns = "SELECT column_name::text FROM information_schema.columns
                           WHERE table_schema = 'cell_00' AND table_name = $1 AND column_name IN ('seq', 'target_seq')";
            let columns = sqlx::query_scalar::<_, String>(columns).bind(table);
            let only = match table {
                // A short text can be guessed by its fingerprint.
                "messages" => "octet_length(body) + octet_length(fingerprint) > 0 AND kind < 10",
                "message_state" => "(edited_seq <> 0 OR pinned_seq <> 0)",
                // The counts of acts say nothing of what was said.
                "entry_targets" | "act_counts" => "false",
                _ => "true",
            };
            for column in columns.fetch_all(self.pool()).await.unwrap() {
                let select = format!("SELECT {column} FROM {table} WHERE chat_id = $1 AND {only}");
                let seqs = sqlx::query_scalar::<_, i64>(AssertSqlSafe(select)).bind(self.chat.id.0);
                left.extend(seqs.fetch_all(self.pool()).await.unwrap());
            }
        }
        left.into_iter().collect()
    }

    /// Describes what the second person reads of the log from `from` on.
    pub async fn window(&self, from: u64) -> Vec<String> {
        let (pools, master, user) = (&self.store.pools, &self.store.master, self.people[1]);
        let window = entries::window(pools, master, self.chat.id, user, Seq(from), 100, 1 << 20).await;
        let shown = |item: &Item| match item {
            Item::Skipped { to, reason } => format!("to {to} {}", reason.as_str_name()),
            Item::Entry(entry) => match entry.decoded_content().ok().and_then(|content| content.content) {
                Some(Content::Erased(erased)) => {
                    let why = if erased.expired { "expired" } else { "deleted" };
                    format!(
                        "{} {why} kind {} of {}",
                        entry.seq, erased.kind, erased.target_seq
                    )
                }
                _ => entry.seq.to_string(),
            },
        };
        window.unwrap().items.iter().map(shown).collect()
    }

    pub fn reader(&self) -> Reader<'_> {
        Reader {
            pools: &self.store.pools,
            master: &self.store.master,
            chat: self.chat.id,
            user: self.people[1],
        }
    }

    /// Returns the seqs of the messages that the second person finds in history.
    pub async fn history(&self, only: Only) -> Vec<u64> {
        let bounds = Bounds {
            limit: 100,
            bytes: 1 << 20,
        };
        let page = self
            .reader()
            .page(only, Begin::Below(Seq(i64::MAX as u64)), bounds)
            .await;
        let seqs = page.unwrap().messages.into_iter();
        seqs.filter_map(|message| Some(message.entry?.seq)).collect()
    }

    /// Returns what decides about doing something to an entry.
    pub async fn target(&self, seq: u64) -> Target {
        let look_up = LookUp {
            targets: vec![Seq(seq)],
            ..LookUp::default()
        };
        let (pools, master) = (&self.store.pools, &self.store.master);
        let loaded = load::chat(pools, master, self.chat.id, &look_up).await;
        loaded.unwrap().unwrap().targets[0].1
    }
}
