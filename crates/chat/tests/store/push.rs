//! Tests which pushes are due: those of inbox rows that stay, each at most once a minute.

use sqlx::PgConnection;
use tern_chat::store::heads::Heads;
use tern_chat::store::own::{self, Made};
use tern_chat::store::withdraw::{self, Withdrawal};
use tern_chat::store::{change, commit, devices, settle, trim};
use tern_chat_core::change::Action;
use tern_chat_core::change::own::OwnChange;
use tern_chat_core::content::fingerprint;
use tern_chat_core::hint::PushHint;
use tern_chat_core::retention::Mode;
use tern_chat_core::shard::{Job, JobDone, ReadMark, SettleChat};
use tern_chat_core::{EntryKind, NewEntry};
use tern_proto::v1;
use tern_proto::v1::entry_content::Content;
use tern_types::{ChatId, Clock, DeviceId, RequestId, Seq, UserId};

use crate::harness::{Known, Store, direct, new_entry};
use crate::owner::run_job;

/// The push of a row as the store has it. The times are in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Push {
    at: Option<f64>,
    since: Option<f64>,
    tries: i16,
    pushed: Option<f64>,
    notified: Option<f64>,
}

impl Push {
    /// Returns whether a push is due since it was made due, and was not tried.
    fn is_due(&self) -> bool {
        self.at.is_some() && self.at == self.since && self.tries == 0
    }

    /// Returns whether a push is due a minute after the last one, and was not tried.
    fn is_due_a_minute_later(&self) -> bool {
        let between = self.at.zip(self.pushed).map(|(at, pushed)| at - pushed);
        between.is_some_and(|seconds| (seconds - 60.0).abs() < 0.001)
            && self.since < self.at
            && self.tries == 0
    }

    /// Returns whether nothing is due, and nothing is known of an earlier push.
    fn is_blank(&self) -> bool {
        let times = [self.at, self.since, self.pushed, self.notified];
        times.iter().all(Option::is_none) && self.tries == 0
    }
}

/// The columns of a row.
type Columns = (Option<f64>, Option<f64>, i16, Option<f64>, Option<f64>);

impl Store {
    /// Returns the push of a device's row; `None` if there is no row.
    async fn push(&self, chat: ChatId, device: DeviceId) -> Option<Push> {
        let select = "
            SELECT extract(epoch FROM push_at)::float8, extract(epoch FROM push_since)::float8, push_tries,
                   extract(epoch FROM pushed_at)::float8, extract(epoch FROM notified_at)::float8
            FROM inbox WHERE chat_id = $1 AND device_id = $2";
        let row = sqlx::query_as(select).bind(chat.0).bind(device.0);
        let row: Option<Columns> = row.fetch_optional(self.pools.of(chat)).await.unwrap();
        row.map(|(at, since, tries, pushed, notified)| Push {
            at,
            since,
            tries,
            pushed,
            notified,
        })
    }

    /// Notes as a worker does that a notification was shown, this many seconds ago, and that the push has ended.
    async fn pushed(&self, chat: ChatId, device: DeviceId, seconds_ago: f64) {
        let update = "
            UPDATE inbox SET push_at = NULL, push_since = NULL, push_tries = 3,
                pushed_at = now() - make_interval(secs => $3), notified_at = now() - make_interval(secs => $3)
            WHERE chat_id = $1 AND device_id = $2";
        let updated = sqlx::query(update)
            .bind(chat.0)
            .bind(device.0)
            .bind(seconds_ago)
            .execute(self.pools.of(chat))
            .await;
        assert_eq!(updated.unwrap().rows_affected(), 1);
    }

    /// Makes the push of a device's row due at a later time, as a worker does that has claimed it.
    async fn claimed(&self, chat: ChatId, device: DeviceId) {
        self.waits(chat, device, -1).await;
    }

    /// Makes the push of a device's row due at a later time, after so many tries.
    async fn waits(&self, chat: ChatId, device: DeviceId, tries: i16) {
        let update = "
            UPDATE inbox SET push_at = now() + interval '90 s', push_since = now() - interval '90 s', push_tries = $3
            WHERE chat_id = $1 AND device_id = $2";
        let updated = sqlx::query(update).bind(chat.0).bind(device.0).bind(tries);
        let updated = updated.execute(self.pools.of(chat)).await;
        assert_eq!(updated.unwrap().rows_affected(), 1);
    }

    /// Says a message and settles it with these acknowledgements, which are of everything.
    async fn say_and_settle(
        &self,
        db: &mut PgConnection,
        chat: &mut Known,
        sender: UserId,
        acks: &[DeviceId],
    ) {
        let seq = self.say(db, chat, sender, "x").await;
        let acks: Vec<_> = acks.iter().map(|device| (*device, seq.0)).collect();
        self.settle(db, chat.id, seq, &acks).await;
    }

    /// Returns the push hints of a chat: seq and hint, by seq.
    async fn hints(&self, chat: ChatId) -> Vec<(i64, i16)> {
        let hints = sqlx::query_as("SELECT seq, hint FROM push_hints WHERE chat_id = $1 ORDER BY seq");
        hints.bind(chat.0).fetch_all(self.pools.of(chat)).await.unwrap()
    }
}

#[tokio::test]
async fn a_row_that_is_written_is_a_push_that_is_due_and_an_acknowledgement_ends_it() {
    let (store, [a, b], [a1, b1], mut chat, mut db) = direct().await;
    store.say_and_settle(&mut db, &mut chat, a, &[a1]).await;
    let push = store.push(chat.id, b1).await.unwrap();
    assert!(push.is_due(), "{push:?}");
    assert_eq!((push.pushed, push.notified), (None, None));
    assert_eq!(store.push(chat.id, a1).await, None);
    store.ack(&mut db, chat.id, b, b1, 1).await;
    assert_eq!(store.push(chat.id, b1).await, None);
}

#[tokio::test]
async fn a_row_has_one_push_at_a_time_and_the_next_one_a_minute_after_the_last() {
    let (store, [a, _], [a1, b1], mut chat, mut db) = direct().await;
    store.say_and_settle(&mut db, &mut chat, a, &[a1]).await;
    store.claimed(chat.id, b1).await;
    let claimed = store.push(chat.id, b1).await;
    store.say_and_settle(&mut db, &mut chat, a, &[a1]).await;
    assert_eq!(store.push(chat.id, b1).await, claimed, "it is left alone");

    // A time in the future is from before the store's clock was set back.
    for (ago, at_once) in [(0.0, false), (600.0, true), (-3_600.0, true)] {
        store.pushed(chat.id, b1, ago).await;
        store.say_and_settle(&mut db, &mut chat, a, &[a1]).await;
        let push = store.push(chat.id, b1).await.unwrap();
        let found = (push.is_due(), push.is_due_a_minute_later());
        assert_eq!(found, (at_once, !at_once), "{ago} s after the last: {push:?}");
        assert!(push.notified.is_some(), "a notification is shown: {push:?}");
    }
}

#[tokio::test]
async fn who_acknowledges_a_part_was_connected_and_is_told_anew() {
    let (store, [a, b], [a1, b1], mut chat, mut db) = direct().await;
    for _ in 0..4 {
        store.say(&mut db, &mut chat, a, "x").await;
    }
    store.settle(&mut db, chat.id, Seq(4), &[(a1, 4)]).await;
    store.pushed(chat.id, b1, 5.0).await;
    store.ack(&mut db, chat.id, b, b1, 1).await;
    // A push of the entries that are left is due in a moment, because the device may be gone.
    let push = store.push(chat.id, b1).await.unwrap();
    assert!(
        push.is_due() && push.pushed.or(push.notified).is_none(),
        "{push:?}"
    );
    let now = sqlx::query_scalar("SELECT extract(epoch FROM now())::float8");
    let now: f64 = now.fetch_one(store.pools.of(chat.id)).await.unwrap();
    assert!(push.at.is_some_and(|at| at <= now + 10.0), "{push:?}, {now}");
    // The next part leaves a time that is far enough ahead as it is.
    store.ack(&mut db, chat.id, b, b1, 2).await;
    assert_eq!(store.push(chat.id, b1).await.unwrap().at, push.at);

    // The next settle finds the device missing, whether it acknowledged another part until then or not.
    for part in [None, Some(3)] {
        store.pushed(chat.id, b1, 5.0).await;
        let acks: Vec<_> = [(a1, 4)].into_iter().chain(part.map(|seq| (b1, seq))).collect();
        store.settle(&mut db, chat.id, Seq(4), &acks).await;
        let push = store.push(chat.id, b1).await.unwrap();
        match part {
            None => assert!(
                push.is_due_a_minute_later() && push.notified.is_some(),
                "{push:?}"
            ),
            Some(_) => assert!(
                push.is_due() && push.pushed.or(push.notified).is_none(),
                "{push:?}"
            ),
        }
    }
    assert_eq!(store.inbox(chat.id).await, [(b1, 4)]);

    // An owner that died has left the row, and the device acknowledged what it is about.
    store.pushed(chat.id, b1, 5.0).await;
    store.say(&mut db, &mut chat, a, "later").await;
    store.settle(&mut db, chat.id, Seq(4), &[(a1, 4), (b1, 4)]).await;
    let push = store.push(chat.id, b1).await.unwrap();
    assert!(push.is_blank(), "{push:?}");
}

#[tokio::test]
async fn no_push_is_due_for_who_has_read_it_or_has_no_device() {
    let store = Store::new().await;
    let (a, b) = (store.user().await, store.user().await);
    let (a1, mut chat) = (store.device(a).await, store.direct(a, b).await);
    let mut db = store.shard().await;
    store.say_and_settle(&mut db, &mut chat, a, &[a1]).await;
    let reserved = DeviceId::reserved(b);
    for _ in 0..2 {
        let push = store.push(chat.id, reserved).await.unwrap();
        assert!(push.is_blank(), "{push:?}");
        store.say_and_settle(&mut db, &mut chat, a, &[a1]).await;
    }

    let b1 = store.device(b).await;
    let push = store.push(chat.id, b1).await.unwrap();
    assert!(push.is_blank(), "what the device took over is not news: {push:?}");
    let upto = chat.head;
    for (read, due) in [(vec![b], false), (vec![a], true)] {
        let settle = SettleChat {
            chat: chat.id,
            upto,
            acks: vec![(a1, upto)],
            read,
            trace: None,
        };
        settle::settle(&mut db, &[settle], Heads::Wait).await.unwrap();
        let push = store.push(chat.id, b1).await.unwrap();
        assert_eq!(push.is_due(), due, "{push:?}");
    }
}

#[tokio::test]
async fn no_push_is_due_for_a_device_that_is_being_linked() {
    let (store, [a, b], [a1, b1], mut chat, mut db) = direct().await;
    store.say(&mut db, &mut chat, a, "not settled").await;
    let b2 = store.device(b).await;
    let push = store.push(chat.id, b2).await.unwrap();
    assert!(push.is_blank(), "{push:?}");
    // It has the row until the settle, which finds it missing.
    store.settle(&mut db, chat.id, Seq(1), &[(a1, 1), (b1, 1)]).await;
    assert!(store.push(chat.id, b2).await.unwrap().is_due());
    // The reserved device takes over the row of the last one that is unlinked, and nothing of its push.
    for device in [b1, b2] {
        devices::unlink(&store.pools, b, device).await.unwrap();
    }
    let push = store.push(chat.id, DeviceId::reserved(b)).await.unwrap();
    assert!(push.is_blank(), "{push:?}");
}

#[tokio::test]
async fn what_is_shown_is_withdrawn_and_nothing_else() {
    let (store, [a, b], [a1, b1], mut chat, mut db) = direct().await;
    let (b2, b3) = (store.device(b).await, store.device(b).await);
    store.say_and_settle(&mut db, &mut chat, a, &[]).await;
    store.pushed(chat.id, a1, 5.0).await;
    store.pushed(chat.id, b1, 5.0).await;
    store.pushed(chat.id, b2, 5.0).await;
    store.claimed(chat.id, b2).await;
    let claimed = store.push(chat.id, b2).await;
    let of_b = Withdrawal {
        chat: chat.id,
        user: b,
    };
    for expected in [1, 0] {
        let done = withdraw::withdraw(&mut db, &[of_b], Heads::Wait).await.unwrap();
        assert_eq!((done.0, done.1.len()), (expected, 0));
    }
    let push = store.push(chat.id, b1).await.unwrap();
    assert!(push.is_due() && push.notified.is_some(), "{push:?}");
    assert_eq!(store.push(chat.id, b2).await, claimed, "it is left alone");
    let never = store.push(chat.id, b3).await.unwrap();
    assert!(
        never.is_due() && never.notified.is_none(),
        "of the settle: {never:?}"
    );
    let others = store.push(chat.id, a1).await.unwrap();
    assert_eq!(others.at, None);

    // A push that waits, for the end of quiet hours or for its provider, does not hold up what is withdrawn.
    for tries in [0, 3] {
        store.waits(chat.id, b1, tries).await;
        let done = withdraw::withdraw(&mut db, &[of_b], Heads::Wait).await.unwrap();
        let push = store.push(chat.id, b1).await.unwrap();
        assert!(done.0 == 1 && push.is_due(), "{push:?}");
    }
}

#[tokio::test]
async fn a_read_mark_is_written_before_what_it_withdraws_is_due() {
    let (store, [a, b], [a1, b1], mut chat, mut db) = direct().await;
    store.say_and_settle(&mut db, &mut chat, a, &[a1]).await;
    for withdraws in [false, true] {
        store.pushed(chat.id, b1, 5.0).await;
        let mark = ReadMark {
            chat: chat.id,
            user: b,
            seq: Seq(1),
            off: false,
            own_unread: 0,
            withdraws,
        };
        let JobDone::Reads { unwritten } = run_job(&store, Job::Reads(vec![mark])).await else {
            panic!("another job")
        };
        assert!(unwritten.is_empty(), "{unwritten:?}");
        assert_eq!(store.push(chat.id, b1).await.unwrap().is_due(), withdraws);
    }
    let read: i64 = sqlx::query_scalar("SELECT read_seq FROM members WHERE chat_id = $1 AND user_id = $2")
        .bind(chat.id.0)
        .bind(b.0)
        .fetch_one(store.pools.of(chat.id))
        .await
        .unwrap();
    assert_eq!(read, 1);
}

#[tokio::test]
async fn a_hint_is_stored_with_the_entry_and_goes_with_it() {
    let (store, [a, _], [a1, b1], mut chat, mut db) = direct().await;
    let hints = [
        PushHint::Usual,
        PushHint::Silent,
        PushHint::Nothing,
        PushHint::Usual,
    ];
    let message = |hint| NewEntry {
        hint,
        ..new_entry(a, EntryKind::Message, b"x")
    };
    let batch = chat.batch(Vec::from(hints.map(message)));
    let stored = commit::commit(&mut db, std::slice::from_ref(&batch))
        .await
        .unwrap();
    assert!(stored.contains(&chat.id));
    assert_eq!(store.hints(chat.id).await, [(2, 2), (3, 3)]);
    let again = commit::commit(&mut db, &[chat.batch(vec![message(PushHint::Silent)])]).await;
    assert!(again.unwrap().is_empty(), "the head has moved");
    assert_eq!(store.hints(chat.id).await, [(2, 2), (3, 3)]);

    chat.head = batch.head();
    let head = chat.head.0;
    store
        .settle(&mut db, chat.id, chat.head, &[(a1, head), (b1, head)])
        .await;
    let pool = store.pools.of(chat.id);
    let old = "UPDATE messages SET sent_at = sent_at - interval '40 days' WHERE chat_id = $1";
    sqlx::query(old).bind(chat.id.0).execute(pool).await.unwrap();
    let now = Clock::wall();
    for _ in 0..2 {
        trim::chats(pool, &[chat.id], Mode::UntilDelivered, now, Some(now))
            .await
            .unwrap();
    }
    assert_eq!(store.log(chat.id).await, [4], "the row at the head stays");
    assert!(store.hints(chat.id).await.is_empty());
}

#[tokio::test]
async fn of_an_own_log_what_the_person_should_see_is_stored_as_an_alert() {
    let store = Store::new().await;
    let user = store.user().await;
    let made = own::make(&store.pools, &store.master, user).await.unwrap();
    assert_eq!(made, Made::Done);
    let (mut log, mut db) = (store.load(ChatId::own(user)).await, store.shard().await);
    let account = |change: v1::AccountChange| {
        Content::AccountChanged(v1::AccountChanged {
            change: change.into(),
            subject_id: String::new(),
        })
    };
    for content in [
        account(v1::AccountChange::Privacy),
        account(v1::AccountChange::DeviceLinked),
        Content::JoinRequested(v1::JoinRequested::default()),
    ] {
        let content = v1::EntryContent {
            content: Some(content),
            ..v1::EntryContent::default()
        };
        let content = content.encoded();
        let (system, device, request) = (UserId::SYSTEM, DeviceId::BACK_END, RequestId::random());
        let print = fingerprint([content.as_ref()]);
        let new = NewEntry::change(EntryKind::Own, system, device, request, print, content.clone());
        let mut batch = log.batch(vec![new]);
        batch.change = Some(Action::Own(Box::new(OwnChange::Note(content))));
        let changed = change::change(&mut db, &batch, None).await.unwrap();
        assert_eq!(changed, change::Changed::Stored);
        log.head = batch.head();
    }
    assert_eq!(store.hints(log.id).await, [(2, 1), (3, 1)]);
}
