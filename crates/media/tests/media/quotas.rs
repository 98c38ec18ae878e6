//! Tests of how much a user may upload in a day.

use std::sync::Arc;

use tern_media::media::Media;
use tern_media::store::uploads::Quota;
use tern_proto::ApiError;
use tern_proto::v1::ErrorReason;
use tern_types::{Clock, RequestId, Timestamp, UserId};

use crate::DAY;
use crate::world::{File, World, person};

/// Returns noon of the present day, so that an hour more or less is still the same day.
fn noon() -> Timestamp {
    let day = 24 * 3600 * 1000;
    Timestamp(Clock::wall().0 / day * day + day / 2)
}

fn limited(world: &World, bytes: u64, uploads: u32) -> Arc<Media> {
    Arc::new(Media {
        store: world.media.store.clone(),
        s3: world.media.s3.clone(),
        tickets: world.media.tickets.clone(),
        cdn: None,
        quota: Quota { bytes, uploads },
        url_ttl: world.media.url_ttl,
    })
}

async fn create(
    media: &Media,
    user: UserId,
    request: RequestId,
    file: &File,
    now: Timestamp,
) -> Result<(), ApiError> {
    media.create(user, request, &file.declared, now).await.map(drop)
}

fn over(result: Result<(), ApiError>) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.reason, ErrorReason::QuotaExceeded);
    assert_eq!(error.retry_after, Some(DAY / 2), "until midnight");
    error
        .metadata
        .into_iter()
        .find(|(key, _)| *key == "quota")
        .unwrap()
        .1
}

#[tokio::test]
async fn bytes_and_uploads_of_a_day_are_bounded() {
    let world = World::start().await;
    let (alice, bob, now) = (person(), person(), noon());
    let media = limited(&world, 1000, 3);
    let (large, small) = (File::new(600, 30), File::new(300, 31));
    let request = RequestId::random();
    create(&media, alice, request, &large, now).await.unwrap();
    // Asking again continues the same upload.
    create(&media, alice, request, &large, now).await.unwrap();
    assert_eq!(
        over(create(&media, alice, RequestId::random(), &large, now).await),
        "bytes"
    );
    create(&media, alice, RequestId::random(), &small, now)
        .await
        .unwrap();
    create(&media, alice, RequestId::random(), &File::new(1, 32), now)
        .await
        .unwrap();
    assert_eq!(
        over(create(&media, alice, RequestId::random(), &File::new(1, 33), now).await),
        "uploads"
    );
    // Other users have quotas of their own, and so has the next day.
    create(&media, bob, RequestId::random(), &large, now)
        .await
        .unwrap();
    create(&media, alice, RequestId::random(), &large, now + DAY)
        .await
        .unwrap();
    // A file that exceeds the quota of a whole day does not fit tomorrow either, so there is no time to try again.
    let never = create(&media, person(), RequestId::random(), &File::new(1001, 34), now).await;
    let never = never.unwrap_err();
    assert_eq!((never.reason, never.retry_after), (ErrorReason::TooLarge, None));
    // A refused upload leaves no row behind.
    assert_eq!(world.count("uploads").await, 5);
}

#[tokio::test]
async fn uploads_begun_at_the_same_time_are_counted_one_by_one() {
    let world = World::start().await;
    let (alice, now) = (person(), noon());
    let media = limited(&world, 1000, 100);
    let files: Vec<File> = (0..20).map(|seed| File::new(100, 100 + seed)).collect();
    let creates = files
        .iter()
        .map(|file| create(&media, alice, RequestId::random(), file, now));
    let results = futures::future::join_all(creates).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 10);
}
