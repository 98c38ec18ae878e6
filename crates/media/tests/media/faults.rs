//! Tests with object stores that are away, are slow, or lie.

use std::time::Duration;

use hyper::Method;
use tern_local::fault::Fault;
use tern_media::store::access::Through;
use tern_proto::v1::ErrorReason;
use tern_types::RequestId;

use crate::world::{File, World, person, reason};
use crate::{DAY, MIB};

#[tokio::test]
async fn a_store_that_is_away_is_unavailable_and_comes_back() {
    let world = World::start().await;
    let (alice, file, request) = (person(), File::new(17 * MIB, 50), RequestId::random());
    for fault in [
        Fault::CutBefore,
        Fault::Instead(503, "<Error><Code>SlowDown</Code></Error>"),
        Fault::Instead(500, ""),
    ] {
        world.proxy.rule({
            let fault = fault.clone();
            move |_| fault.clone()
        });
        let created = world
            .media
            .create(alice, request, &file.declared, world.now())
            .await;
        assert_eq!(reason(created), ErrorReason::Unavailable, "{fault:?}");
    }
    world.proxy.heal();
    let missing = world.begin(alice, request, &file).await;
    world.put_all(&file, &missing).await;
    world.proxy.rule(|_| Fault::CutBefore);
    let finalized = world.media.finalize(alice, missing.upload, world.now()).await;
    assert_eq!(reason(finalized), ErrorReason::Unavailable);
    world.proxy.heal();
    world
        .media
        .finalize(alice, missing.upload, world.now())
        .await
        .unwrap();
}

/// To HEAD, the object store answers a missing bucket as it answers a missing object: with 404 and no more.
#[tokio::test]
async fn a_bucket_that_is_gone_is_unavailable_until_it_comes_back() {
    const GONE: Fault = Fault::Instead(404, "<Error><Code>NoSuchBucket</Code></Error>");
    let world = World::start().await;
    let alice = person();
    let files = [
        (File::new(1000, 57), RequestId::random()),
        (File::new(17 * MIB, 58), RequestId::random()),
    ];
    world.proxy.rule(|_| GONE);
    for (file, request) in &files {
        let created = world
            .media
            .create(alice, *request, &file.declared, world.now())
            .await;
        assert_eq!(reason(created), ErrorReason::Unavailable);
    }
    for (file, request) in &files {
        world.proxy.heal();
        let missing = world.begin(alice, *request, file).await;
        world.put_all(file, &missing).await;
        world.proxy.rule(|_| GONE);
        let node = world.another_node();
        let finalized = node.finalize(alice, missing.upload, world.now()).await;
        assert_eq!(reason(finalized), ErrorReason::Unavailable);
        world.proxy.heal();
        node.finalize(alice, missing.upload, world.now()).await.unwrap();
    }
    let given_up = File::new(1001, 57);
    world.begin(alice, RequestId::random(), &given_up).await;
    world.proxy.rule(|_| GONE);
    let round = world.collector.round(world.now() + DAY * 2).await;
    assert_eq!(reason(round), ErrorReason::Unavailable);
}

#[tokio::test]
async fn a_slow_store_is_waited_for_but_not_for_ever() {
    let world = World::start().await;
    let (alice, file) = (person(), File::new(1000, 51));
    world.proxy.rule(|_| Fault::Slow(Duration::from_millis(300)));
    let ticket = world.upload(alice, &file).await;
    assert_eq!(
        world.read(alice, ticket.media, Through::OwnUpload).await.unwrap(),
        file.bytes
    );
    world.proxy.rule(|_| Fault::HangBefore);
    let other = File::new(1001, 51);
    let created = world
        .media
        .create(alice, RequestId::random(), &other.declared, world.now());
    let created = tokio::time::timeout(Duration::from_secs(60), created)
        .await
        .expect("within the client's deadline");
    assert_eq!(reason(created), ErrorReason::Unavailable);
}

/// Putting the parts together takes the object store longer than a connection lasts.
#[tokio::test]
async fn a_file_is_put_together_although_every_connection_breaks_meanwhile() {
    let world = World::start().await;
    let (alice, file) = (person(), File::new(33 * MIB, 53));
    let missing = world.begin(alice, RequestId::random(), &file).await;
    world.put_all(&file, &missing).await;
    world.proxy.rule(|seen| match seen.method == Method::POST {
        true => Fault::CutWithin(Duration::from_millis(10)),
        false => Fault::Pass,
    });
    let finalized = world.media.finalize(alice, missing.upload, world.now()).await;
    assert_eq!(reason(finalized), ErrorReason::Unavailable);
    world.proxy.heal();
    let ticket = world
        .finalized_within(alice, missing.upload, Duration::from_secs(60))
        .await;
    assert_eq!(
        world.read(alice, ticket.media, Through::OwnUpload).await.unwrap(),
        file.bytes
    );
}

/// The object store answers 200 to completing a multipart upload at once, and may report a failure in the body.
#[tokio::test]
async fn a_200_with_an_error_in_it_is_an_error() {
    let world = World::start().await;
    const FAILED: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
        <Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>";
    let (alice, file) = (person(), File::new(17 * MIB, 52));
    let missing = world.begin(alice, RequestId::random(), &file).await;
    world.put_all(&file, &missing).await;
    world.proxy.rule(|seen| {
        if seen.method == Method::POST {
            Fault::Instead(200, FAILED)
        } else {
            Fault::Pass
        }
    });
    let finalized = world.media.finalize(alice, missing.upload, world.now()).await;
    assert!(
        matches!(
            reason(finalized),
            ErrorReason::Unavailable | ErrorReason::UploadIncomplete
        ),
        "no ticket"
    );
    assert_eq!(world.count("media").await, 0);
    // This time it reports a failure although it has completed the upload.
    world.proxy.rule(|seen| {
        if seen.method == Method::POST {
            Fault::Lie(200, FAILED)
        } else {
            Fault::Pass
        }
    });
    let _ = world.media.finalize(alice, missing.upload, world.now()).await;
    world.proxy.heal();
    let ticket = world
        .media
        .finalize(alice, missing.upload, world.now())
        .await
        .unwrap();
    assert_eq!(
        world.read(alice, ticket.media, Through::OwnUpload).await.unwrap(),
        file.bytes
    );
}

/// The object store reports success although it has done nothing.
#[tokio::test]
async fn what_a_store_says_of_completing_is_not_believed() {
    let world = World::start().await;
    let (alice, file) = (person(), File::new(17 * MIB, 53));
    let missing = world.begin(alice, RequestId::random(), &file).await;
    world.put_all(&file, &missing).await;
    world.proxy.rule(|seen| {
        if seen.method == Method::POST {
            Fault::Instead(200, "<CompleteMultipartUploadResult/>")
        } else {
            Fault::Pass
        }
    });
    let finalized = world.media.finalize(alice, missing.upload, world.now()).await;
    assert_eq!(reason(finalized), ErrorReason::UploadIncomplete);
    world.proxy.heal();
    world
        .media
        .finalize(alice, missing.upload, world.now())
        .await
        .unwrap();
}

/// The object is not what was declared, whoever has put it there.
#[tokio::test]
async fn other_bytes_another_length_another_type_are_deleted() {
    let world = World::start().await;
    let alice = person();
    let wanted = File::new(1000, 54);
    for (what, other, content_type) in [
        ("bytes", File::new(1000, 55), "image/png"),
        ("length", File::new(999, 55), "image/png"),
        ("type", wanted.clone(), "text/html"),
    ] {
        let missing = world.begin(alice, RequestId::random(), &wanted).await;
        let (key, _) = world.upload_keys().await.pop().unwrap();
        let part = other.declared.parts().next().unwrap();
        let target = tern_media::s3::Target::Object { content_type };
        let signed = world
            .direct
            .sign_put(&key, target, &part, world.now())
            .await
            .unwrap();
        assert_eq!(
            crate::world::put(&signed, other.bytes.clone())
                .await
                .unwrap()
                .status,
            200,
            "{what}"
        );
        let finalized = world.media.finalize(alice, missing.upload, world.now()).await;
        assert_eq!(reason(finalized), ErrorReason::UploadMismatch, "{what}");
        assert_eq!(
            world.direct.head(&key).await.unwrap(),
            None,
            "{what}: it is deleted"
        );
        let again = world.media.finalize(alice, missing.upload, world.now()).await;
        assert_eq!(reason(again), ErrorReason::UploadNotFound, "{what}: it has ended");
    }
    assert_eq!(world.count("media").await, 0);
}

/// While a call looks at an object that is not as declared, another call makes the upload a media. The object is that
/// media's, and stays.
#[tokio::test]
async fn what_another_call_has_made_media_meanwhile_is_not_deleted() {
    let world = World::start().await;
    let (alice, wanted) = (person(), File::new(1000, 59));
    let media = world.upload(alice, &File::new(1000, 60)).await.media;
    let missing = world.begin(alice, RequestId::random(), &wanted).await;
    let (key, _) = world.upload_keys().await.pop().unwrap();
    let other = File::new(999, 61);
    let part = other.declared.parts().next().unwrap();
    let target = tern_media::s3::Target::Object {
        content_type: "image/png",
    };
    let signed = world
        .direct
        .sign_put(&key, target, &part, world.now())
        .await
        .unwrap();
    crate::world::put(&signed, other.bytes.clone()).await.unwrap();
    let mut tx = tern_store::postgres::begin(&world.pool).await.unwrap();
    sqlx::query("UPDATE uploads SET state = 1, media_id = $1 WHERE upload_id = $2")
        .bind(media.0)
        .bind(missing.upload.0)
        .execute(&mut *tx)
        .await
        .unwrap();
    world.proxy.heal();
    let commit = async {
        let bound = Duration::from_secs(60);
        tern_local::until::holds("the object is looked at", bound, || async {
            Ok(!world.proxy.seen().is_empty())
        })
        .await
        .unwrap();
        tx.commit().await.unwrap();
    };
    let (finalized, ()) = tokio::join!(world.media.finalize(alice, missing.upload, world.now()), commit);
    assert_eq!(finalized.unwrap().media, media);
    assert!(world.direct.head(&key).await.unwrap().is_some(), "it stays");
}

/// An object store that keeps no checksums gives no proof, so nothing becomes a media.
#[tokio::test]
async fn without_a_checksum_of_the_store_nothing_becomes_media() {
    let world = World::start().await;
    let (alice, file) = (person(), File::new(1000, 56));
    let missing = world.begin(alice, RequestId::random(), &file).await;
    let (key, _) = world.upload_keys().await.pop().unwrap();
    let dir = world.objects.as_ref().unwrap().path().join("objects");
    world.put_all(&file, &missing).await;
    // s3s keeps what it knows about an object in a file beside it.
    let mut removed = 0;
    for entry in std::fs::read_dir(&dir).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.contains("internal") {
            std::fs::remove_file(entry.path()).unwrap();
            removed += 1;
        }
    }
    assert_eq!(removed, 1, "{key}");
    let finalized = world.media.finalize(alice, missing.upload, world.now()).await;
    assert_eq!(reason(finalized), ErrorReason::Internal);
    assert_eq!(world.count("media").await, 0);
}
