//! Makes the chats of a load, so that the load does not have to.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use sqlx::{Connection as _, PgConnection};
use tokio::time::{Instant, sleep};

use super::load::{Load, spawn_writers};
use crate::bench::people::Person;
use crate::bench::target::Target;
use crate::bench::{Common, join};

/// The chats that are made a second: few enough that no gateway sheds.
const A_SECOND: f64 = 400.0;
/// The time limit for the first messages to be settled, and for their pushes to end.
const QUIET_WITHIN: Duration = Duration::from_secs(120);
/// Counts the commits that are not settled, and the pushes that have not ended.
const UNQUIET: &str = "
SELECT (SELECT count(*) FROM public.unsettled) + (SELECT count(*) FROM public.inbox WHERE push_at IS NOT NULL)";
/// Ends what waits, as the acknowledgements of all devices would.
const ACKNOWLEDGE: &str = "DELETE FROM public.inbox";

/// Lets the writers write to each of these people once, who have no push tokens yet, and has these messages
/// acknowledged. A message that is refused leaves its chat to the load.
pub async fn make(
    target: &Target,
    common: &Common,
    writers: &[Person],
    people: &[Person],
) -> anyhow::Result<()> {
    let load = Arc::new(Load::new(common.body));
    let rate = A_SECOND / writers.len().max(1) as f64;
    join(spawn_writers(target, writers, people, Some(rate), &load).await?).await?;
    let url = target
        .database_url
        .as_ref()
        .context("the database is not known")?;
    let mut db = PgConnection::connect(url).await?;
    let end = Instant::now() + QUIET_WITHIN;
    while sqlx::query_scalar::<_, i64>(UNQUIET).fetch_one(&mut db).await? > 0 {
        anyhow::ensure!(
            Instant::now() < end,
            "the first messages are not settled after {QUIET_WITHIN:?}"
        );
        sleep(Duration::from_millis(100)).await;
    }
    sqlx::query(ACKNOWLEDGE).execute(&mut db).await?;
    Ok(db.close().await?)
}
