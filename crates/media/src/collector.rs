//! Ends what nobody needs: uploads that were given up, objects that nothing refers to.
//!
//! ```text
//! upload:  open ──24 h──▶ given up ──its URLs have ended──▶ parts aborted, object deleted ──▶ forgotten
//! media:   last ticket ended, no reference ──▶ marked ──a minute──▶ still none ──▶ object deleted ──▶ forgotten
//!                                                              └─▶ one after all ──▶ as before
//! ```
//!
//! Every media node collects. Two that do the same at the same time do it once.

use std::sync::Arc;
use std::time::Duration;

use tern_proto::ApiError;
use tern_proto::v1::ErrorReason;
use tern_types::{Clock, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::domain::lifetimes::{CONDEMNED_FOR, UPLOAD_TTL, URL_GRACE, USAGE_KEPT, ticketed_before};
use crate::metrics;
use crate::s3::{S3, S3Error};
use crate::store::Store;
use crate::store::collect::Condemned;
use crate::store::uploads::Upload;

/// Rows of one statement; each means a call of the object store.
const BATCH: i64 = 200;

#[derive(Clone)]
pub struct Collector {
    pub store: Store,
    pub s3: S3,
}

/// What a round ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Collected {
    pub given_up: u64,
    pub cleaned: u64,
    pub condemned: u64,
    pub pardoned: u64,
    pub deleted: u64,
}

impl Collector {
    /// Until `stop`: a round each `interval`.
    pub async fn run(self: Arc<Self>, interval: Duration, stop: CancellationToken) {
        // What never happened is to be seen as 0.
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

    /// One look at everything, a batch of each kind.
    pub async fn round(&self, now: Timestamp) -> Result<Collected, ApiError> {
        let mut round = Collected {
            given_up: self.store.give_up(now - UPLOAD_TTL, BATCH).await?,
            ..Default::default()
        };
        for upload in self.store.to_clean(now - URL_GRACE, BATCH).await? {
            round.cleaned += ended(self.clean(&upload).await)?;
        }
        // Those marked before, then new ones: each is looked at twice, a minute apart at least.
        for condemned in self.store.condemned(now - CONDEMNED_FOR, BATCH).await? {
            if condemned.referred_to {
                self.store.pardon(condemned.media).await?;
                round.pardoned += 1;
            } else {
                round.deleted += ended(self.delete(&condemned).await)?;
            }
        }
        round.condemned = self.store.condemn(ticketed_before(now), now, BATCH).await?;
        for upload in self.store.done_in_parts(now - UPLOAD_TTL, BATCH).await? {
            ended(self.tidy(&upload).await)?;
        }
        self.store.forget_done(now - UPLOAD_TTL, BATCH).await?;
        self.store.forget_usage(now - USAGE_KEPT).await?;
        count(&round);
        Ok(round)
    }

    /// Nobody can write to the upload's key any more.
    async fn clean(&self, upload: &Upload) -> Result<(), ApiError> {
        if upload.declared.is_multipart() {
            self.abort(&upload.object_key, upload.multipart.clone()).await?;
        }
        self.s3.delete(&upload.object_key).await?;
        Ok(self.store.cleaned(upload.id, upload.state).await?)
    }

    /// Its object stays; what was begun beside it goes.
    async fn tidy(&self, upload: &Upload) -> Result<(), ApiError> {
        self.abort(&upload.object_key, upload.multipart.clone()).await?;
        Ok(self.store.forget_in_parts(upload.id).await?)
    }

    async fn abort(&self, key: &str, known: Option<String>) -> Result<(), S3Error> {
        for multipart in self.multiparts(key, known).await? {
            self.s3.abort(key, &multipart).await?;
        }
        Ok(())
    }

    /// Those of the key, one that nobody wrote down too. A store that does not list them has the one that was.
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

    /// The object first: a row without an object is taken up again, an object without a row never. The row of its upload goes
    /// with it, so what was begun beside it goes now.
    async fn delete(&self, condemned: &Condemned) -> Result<(), ApiError> {
        self.abort(&condemned.object_key, None).await?;
        self.s3.delete(&condemned.object_key).await?;
        Ok(self.store.forget_media(condemned.media).await?)
    }
}

/// One that the object store refuses to end does not hold up the others; while it is away nothing can be ended.
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
