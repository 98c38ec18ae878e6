//! The test world: a database of its own, in which tests write chats, devices and due pushes as other roles do.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tern_cluster::NodeContext;
use tern_cluster::map::{ClusterMap, MapHandle};
use tern_local::Shared;
use tern_push::presence::Sessions;
use tern_push::provider::{Delivery, Outgoing};
use tern_push::store::Store;
use tern_push::store::claim::{self, Batch, Claimed};
use tern_push::store::look::{self, Looked};
use tern_push::worker::{Deliver, Limits, Worker};
use tern_store::postgres::PostgresArgs;
use tern_store::{Pools, schema};
use tern_types::{Cell, Cells, ChatId, DeviceId, UserId};
use uuid::Uuid;

/// The numbers of kinds of entries.
pub const MESSAGE: i16 = 1;
pub const REACTION: i16 = 4;
pub const MEMBERS_ADDED: i16 = 11;
pub const OWN: i16 = 20;

pub struct World {
    pub pools: Pools,
    pub args: PostgresArgs,
    _servers: Shared,
}

/// A row of `inbox`, as far as pushes are concerned: whether a push is due or waits, how often it was tried, whether
/// something counts as pushed, and whether something is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct State {
    pub open: bool,
    pub due: bool,
    pub tries: i16,
    pub pushed: bool,
    pub shown: bool,
}

/// Push services that give the answers of a test, and say that they took a push when they have none left.
#[derive(Clone, Default)]
pub struct Services {
    pub sent: Arc<Mutex<Vec<Outgoing>>>,
    pub answers: Arc<Mutex<VecDeque<Delivery>>>,
}

impl Services {
    /// Returns what was sent since this was last called.
    pub fn take(&self) -> Vec<Outgoing> {
        std::mem::take(&mut self.sent.lock().unwrap())
    }
}

impl Deliver for Services {
    fn deliver(&self, push: &Outgoing) -> impl Future<Output = Delivery> + Send {
        self.sent.lock().unwrap().push(push.clone());
        let answer = self.answers.lock().unwrap().pop_front();
        std::future::ready(answer.unwrap_or(Delivery::Sent))
    }
}

impl World {
    pub async fn start() -> Self {
        let servers = Shared::get().await.unwrap();
        let url = servers.database().await.unwrap();
        let args = PostgresArgs::from_url(&url).unwrap();
        let wanted = schema::Wanted {
            cells: None,
            citus: servers.is_citus(),
        };
        schema::migrate(&args, wanted).await.unwrap();
        Self {
            pools: Pools::open(&args).await.unwrap(),
            args,
            _servers: servers,
        }
    }

    /// Makes a worker that sends by these services. No presence node is there, so nobody is sure who has a stream.
    pub fn worker(&self, services: &Services) -> Arc<Worker<Services>> {
        let ctx = NodeContext::alone("push-1", 1, MapHandle::fixed(ClusterMap::default()));
        let limits = Limits {
            batch: 256,
            batches: 4,
        };
        let store = Store::new(self.pools.clone());
        Worker::new(store, services.clone(), Sessions::new(ctx), limits)
    }

    /// Makes a user with this name.
    pub async fn user(&self, name: &str) -> UserId {
        let user = UserId::random();
        sqlx::query("INSERT INTO users (user_id, external_id, display_name) VALUES ($1, $2, $3)")
            .bind(user.0)
            .bind(user.to_string())
            .bind(name)
            .execute(self.pools.people())
            .await
            .unwrap();
        user
    }

    /// Makes an active device without a token.
    pub async fn device(&self, user: UserId) -> DeviceId {
        let device = DeviceId::random();
        let insert = "INSERT INTO devices (device_id, user_id, display_name, platform, request_id, active)
                      VALUES ($1, $2, 'phone', 'test', $3, true)";
        sqlx::query(insert)
            .bind(device.0)
            .bind(user.0)
            .bind(Uuid::new_v4())
            .execute(self.pools.people())
            .await
            .unwrap();
        device
    }

    /// Gives the device a token of FCM, which it named so many days ago.
    pub async fn token(&self, device: DeviceId, user: UserId, days: i32) {
        let insert = "INSERT INTO push_tokens (device_id, user_id, provider, app, token, registered_at, named_at)
                      SELECT $1, $2, 2, 'com.example', $3, at, at FROM (SELECT now() - $4 * interval '1 day' AS at) t";
        sqlx::query(insert)
            .bind(device.0)
            .bind(user.0)
            .bind(device.to_string().into_bytes())
            .bind(days)
            .execute(self.pools.people())
            .await
            .unwrap();
    }

    /// Makes a user with a device that has a token.
    pub async fn phone(&self, name: &str) -> (UserId, DeviceId) {
        let user = self.user(name).await;
        let device = self.device(user).await;
        self.token(device, user, 0).await;
        (user, device)
    }

    /// Makes a group without members in the first cell.
    pub async fn group(&self) -> ChatId {
        let in_first = |chat: &ChatId| Cells::DEFAULT.of_chat(*chat) == Cell::FIRST;
        let mut ids = std::iter::repeat_with(|| ChatId(Uuid::new_v4()));
        let chat = ids.find(in_first).unwrap();
        self.chat(chat, 2).await;
        chat
    }

    /// Makes a chat of a kind.
    pub async fn chat(&self, chat: ChatId, kind: i16) {
        let insert = "INSERT INTO chats (chat_id, kind, title, created_by, wrapped_key)
                      VALUES ($1, $2, 'Ferry', $1, '')";
        self.run(chat, insert, &[i64::from(kind)]).await;
        let insert = "INSERT INTO chat_heads (chat_id, head_seq, head_ordinal) VALUES ($1, 0, 0)";
        self.run(chat, insert, &[]).await;
    }

    /// Runs a statement whose first argument is the chat, and whose others are numbers, in the chat's cell.
    pub async fn run(&self, chat: ChatId, sql: &'static str, numbers: &[i64]) {
        let query = numbers.iter().fold(
            sqlx::query::<sqlx::Postgres>(sql).bind(chat.0),
            |query, number| query.bind(*number),
        );
        query.execute(self.pools.of(chat)).await.unwrap();
    }

    /// Runs a statement whose first two arguments are the chat and a user or a device, as [`Self::run`] does.
    pub async fn run_about(&self, chat: ChatId, id: Uuid, sql: &'static str, numbers: &[i64]) {
        let query = sqlx::query::<sqlx::Postgres>(sql).bind(chat.0).bind(id);
        let query = numbers.iter().fold(query, |query, number| query.bind(*number));
        query.execute(self.pools.of(chat)).await.unwrap();
    }

    /// Adds a member from this seq on.
    pub async fn join(&self, chat: ChatId, user: UserId, seq: i64) {
        let insert =
            "INSERT INTO members (chat_id, user_id, joined_seq, role, devices) VALUES ($1, $2, $3, 1, '{}')";
        self.run_about(chat, user.0, insert, &[seq]).await;
    }

    /// Writes the chat's next entry, and returns its seq.
    pub async fn entry(&self, chat: ChatId, kind: i16, sender: UserId) -> i64 {
        let head = "UPDATE chat_heads SET head_seq = head_seq + 1 WHERE chat_id = $1 RETURNING head_seq";
        let seq: i64 = sqlx::query_scalar(head)
            .bind(chat.0)
            .fetch_one(self.pools.of(chat))
            .await
            .unwrap();
        let insert =
            "INSERT INTO messages (chat_id, seq, ordinal, kind, sender_user, sender_device, request_id,
                                            fingerprint, body, sent_at)
                      VALUES ($1, $2, $2, $3, $4, $4, $5, '', 'body', now())";
        sqlx::query(insert)
            .bind(chat.0)
            .bind(seq)
            .bind(kind)
            .bind(sender.0)
            .bind(Uuid::new_v4())
            .execute(self.pools.of(chat))
            .await
            .unwrap();
        seq
    }

    /// Notes that entry `seq` is about the entry `target`, as a reaction of `user` that was not taken back.
    pub async fn reacts(&self, chat: ChatId, seq: i64, target: i64, user: UserId) {
        let insert = "INSERT INTO entry_targets (chat_id, seq, target_seq, kind) VALUES ($1, $2, $3, 4)";
        self.run(chat, insert, &[seq, target]).await;
        let insert =
            "INSERT INTO reactions (chat_id, target_seq, user_id, key, seq) VALUES ($1, $3, $2, 'key', $4)";
        self.run_about(chat, user.0, insert, &[target, seq]).await;
    }

    pub async fn mentions(&self, chat: ChatId, seq: i64, user: UserId) {
        let insert = "INSERT INTO mentions (chat_id, user_id, seq) VALUES ($1, $2, $3)";
        self.run_about(chat, user.0, insert, &[seq]).await;
    }

    pub async fn hint(&self, chat: ChatId, seq: i64, hint: i64) {
        let insert = "INSERT INTO push_hints (chat_id, seq, hint) VALUES ($1, $2, $3)";
        self.run(chat, insert, &[seq, hint]).await;
    }

    pub async fn reads(&self, chat: ChatId, user: UserId, seq: i64) {
        let update = "UPDATE members SET read_seq = $3 WHERE chat_id = $1 AND user_id = $2";
        self.run_about(chat, user.0, update, &[seq]).await;
    }

    /// Writes that the device lacks the chat from a seq on, and that a push of it has been due for 10 s. A row that is
    /// there moves to that seq and becomes due again.
    pub async fn due(&self, chat: ChatId, (user, device): (UserId, DeviceId), from: i64) {
        let insert = "
            INSERT INTO inbox (chat_id, device_id, user_id, from_seq, push_at, push_since)
            VALUES ($1, $2, $3, $4, now() - interval '10 s', now() - interval '10 s')
            ON CONFLICT (chat_id, device_id) DO UPDATE
            SET from_seq = excluded.from_seq, push_at = excluded.push_at, push_since = excluded.push_since,
                push_tries = 0";
        sqlx::query(insert)
            .bind(chat.0)
            .bind(device.0)
            .bind(user.0)
            .bind(from)
            .execute(self.pools.of(chat))
            .await
            .unwrap();
    }

    /// Ends all claims of the chat's cell, as the time does after 30 s.
    pub async fn claims_run_out(&self, chat: ChatId) {
        sqlx::query("UPDATE inbox SET push_at = push_at - interval '31 s' WHERE push_at IS NOT NULL")
            .execute(self.pools.of(chat))
            .await
            .unwrap();
    }

    /// Makes a group in which this phone lacks one message of another person. Returns the group, the person and the
    /// seq.
    pub async fn group_with_message(&self, phone: (UserId, DeviceId)) -> (ChatId, UserId, i64) {
        let (chat, sender) = (self.group().await, self.user("Ann").await);
        self.join(chat, phone.0, 1).await;
        self.entry(chat, 10, sender).await;
        let seq = self.entry(chat, MESSAGE, sender).await;
        self.due(chat, phone, seq).await;
        (chat, sender, seq)
    }

    pub async fn claim(&self, most: u32) -> Option<Batch> {
        claim::claim(self.pools.cell(Cell::FIRST), most).await.unwrap()
    }

    /// Claims the only row that is due.
    pub async fn claim_one(&self) -> (Claimed, Batch) {
        let batch = self.claim(256).await.expect("a row is due");
        assert_eq!(batch.rows.len(), 1);
        (batch.rows[0], batch)
    }

    /// Looks at one claimed row of any cell.
    pub async fn look(&self, row: Claimed) -> Option<Looked> {
        let looked = look::look(self.pools.of(row.chat), &[row]).await.unwrap();
        looked.into_iter().next().unwrap()
    }

    /// Returns the state of a row; `None` if there is none.
    pub async fn state(&self, chat: ChatId, device: DeviceId) -> Option<State> {
        let select = "
            SELECT push_at IS NOT NULL AS open, coalesce(push_at <= now(), false) AS due, push_tries AS tries,
                   pushed_at IS NOT NULL AS pushed, notified_at IS NOT NULL AS shown
            FROM inbox WHERE chat_id = $1 AND device_id = $2";
        sqlx::query_as(select)
            .bind(chat.0)
            .bind(device.0)
            .fetch_optional(self.pools.of(chat))
            .await
            .unwrap()
    }
}
