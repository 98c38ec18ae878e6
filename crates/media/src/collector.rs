//! Deletes what nobody needs any more: uploads that were given up, and media that nothing refers to.
//!
//! ```text
//! upload:  open ──24 h──▶ given up ──its URLs have ended──▶ parts aborted, object deleted ──▶ forgotten
//! media:   last ticket ended, no reference ──▶ marked ──a minute──▶ still none ──▶ object deleted ──▶ forgotten
//!                                                              └─▶ one after all ──▶ as before
//! ```
//!
//! Every media node collects. If two nodes do the same step at the same time, the result is as if one had done it.
//!
//! Each step that calls the object store goes through its rows in turn, also over several rounds, and passes a row
//! before it handles it. So rows with which the object store fails again and again are tried once in each pass, and do
//! not hold up the others.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tern_proto::ApiError;
use tern_proto::v1::ErrorReason;
use tern_store::StoreError;
use tern_types::{Clock, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::domain::lifetimes::{CONDEMNED_FOR, UPLOAD_TTL, URL_GRACE, USAGE_KEPT, ticketed_before};
use crate::metrics;
use crate::s3::{S3, S3Error};
use crate::store::Store;
use crate::store::collect::{Condemned, Cursor};
use crate::store::uploads::Upload;

/// The most rows that a step reads at a time if it calls the object store for them. A row may mean several calls.
const BATCH: i64 = 200;
/// The most rows that one statement changes in a step that calls nothing but Postgres. It takes some milliseconds.
const ROWS: i64 = 2000;
/// The most batches, or statements, of a step in one round, so that no step keeps the others waiting for long. With the
/// default of 300 s between two rounds, the collector keeps up with 33 uploads a second.
const BATCHES: usize = 50;
/// The most batches of media that a round looks at. A batch takes some milliseconds.
const LOOKS: usize = 100;

/// A collector, which deletes uploads and media that nobody needs any more.
#[derive(Clone)]
pub struct Collector {
    /// The rows of uploads and media.
    pub store: Store,
    /// The object store.
    pub s3: S3,
    /// The places at which the steps go on.
    places: Arc<Places>,
}

/// For each step that goes through a list, the place after which it goes on.
#[derive(Debug, Default)]
struct Places {
    clean: Place,
    tidy: Place,
    delete: Place,
    condemn: Place,
}

#[derive(Debug, Default)]
struct Place(Mutex<Cursor>);

impl Place {
    fn get(&self) -> Cursor {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, cursor: Cursor) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = cursor;
    }
}

/// The numbers of uploads and media that one round changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Collected {
    /// Uploads that were given up.
    pub given_up: u64,
    /// Uploads whose remains were deleted from the object store.
    pub cleaned: u64,
    /// Media that were marked for deletion.
    pub condemned: u64,
    /// Marked media that were unmarked, because something refers to them after all.
    pub pardoned: u64,
    /// Media that were deleted.
    pub deleted: u64,
}

impl Collector {
    /// Makes a collector that begins with the media whose tickets ended first.
    pub fn new(store: Store, s3: S3) -> Self {
        Self {
            store,
            s3,
            places: Arc::default(),
        }
    }

    /// Runs a round every `interval`, until `stop` is cancelled.
    pub async fn run(self: Arc<Self>, interval: Duration, stop: CancellationToken) {
        // Counters start at 0, so that a metric is visible before its first event.
        count(&Collected::default());
        let mut ticks = tokio::time::interval(interval.max(Duration::from_millis(10)));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let round = self.round(Clock::wall());
            let round = tokio::select! {
                () = stop.cancelled() => return,
                round = round => round,
            };
            match round {
                Ok(collected) if collected != Collected::default() => tracing::info!(?collected, "collected"),
                Ok(_) => {}
                Err(error) => {
                    metrics::collect_failure();
                    tracing::warn!(%error, "the collector goes on later");
                }
            }
        }
    }

    /// Runs one round. Each step goes on until nothing is left to do, but for at most [`BATCHES`] batches, and looks at
    /// up to [`LOOKS`] batches of media. Returns `Err` if Postgres, one of its cells or the object store is away; the
    /// next round continues.
    pub async fn round(&self, now: Timestamp) -> Result<Collected, ApiError> {
        let mut round = Collected::default();
        let outcome = self.steps(now, &mut round).await;
        count(&round);
        outcome.map(|()| round)
    }

    /// Does all steps in turn, and adds to `round` what they changed.
    async fn steps(&self, now: Timestamp, round: &mut Collected) -> Result<(), ApiError> {
        let store = &self.store;
        round.given_up = until_done(move || store.give_up(now - UPLOAD_TTL, ROWS)).await?;
        self.clean_all(now, &mut round.cleaned).await?;
        self.tidy_all(now).await?;
        until_done(move || store.forget_done(now - UPLOAD_TTL, ROWS)).await?;
        until_done(move || store.forget_usage(now - USAGE_KEPT, ROWS)).await?;
        // The steps from here on ask all cells, and so the round ends here while one is away.
        //
        // Media marked earlier are handled first, then new ones are marked. So each media is checked twice, at least
        // a minute apart.
        self.delete_all(now, round).await?;
        self.condemn(now, &mut round.condemned).await
    }

    /// Deletes what failed uploads and duplicates have in the object store, and adds to `cleaned` of how many.
    async fn clean_all(&self, now: Timestamp, cleaned: &mut u64) -> Result<(), ApiError> {
        let place = &self.places.clean;
        for _ in 0..BATCHES {
            let uploads = self.store.to_clean(now - URL_GRACE, place.get(), BATCH).await?;
            for upload in &uploads {
                place.set(Cursor::of(upload));
                *cleaned += ended(self.clean(upload).await)?;
            }
            if is_last(&uploads) {
                place.set(Cursor::default());
                break;
            }
        }
        Ok(())
    }

    /// Aborts what finished uploads of several parts have left in the object store, and forgets the uploads.
    async fn tidy_all(&self, now: Timestamp) -> Result<(), ApiError> {
        let place = &self.places.tidy;
        for _ in 0..BATCHES {
            let before = now - UPLOAD_TTL;
            let uploads = self.store.done_in_parts(before, place.get(), BATCH).await?;
            for upload in &uploads {
                place.set(Cursor::of(upload));
                ended(self.tidy(upload).await)?;
            }
            if is_last(&uploads) {
                place.set(Cursor::default());
                break;
            }
        }
        Ok(())
    }

    /// Deletes the media that were marked long enough ago, and unmarks those to which something refers after all. It
    /// adds to `round` how many.
    async fn delete_all(&self, now: Timestamp, round: &mut Collected) -> Result<(), ApiError> {
        let place = &self.places.delete;
        for _ in 0..BATCHES {
            let before = now - CONDEMNED_FOR;
            let marked = self.store.condemned(before, place.get(), BATCH).await?;
            for condemned in &marked {
                place.set(condemned.place);
                if condemned.referred_to {
                    self.store.pardon(condemned.media).await?;
                    round.pardoned += 1;
                } else {
                    round.deleted += ended(self.delete(condemned).await)?;
                }
            }
            if is_last(&marked) {
                place.set(Cursor::default());
                break;
            }
        }
        Ok(())
    }

    /// Marks media that nothing refers to, and adds to `condemned` how many. It looks at the media in turn, and goes on
    /// where the round before stopped: most media are referred to, and there may be millions.
    async fn condemn(&self, now: Timestamp, condemned: &mut u64) -> Result<(), ApiError> {
        let (place, before) = (&self.places.condemn, ticketed_before(now));
        for _ in 0..LOOKS {
            let looked = self.store.condemn(before, now, place.get(), BATCH).await?;
            *condemned += looked.condemned;
            place.set(looked.next.unwrap_or_default());
            if looked.next.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// Deletes what an upload has in the object store. Then the row of a failed upload is deleted, and a
    /// duplicate is marked as done. It may be called only when nobody can write to the upload's key any more.
    async fn clean(&self, upload: &Upload) -> Result<(), ApiError> {
        if upload.declared.is_multipart() {
            self.abort(&upload.object_key, upload.multipart.clone()).await?;
        }
        self.s3.delete(&upload.object_key).await?;
        Ok(self.store.cleaned(upload.id, upload.state).await?)
    }

    /// Aborts multipart uploads that were begun beside a finished upload, and deletes the upload's row. The object of
    /// the upload stays.
    async fn tidy(&self, upload: &Upload) -> Result<(), ApiError> {
        self.abort(&upload.object_key, upload.multipart.clone()).await?;
        Ok(self.store.forget_in_parts(upload.id).await?)
    }

    /// Aborts all multipart uploads under `key`.
    async fn abort(&self, key: &str, known: Option<String>) -> Result<(), S3Error> {
        for multipart in self.multiparts(key, known).await? {
            self.s3.abort(key, &multipart).await?;
        }
        Ok(())
    }

    /// Returns the multipart uploads under `key`, including one whose id was never stored. `known` is the one whose id
    /// was stored; it alone is returned if the object store cannot list them.
    async fn multiparts(&self, key: &str, known: Option<String>) -> Result<Vec<String>, S3Error> {
        match self.s3.multiparts(key).await {
            Ok(mut listed) => {
                listed.extend(known.filter(|known| !listed.contains(known)));
                Ok(listed)
            }
            Err(S3Error::Refused(why)) => {
                tracing::debug!(why, "the object store does not list multipart uploads");
                Ok(known.into_iter().collect())
            }
            Err(away) => Err(away),
        }
    }

    /// Deletes a media that nothing refers to. Its object is deleted first: a row whose object is gone is handled
    /// again, while an object whose row is gone would never be found. Multipart uploads under its key are aborted too,
    /// because after this no row has the key any more.
    async fn delete(&self, condemned: &Condemned) -> Result<(), ApiError> {
        self.abort(&condemned.object_key, None).await?;
        self.s3.delete(&condemned.object_key).await?;
        Ok(self.store.forget_media(condemned.media).await?)
    }
}

/// Returns whether no rows are left after these.
fn is_last<T>(rows: &[T]) -> bool {
    (rows.len() as i64) < BATCH
}

/// Runs a statement that changes at most [`ROWS`] rows until it changes fewer, but at most [`BATCHES`] times. Returns how
/// many rows it changed in all.
async fn until_done<F>(statement: impl Fn() -> F) -> Result<u64, ApiError>
where
    F: Future<Output = Result<u64, StoreError>>,
{
    let mut sum = 0;
    for _ in 0..BATCHES {
        let changed = statement().await?;
        sum += changed;
        if changed < ROWS.unsigned_abs() {
            break;
        }
    }
    Ok(sum)
}

/// Counts a row: 1 if it was handled, and 0 if the object store (or Postgres) refused it, so that one refused
/// object does not hold up the others. Returns `Err` if one of them is away, because then nothing can be
/// deleted.
fn ended(outcome: Result<(), ApiError>) -> Result<u64, ApiError> {
    match outcome {
        Ok(()) => Ok(1),
        Err(error) if error.reason == ErrorReason::Internal => {
            metrics::collect_failure();
            Ok(0)
        }
        Err(error) => Err(error),
    }
}

fn count(round: &Collected) {
    for (kind, count) in [
        ("upload_given_up", round.given_up),
        ("upload_cleaned", round.cleaned),
        ("media_condemned", round.condemned),
        ("media_pardoned", round.pardoned),
        ("media_deleted", round.deleted),
    ] {
        metrics::collected(kind, count);
    }
}
