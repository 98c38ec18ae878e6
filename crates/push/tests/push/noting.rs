//! Tests of what is written about claimed pushes.

use std::time::Duration;

use sqlx::PgConnection;
use tern_push::store::claim::Claimed;
use tern_push::store::note::{self, Became, Note, Shown};
use tern_store::postgres;
use tern_types::{Cell, ChatId, Seq, Timestamp};

use crate::world::{MESSAGE, State, World};

const NOTHING: State = State {
    open: false,
    due: false,
    tries: 0,
    pushed: false,
    shown: false,
};

/// Writes a note, and returns the number of rows that another transaction has locked.
async fn write(world: &World, row: Claimed, became: Became, now: Timestamp) -> usize {
    let notes = [Note::of(&row, became)];
    let locked = note::write(world.pools.cell(Cell::FIRST), &notes, now).await;
    locked.unwrap().len()
}

fn sent(at: Timestamp, shown: Shown) -> Became {
    Became::Sent {
        at,
        shown,
        head: None,
        seq: None,
    }
}

/// Returns what may become of a push, each with the state of its row after that.
fn steps(now: Timestamp) -> [(Became, State); 7] {
    let hour = now + Duration::from_secs(3600);
    [
        (
            Became::Waits {
                until: hour,
                tries: 3,
            },
            State {
                open: true,
                tries: 3,
                ..NOTHING
            },
        ),
        (
            Became::Waits { until: now, tries: 4 },
            State {
                open: true,
                due: true,
                tries: 4,
                ..NOTHING
            },
        ),
        (
            Became::Ended {
                pushed_at: None,
                head: None,
            },
            NOTHING,
        ),
        (
            Became::Ended {
                pushed_at: Some(now),
                head: None,
            },
            State {
                pushed: true,
                ..NOTHING
            },
        ),
        (
            sent(now, Shown::Now),
            State {
                pushed: true,
                shown: true,
                ..NOTHING
            },
        ),
        (
            sent(now, Shown::Same),
            State {
                pushed: true,
                shown: true,
                ..NOTHING
            },
        ),
        (
            sent(now, Shown::Withdrawn),
            State {
                pushed: true,
                ..NOTHING
            },
        ),
    ]
}

#[tokio::test]
async fn a_note_says_what_became_of_a_push() {
    let world = World::start().await;
    let phone = world.phone("Bob").await;
    let (chat, ..) = world.group_with_message(phone).await;
    for step in 0..7 {
        world.due(chat, phone, 2).await;
        let (row, batch) = world.claim_one().await;
        let now = batch.clock.now();
        let (became, state) = steps(now)[step];
        assert_eq!(write(&world, row, became, now).await, 0);
        assert_eq!(world.state(chat, phone.1).await, Some(state), "{became:?}");
    }
}

#[tokio::test]
async fn nothing_is_written_about_a_row_that_has_changed_since_it_was_claimed() {
    let world = World::start().await;
    let phone = world.phone("Bob").await;
    let (chat, ..) = world.group_with_message(phone).await;
    let (row, batch) = world.claim_one().await;
    let now = batch.clock.now();
    // The row was made due anew, then its claim has run out and it was claimed by another worker.
    world.due(chat, phone, 2).await;
    let before = world.state(chat, phone.1).await;
    assert_eq!(write(&world, row, sent(now, Shown::Now), now).await, 0);
    assert_eq!(world.state(chat, phone.1).await, before);
    // Two claims within a millisecond would have one name.
    let mut other = row;
    while other.claim == row.claim {
        world.due(chat, phone, 2).await;
        (other, _) = world.claim_one().await;
    }
    let before = world.state(chat, phone.1).await;
    assert_eq!(write(&world, row, sent(now, Shown::Now), now).await, 0);
    assert_eq!(world.state(chat, phone.1).await, before);
    world.run(chat, "DELETE FROM inbox WHERE chat_id = $1", &[]).await;
    assert_eq!(write(&world, other, sent(now, Shown::Now), now).await, 0);
    assert_eq!(world.state(chat, phone.1).await, None);
}

#[tokio::test]
async fn a_row_that_is_locked_is_left_for_later_and_waited_for_by_nobody() {
    let world = World::start().await;
    let phone = world.phone("Bob").await;
    let (chat, ..) = world.group_with_message(phone).await;
    let mut lock = postgres::begin(world.pools.of(chat)).await.unwrap();
    lock_rows(&mut lock, chat).await;
    assert!(world.claim(256).await.is_none());
    lock.rollback().await.unwrap();
    let (row, batch) = world.claim_one().await;
    let now = batch.clock.now();
    let mut lock = postgres::begin(world.pools.of(chat)).await.unwrap();
    lock_rows(&mut lock, chat).await;
    assert_eq!(write(&world, row, sent(now, Shown::Now), now).await, 1);
    lock.rollback().await.unwrap();
    assert_eq!(write(&world, row, sent(now, Shown::Now), now).await, 0);
    assert!(world.state(chat, phone.1).await.unwrap().shown);
}

async fn lock_rows(db: &mut PgConnection, chat: ChatId) {
    sqlx::query("SELECT FROM inbox WHERE chat_id = $1 FOR UPDATE")
        .bind(chat.0)
        .execute(db)
        .await
        .unwrap();
}

#[tokio::test]
async fn what_came_while_a_push_was_looked_at_makes_it_due_again() {
    let world = World::start().await;
    let phone = world.phone("Bob").await;
    let (chat, ann, seq) = world.group_with_message(phone).await;
    let (head, read) = (Some(Seq::from_i64(seq)), Some(Seq::from_i64(seq)));
    let ended = Became::Ended {
        pushed_at: None,
        head,
    };
    let shown = |at| Became::Sent {
        at,
        shown: Shown::Now,
        head: None,
        seq: read,
    };
    let is_due_soon = async |read_first: bool, became: &dyn Fn(Timestamp) -> Became| {
        world.due(chat, phone, seq).await;
        let (row, batch) = world.claim_one().await;
        if read_first {
            world.reads(chat, phone.0, seq).await;
        }
        let now = batch.clock.now();
        write(&world, row, became(now), now).await;
        let state = world.state(chat, phone.1).await.unwrap();
        assert!(!state.due, "a busy chat would be looked at all the time");
        state.open
    };
    assert!(!is_due_soon(false, &|_| ended).await, "nothing has come");
    assert!(!is_due_soon(false, &shown).await, "nothing is read");
    assert!(
        is_due_soon(true, &shown).await,
        "it was read while it was sent: it is withdrawn"
    );
    world.entry(chat, MESSAGE, ann).await;
    assert!(is_due_soon(false, &|_| ended).await, "a message has come");
}
