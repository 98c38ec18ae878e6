//! Deletes what nobody needs any more: uploads that were given up, and media that nothing refers to.
//!
//! ```text
//! upload:  open ──24 h──▶ given up ──its URLs have ended──▶ parts aborted, object deleted ──▶ forgotten
//! media:   last ticket ended, no reference ──▶ marked ──a minute──▶ still none ──▶ object deleted ──▶ forgotten
//!                                                              └─▶ one after all ──▶ as before
//! ```
//!
//! Every media node collects. If two nodes do the same step at the same time, the result is as if one had done it.

use std::sync::Arc;
use std::time::Duration;

use tern_proto::ApiError;
use tern_proto::v1::ErrorReason;
use tern_types::{Clock, Timestamp};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::domain::lifetimes::{CONDEMNED_FOR, UPLOAD_TTL, URL_GRACE, USAGE_KEPT, ticketed_before};
use crate::metrics;
use crate::s3::{S3, S3Error};
use crate::store::Store;
use crate::store::collect::{Condemned, Cursor};
use crate::store::uploads::Upload;

/// The most rows that one step of a round handles. A row may mean several calls to the object store.
const BATCH: i64 = 200;
/// The most batches of media that a round looks at. A batch takes some milliseconds.
const LOOKS: usize = 100;

/// A collector, which deletes uploads and media that nobody needs any more.
#[derive(Clone)]
pub struct Collector {
    /// The rows of uploads and media.
    pub store: Store,
    /// The object store.
    pub s3: S3,
    /// The place after which the next round looks for media that nothing refers to.
    place: Arc<Mutex<Cursor>>,
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
            place: Arc::default(),
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

    /// Runs one round, which does each step for one batch of rows, and looks at up to [`LOOKS`] batches of media.
    /// Returns `Err` if Postgres, one of its cells or the object store is away; the next round continues.
    pub async fn round(&self, now: Timestamp) -> Result<Collected, ApiError> {
        let mut round = Collected {
            given_up: self.store.give_up(now - UPLOAD_TTL, BATCH).await?,
            ..Default::default()
        };
        for upload in self.store.to_clean(now - URL_GRACE, BATCH).await? {
            round.cleaned += ended(self.clean(&upload).await)?;
        }
        for upload in self.store.done_in_parts(now - UPLOAD_TTL, BATCH).await? {
            ended(self.tidy(&upload).await)?;
        }
        self.store.forget_done(now - UPLOAD_TTL, BATCH).await?;
        self.store.forget_usage(now - USAGE_KEPT).await?;
        // The steps from here on ask all cells, and so the round ends here while one is away.
        //
        // Media marked earlier are handled first, then new ones are marked. So each media is checked twice, at least
        // a minute apart.
        for condemned in self.store.condemned(now - CONDEMNED_FOR, BATCH).await? {
            if condemned.referred_to {
                self.store.pardon(condemned.media).await?;
                round.pardoned += 1;
            } else {
                round.deleted += ended(self.delete(&condemned).await)?;
            }
        }
        round.condemned = self.condemn(now).await?;
        count(&round);
        Ok(round)
    }

    /// Marks media that nothing refers to, and returns how many. It looks at the media in turn, and goes on where the
    /// round before stopped: most media are referred to, and there may be millions.
    async fn condemn(&self, now: Timestamp) -> Result<u64, ApiError> {
        let mut condemned = 0;
        for _ in 0..LOOKS {
            let place = *self.place.lock().await;
            let looked = self
                .store
                .condemn(ticketed_before(now), now, place, BATCH)
                .await?;
            condemned += looked.condemned;
            *self.place.lock().await = looked.next.unwrap_or_default();
            if looked.next.is_none() {
                break;
            }
        }
        Ok(condemned)
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

/// Counts a step: 1 if it succeeded, and 0 if the object store (or Postgres) refused it, so that one refused
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
