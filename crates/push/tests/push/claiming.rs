//! Tests of claims: each push has one worker, and one that ends in the middle is followed by another.

use std::collections::HashSet;

use tern_push::store::claim;
use tern_types::Cell;

use crate::world::World;

#[tokio::test]
async fn two_workers_never_claim_the_same_push() {
    let world = World::start().await;
    let phone = world.phone("Bob").await;
    for _ in 0..20 {
        world.group_with_message(phone).await;
    }
    let claims = (0..8).map(|_| world.claim(3));
    let claimed: Vec<_> = futures::future::join_all(claims).await;
    let mut rows: Vec<_> = claimed
        .into_iter()
        .flatten()
        .flat_map(|batch| batch.rows)
        .collect();
    while let Some(batch) = world.claim(3).await {
        rows.extend(batch.rows);
    }
    let chats: HashSet<_> = rows.iter().map(|row| row.chat).collect();
    assert_eq!((rows.len(), chats.len()), (20, 20));
    assert!(
        rows.iter()
            .all(|row| !row.repeated && row.tries == 0 && !row.notified)
    );
}

#[tokio::test]
async fn what_a_worker_left_is_claimed_again_when_its_claim_has_run_out() {
    let world = World::start().await;
    let phone = world.phone("Bob").await;
    let (chat, ..) = world.group_with_message(phone).await;
    let (first, _) = world.claim_one().await;
    assert!(world.claim(256).await.is_none(), "it has a worker");
    world.claims_run_out(chat).await;
    let (second, _) = world.claim_one().await;
    assert!(second.repeated && second.claim != first.claim);
    assert_eq!((second.tries, second.since), (first.tries, first.since));
}

#[tokio::test]
async fn only_what_is_due_is_claimed_and_counted() {
    let world = World::start().await;
    let phone = world.phone("Bob").await;
    let (later, ..) = world.group_with_message(phone).await;
    let (never, ..) = world.group_with_message(phone).await;
    let (now, ..) = world.group_with_message(phone).await;
    let set = "UPDATE inbox SET push_at = now() + interval '1 hour' WHERE chat_id = $1";
    world.run(later, set, &[]).await;
    world
        .run(never, "UPDATE inbox SET push_at = NULL WHERE chat_id = $1", &[])
        .await;
    let (count, overdue) = claim::due(world.pools.cell(Cell::FIRST)).await.unwrap();
    assert_eq!(count, 1);
    assert!(overdue.as_secs() >= 10, "{overdue:?}");
    let (row, _) = world.claim_one().await;
    assert_eq!((row.chat, row.device, row.user), (now, phone.1, phone.0));
    let (count, overdue) = claim::due(world.pools.cell(Cell::FIRST)).await.unwrap();
    assert_eq!((count, overdue.as_millis()), (0, 0));
}
