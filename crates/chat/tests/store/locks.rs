//! Tests locks of other transactions: a lock delays only the chat that it is on, and a lock on the inbox delays no
//! commit.

use sqlx::{AssertSqlSafe, Connection, PgConnection, Postgres, Transaction};
use tern_chat::shard_loop::loader::Loader;
use tern_chat_core::change::Action;
use tern_chat_core::chat::LookUp;
use tern_chat_core::shard::{AckWrite, Committed, Job, JobDone, ReadMark, SettleChat};
use tern_chat_core::{EntryKind, NewEntry, Origin, Outcome, Place, Refusal};
use tern_store::Pools;
use tern_store::postgres::cell_connect_options;
use tern_types::{Cells, ChatId, DeviceId, RequestId, Seq, UserId};

use crate::harness::{Known, Store, making, new_direct, new_entry};
use crate::owner::{Owner, run_job};

fn message(sender: UserId) -> NewEntry {
    new_entry(sender, EntryKind::Message, b"x")
}

/// Two chats of one user: one that another transaction will lock, and one that stays free. Each has an entry that the
/// user's device has not acknowledged.
struct Two {
    store: Store,
    user: UserId,
    device: DeviceId,
    locked: Known,
    free: Known,
}

impl Two {
    async fn new() -> Self {
        let store = Store::new().await;
        let user = store.user().await;
        let device = store.device(user).await;
        let (one, other) = (store.user().await, store.user().await);
        let (mut locked, mut free) = (store.direct(user, one).await, store.direct(user, other).await);
        let mut db = store.shard().await;
        for (chat, sender) in [(&mut locked, one), (&mut free, other)] {
            store.say(&mut db, chat, sender, "hello").await;
        }
        Self {
            store,
            user,
            device,
            locked,
            free,
        }
    }

    /// Returns the chat that will be locked, then the other.
    fn both(&self) -> [ChatId; 2] {
        [self.locked.id, self.free.id]
    }

    /// Settles both, so that the device has an inbox row in each.
    async fn settled(self) -> Self {
        let mut db = self.store.shard().await;
        for chat in self.both() {
            self.store.settle(&mut db, chat, Seq(1), &[]).await;
        }
        self
    }

    /// Makes the job that settles both chats.
    fn settle(&self) -> Job {
        let settle = |chat| SettleChat {
            chat,
            upto: Seq(1),
            acks: Vec::new(),
            read: Vec::new(),
            trace: None,
        };
        Job::Settle(self.both().map(settle).to_vec())
    }

    /// Makes the job that writes the device's acknowledgements in both chats.
    fn acks(&self) -> Job {
        let ack = |chat| AckWrite {
            origin: Origin::Call(0),
            chat,
            user: self.user,
            device: self.device,
            seq: Seq(1),
        };
        Job::Acks(self.both().map(ack).to_vec())
    }

    /// Makes the job that writes the user's read marks in both chats.
    fn reads(&self) -> Job {
        let read = |chat| ReadMark {
            chat,
            user: self.user,
            seq: Seq(1),
            off: false,
            own_unread: 0,
            withdraws: false,
        };
        Job::Reads(self.both().map(read).to_vec())
    }

    async fn read_seq(&self, chat: ChatId) -> i64 {
        sqlx::query_scalar("SELECT read_seq FROM members WHERE chat_id = $1 AND user_id = $2")
            .bind(chat.0)
            .bind(self.user.0)
            .fetch_one(&self.store.pool)
            .await
            .unwrap()
    }
}

/// Locks the rows of this table that belong to the chat, until the returned transaction ends.
async fn hold<'a>(db: &'a mut PgConnection, table: &str, chat: ChatId) -> Transaction<'a, Postgres> {
    let mut tx = db.begin().await.unwrap();
    let sql = format!("SELECT 1 FROM {table} WHERE chat_id = $1 FOR UPDATE");
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(chat.0).fetch_all(&mut *tx);
    assert!(!rows.await.unwrap().is_empty());
    tx
}

#[tokio::test]
async fn a_send_to_a_chat_that_is_locked_fails_alone_and_is_in_the_log_once_when_it_comes_again() {
    let two = Two::new().await;
    let mut owner = Owner::new(&two.store);
    let mut other = two.store.stranger().await;
    let tx = hold(&mut other, "chat_heads", two.locked.id).await;
    let (late, first, second) = (message(two.user), message(two.user), message(two.user));
    let answers = owner
        .send_all([
            (two.locked.id, &late),
            (two.free.id, &first),
            (two.free.id, &second),
        ])
        .await;
    let [(last, refused), (_, first), (_, second)] = answers;
    assert_eq!(refused, Outcome::Sent(Err(Refusal::TOO_LATE)));
    assert_eq!(last, 2, "the others did not wait for it");
    for placed in [first, second] {
        assert!(matches!(placed, Outcome::Sent(Ok(_))), "{placed:?}");
    }
    assert_eq!(two.store.log(two.locked.id).await, [1]);
    tx.rollback().await.unwrap();
    for _ in 0..2 {
        let placed = owner.send(two.locked.id, &late).await;
        assert!(
            matches!(placed, Outcome::Sent(Ok(Place { seq: Seq(2), .. }))),
            "{placed:?}"
        );
    }
    assert_eq!(two.store.log(two.locked.id).await, [1, 2]);
}

#[tokio::test]
async fn a_send_outlasts_a_lock_that_is_short() {
    let two = Two::new().await;
    let mut owner = Owner::new(&two.store);
    let mut other = two.store.stranger().await;
    let tx = hold(&mut other, "chat_heads", two.locked.id).await;
    let entry = message(two.user);
    let release = async {
        two.store.somebody_waits().await;
        tx.rollback().await.unwrap();
    };
    let (placed, ()) = tokio::join!(owner.send(two.locked.id, &entry), release);
    assert!(
        matches!(placed, Outcome::Sent(Ok(Place { seq: Seq(2), .. }))),
        "{placed:?}"
    );
}

#[tokio::test]
async fn a_change_of_members_who_are_locked_is_not_carried_out_and_not_refused() {
    let store = Store::new().await;
    let (owner, user) = (store.user().await, store.user().await);
    let group = store.group(owner, &[]).await;
    let mut other = store.stranger().await;
    let mut tx = other.begin().await.unwrap();
    sqlx::query(tern_chat::store::devices::LOCK_USER)
        .bind(user.0)
        .execute(&mut *tx)
        .await
        .unwrap();
    let action = Action::Add(vec![user]);
    let mut batch = group.batch(vec![new_entry(owner, action.kind(), b"change")]);
    batch.change = Some(action);
    let JobDone::Commit(done) = run_job(&store, Job::Change(batch)).await else {
        panic!("no commit")
    };
    assert_eq!(done, [(group.id, Committed::Locked)]);
    assert_eq!(store.log(group.id).await, [1]);
}

/// The lock is on the head, or on a row of the inbox. Nobody knows of a lock on a row before the statement runs.
#[tokio::test]
async fn an_acknowledgement_in_a_chat_that_is_locked_is_left_out() {
    for table in ["chat_heads", "inbox"] {
        let two = Two::new().await.settled().await;
        let mut other = two.store.stranger().await;
        let tx = hold(&mut other, table, two.locked.id).await;
        let JobDone::Acks {
            acks,
            rows,
            unwritten,
        } = run_job(&two.store, two.acks()).await
        else {
            panic!("no acknowledgements")
        };
        assert_eq!(
            acks.iter().map(|ack| ack.chat).collect::<Vec<_>>(),
            [two.free.id],
            "{table}"
        );
        let unwritten: Vec<_> = unwritten.iter().map(|ack| ack.chat).collect();
        assert_eq!(unwritten, [two.locked.id], "{table}");
        assert!(rows.contains_key(&(two.free.id, two.device)));
        tx.rollback().await.unwrap();
        for (chat, has_row) in [(two.locked.id, true), (two.free.id, false)] {
            let inbox = two.store.inbox(chat).await;
            assert_eq!(inbox.contains(&(two.device, 1)), has_row, "{table}: {inbox:?}");
        }
    }
}

#[tokio::test]
async fn a_settle_leaves_out_the_chat_that_is_locked() {
    let two = Two::new().await;
    let mut other = two.store.stranger().await;
    let _tx = hold(&mut other, "chat_heads", two.locked.id).await;
    let JobDone::Settle {
        chats,
        missing,
        failed,
    } = run_job(&two.store, two.settle()).await
    else {
        panic!("no settle")
    };
    assert_eq!(
        (chats, failed),
        (vec![(two.free.id, Seq(1))], vec![(two.locked.id, Seq(1))])
    );
    assert!(missing.contains_key(&two.free.id) && missing.len() == 1);
    assert_eq!(two.store.inbox(two.free.id).await.len(), 2, "of both people");
}

#[tokio::test]
async fn a_read_mark_in_a_chat_whose_member_is_locked_is_left_out() {
    let two = Two::new().await;
    let mut other = two.store.stranger().await;
    let _tx = hold(&mut other, "members", two.locked.id).await;
    let JobDone::Reads { unwritten } = run_job(&two.store, two.reads()).await else {
        panic!("no read marks")
    };
    assert_eq!(
        unwritten.iter().map(|mark| mark.chat).collect::<Vec<_>>(),
        [two.locked.id]
    );
    assert_eq!(two.read_seq(two.free.id).await, 1);
}

/// The settle waits for the inbox before it locks any head, and uses another connection than the commits.
#[tokio::test]
async fn a_lock_on_the_whole_inbox_holds_up_no_message() {
    let two = Two::new().await;
    let mut owner = Owner::new(&two.store);
    let sent = owner.send(two.free.id, &message(two.user)).await;
    assert!(
        matches!(sent, Outcome::Sent(Ok(Place { seq: Seq(2), .. }))),
        "{sent:?}"
    );
    let mut other = two.store.stranger().await;
    let mut tx = other.begin().await.unwrap();
    sqlx::query("LOCK TABLE inbox").execute(&mut *tx).await.unwrap();
    owner.ahead = std::time::Duration::from_secs(1);
    assert_eq!(owner.begin_upkeep().await, "settle");
    two.store.somebody_waits().await;
    let mut third = two.store.shard().await;
    sqlx::query("SELECT 1 FROM chat_heads WHERE chat_id = $1 FOR UPDATE NOWAIT")
        .bind(two.free.id.0)
        .execute(&mut third)
        .await
        .expect("who waits for the inbox holds no head");
    let sent = owner.send(two.free.id, &message(two.user)).await;
    assert!(
        matches!(sent, Outcome::Sent(Ok(Place { seq: Seq(3), .. }))),
        "{sent:?}"
    );
    tx.rollback().await.unwrap();
}

#[tokio::test]
async fn a_first_message_to_somebody_who_is_locked_waits_without_a_connection() {
    let store = Store::new().await;
    let (a, b, locked) = (store.user().await, store.user().await, store.user().await);
    let mut other = store.stranger().await;
    let mut tx = other.begin().await.unwrap();
    sqlx::query(tern_chat::store::devices::LOCK_USER)
        .bind(locked.0)
        .execute(&mut *tx)
        .await
        .unwrap();
    let one = Cells::new(1).unwrap();
    // The loader has only one turn at a time.
    let pools = Pools::new(store.pools.people().clone(), one, 1, |cell| {
        cell_connect_options(&store.args, cell)
    });
    let loader = Loader::new(pools, store.master.clone(), 100);
    let load = |one, other| {
        let (loader, new) = (loader.clone(), new_direct(one, other));
        let look_up = LookUp {
            requests: vec![(one, RequestId::random())],
            ..LookUp::default()
        };
        async move { loader.load(new.chat, making(new), &look_up).await }
    };
    let waits = tokio::spawn(load(a, locked));
    for person in [a, b] {
        let made = load(person, store.user().await).await;
        assert!(made.unwrap().is_some());
    }
    tx.rollback().await.unwrap();
    assert!(waits.await.unwrap().unwrap().is_some());
}
