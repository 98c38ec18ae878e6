//! Tests what concerns several cells: linking a device, lists, inboxes and who has written to whom.

use sqlx::{AssertSqlSafe, Connection};
use tern_chat::store::group::{self, Created, NewGroup};
use tern_chat::store::{devices, inboxes, inspect, listing, strangers, written};
use tern_chat_core::EntryKind;
use tern_store::error::{is_away, is_locked};
use tern_store::pools;
use tern_types::{Cell, Cells, ChatId, DeviceId, RequestId, Seq, UserId};

use crate::harness::{Known, Store, new_entry};

impl Store {
    /// Makes a store with the default number of cells, and a user with a direct chat in each of them. Returns the
    /// chats in the order of the cells, each with one message of the other person, settled.
    async fn spread() -> (Self, UserId, DeviceId, Vec<(UserId, Known)>) {
        let store = Self::with_cells(None).await;
        let me = store.user().await;
        let mine = store.device(me).await;
        let mut chats = Vec::new();
        // The last cell has the oldest message.
        let mut cells: Vec<Cell> = Cells::DEFAULT.all().collect();
        cells.reverse();
        for cell in cells {
            let other = store.peer_in(cell, me).await;
            let mut db = store.shard_of(cell).await;
            let mut chat = store.direct(me, other).await;
            store.say(&mut db, &mut chat, other, "hello").await;
            store.settle(&mut db, chat.id, Seq(1), &[]).await;
            chats.push((other, chat));
        }
        chats.reverse();
        (store, me, mine, chats)
    }

    /// Makes a user whose direct chat with `me` belongs to the cell.
    async fn peer_in(&self, cell: Cell, me: UserId) -> UserId {
        loop {
            let other = self.user().await;
            if Cells::DEFAULT.of_chat(ChatId::direct(me, other)) == cell {
                return other;
            }
        }
    }

    /// Returns the chats in which the device is known, in ascending order.
    async fn chats_with(&self, device: DeviceId) -> Vec<uuid::Uuid> {
        let select = "SELECT chat_id FROM members WHERE $1 = ANY(devices) ORDER BY chat_id";
        let chats = sqlx::query_scalar(select).bind(device.0);
        chats.fetch_all(&self.pool).await.unwrap()
    }
}

fn ids(chats: &[(UserId, Known)]) -> Vec<uuid::Uuid> {
    let mut ids: Vec<_> = chats.iter().map(|(_, chat)| chat.id.0).collect();
    ids.sort_unstable();
    ids
}

#[tokio::test]
async fn a_device_is_linked_to_the_chats_of_all_cells_or_of_none() {
    let (store, me, _, chats) = Store::spread().await;
    let device = store.unlinked_device(me).await;
    // The head of the last cell's chat is locked, so the transaction fails after it has entered the others.
    let (_, last) = chats.last().unwrap();
    let mut stranger = store.stranger().await;
    let mut tx = stranger.begin().await.unwrap();
    let cell = Cells::DEFAULT.of_chat(last.id).schema();
    let lock = format!("SELECT FROM {cell}.chat_heads WHERE chat_id = $1 FOR UPDATE");
    sqlx::query(AssertSqlSafe(lock))
        .bind(last.id.0)
        .execute(&mut *tx)
        .await
        .unwrap();
    assert!(devices::link(&store.pools, me, device).await.is_err());
    assert!(store.chats_with(device).await.is_empty());
    tx.rollback().await.unwrap();

    assert!(devices::link(&store.pools, me, device).await.unwrap());
    assert_eq!(store.chats_with(device).await, ids(&chats));
    devices::unlink(&store.pools, me, device).await.unwrap();
    assert!(store.chats_with(device).await.is_empty());
}

#[tokio::test]
async fn what_waits_for_nobodys_device_is_taken_over_in_all_cells() {
    let (store, me, mine, mut chats) = Store::spread().await;
    devices::unlink(&store.pools, me, mine).await.unwrap();
    for (other, chat) in &mut chats {
        let mut db = store.shard_of(Cells::DEFAULT.of_chat(chat.id)).await;
        store.say(&mut db, chat, *other, "nobody is there").await;
        store.settle(&mut db, chat.id, Seq(2), &[]).await;
    }
    let device = store.device(me).await;
    let read = inboxes::inboxes(&store.pools, &[device]).await.unwrap();
    assert!(!read.partial);
    let rows = &read.devices[0].1.rows;
    assert!(
        rows.is_sorted_by(|(.., one), (.., other)| one >= other),
        "the oldest first: {rows:?}"
    );
    let mut found: Vec<_> = rows.iter().map(|(chat, ..)| chat.0).collect();
    found.sort_unstable();
    assert_eq!(found, ids(&chats));
    let (_, one) = &chats[1];
    let inbox = inboxes::inbox_in(&store.pools, device, one.id)
        .await
        .unwrap()
        .unwrap();
    assert!(
        matches!(inbox.rows[..], [(chat, Seq(1), _)] if chat == one.id),
        "{:?}",
        inbox.rows
    );
}

#[tokio::test]
async fn pages_of_chats_go_through_all_cells_in_the_order_of_the_last_entries() {
    let (store, me, _, mut chats) = Store::spread().await;
    // One more entry in every second chat, so that the order is not that of the cells.
    for (other, chat) in chats.iter_mut().step_by(2) {
        let mut db = store.shard_of(Cells::DEFAULT.of_chat(chat.id)).await;
        store.say(&mut db, chat, *other, "and more").await;
    }
    let page = async |after, limit, bytes| {
        let page = listing::chats(&store.pools, &store.master, me, None, after, limit, bytes).await;
        page.unwrap()
    };
    let all = page(None, 10, 1 << 20).await;
    assert!(!all.more && !all.partial);
    let order: Vec<_> = all.chats.iter().map(|view| view.chat).collect();
    assert_eq!(order.len(), chats.len());
    for (limit, bytes) in [(1, 1 << 20), (3, 1 << 20), (10, 1), (2, 10)] {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = page(after, limit, bytes).await;
            assert!(page.chats.len() <= limit as usize && (bytes > 1 || page.chats.len() == 1));
            found.extend(page.chats.iter().map(|view| view.chat));
            let Some(last) = page.chats.last().filter(|_| page.more) else {
                break;
            };
            let at = last.last_entry.as_ref().map_or(0, |entry| entry.sent_at_ms);
            after = Some((tern_types::Timestamp(at), last.chat));
        }
        assert_eq!(found, order, "pages of {limit} chats and {bytes} bytes");
    }
}

/// Each of four cells is asked for 28 chats of a page of 40.
#[tokio::test]
async fn a_page_ends_early_where_one_cell_has_most_of_its_chats() {
    let (store, me, ..) = Store::spread().await;
    let mut db = store.shard_of(Cell::FIRST).await;
    for _ in 0..30 {
        let other = store.peer_in(Cell::FIRST, me).await;
        let mut chat = store.direct(me, other).await;
        store.say(&mut db, &mut chat, other, "hello").await;
    }
    let page = async |after, limit| {
        let page = listing::chats(&store.pools, &store.master, me, None, after, limit, 1 << 20).await;
        page.unwrap()
    };
    let all = page(None, 200).await;
    assert_eq!((all.chats.len(), all.more), (34, false));
    let first = page(None, 40).await;
    assert_eq!((first.chats.len(), first.more), (28, true));
    let last = first.chats.last().unwrap();
    let at = last.last_entry.as_ref().unwrap().sent_at_ms;
    let second = page(Some((tern_types::Timestamp(at), last.chat)), 40).await;
    assert_eq!((second.chats.len(), second.more), (6, false));
    let shown = first.chats.iter().chain(&second.chats).map(|view| view.chat);
    assert!(shown.eq(all.chats.iter().map(|view| view.chat)));
}

#[tokio::test]
async fn a_page_that_a_cell_has_cut_ends_before_what_it_leaves_out() {
    let (store, me, _, chats) = Store::spread().await;
    // Two chats of one cell are newer than one of another cell, and their messages do not fit into the cell's part.
    let (_, old) = &chats[0];
    let cell = Cells::DEFAULT.of_chat(chats[1].1.id);
    let other = store.peer_in(cell, me).await;
    let mut db = store.shard_of(cell).await;
    let mut newest = store.direct(me, other).await;
    let text = "x".repeat(600);
    let mut newer = chats[1].1.clone();
    store.say(&mut db, &mut newer, me, &text).await;
    store.say(&mut db, &mut newest, other, &text).await;
    let page = listing::chats(&store.pools, &store.master, me, None, None, 10, 1000).await;
    let shown: Vec<_> = page.unwrap().chats.iter().map(|view| view.chat).collect();
    assert!(
        !shown.contains(&old.id),
        "{:?} was shown before a newer one",
        old.id
    );
    assert_eq!(shown, [newest.id], "its cell has cut its page after it");
}

#[tokio::test]
async fn a_cell_that_hangs_is_left_out_of_what_people_read_and_nothing_waits_for_it() {
    let (store, me, mine, chats) = Store::spread().await;
    let others: Vec<UserId> = chats.iter().map(|(other, _)| *other).collect();
    let mut stranger = store.stranger().await;
    let mut tx = stranger.begin().await.unwrap();
    let locked = Cell::FIRST;
    sqlx::query("SET LOCAL idle_in_transaction_session_timeout = 0")
        .execute(&mut *tx)
        .await
        .unwrap();
    for table in ["members", "inbox", "messages", "unsettled"] {
        let lock = format!("LOCK TABLE {}.{table} IN ACCESS EXCLUSIVE MODE", locked.schema());
        sqlx::query(AssertSqlSafe(lock)).execute(&mut *tx).await.unwrap();
    }
    let list = listing::chats(&store.pools, &store.master, me, None, None, 10, 1 << 20).await;
    let list = list.unwrap();
    assert!(list.partial && list.chats.len() == chats.len() - 1);
    // The readers after it do not wait for the cell, but for one in some seconds that finds out whether it is back.
    loop {
        let asked = std::time::Instant::now();
        let read = inboxes::inboxes(&store.pools, &[mine]).await.unwrap();
        assert!(read.partial && read.devices.len() == 1);
        if asked.elapsed() < std::time::Duration::from_secs(1) {
            break;
        }
    }
    // Operators are told what waits in the others: chats that are not closed, and a row for each.
    let unsettled = inspect::unsettled(&store.pools).await.unwrap();
    let commits: u64 = unsettled.ranges.iter().map(|range| range.commits).sum();
    assert_eq!((commits, unsettled.partial), (3, true));
    let inbox = inspect::inbox_size(&store.pools).await.unwrap();
    assert_eq!((inbox.rows, inbox.partial), (6, true));
    // A question whose answer must be complete fails.
    assert!(written::have_written(&store.pools, me, &others).await.is_err());
    tx.rollback().await.unwrap();

    // It is asked again a second after it has failed.
    let bound = std::time::Duration::from_secs(60);
    let found = tern_local::until::some("the cell is back", bound, || async {
        Ok(written::have_written(&store.pools, me, &others).await?)
    });
    let mut found = found.await.unwrap();
    let mut expected = others;
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn who_wrote_in_a_chat_of_another_cell_than_the_groups_is_no_stranger() {
    let (store, me, _, chats) = Store::spread().await;
    let mut asked: Vec<UserId> = chats.iter().map(|(other, _)| *other).collect();
    assert!(
        strangers::among(&store.pools, me, &asked)
            .await
            .unwrap()
            .is_empty()
    );
    let stranger = store.user().await;
    asked.push(stranger);
    assert_eq!(
        strangers::among(&store.pools, me, &asked).await.unwrap(),
        [stranger]
    );
}

/// The maker of a group holds a connection to its cell, and linking a device needs one to each cell.
#[tokio::test]
async fn groups_with_a_user_whose_device_is_being_linked_hold_nobody_up() {
    let store = Store::with_cells(None).await;
    let (owner, user) = (store.user().await, store.user().await);
    for _ in 0..5 {
        let device = store.unlinked_device(user).await;
        let groups = (0..12).map(|_| async {
            let chat = ChatId::group(owner, RequestId::random());
            let entry = new_entry(owner, EntryKind::ChatCreated, b"created");
            let group = NewGroup {
                chat,
                title: "group",
                owner,
                members: &[user],
                entry: &entry,
                strangers: None,
            };
            let made = group::create(&store.pools, &store.master, &group).await;
            (chat, matches!(made, Ok(Created::New { .. })))
        });
        // On a busy machine a lock or a connection may be waited for too long. Then the caller comes again.
        let linked = async {
            loop {
                match devices::link(&store.pools, user, device).await {
                    Err(error) if is_locked(&error) || is_away(&error) => {}
                    linked => break linked,
                }
            }
        };
        let both = futures::future::join(linked, futures::future::join_all(groups));
        let soon = std::time::Duration::from_secs(60);
        let (linked, groups) = tokio::time::timeout(soon, both)
            .await
            .expect("they wait for each other");
        assert!(linked.unwrap());
        let known = store.chats_with(device).await;
        for (chat, made) in groups {
            assert_eq!(
                known.contains(&chat.0),
                made,
                "a group that was made has the device"
            );
        }
        devices::unlink(&store.pools, user, device).await.unwrap();
    }
}

#[tokio::test]
async fn a_transaction_enters_one_cell_after_the_other_and_leaves_them_at_its_end() {
    let store = Store::with_cells(None).await;
    let mut tx = store.pools.begin().await.unwrap();
    for cell in Cells::DEFAULT.all() {
        pools::enter(&mut tx, cell).await.unwrap();
        let of: String = sqlx::query_scalar("SELECT 'chats'::regclass::oid::regclass::text")
            .fetch_one(&mut *tx)
            .await
            .unwrap();
        let schema: String = sqlx::query_scalar("SELECT current_schema()")
            .fetch_one(&mut *tx)
            .await
            .unwrap();
        assert_eq!((of.as_str(), schema), ("chats", cell.schema()));
    }
    tx.commit().await.unwrap();
    let after: String = sqlx::query_scalar("SELECT current_schema()")
        .fetch_one(store.pools.people())
        .await
        .unwrap();
    assert_eq!(after, "people");
}
