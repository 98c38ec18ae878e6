//! Tests that an operator's dump of a cell has nothing of contents that had to go.

use sqlx::query_scalar;
use tern_local::dump_schema;

use super::two::Two;
use super::{Clock, Duration, KEPT_FOR_AN_HOUR};

#[tokio::test]
async fn a_dump_has_no_byte_of_what_had_to_go() {
    let mut two = Two::new().await;
    if two.store.is_citus() {
        eprintln!("left out: the tables of a cell are on another server than the dump's");
        return;
    }
    two.fill().await;
    two.fill_young().await;
    let (old, young) = (sealed(&two, 1..=5).await, sealed(&two, 6..=6).await);
    assert_eq!((old.len(), young.len()), (5, 1));
    two.retain(KEPT_FOR_AN_HOUR).await;
    let url = two.store.url().to_owned();
    let before = dump_schema(&url, "cell_00").await.unwrap();
    assert!(
        old.iter().all(|body| before.contains(body)),
        "a dump has all contents"
    );

    two.trim(Clock::wall() + Duration::from_secs(1)).await;
    let after = dump_schema(&url, "cell_00").await.unwrap();
    assert!(!old.iter().any(|body| after.contains(body)), "{after}");
    assert!(young.iter().all(|body| after.contains(body)), "it is kept");
}

/// Returns the stored contents of these entries, in hexadecimal digits as a dump has them.
async fn sealed(two: &Two, seqs: std::ops::RangeInclusive<i64>) -> Vec<String> {
    let select = "SELECT encode(body, 'hex') FROM messages WHERE chat_id = $1 AND seq BETWEEN $2 AND $3";
    let bodies = query_scalar(select)
        .bind(two.chat.id.0)
        .bind(*seqs.start())
        .bind(*seqs.end());
    bodies.fetch_all(two.pool()).await.unwrap()
}
