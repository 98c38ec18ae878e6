//! Tests of an upload's way from CreateUpload to the ticket.

use metrics_exporter_prometheus::PrometheusBuilder;
use tern_media::domain::upload::StoredObject;
use tern_media::media::Created;
use tern_media::store::access::Through;
use tern_proto::v1::ErrorReason;
use tern_types::RequestId;

use crate::MIB;
use crate::world::{File, World, person, put, reason};

#[tokio::test]
async fn a_small_file_is_one_put_and_comes_back_byte_for_byte() {
    let world = World::start().await;
    let (alice, file) = (person(), File::new(100_000, 1));
    let missing = world.begin(alice, RequestId::random(), &file).await;
    assert_eq!((missing.parts.len(), missing.part_count), (1, 1));
    world.put_all(&file, &missing).await;
    let ticket = world
        .media
        .finalize(alice, missing.upload, world.now())
        .await
        .unwrap();
    let expiry = world.media.tickets.verify(&ticket.ticket, ticket.media, alice);
    assert_eq!(expiry, Some(ticket.expires_at));
    let read = world.read(alice, ticket.media, Through::OwnUpload).await.unwrap();
    assert_eq!(read, file.bytes);
    let again = world
        .media
        .finalize(alice, missing.upload, world.now())
        .await
        .unwrap();
    assert_eq!(again.media, ticket.media);
}

#[tokio::test]
async fn a_large_file_is_parts_in_any_order_and_one_object() {
    let world = World::start().await;
    let (alice, file) = (person(), File::new(37 * MIB + 5, 2));
    let missing = world.begin(alice, RequestId::random(), &file).await;
    assert_eq!((missing.parts.len(), missing.part_count), (3, 3));
    for (part, signed) in missing.parts.iter().rev() {
        let answer = put(signed, file.part(part.offset, part.length)).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let ticket = world
        .media
        .finalize(alice, missing.upload, world.now())
        .await
        .unwrap();
    let key = world.object_key(ticket.media).await.unwrap();
    let stored = world.direct.head(&key).await.unwrap();
    let expected = StoredObject {
        length: file.declared.length,
        content_type: "image/png".to_owned(),
        sha256: Some(file.declared.content_id()),
    };
    assert_eq!(stored, Some(expected));
    let read = world.read(alice, ticket.media, Through::OwnUpload).await.unwrap();
    assert_eq!(read, file.bytes);
}

#[tokio::test]
async fn asking_again_lists_what_is_missing() {
    let world = World::start().await;
    let (alice, file, request) = (person(), File::new(33 * MIB, 3), RequestId::random());
    let missing = world.begin(alice, request, &file).await;
    let (part, signed) = &missing.parts[1];
    put(signed, file.part(part.offset, part.length)).await.unwrap();
    let again = world.begin(alice, request, &file).await;
    let numbers: Vec<u32> = again.parts.iter().map(|(part, _)| part.number).collect();
    assert_eq!((again.upload, numbers), (missing.upload, vec![1, 3]));
    assert_eq!(
        reason(world.media.finalize(alice, again.upload, world.now()).await),
        ErrorReason::UploadIncomplete
    );
    world.put_all(&file, &again).await;
    assert!(world.begin(alice, request, &file).await.parts.is_empty());
    let ticket = world
        .media
        .finalize(alice, again.upload, world.now())
        .await
        .unwrap();
    // From then on the content is stored.
    match world
        .media
        .create(alice, request, &file.declared, world.now())
        .await
        .unwrap()
    {
        Created::Stored(stored) => assert_eq!(stored.media, ticket.media),
        other => panic!("{other:?}"),
    }
    assert_eq!(world.count("uploads").await, 1);
}

#[tokio::test]
async fn each_call_counts_once_by_what_came_of_it() {
    let world = World::start().await;
    let recorder = PrometheusBuilder::new().build_recorder();
    let _counts = metrics::set_default_local_recorder(&recorder);
    let counted = |outcome: &str| -> u64 {
        let line = format!("tern_media_uploads_total{{outcome=\"{outcome}\"}} ");
        let page = recorder.handle().render();
        let count = page.lines().find_map(|shown| shown.strip_prefix(&line));
        count.map_or(0, |count| count.parse().unwrap())
    };
    let counts = || -> [u64; 3] { ["new", "open", "stored"].map(counted) };
    let (alice, file, request) = (person(), File::new(10, 8), RequestId::random());
    let missing = world.begin(alice, request, &file).await;
    assert_eq!(counts(), [1, 0, 0]);
    world.begin(alice, request, &file).await;
    assert_eq!(counts(), [1, 1, 0]);
    world.put_all(&file, &missing).await;
    world
        .media
        .finalize(alice, missing.upload, world.now())
        .await
        .unwrap();
    for (again, stored) in [(request, 1), (RequestId::random(), 2)] {
        world.try_upload(alice, again, &file).await.unwrap();
        assert_eq!(counts(), [1, 1, stored]);
    }
}

#[tokio::test]
async fn a_request_stands_for_one_upload() {
    let world = World::start().await;
    let (alice, bob, request) = (person(), person(), RequestId::random());
    let missing = world.begin(alice, request, &File::new(10, 4)).await;
    let other = File::new(11, 4).declared;
    assert_eq!(
        reason(world.media.create(alice, request, &other, world.now()).await),
        ErrorReason::RequestIdReused
    );
    // Another user may use the same request_id, and cannot touch this upload.
    world.begin(bob, request, &File::new(11, 4)).await;
    assert_eq!(
        reason(world.media.finalize(bob, missing.upload, world.now()).await),
        ErrorReason::UploadNotFound
    );
}

#[tokio::test]
async fn the_same_content_is_stored_once_and_known_only_to_who_has_it() {
    let world = World::start().await;
    let (alice, bob, file) = (person(), person(), File::new(5000, 5));
    let hers = world.upload(alice, &file).await;
    // She has uploaded the content, so nothing has to be uploaded again.
    let (again, upload) = world.try_upload(alice, RequestId::random(), &file).await.unwrap();
    assert_eq!((again.media, upload), (hers.media, None));
    // He knows the hash, but still has to upload the bytes.
    let missing = world.begin(bob, RequestId::random(), &file).await;
    assert_eq!(missing.parts.len(), 1);
    assert_eq!(
        reason(
            world
                .media
                .forward(bob, hers.media, Through::OwnUpload, world.now())
                .await
        ),
        ErrorReason::MediaNotFound
    );
    world.put_all(&file, &missing).await;
    let his = world
        .media
        .finalize(bob, missing.upload, world.now())
        .await
        .unwrap();
    assert_eq!(his.media, hers.media, "one media");
    assert_eq!(world.count("media").await, 1);
    let duplicate = world.upload_keys().await.pop().unwrap().0;
    assert_eq!(
        world.direct.head(&duplicate).await.unwrap(),
        None,
        "his copy is gone"
    );
    assert_eq!(
        world.read(bob, his.media, Through::OwnUpload).await.unwrap(),
        file.bytes
    );
}

#[tokio::test]
async fn who_may_download_it_need_not_upload_it() {
    let world = World::start().await;
    let (alice, bob, carol, file) = (person(), person(), person(), File::new(5000, 6));
    let ticket = world.upload(alice, &file).await;
    let chat = world.chat(&[(alice, 1), (bob, 1), (carol, 9)]).await;
    world.refer(chat, ticket.media, 5).await;
    let (his, upload) = world.try_upload(bob, RequestId::random(), &file).await.unwrap();
    assert_eq!((his.media, upload), (ticket.media, None));
    // She joined the chat after the entry with the media.
    assert_eq!(
        world.begin(carol, RequestId::random(), &file).await.parts.len(),
        1
    );
}

#[tokio::test]
async fn the_same_bytes_as_another_type_are_another_media() {
    let world = World::start().await;
    let (alice, file) = (person(), File::new(5000, 7));
    let image = world.upload(alice, &file).await;
    let mut page = file.clone();
    page.declared.content_type = "text/html".to_owned();
    let page = world.upload(alice, &page).await;
    assert_ne!(image.media, page.media);
}
