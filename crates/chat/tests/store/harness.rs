//! Makes a database for each test, and has short calls for the statements of a chat node.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sqlx::{AssertSqlSafe, ConnectOptions, PgConnection, PgPool, Row};
use tern_chat::store::direct::{Made, NewDirect};
use tern_chat::store::heads::Heads;
use tern_chat::store::seal::MasterKey;
use tern_chat::store::{ack, change, commit, devices, direct, group, load, settle};
use tern_chat_core::change::Action;
use tern_chat_core::chat::{Batch, ChatKey, LookUp, Snapshot};
use tern_chat_core::shard::{AckWrite, SettleChat};
use tern_chat_core::{Entry, EntryKind, Making, Missing, NewEntry, Origin};
use tern_local::Shared;
use tern_store::postgres::{PostgresArgs, cell_connect_options, connect_hot};
use tern_store::{Pools, schema};
use tern_types::{Cell, Cells, ChatId, Clock, DeviceId, MediaId, RequestId, Seq, UserId};
use uuid::Uuid;

/// A database of the test's own, and the master key of its chats.
pub struct Store {
    pub pool: PgPool,
    /// The pools of a chat node.
    pub pools: Pools,
    pub args: PostgresArgs,
    pub master: MasterKey,
    url: String,
    shared: Shared,
}

/// The look-up for a chat whose commands need none.
pub static NOTHING: LookUp = LookUp {
    requests: Vec::new(),
    targets: Vec::new(),
    acts: Vec::new(),
};

/// A chat as a writer knows it: its key, and the head that the writer believes in.
#[derive(Clone)]
pub struct Known {
    pub id: ChatId,
    pub key: ChatKey,
    pub head: Seq,
    pub ordinal: u64,
}

/// A store, two people with a device each, their chat, and a connection with a shard's settings.
pub type Two = (Store, [UserId; 2], [DeviceId; 2], Known, PgConnection);

/// Makes two people with a device each and their direct chat.
pub async fn direct() -> Two {
    let (store, [a, b], devices) = two().await;
    let (chat, db) = (store.direct(a, b).await, store.shard().await);
    (store, [a, b], devices, chat, db)
}

/// Makes two people with a device each and their group, which the first one owns.
pub async fn group() -> Two {
    let (store, [a, b], devices) = two().await;
    let (chat, db) = (store.group(a, &[b]).await, store.shard().await);
    (store, [a, b], devices, chat, db)
}

async fn two() -> (Store, [UserId; 2], [DeviceId; 2]) {
    let store = Store::new().await;
    let (a, b) = (store.user().await, store.user().await);
    let devices = [store.device(a).await, store.device(b).await];
    (store, [a, b], devices)
}

impl Store {
    /// Makes a store of one cell, so that every chat is in reach of [`Store::shard`].
    pub async fn new() -> Self {
        Self::with_cells(Cells::new(1)).await
    }

    /// Makes a store with this number of cells; `None`: as many as there are by default.
    pub async fn with_cells(cells: Option<Cells>) -> Self {
        let shared = Shared::get().await.unwrap();
        let url = shared.database().await.unwrap();
        let args = PostgresArgs::from_url(&url).unwrap();
        let pool = tern_store::postgres::pool(&args).await.unwrap();
        let wanted = schema::Wanted {
            cells,
            citus: shared.is_citus(),
        };
        schema::migrate(&args, wanted).await.unwrap();
        let pools = Pools::open(&args).await.unwrap();
        let master = MasterKey::from_hex(&"a7".repeat(32)).unwrap();
        Self {
            pool,
            pools,
            args,
            master,
            url,
            shared,
        }
    }

    /// Returns the URL of the database.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns whether the database is on Citus.
    pub fn is_citus(&self) -> bool {
        self.shared.is_citus()
    }

    /// Opens a connection with the settings of the shard of the first cell.
    pub async fn shard(&self) -> PgConnection {
        self.shard_of(Cell::FIRST).await
    }

    /// Opens a connection with the settings of the cell's shard.
    pub async fn shard_of(&self, cell: Cell) -> PgConnection {
        connect_hot(&cell_connect_options(&self.args, cell))
            .await
            .unwrap()
    }

    /// Opens a connection that is no node's. It may keep its locks for as long as it likes.
    pub async fn stranger(&self) -> PgConnection {
        self.args.database_url.first().connect().await.unwrap()
    }

    /// Inserts a user.
    pub async fn user(&self) -> UserId {
        let user = UserId::random();
        let insert = "INSERT INTO users (user_id, external_id, display_name) VALUES ($1, $1::text, 'x')";
        sqlx::query(insert)
            .bind(user.0)
            .execute(&self.pool)
            .await
            .unwrap();
        user
    }

    /// Inserts a device as an accounts node does: it is not active yet.
    pub async fn unlinked_device(&self, user: UserId) -> DeviceId {
        let device = DeviceId::random();
        let insert = "INSERT INTO devices (device_id, user_id, display_name, platform, request_id)
                      VALUES ($1, $2, '', '', $1)";
        sqlx::query(insert)
            .bind(device.0)
            .bind(user.0)
            .execute(&self.pool)
            .await
            .unwrap();
        device
    }

    /// Inserts a device and links it to its user's chats.
    pub async fn device(&self, user: UserId) -> DeviceId {
        let device = self.unlinked_device(user).await;
        assert!(devices::link(&self.pools, user, device).await.unwrap());
        device
    }

    /// Makes a direct chat, which must not exist yet.
    pub async fn direct(&self, a: UserId, b: UserId) -> Known {
        let new = new_direct(a, b);
        let made = direct::make(self.pools.of(new.chat), &self.master, &[new]).await;
        assert!(matches!(made.unwrap()[..], [Made::New(_)]));
        self.load(new.chat).await
    }

    /// Makes a group.
    pub async fn group(&self, owner: UserId, members: &[UserId]) -> Known {
        let chat = ChatId::group(owner, RequestId::random());
        let entry = new_entry(owner, EntryKind::ChatCreated, b"created");
        let group = group::NewGroup {
            chat,
            title: "group",
            owner,
            members,
            entry: &entry,
            strangers: None,
        };
        let created = group::create(&self.pools, &self.master, &group).await.unwrap();
        assert!(matches!(created, group::Created::New { .. }));
        self.load(chat).await
    }

    /// Loads the chat, which must exist.
    pub async fn snapshot(&self, chat: ChatId) -> Snapshot {
        load::chat(&self.pools, &self.master, chat, &NOTHING)
            .await
            .unwrap()
            .unwrap()
    }

    /// Loads the chat as a writer knows it.
    pub async fn load(&self, chat: ChatId) -> Known {
        let snapshot = self.snapshot(chat).await;
        Known {
            id: chat,
            key: snapshot.key,
            head: snapshot.head,
            ordinal: snapshot.ordinal,
        }
    }

    /// Commits one message, and moves the known head to it. Returns its seq.
    pub async fn say(&self, db: &mut PgConnection, chat: &mut Known, sender: UserId, text: &str) -> Seq {
        let batch = chat.batch(vec![new_entry(sender, EntryKind::Message, text.as_bytes())]);
        assert!(
            commit::commit(db, std::slice::from_ref(&batch))
                .await
                .unwrap()
                .contains(&chat.id)
        );
        chat.head = batch.head();
        chat.ordinal += 1;
        chat.head
    }

    /// Commits a change of a group, and moves the known head to it. Returns its seq.
    pub async fn change(
        &self,
        db: &mut PgConnection,
        chat: &mut Known,
        actor: UserId,
        action: Action,
    ) -> Seq {
        let mut new = new_entry(actor, action.kind(), b"change");
        new.media = action.media();
        let mut batch = chat.batch(vec![new]);
        batch.change = Some(action);
        assert_eq!(
            change::change(db, &batch, None).await.unwrap(),
            change::Changed::Stored
        );
        chat.head = batch.head();
        chat.head
    }

    /// Settles up to `upto` with these acknowledgements. Returns the missing devices, by id.
    pub async fn settle(
        &self,
        db: &mut PgConnection,
        chat: ChatId,
        upto: Seq,
        acks: &[(DeviceId, u64)],
    ) -> Vec<Missing> {
        let acks = acks.iter().map(|(device, seq)| (*device, Seq(*seq))).collect();
        let mut missing = settle::settle(
            db,
            &[SettleChat {
                chat,
                upto,
                acks,
                read: Vec::new(),
                trace: None,
            }],
            Heads::Wait,
        )
        .await
        .unwrap()
        .0;
        let mut missing = missing.remove(&chat).unwrap_or_default();
        missing.sort_unstable_by_key(|missing| missing.device);
        missing
    }

    /// Writes an acknowledgement. Returns the seq from which the device's row begins afterwards; `None` if there is no
    /// row.
    pub async fn ack(
        &self,
        db: &mut PgConnection,
        chat: ChatId,
        user: UserId,
        device: DeviceId,
        seq: u64,
    ) -> Option<Seq> {
        let ack = AckWrite {
            origin: Origin::Call(0),
            chat,
            user,
            device,
            seq: Seq(seq),
        };
        ack::acknowledge(db, &[ack], Heads::Wait)
            .await
            .unwrap()
            .0
            .get(&(chat, device))
            .and_then(|row| row.now)
    }

    /// Returns the inbox rows of a chat: device and from_seq, by device.
    pub async fn inbox(&self, chat: ChatId) -> Vec<(DeviceId, u64)> {
        let rows = sqlx::query("SELECT device_id, from_seq FROM inbox WHERE chat_id = $1 ORDER BY device_id")
            .bind(chat.0)
            .fetch_all(&self.pool)
            .await
            .unwrap();
        rows.iter()
            .map(|row| (DeviceId(row.get::<Uuid, _>(0)), row.get::<i64, _>(1) as u64))
            .collect()
    }

    /// Returns the from_seq of each unsettled row of a chat, in ascending order.
    pub async fn unsettled(&self, chat: ChatId) -> Vec<i64> {
        let query = "SELECT from_seq FROM unsettled WHERE chat_id = $1 ORDER BY from_seq";
        sqlx::query_scalar(query)
            .bind(chat.0)
            .fetch_all(&self.pool)
            .await
            .unwrap()
    }

    /// Returns the media references of a chat's entries: media and seq, by seq.
    pub async fn refs(&self, chat: ChatId) -> Vec<(MediaId, i64)> {
        let refs = "SELECT media_id, seq FROM media_refs WHERE chat_id = $1 ORDER BY seq, media_id";
        let rows: Vec<(uuid::Uuid, i64)> = sqlx::query_as(refs)
            .bind(chat.0)
            .fetch_all(&self.pool)
            .await
            .unwrap();
        rows.into_iter()
            .map(|(media, seq)| (MediaId(media), seq))
            .collect()
    }

    /// Returns the seqs of the entries in a chat's log.
    pub async fn log(&self, chat: ChatId) -> Vec<i64> {
        let query = "SELECT seq FROM messages WHERE chat_id = $1 ORDER BY seq";
        sqlx::query_scalar(query)
            .bind(chat.0)
            .fetch_all(&self.pool)
            .await
            .unwrap()
    }

    /// Waits until some statement waits for a lock in this database.
    pub async fn somebody_waits(&self) {
        let mut query = "SELECT EXISTS (SELECT FROM pg_stat_activity
                         WHERE datname = current_database() AND wait_event_type = 'Lock')"
            .to_owned();
        if self.shared.is_citus() {
            query = format!(
                "SELECT bool_or(result = 't') FROM run_command_on_all_nodes({})",
                format_args!("$waits${query}$waits$")
            );
        }
        let waits = async {
            while !sqlx::query_scalar::<_, bool>(AssertSqlSafe(query.clone()))
                .fetch_one(&self.pool)
                .await
                .unwrap()
            {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), waits)
            .await
            .expect("nobody waits for a lock");
    }
}

impl Known {
    /// Makes a batch of these entries, with the seqs after the known head.
    pub fn batch(&self, entries: Vec<NewEntry>) -> Batch {
        let (mut seq, mut ordinal) = (self.head, self.ordinal);
        let entries = entries.into_iter().map(|new| {
            seq = seq.next();
            ordinal += u64::from(new.counts);
            Entry {
                chat: self.id,
                seq,
                ordinal,
                sent_at: Clock::wall(),
                new: Arc::new(new),
            }
        });
        let entries = entries.collect();
        Batch {
            chat: self.id,
            key: self.key.clone(),
            expected: self.head,
            ordinal: self.ordinal,
            entries,
            change: None,
        }
    }
}

/// Returns a direct chat to be made by the first of the two.
pub fn new_direct(a: UserId, b: UserId) -> NewDirect {
    NewDirect {
        chat: ChatId::direct(a, b),
        people: (a, b),
        strangers: None,
    }
}

/// Returns how a send from a device asks a load to make the chat.
pub fn making(new: NewDirect) -> Option<Making> {
    Some(Making {
        people: new.people,
        by_device: true,
    })
}

/// Returns an entry with a new request_id.
pub fn new_entry(sender: UserId, kind: EntryKind, content: &[u8]) -> NewEntry {
    let (device, request) = (DeviceId(sender.0), RequestId::random());
    let content = Bytes::copy_from_slice(content);
    NewEntry {
        kind,
        counts: kind == EntryKind::Message,
        ..NewEntry::message(sender, device, request, [7; 16], content)
    }
}
