//! Tests how new strangers are counted when a chat or a group is made and when members are added, and who may be added
//! to a group.

use std::time::Duration;

use tern_chat::shard_loop::loader::Loader;
use tern_chat::store::group::{self, Created, NewGroup};
use tern_chat::store::load;
use tern_chat::store::{joining, strangers};
use tern_chat_core::change::Action;
use tern_chat_core::shard::LoadError;
use tern_chat_core::{EntryKind, Making, NewEntry};
use tern_types::{ChatId, Clock, RequestId, UserId};

use crate::harness::{NOTHING, Store, making, new_direct, new_entry};

/// The number of new strangers that a user may meet within a day.
const LIMIT: usize = 3;
const DAY: Duration = Duration::from_secs(24 * 3600);

impl Store {
    async fn users<const N: usize>(&self) -> [UserId; N] {
        let mut users = Vec::new();
        for _ in 0..N {
            users.push(self.user().await);
        }
        users.try_into().unwrap()
    }

    /// Makes `contact` one of the user's contacts.
    async fn contact(&self, user: UserId, contact: UserId) {
        sqlx::query("INSERT INTO contacts (user_id, contact_id) VALUES ($1, $2)")
            .bind(user.0)
            .bind(contact.0)
            .execute(&self.pool)
            .await
            .unwrap();
    }

    fn loader(&self) -> Loader {
        Loader::new(self.pools.clone(), self.master.clone(), LIMIT)
    }

    /// Counts the strangers that the store has for the user.
    async fn met(&self, user: UserId) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM met_strangers WHERE user_id = $1")
            .bind(user.0)
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }
}

/// The limit holds over two nodes at once, neither of which knows of the other.
#[tokio::test]
async fn of_many_first_messages_at_once_only_as_many_as_may_be_find_their_stranger() {
    let store = Store::new().await;
    let me = store.user().await;
    let (one, other) = (store.loader(), store.loader());
    let strangers: [UserId; 20] = store.users().await;
    let friend = store.user().await;
    store.contact(friend, me).await;
    let peers = strangers.iter().chain([&friend]).copied();
    let loads = peers.enumerate().map(|(n, peer)| {
        let loader = if n % 2 == 0 { &one } else { &other };
        async move {
            let new = new_direct(me, peer);
            (peer, loader.load(new.chat, making(new), &NOTHING).await)
        }
    });
    let results = futures::future::join_all(loads).await;
    let mut made = 0;
    for (peer, result) in results {
        match result {
            Ok(snapshot) => {
                assert!(snapshot.is_some());
                made += usize::from(peer != friend);
            }
            Err(LoadError::StrangersLimited { retry_after }) => {
                assert_ne!(peer, friend, "a friend is no stranger");
                assert!(retry_after <= DAY && retry_after > DAY / 2, "{retry_after:?}");
                let chat = ChatId::direct(me, peer);
                let none = load::chat(&store.pools, &store.master, chat, &NOTHING).await;
                assert!(none.unwrap().is_none(), "nothing was made");
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!((made, store.met(me).await), (LIMIT, LIMIT as i64));

    // A back end is not limited, so it makes the chat. The chat exists then, and a device may load it at no cost. A day
    // later there is room again.
    let limited = *strangers.last().unwrap();
    let by_back_end = Making {
        people: (me, limited),
        by_device: false,
    };
    let chat = ChatId::direct(me, limited);
    for making in [
        by_back_end,
        Making {
            by_device: true,
            ..by_back_end
        },
    ] {
        let loaded = one.load(chat, Some(making), &NOTHING).await.unwrap();
        assert!(loaded.is_some(), "{making:?}");
    }
    sqlx::query("UPDATE met_strangers SET met_at = now() - interval '1 day'")
        .execute(&store.pool)
        .await
        .unwrap();
    let new = new_direct(me, store.user().await);
    assert!(one.load(new.chat, making(new), &NOTHING).await.unwrap().is_some());
    assert_eq!(store.met(me).await, 1, "those of the day before are forgotten");
}

#[tokio::test]
async fn a_group_of_too_many_strangers_is_not_made_and_one_without_blockers_is() {
    let store = Store::new().await;
    let [owner, a, b, c, d] = store.users().await;
    let blocker = store.user().await;
    sqlx::query("INSERT INTO blocks (user_id, blocked_id) VALUES ($1, $2)")
        .bind(blocker.0)
        .bind(owner.0)
        .execute(&store.pool)
        .await
        .unwrap();
    let entry: NewEntry = new_entry(owner, EntryKind::ChatCreated, b"created");
    let chat = ChatId::group(owner, RequestId::random());
    let create = async |members: &[UserId], entry: &NewEntry| {
        let group = NewGroup {
            chat,
            title: "group",
            owner,
            members,
            entry,
            strangers: Some(LIMIT),
        };
        group::create(&store.pools, &store.master, &group).await.unwrap()
    };
    let limited = create(&[a, b, c, d], &entry).await;
    assert!(
        matches!(limited, Created::Limited(after) if after == DAY),
        "{limited:?}"
    );
    assert_eq!(store.met(owner).await, 0, "all or none");
    // A user who has blocked the owner counts neither as a member nor as a stranger.
    let made = create(&[a, blocker, b, c], &entry).await;
    let Created::New {
        members,
        entry: first,
        ..
    } = made
    else {
        panic!("{made:?}")
    };
    assert_eq!((members, store.met(owner).await), (vec![a, b, c], 3));
    assert_eq!(first.fingerprint, entry.fingerprint, "of what was asked for");
    sqlx::query("DELETE FROM blocks")
        .execute(&store.pool)
        .await
        .unwrap();
    assert_eq!(create(&[a, blocker, b, c], &entry).await, Created::Before);
    let other = NewEntry {
        fingerprint: [9; 16],
        ..entry
    };
    assert_eq!(create(&[a], &other).await, Created::RequestIdReused);
}

#[tokio::test]
async fn who_left_or_has_blocked_cannot_be_added_and_who_was_removed_can() {
    let store = Store::new().await;
    let [owner, stays, left, removed, blocker] = store.users().await;
    let stranger = store.user().await;
    let mut db = store.shard().await;
    let mut group = store.group(owner, &[stays, left, removed]).await;
    sqlx::query("INSERT INTO blocks (user_id, blocked_id) VALUES ($1, $2)")
        .bind(blocker.0)
        .bind(owner.0)
        .execute(&store.pool)
        .await
        .unwrap();
    store
        .change(&mut db, &mut group, left, Action::Remove(left))
        .await;
    store
        .change(&mut db, &mut group, owner, Action::Remove(removed))
        .await;
    let asked = [stays, left, removed, blocker, stranger];
    let mut conn = store.pool.acquire().await.unwrap();
    let mut addable = joining::addable(&mut conn, group.id, owner, &asked)
        .await
        .unwrap();
    let expected = |mut users: Vec<(UserId, bool)>| {
        users.sort_unstable();
        users
    };
    addable.sort_unstable();
    assert_eq!(
        addable,
        expected(vec![(stays, true), (removed, false), (stranger, false)])
    );
    let by_another = joining::addable(&mut conn, group.id, stays, &[blocker, left]).await;
    assert_eq!(
        by_another.unwrap(),
        [(blocker, false)],
        "a block is against one person"
    );
}

#[tokio::test]
async fn people_who_wrote_or_are_friends_are_no_strangers() {
    let store = Store::new().await;
    let [me, wrote, written_to, friend, mine] = store.users().await;
    let mut db = store.shard().await;
    for (peer, sender) in [(wrote, wrote), (written_to, me)] {
        let mut chat = store.direct(me, peer).await;
        store.say(&mut db, &mut chat, sender, "hello").await;
    }
    store.contact(friend, me).await;
    // A person whom the user has among their own contacts is still a stranger to the user.
    store.contact(me, mine).await;
    let nobody = UserId::random();
    let peers = [wrote, written_to, friend, mine, nobody, mine];
    let found = strangers::among(&store.pools, me, &peers).await.unwrap();
    assert_eq!(found, [written_to, mine], "in the order in which they were given");
}

#[tokio::test]
async fn of_first_messages_those_to_friends_count_for_nothing() {
    let store = Store::new().await;
    let [me, friend, mine] = store.users().await;
    store.contact(friend, me).await;
    store.contact(me, mine).await;
    let pairs = [friend, mine, UserId::random()].map(|peer| (me, peer));
    let mut tx = tern_store::postgres::begin(&store.pool).await.unwrap();
    let refused = strangers::meet(&mut tx, &pairs, 0, Clock::wall()).await.unwrap();
    let refused: Vec<_> = refused.into_keys().collect();
    assert_eq!(refused, [(me, mine)]);
}
